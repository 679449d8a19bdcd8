"""COCO's results format: a JSON list of detections, ``bbox`` as x, y, width, height.

::

    [{"image_id": 42, "category_id": 18, "bbox": [258.15, 41.29, 348.26, 243.78], "score": 0.236}]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from wsltool.datasets.classes import ClassList
from wsltool.datasets.decimals import plus, whole_number
from wsltool.datasets.detections import DetectionColumns, Detections
from wsltool.datasets.textfiles import read_json
from wsltool.errors import DatasetError

__all__ = ["coco_category_ids", "read_category_map", "read_coco_results"]

_KEYS = ("image_id", "category_id", "bbox", "score")
_MOST_CATEGORY = 2**53


def coco_category_ids(class_id: Sequence[str]) -> list[int] | None:
    """Return the classes' own ids as whole numbers, None where not all are such, all different."""
    numbers = [number for word in class_id if (number := whole_number(word)) is not None]
    return numbers if len(set(numbers)) == len(class_id) else None


def read_category_map(path: Path, classes: ClassList) -> dict[int, int]:
    """Return the class index of each category id, from a JSON file with ``categories``.

    Such a file is COCO's annotations file, or what ``export`` writes beside its results; each
    category has an ``id`` and a ``name``, which is a class's id or name.

    Raises
    ------
    DatasetError
        No such list, an id that is no whole number or stands twice, or a class that is not there.
    """
    found = read_json(path, parse_float=Decimal)
    categories = found.get("categories") if isinstance(found, dict) else None
    if not isinstance(categories, list) or not categories:
        raise DatasetError(f'{path}: no list "categories" in it; expected COCO\'s annotations.')
    index_of: dict[int, int] = {}
    for number, category in enumerate(categories, 1):
        place = f"{path} category {number}"
        if not isinstance(category, dict) or type(category.get("id")) is not int:
            raise DatasetError(f'{place}: no "id" that is a whole number.')
        try:
            index = classes.index(str(category.get("name", "")))
        except LookupError as error:
            raise DatasetError(f"{place}: name {error.args[0]}.") from error
        if index_of.setdefault(category["id"], index) != index:
            raise DatasetError(f"{place}: id {category['id']} stands there twice.")
    return index_of


def read_coco_results(path: Path, class_of: Callable[[Any], int]) -> Detections:
    """Read a results file.

    Parameters
    ----------
    path
        JSON, a list of objects with ``image_id`` (a number or text), ``category_id``, ``bbox``
        and ``score``; other keys are left aside.
    class_of
        Gives the class index of a category id, or raises `LookupError` with the reason.

    Returns
    -------
    Detections
        In the file's order. ``x1`` is the double nearest to ``x + width`` as written, without
        an error of its own; NaN and infinities come through.

    Raises
    ------
    DatasetError
        No such list, or an entry that lacks a key, has another kind of value or an unknown
        category; with its number, from 1.
    """
    reader = _Entries(path, class_of)
    found = read_json(path, object_hook=reader.take, parse_float=Decimal)
    if not isinstance(found, list):
        raise DatasetError(
            f"{path}: is no JSON list, but {_shown(found)}; expected COCO's results format, a list "
            "of detections."
        )
    for number, entry in enumerate(found, 1):
        if entry is not _TAKEN:
            raise DatasetError(
                f'{path} entry {number}: has no "image_id"; expected {", ".join(_KEYS)}.'
            )
    if len(found) != len(reader.columns):
        raise DatasetError(f'{path}: detections lie within others; expected "image_id" once each.')
    return reader.columns.finish([path.name], "entry")


_TAKEN = object()


class _Entries:
    """Takes every detection out of the JSON as soon as it is parsed, so that memory stays small."""

    def __init__(self, path: Path, class_of: Callable[[Any], int]) -> None:
        self.columns = DetectionColumns()
        self._path, self._class_of = path, class_of
        self._class: dict[int, int] = {}

    def take(self, entry: dict[str, Any]) -> Any:
        if "image_id" not in entry:
            return entry
        number = len(self.columns) + 1
        lacking = [key for key in _KEYS if key not in entry]
        if lacking:
            told = " (masks are read by ingest masks)" if "segmentation" in entry else ""
            raise self._error(number, f'has no "{lacking[0]}"; expected {", ".join(_KEYS)}{told}')
        image = entry["image_id"]
        if type(image) not in (int, str):
            raise self._error(number, f"image_id is {image!r}, expected a number or text")
        bbox = entry["bbox"]
        if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
            raise self._error(number, f"bbox is {_shown(bbox)}, expected four numbers")
        if not _is_number(entry["score"]):
            raise self._error(number, f"score is {_shown(entry['score'])}, expected a number")
        x, y, width, height = bbox
        box_xyxy = _float(x), _float(y), _far(x, width), _far(y, height)
        index = self._index(entry["category_id"], number)
        self.columns.add(image, index, box_xyxy, _float(entry["score"]), (0, number))
        return _TAKEN

    def _index(self, category: Any, number: int) -> int:
        if type(category) is not int:
            raise self._error(number, f"category_id is {_shown(category)}, expected a whole number")
        if category not in self._class:
            try:
                self._class[category] = self._class_of(category)
            except LookupError as error:
                raise self._error(number, f"category_id {error.args[0]}") from error
        return self._class[category]

    def _error(self, number: int, what: str) -> DatasetError:
        return DatasetError(f"{self._path} entry {number}: {what}.")


def _is_number(value: Any) -> bool:
    return type(value) in (Decimal, int, float)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _far(low: Any, size: Any) -> float:
    """Return ``low + size``, exact where both are finite."""
    if type(low) is float or type(size) is float:  # NaN or an infinity: the only floats
        return float("nan")
    try:
        return _float(low + size) if type(low) is type(size) is int else plus(low, size)
    except ArithmeticError:
        return float("inf")


def _shown(value: Any) -> str:
    plain = repr(value) if not isinstance(value, Decimal) else str(value)
    return plain if len(plain) <= 60 else plain[:57] + "…"
