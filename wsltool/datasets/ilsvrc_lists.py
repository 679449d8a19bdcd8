"""The lists of ILSVRC's devkit: the order of its classes, ground truth and blacklist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from wsltool.datasets.classes import ClassList, read_class_list
from wsltool.datasets.textfiles import read_lines
from wsltool.errors import DatasetError

__all__ = ["find_devkit_order", "image_number", "read_blacklist", "read_devkit_order", "read_truth"]

_ORDER_FILES = ("map_clsloc.txt", "meta.mat")


def image_number(image_id: str) -> int | None:
    """Return the number from 1 in the name of a validation image, None where it has none."""
    match = re.search(r"_(\d{8})$", image_id)
    return None if match is None else int(match[1])


def find_devkit_order(folders: list[Path]) -> Path | None:
    """Return the first ``map_clsloc.txt`` or ``meta.mat`` in some folders."""
    places = (folder / name for folder in folders for name in _ORDER_FILES)
    return next((place for place in places if place.is_file()), None)


def read_devkit_order(path: Path) -> ClassList:
    """Read the classes in the devkit's order, which its ground truth counts from 1.

    It is not the order of the WordNet ids, in which networks have theirs.

    Parameters
    ----------
    path
        ``map_clsloc.txt`` (``n02119789 1 kit_fox``), or ``meta.mat``, of whose synsets those
        without children are classes.

    Raises
    ------
    DatasetError
        It is not such a file, or the numbers are not 1, 2, 3 ….
    """
    if path.suffix == ".mat":
        return _read_meta(path)
    for expected, (line, text) in enumerate(read_lines(path), 1):
        words = text.split()
        if len(words) < 3 or words[1] != str(expected):
            raise DatasetError(
                f'{path} line {line}: "{text[:80]}"; expected a WordNet id, the number {expected} '
                "and a name."
            )
    return read_class_list(path)


def _read_meta(path: Path) -> ClassList:
    from scipy.io import loadmat

    try:
        table: Any = loadmat(path, squeeze_me=True)["synsets"]
        columns = [table[name].tolist() for name in ("ILSVRC2012_ID", "WNID", "words")]
        leaf = [count == 0 for count in table["num_children"].tolist()]
    except MemoryError:
        raise
    except Exception as error:  # the reader fails on hostile bytes in every class there is
        raise DatasetError(
            f"{path}: no meta.mat of the ILSVRC devkit, {' '.join(str(error).split())}."
        ) from error
    rows = sorted(
        row for row, is_leaf in zip(zip(*columns, strict=True), leaf, strict=True) if is_leaf
    )
    if [row[0] for row in rows] != list(range(1, len(rows) + 1)):
        raise DatasetError(f"{path}: its classes are not numbered 1, 2, 3 ….")
    return ClassList([str(row[2]) for row in rows], [str(row[1]) for row in rows], origin=path.name)


def read_truth(path: Path, order: ClassList) -> list[str]:
    """Read a ground truth file: in line k the devkit's number of validation image k.

    Returns
    -------
    list of str
        WordNet ids, that of image k at k - 1.

    Raises
    ------
    DatasetError
        A line is no number of a class.
    """
    found: list[str] = []
    for line, text in read_lines(path):
        if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= len(order)):
            raise DatasetError(
                f'{path} line {line}: "{text[:40]}", expected a whole number from 1 to '
                f"{len(order)}."
            )
        if line != len(found) + 1:
            raise DatasetError(f"{path} line {len(found) + 1}: is blank; expected a class number.")
        found.append(order.class_id[int(text) - 1])
    if not found:
        raise DatasetError(f"{path}: nothing in it; expected a class number in each line.")
    return found


def read_blacklist(path: Path, image_id: list[str]) -> frozenset[int]:
    """Read the validation images that are left out of localization, as rows.

    Parameters
    ----------
    path
        One number a line: the place of an image in the whole validation list, from 1, which
        is the number in its name. Those of images that are not among the rows say nothing.
    image_id
        The ids of the rows.

    Raises
    ------
    DatasetError
        A line is no whole number from 1 or repeats; a row's name holds no number.
    """
    listed: dict[int, int] = {}
    for line, text in read_lines(path):
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0):
            raise DatasetError(
                f'{path} line {line}: "{text[:40]}", expected the number of an image, from 1.'
            )
        if int(text) in listed:
            raise DatasetError(
                f"{path} line {line}: number {text} again, first on line {listed[int(text)]}."
            )
        listed[int(text)] = line
    numbers = [image_number(name) for name in image_id]
    if None in numbers:
        raise DatasetError(
            f'{path}: image "{image_id[numbers.index(None)]}" has no number in its name; '
            "expected names such as ILSVRC2012_val_00000001."
        )
    return frozenset(row for row, number in enumerate(numbers) if number in listed)
