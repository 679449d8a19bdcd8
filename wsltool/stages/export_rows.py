"""What ``export`` reads of a store: boxes with their images, block by block, and class words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsltool.datasets.classes import ClassList
from wsltool.errors import DatasetError, StoreCorruptError
from wsltool.stores.store import Store

__all__ = [
    "ImageBoxes",
    "box_rows",
    "class_words",
    "num_ranks_lost",
    "plain_word",
    "starts_and_stops",
]

Array = np.ndarray[Any, Any]

_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class ImageBoxes:
    """The boxes of one image, as plain Python values.

    Attributes
    ----------
    row : int
        Row of the store.
    image_id : str
        Its id.
    size_wh : list of int
        Width and height.
    box : list of [x0, y0, x1, y1]
        Half-open continuous pixels.
    more : dict
        Every other array of the boxes by name (``box_class``, ``box_score``, …), as lists.
    """

    row: int
    image_id: str
    size_wh: list[int]
    box: list[list[float]]
    more: dict[str, list[Any]]


def starts_and_stops(store: Store) -> Iterator[tuple[int, int]]:
    """Yield the rows of each block."""
    for start in range(0, len(store), _BLOCK_ROWS):
        yield start, min(len(store), start + _BLOCK_ROWS)


def box_rows(store: Store) -> Iterator[ImageBoxes]:
    """Yield every image of a store that was not skipped, with its boxes.

    Raises
    ------
    StoreCorruptError
        A box or score is not finite.
    """
    for start, stop in starts_and_stops(store):
        names = store.rows("image_id", start, stop).tolist()
        sizes = store.rows("image_size", start, stop).tolist()
        edge, where = store.ragged("box", start, stop)
        good = _good(store, start, stop)
        found = {name: store.rows(name, where.start, where.stop) for name in _box_arrays(store)}
        _check_finite(store, found)
        columns = {name: values.tolist() for name, values in found.items()}
        columns["box"] = found["box"].astype(np.float64).tolist()
        for n, (low, high) in enumerate(zip(edge[:-1].tolist(), edge[1:].tolist(), strict=True)):
            if not good[n]:
                continue
            taken = {name: values[low:high] for name, values in columns.items()}
            box = taken.pop("box")
            yield ImageBoxes(start + n, str(names[n]), sizes[n], box, taken)


def num_ranks_lost(boxes: Store) -> int:
    """Return how many ranks files of boxes cannot tell.

    Those of classes without a box, and of classes that stand twice (guesses of
    ``boxes --rule zhou``).
    """
    num = 0
    for start, stop in starts_and_stops(boxes):
        class_NS = boxes.rows("map_class", start, stop)
        edge, where = boxes.ragged("box", start, stop)
        row_B = np.repeat(np.arange(stop - start), np.diff(edge))
        has_box_NS = np.zeros(class_NS.shape, bool)
        has_box_NS[row_B, boxes.rows("box_slot", where.start, where.stop)] = True
        sorted_NS = np.sort(class_NS, axis=1)
        again_NS = (sorted_NS[:, 1:] == sorted_NS[:, :-1]) & (sorted_NS[:, 1:] >= 0)
        num += int(((class_NS >= 0) & ~has_box_NS).sum() + again_NS.sum())
    return num


def _box_arrays(store: Store) -> list[str]:
    return [name for name in store.known_names if name.startswith("box") and name != "box_start"]


def _good(store: Store, start: int, stop: int) -> list[bool]:
    if "image_status" not in store:
        return [True] * (stop - start)
    good: list[bool] = (store.rows("image_status", start, stop) == 0).tolist()
    return good


def _check_finite(store: Store, found: dict[str, Array]) -> None:
    for name in ("box", "box_score"):
        if name in found and not np.isfinite(found[name]).all():
            odd = found[name][~np.isfinite(found[name])][0]
            raise StoreCorruptError(
                f'{store.path.name}: "{name}" holds {odd}, expected finite numbers. Run: wsltool '
                f"verify {store.path.name}"
            )


def plain_word(word: str) -> str:
    """Return the word of a class, which must not lead into a folder.

    Raises
    ------
    DatasetError
        It would.
    """
    if "/" in word:
        raise DatasetError(
            f'class "{word}" cannot stand in the name of a file. Export another form.'
        )
    return word


def class_words(images: Store) -> list[str]:
    """Return the word for each class that `ingest` takes back: its name, or its id.

    Names, unless one belongs to two classes or is the id of another.
    """
    names = images.class_names()
    if "class_id" not in images:
        return names
    ids = [str(word) for word in images.whole("class_id").tolist()]
    classes = ClassList(names, ids, origin="")
    try:
        told = [classes.index(name) for name in names]
    except LookupError:
        return ids
    return names if told == list(range(len(names))) else ids
