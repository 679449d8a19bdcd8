"""Which maps a folder of ``.npy`` files holds: the JSON listing beside them, and class scores.

::

    {"classes": "top5", "score_kind": "logit", "probability": "softmax",
     "images": {"1.jpg": {"label": ["bee", "ant"], "score": [2.5, -1], "extent": [0, 0, 60, 40]}}}

Only ``images`` and each one's ``label``, a class (id or name) a map, are required.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsltool.datasets.classes import ClassList
from wsltool.datasets.image_names import ImageNames
from wsltool.datasets.textfiles import read_csv, read_json
from wsltool.errors import DatasetError

__all__ = ["LISTING", "ListedMaps", "MapListing", "read_class_scores", "read_map_listing"]

LISTING = "maps.json"
"""The name of a listing in a folder of maps that `export` wrote."""

_TEXTS = ("classes", "score_kind", "probability")
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class ListedMaps:
    """The maps of one image: their classes, and scores and extent where these are told."""

    class_index: tuple[int, ...]
    score: tuple[float, ...] | None
    extent_xyxy: tuple[float, ...] | None


@dataclass(frozen=True)
class MapListing:
    """What a listing tells: `ListedMaps` by row of the images, and attributes of the store."""

    of_row: dict[int, ListedMaps]
    attributes: dict[str, str]


def read_map_listing(path: Path, names: ImageNames, classes: ClassList) -> MapListing:
    """Read a listing; images that the store lacks are left aside.

    Raises
    ------
    DatasetError
        No such JSON, an unknown class, one that stands twice, or other than finite numbers.
    """
    found = read_json(path)
    images = found.get("images") if isinstance(found, dict) else None
    if not isinstance(images, dict):
        raise DatasetError(f'{path}: no "images" in it; expected an object by image id.')
    of_row = {}
    for name, told in images.items():
        row = names.row(name)
        if row is not None:
            of_row[row] = _listed(told, classes, f'{path} image "{name}"')
    attributes = {key: found[key] for key in _TEXTS if key in found}
    for key, value in attributes.items():
        if not isinstance(value, str):
            raise DatasetError(f'{path}: "{key}" is {value!r}, expected text.')
    return MapListing(of_row, attributes)


def _listed(told: Any, classes: ClassList, place: str) -> ListedMaps:
    labels = told.get("label") if isinstance(told, dict) else None
    if not isinstance(labels, list):
        raise DatasetError(f'{place}: no list "label"; expected a class for every map.')
    try:
        indices = tuple(classes.index(str(label)) for label in labels)
    except LookupError as error:
        raise DatasetError(f"{place}: label {error.args[0]}.") from error
    if len(set(indices)) < len(indices):
        raise DatasetError(f"{place}: a class stands twice in {labels}.")
    extent = _numbers(told, "extent", 4, place)
    if extent is not None and not (extent[2] > extent[0] and extent[3] > extent[1]):
        raise DatasetError(f"{place}: extent {told['extent']} is empty; expected x0 y0 x1 y1.")
    return ListedMaps(indices, _numbers(told, "score", len(indices), place), extent)


def _numbers(told: dict[str, Any], key: str, num: int, place: str) -> tuple[float, ...] | None:
    values = told.get(key)
    if values is None:
        return None
    good = isinstance(values, list) and len(values) == num
    if not good or not all(type(v) in (int, float) and abs(v) <= _LARGEST for v in values):
        raise DatasetError(f"{place}: {key} is {values!r}, expected {num} finite numbers.")
    return tuple(map(float, values))


def read_class_scores(path: Path, names: ImageNames, classes: ClassList) -> npt.NDArray[np.float32]:
    """Read the score of every class in every image.

    Parameters
    ----------
    path
        ``.npy`` of shape (N, K), rows and columns in the order of the images store; or CSV,
        ``image,CLASS,CLASS,…`` with all classes in any order.
    names, classes
        Of the images.

    Returns
    -------
    class_score_NK
        float32; −inf where an image has no line.

    Raises
    ------
    DatasetError
        Another shape or header, an unknown image or class, an image on two lines, or a value
        that is no number. −inf is a value (never), NaN and inf are none.
    """
    if path.suffix != ".npy":
        read_NK = _read_csv_scores(path, names, classes)
    else:
        read_NK = _read_array(path)
        if read_NK.shape != (len(names), len(classes)):
            raise DatasetError(
                f"{path}: has shape {read_NK.shape}, expected ({len(names)}, {len(classes)}): a "
                "row for each image and a column for each class of the images store."
            )
    with np.errstate(over="ignore"):
        score_NK: npt.NDArray[np.float32] = read_NK.astype(np.float32)
    odd_NK = np.isnan(score_NK) | np.isposinf(score_NK)
    if odd_NK.any():
        row, column = (int(place[0]) for place in np.nonzero(odd_NK))
        raise DatasetError(
            f'{path}: the score of class "{classes.class_name[column]}" in image {row} is '
            f"{score_NK[row, column]}, expected a number."
        )
    return score_NK


def _read_array(path: Path) -> npt.NDArray[Any]:
    try:
        found: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read, {error.strerror or error}.") from error
    except MemoryError:
        raise
    except Exception as error:  # numpy fails on a broken header in many classes
        first = (str(error).splitlines() or [""])[0]
        raise DatasetError(f"{path}: no .npy file of plain numbers ({first}).") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "buif":
        raise DatasetError(f"{path}: no array of real numbers.")
    return found


def _read_csv_scores(path: Path, names: ImageNames, classes: ClassList) -> npt.NDArray[np.float64]:
    rows = read_csv(path)
    line, header = next(rows, (1, []))
    try:
        index_C = [classes.index(word) for word in header[1:]]
    except LookupError as error:
        raise DatasetError(f"{path} line {line}: class {error.args[0]}.") from error
    if header[:1] != ["image"] or sorted(index_C) != list(range(len(classes))):
        raise DatasetError(
            f"{path} line {line}: the header has {len(index_C)} classes; expected image and all "
            f"{len(classes)} classes, each once."
        )
    score_NK = np.full((len(names), len(classes)), -np.inf)
    seen = np.zeros(len(names), bool)
    for line, fields in rows:
        row = names.row(fields[0])
        if row is None:
            continue
        if len(fields) != len(header) or seen[row]:
            told = "again" if seen[row] else f"has {len(fields)} fields, expected {len(header)}"
            raise DatasetError(f'{path} line {line}: image "{fields[0]}" {told}.')
        seen[row] = True
        score_NK[row, index_C] = [_score(word, path, line) for word in fields[1:]]
    return score_NK


def _score(word: str, path: Path, line: int) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise DatasetError(f'{path} line {line}: score "{word}", expected a number.')
    return value
