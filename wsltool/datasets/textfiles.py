"""Small text files of data sets: lists, class files and CSVs, with line numbers."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from wsltool.errors import DatasetError

__all__ = ["read_csv", "read_lines", "require_folder"]


def require_folder(folder: Path) -> None:
    """Raise `DatasetError` unless `folder` is an existing folder."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DatasetError(f"{folder}: {what}; expected a folder.")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Give the lines that are not blank, stripped, with their numbers from 1.

    A byte order mark and CRLF are taken off. A file that is missing, unreadable or not
    UTF-8 raises `DatasetError`.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if word := line.strip():
                    yield number, word
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def read_csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Give the CSV rows that are not blank, fields stripped, with their line numbers.

    Quoted fields, a byte order mark and CRLF are understood; the number is that of the
    row's last line. Faults raise `DatasetError`.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for fields in reader:
                stripped = [field.strip() for field in fields]
                if any(stripped):
                    yield reader.line_num, stripped
    except csv.Error as error:
        raise DatasetError(f"{path} line {reader.line_num}: no valid CSV, {error}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError | UnicodeDecodeError) -> DatasetError:
    if isinstance(error, UnicodeDecodeError):
        bad = error.object[error.start : error.start + 1]
        return DatasetError(f"{path}: not UTF-8, byte {bad!r}. Save it as UTF-8.")
    return DatasetError(f"{path}: cannot be read, {error.strerror}.")
