"""Image-level labels and boxes from CSV files, held as compact arrays."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from wsltool.datasets.classes import ClassList
from wsltool.datasets.textfiles import read_csv
from wsltool.errors import DatasetError

__all__ = ["BoxTable", "LabelTable", "image_names", "read_boxes", "read_labels"]

_VALUES = {"0": 0, "0.0": 0, "1": 1, "1.0": 1, "255": 255, "255.0": 255}
_BOX_COLUMNS = ("image", "x0", "y0", "x1", "y1")
_BOX_EXTRAS = ("label", "difficult", "truncated")
_BOX_UNUSED = ("score",)  # of predictions that `export` wrote


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Labels that are not 0; those of image n are ``start_N1[n]:start_N1[n + 1]``.

    ``class_L`` is int32 and rises within an image; ``value_L`` is uint8, 1 or 255.
    """

    start_N1: npt.NDArray[np.int64]
    class_L: npt.NDArray[np.int32]
    value_L: npt.NDArray[np.uint8]

    @classmethod
    def one_class(cls, class_N: npt.NDArray[np.int32]) -> LabelTable:
        """Every image shows exactly one class."""
        num_images = len(class_N)
        return cls(np.arange(num_images + 1), class_N, np.ones(num_images, np.uint8))

    def of(self, row: int, value: int) -> tuple[int, ...]:
        """Class indices that image `row` carries with this value, rising."""
        rows = slice(self.start_N1[row], self.start_N1[row + 1])
        return tuple(self.class_L[rows][self.value_L[rows] == value].tolist())


@dataclass(frozen=True, eq=False)
class BoxTable:
    """Boxes; those of image n are ``start_N1[n]:start_N1[n + 1]``, in the file's order.

    ``line_B`` is the line of the file that each came from.
    """

    start_N1: npt.NDArray[np.int64]
    box_xyxy_B4: npt.NDArray[np.float64]
    class_B: npt.NDArray[np.int32]
    difficult_B: npt.NDArray[np.uint8]
    truncated_B: npt.NDArray[np.uint8]
    line_B: npt.NDArray[np.int64]


def image_names(folder: Path) -> Callable[[str], str]:
    """Make a function that turns an image name of a CSV into a path relative to `folder`.

    Names are relative to the folder or begin with the folder's own name (unless the folder
    holds one of that name itself). The function raises `ValueError` with the reason where
    a name leads out of the folder.
    """
    own = Path(os.path.abspath(folder)).name
    strip = bool(own) and not (folder / own).is_dir()

    def relative(name: str) -> str:
        parts = PurePosixPath(name).parts
        if strip and len(parts) > 1 and parts[0] == own:
            parts = parts[1:]
        if not parts or parts[0] == "/" or ".." in parts:
            raise ValueError(f'image "{name}" is not inside the folder')
        return "/".join(parts)

    return relative


def read_labels(
    path: Path, relative: Callable[[str], str], classes: ClassList | None
) -> tuple[list[str], ClassList, LabelTable]:
    """Read image-level labels.

    Parameters
    ----------
    path
        CSV with the header ``image,label``, one pair a line; with a third column ``value``
        of 1, 0 or 255 (undecided); or wide, ``image,CLASS,CLASS…`` with such values in
        the cells. -1 is refused: some lists mean absent by it, others unsure.
    relative
        From `image_names`.
    classes
        The class list; without one, the labels in sorted order, or the wide columns.

    Returns
    -------
    images, classes, labels
        Image paths in order of first appearance, the classes, and the table.

    Raises
    ------
    DatasetError
        With file and line: bad header, column count, value, image name or class; a pair
        with two different values; an image on two lines of the wide form.
    """
    rows = read_csv(path)
    line, header = next(rows, (1, []))
    if header[:1] != ["image"] or len(header) < 2 or len(set(header)) < len(header):
        raise DatasetError(
            f'{path} line {line}: header is "{",".join(header)[:80]}"; expected image,label or '
            "image,label,value or image,CLASS,CLASS… with different classes."
        )
    columns = _LabelColumns(path, relative)
    if header in (["image", "label"], ["image", "label", "value"]):
        classes = _read_long(rows, len(header), columns, classes)
    else:
        classes = classes or ClassList(header[1:], origin=path.name)
        _read_wide(rows, [_class_of(classes, word, path, line) for word in header[1:]], columns)
    if not columns.row_of:
        raise DatasetError(f"{path}: no image in it.")
    return list(columns.row_of), classes, columns.table()


class _LabelColumns:
    """Collects one entry a label while a CSV is read."""

    def __init__(self, path: Path, relative: Callable[[str], str]) -> None:
        self.path = path
        self.row_of: dict[str, int] = {}
        self.row, self.klass, self.value, self.line = array("q"), array("i"), array("B"), array("q")
        self._relative = relative

    def image(self, name: str, line: int) -> tuple[int, bool]:
        """Row of an image, and whether it is new."""
        image = _at(self._relative, name, self.path, line)
        num_known = len(self.row_of)
        return self.row_of.setdefault(image, num_known), len(self.row_of) > num_known

    def add(self, row: int, klass: int, word: str, line: int) -> None:
        if word not in _VALUES:
            raise DatasetError(
                f'{self.path} line {line}: value "{word[:40]}"; expected 1 (present), 0 (absent) '
                "or 255 (undecided)."
            )
        self.row.append(row)
        self.klass.append(klass)
        self.value.append(_VALUES[word])
        self.line.append(line)

    def table(self) -> LabelTable:
        row_L, class_L = np.array(self.row, np.int64), np.array(self.klass, np.int32)
        value_L, line_L = np.array(self.value, np.uint8), np.array(self.line, np.int64)
        order_L = np.lexsort((class_L, row_L))  # stable: lines of one pair stay in order
        row_L, class_L, value_L = row_L[order_L], class_L[order_L], value_L[order_L]
        again_L = np.zeros(len(row_L), bool)
        again_L[1:] = (row_L[1:] == row_L[:-1]) & (class_L[1:] == class_L[:-1])
        differs = np.flatnonzero(again_L[1:] & (value_L[1:] != value_L[:-1])) + 1
        if differs.size:
            place = differs[np.argmin(line_L[order_L][differs])]
            first, line = line_L[order_L][place - 1 : place + 1]
            raise DatasetError(
                f"{self.path} line {line}: value {value_L[place]}, but line {first} gives the same "
                f"image and label the value {value_L[place - 1]}."
            )
        keep_L = ~again_L & (value_L != 0)
        start_N1 = _starts(row_L[keep_L], len(self.row_of))
        return LabelTable(start_N1, class_L[keep_L], value_L[keep_L])


def _read_long(
    rows: Iterator[tuple[int, list[str]]],
    width: int,
    columns: _LabelColumns,
    classes: ClassList | None,
) -> ClassList:
    seen: dict[str, int] = {}
    for line, fields in rows:
        _check_width(fields, width, columns.path, line)
        row, _ = columns.image(fields[0], line)
        if not fields[1]:
            raise DatasetError(f"{columns.path} line {line}: the label is empty.")
        if classes is None:
            klass = seen.setdefault(fields[1], len(seen))
        else:
            klass = _class_of(classes, fields[1], columns.path, line)
        columns.add(row, klass, fields[2] if width > 2 else "1", line)
    if classes is not None:
        return classes
    ordered = sorted(seen)
    rank_C = np.zeros(len(seen), np.int32)
    rank_C[[seen[word] for word in ordered]] = np.arange(len(seen))
    columns.klass = array("i", rank_C[np.array(columns.klass, np.int64)].tolist())
    return ClassList(ordered, origin=columns.path.name)


def _read_wide(
    rows: Iterator[tuple[int, list[str]]], class_of_column: list[int], columns: _LabelColumns
) -> None:
    for line, fields in rows:
        _check_width(fields, 1 + len(class_of_column), columns.path, line)
        row, is_new = columns.image(fields[0], line)
        if not is_new:
            raise DatasetError(
                f'{columns.path} line {line}: image "{fields[0]}" again. Give it one line.'
            )
        for klass, word in zip(class_of_column, fields[1:], strict=True):
            if word != "0":  # most cells; absent needs no entry
                columns.add(row, klass, word, line)


def read_boxes(
    path: Path,
    relative: Callable[[str], str],
    row_of: dict[str, int],
    classes: ClassList,
    labels: LabelTable,
) -> BoxTable:
    """Read boxes, half-open continuous pixels of the picture as stored.

    Parameters
    ----------
    path
        CSV with a header of ``image,x0,y0,x1,y1`` and, where wanted, ``label``,
        ``difficult`` and ``truncated`` in any order; or those five columns without a
        header, as in wsolevaluation's ``localization.txt``. A box without a label belongs
        to the only class that is present in its image. A column ``score`` is not used.
    relative
        From `image_names`.
    row_of
        The row of each image path.
    classes, labels
        Of the same rows.

    Raises
    ------
    DatasetError
        With file and line: bad header, column count, number or flag; an image that is not
        in the data set; an unknown class, one that the image is not labelled with, or
        none given where the image has several. Whether a box lies inside its picture is
        not known here.
    """
    reader = _BoxReader(path, relative, row_of, classes, labels)
    rows = read_csv(path)
    line, first = next(rows, (1, []))
    if len(first) == 5 and all(_is_number(word) for word in first[1:]):
        reader.columns = {name: place for place, name in enumerate(_BOX_COLUMNS)}
        reader.add(line, first)
    else:
        reader.columns = _box_columns(first, path, line)
    for line, fields in rows:
        reader.add(line, fields)
    return reader.table()


class _BoxReader:
    """Collects one entry a box while a CSV is read."""

    def __init__(
        self,
        path: Path,
        relative: Callable[[str], str],
        row_of: dict[str, int],
        classes: ClassList,
        labels: LabelTable,
    ) -> None:
        self.path, self.relative, self.row_of = path, relative, row_of
        self.classes, self.labels = classes, labels
        self.columns: dict[str, int] = {}
        self.row, self.line, self.klass = array("q"), array("q"), array("i")
        self.corners, self.flags = array("d"), array("B")

    def add(self, line: int, fields: list[str]) -> None:
        _check_width(fields, len(self.columns), self.path, line)
        image = _at(self.relative, fields[self.columns["image"]], self.path, line)
        if (row := self.row_of.get(image)) is None:
            raise DatasetError(
                f'{self.path} line {line}: image "{image[:80]}" is not in the data set.'
            )
        self.corners.extend([self._corner(fields, name, line) for name in _BOX_COLUMNS[1:]])
        self.klass.append(self._class(fields, image, row, line))
        self.flags.extend([self._flag(fields, name, line) for name in _BOX_EXTRAS[1:]])
        self.row.append(row)
        self.line.append(line)

    def _corner(self, fields: list[str], name: str, line: int) -> float:
        word = fields[self.columns[name]]
        if not _is_number(word):
            raise DatasetError(
                f'{self.path} line {line}: {name} is "{word[:40]}", expected a number.'
            )
        return float(word)

    def _flag(self, fields: list[str], name: str, line: int) -> int:
        word = fields[self.columns[name]] if name in self.columns else "0"
        if word not in ("0", "1"):
            raise DatasetError(
                f'{self.path} line {line}: {name} is "{word[:40]}", expected 0 or 1.'
            )
        return int(word)

    def _class(self, fields: list[str], image: str, row: int, line: int) -> int:
        present = self.labels.of(row, 1)
        if "label" not in self.columns:
            if len(present) == 1:
                return present[0]
            names = ", ".join(self.classes.class_name[klass] for klass in present) or "none"
            raise DatasetError(
                f'{self.path} line {line}: the box has no label and image "{image}" has '
                f"{len(present)} classes ({names}). Add a column label."
            )
        word = fields[self.columns["label"]]
        klass = _class_of(self.classes, word, self.path, line)
        if klass not in present and klass not in self.labels.of(row, 255):
            raise DatasetError(
                f'{self.path} line {line}: a box of "{word}", but image "{image}" is not '
                "labelled with it."
            )
        return klass

    def table(self) -> BoxTable:
        row_B = np.array(self.row, np.int64)
        order_B = np.argsort(row_B, kind="stable")
        flags_B2 = np.array(self.flags, np.uint8).reshape(-1, 2)[order_B]
        return BoxTable(
            start_N1=_starts(row_B, len(self.row_of)),
            box_xyxy_B4=np.array(self.corners, np.float64).reshape(-1, 4)[order_B],
            class_B=np.array(self.klass, np.int32)[order_B],
            difficult_B=flags_B2[:, 0].copy(),
            truncated_B=flags_B2[:, 1].copy(),
            line_B=np.array(self.line, np.int64)[order_B],
        )


def _box_columns(header: list[str], path: Path, line: int) -> dict[str, int]:
    columns = {name: place for place, name in enumerate(header)}
    missing = [name for name in _BOX_COLUMNS if name not in columns]
    unknown = [name for name in header if name not in _BOX_COLUMNS + _BOX_EXTRAS + _BOX_UNUSED]
    if missing or unknown or len(columns) < len(header):
        raise DatasetError(
            f'{path} line {line}: header is "{",".join(header)[:80]}"; expected '
            f"{','.join(_BOX_COLUMNS)} and, if wanted, {','.join(_BOX_EXTRAS)}."
        )
    return columns


def _starts(row_L: npt.NDArray[np.int64], num_rows: int) -> npt.NDArray[np.int64]:
    start_N1 = np.zeros(num_rows + 1, np.int64)
    np.cumsum(np.bincount(row_L, minlength=num_rows), out=start_N1[1:])
    return start_N1


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _check_width(fields: list[str], width: int, path: Path, line: int) -> None:
    if len(fields) != width:
        raise DatasetError(f"{path} line {line}: {len(fields)} fields, expected {width}.")


def _class_of(classes: ClassList, word: str, path: Path, line: int) -> int:
    try:
        return classes.index(word)
    except LookupError as error:
        raise DatasetError(f"{path} line {line}: label {error.args[0]}.") from error


def _at(relative: Callable[[str], str], name: str, path: Path, line: int) -> str:
    try:
        return relative(name)
    except ValueError as error:
        raise DatasetError(f"{path} line {line}: {error}.") from error
