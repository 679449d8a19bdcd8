"""VOC's results for the evaluation server: one text file a class, one detection a line.

::

    comp3_det_test_car.txt
      000004 0.702732 89 112 516 466        image, score, xmin, ymin, xmax, ymax

Boxes are counted from 1 with both ends inside.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from wsltool.datasets.classes import ClassList
from wsltool.datasets.decimals import less
from wsltool.datasets.detections import DetectionColumns, Detections
from wsltool.datasets.textfiles import read_lines
from wsltool.errors import DatasetError

__all__ = ["find_comp_files", "read_comp_files"]

_PREFIX = re.compile(r"comp\d+_det_[^_]+_")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?|[+-]?(inf|nan)", re.IGNORECASE)


def find_comp_files(place: Path, classes: ClassList) -> tuple[dict[int, Path], list[Path]]:
    """Return the file of each class, and the text files that belong to none.

    Parameters
    ----------
    place
        A file, a folder of them, or a pattern such as ``results/comp3_det_test_*.txt``. A file
        is named ``compN_det_SPLIT_CLASS.txt``, or anything that ends with ``_CLASS.txt``, or
        ``CLASS.txt``.
    classes
        The classes; the longest name or id that fits counts.

    Raises
    ------
    DatasetError
        There is no such file, none belongs to a class, or a class has two.
    """
    if place.is_dir():
        files = sorted(place.glob("*.txt"))
    elif place.is_file():
        files = [place]
    else:
        files = sorted(file for file in place.parent.glob(place.name) if file.is_file())
    found: dict[int, Path] = {}
    strangers = []
    for file in files:
        index = _class_of(file.stem, classes)
        if index is None:
            strangers.append(file)
        elif index in found:
            raise DatasetError(
                f'{file.parent}: class "{classes.class_name[index]}" has two files '
                f"({found[index].name}, {file.name}). Give a pattern such as comp3_det_test_*.txt."
            )
        else:
            found[index] = file
    if not found:
        few = ", ".join(classes.class_name[:3])
        raise DatasetError(
            f"{place}: no results file in it; expected comp3_det_SPLIT_CLASS.txt of the classes "
            f"{few}, …"
        )
    return found, strangers


def _class_of(stem: str, classes: ClassList) -> int | None:
    """Return the class that a file name ends with."""
    rest = _PREFIX.sub("", stem, count=1)
    words = {*classes.class_name, *classes.class_id}
    fitting = [word for word in words if rest == word or stem.endswith(f"_{word}")]
    for word in sorted(fitting, key=lambda word: (word != rest, -len(word))):
        try:
            return classes.index(word)
        except LookupError:
            continue
    return None


def read_comp_files(files: dict[int, Path]) -> Detections:
    """Read the results of each class.

    An image id may hold blanks (the devkit's own reader takes none): the last five words of a
    line are numbers. A box ``xmin ymin xmax ymax`` becomes the half-open ``xmin-1 ymin-1 xmax
    ymax``, computed on the digits as written; NaN and infinities come through.

    Raises
    ------
    DatasetError
        A line is not an id and five numbers; with its number.
    """
    columns = DetectionColumns()
    paths = sorted(files.items())
    for number, (index, path) in enumerate(paths):
        for line, text in read_lines(path):
            image, *words = text.rsplit(maxsplit=5)
            if len(words) != 5 or not all(map(_NUMBER.fullmatch, words)):
                raise DatasetError(
                    f'{path} line {line}: "{text[:80]}"; expected an image id, a score and '
                    "xmin ymin xmax ymax."
                )
            columns.add(image, index, _half_open(words[1:]), float(words[0]), (number, line))
    return columns.finish([path.name for _, path in paths], "line")


def _half_open(words: Sequence[str]) -> tuple[float, float, float, float]:
    xmin, ymin, xmax, ymax = words
    return _less_one(xmin), _less_one(ymin), float(xmax), float(ymax)


def _less_one(word: str) -> float:
    return less(word, 1) if math.isfinite(float(word)) else float(word)
