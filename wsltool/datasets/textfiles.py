"""Text files of data sets: lists, class files and CSVs, with line numbers, and JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from wsltool.errors import DatasetError

__all__ = ["check_name", "read_csv", "read_json", "read_lines", "require_folder"]


def require_folder(folder: Path) -> None:
    """Raise `DatasetError` unless `folder` is an existing folder."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DatasetError(f"{folder}: {what}; expected a folder.")


def check_name(name: str, place: str) -> None:
    """Raise `DatasetError` unless `name` is a path inside a data set that a store can hold."""
    odd = next((letter for letter in name if letter < " " or "\ud800" <= letter <= "\udfff"), "")
    if not name or odd:
        raise DatasetError(f"{place}: {name[:80]!r} is no file name.")
    if name.startswith("/") or ".." in name.split("/"):
        raise DatasetError(f'{place}: "{name[:80]}" leaves the data set.')


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
                if any("\n" in field or "\r" in field for field in stripped):
                    raise DatasetError(
                        f"{path} line {reader.line_num}: a quoted field holds a line break. "
                        "Close the quotes."
                    )
                if any(stripped):
                    yield reader.line_num, stripped
    except csv.Error as error:
        raise DatasetError(f"{path} line {reader.line_num}: no valid CSV, {error}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def read_json(
    path: Path,
    *,
    object_hook: Callable[[dict[str, Any]], Any] | None = None,
    parse_float: Callable[[str], Any] | None = None,
) -> Any:
    """Return what a JSON file holds; the hooks are those of `json.loads`.

    A byte order mark is taken off. A file that is missing, unreadable, not UTF-8 or no JSON
    raises `DatasetError`, and so does one nested too deep or with a number out of range.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    try:
        return json.loads(text, object_hook=object_hook, parse_float=parse_float)
    except DatasetError:  # of a hook
        raise
    except ValueError as error:  # also a whole number of thousands of digits
        raise DatasetError(f"{path}: no valid JSON, {error}.") from error
    except ArithmeticError as error:
        raise DatasetError(f"{path}: no valid JSON, a number is out of range.") from error
    except RecursionError as error:
        raise DatasetError(f"{path}: no valid JSON, nested too deep.") from error


def _unreadable(path: Path, error: OSError | UnicodeDecodeError) -> DatasetError:
    if isinstance(error, UnicodeDecodeError):
        bad = error.object[error.start : error.start + 1]
        return DatasetError(f"{path}: not UTF-8, byte {bad!r}. Save it as UTF-8.")
    return DatasetError(f"{path}: cannot be read, {error.strerror}.")
