"""The pictures behind any store of images, row by row, for stages that run a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wsltool.errors import LineageError
from wsltool.stages.pictures import Pictures
from wsltool.stages.run import Block, open_input
from wsltool.stores.lineage import find_ancestor
from wsltool.stores.store import Store

__all__ = ["PicturesBehind", "good_batches", "rows_behind"]

Array = np.ndarray[Any, Any]

_STORES = (".zarr", ".h5")
_READ_ROWS = 4096


class PicturesBehind:
    """Loads the picture of a row of any store; picklable, so that workers can hold it.

    Parameters
    ----------
    source : Store
        The images, or what was made from them, such as maps; also of only some of them.
    given : Path or None
        Where the pictures lie, or the ``images`` store that knows it; None for what is
        recorded.

    Raises
    ------
    LineageError
        The images store, the folder of its pictures, or an image of `source` in it is not
        there; the message names ``--images``.
    """

    def __init__(self, source: Store, given: Path | None = None) -> None:
        root = given
        if given is not None and given.suffix in _STORES and source.kind != "images":
            images, root = open_input(given, "images", "--images"), None
        else:
            images = find_ancestor(source, "images", "--images")
        with images:
            self._row_N = rows_behind(images, source, "Say where its images are with --images.")
            self._pictures = Pictures(images, root)

    def __call__(self, row: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return the picture of a row, uint8 of shape (H, W, 3), RGB; see `Pictures`."""
        return self._pictures(row if self._row_N is None else int(self._row_N[row]))


def rows_behind(held: Store, source: Store, cure: str, num_rows: int | None = None) -> Array | None:
    """Return the row of each image of `source` in the store `held`, None where they are the same.

    Only the first `num_rows` images are looked for, if given.

    Raises
    ------
    LineageError
        `held` lacks an image; the message ends with `cure`.
    """
    stop = len(source) if num_rows is None else num_rows
    if source.path == held.path:
        return None
    if stop <= len(held) and all(
        _agree(held, source, at, stop) for at in range(0, stop, _READ_ROWS)
    ):
        return None
    where = {name: row for row, name in enumerate(held.whole("image_id").tolist())}
    names = source.rows("image_id", 0, stop).tolist()
    lacking = next((name for name in names if name not in where), None)
    if lacking is not None:
        raise LineageError(
            f'{held.path.name}: has no image "{lacking}" of {source.path.name}. {cure}'
        )
    return np.array([where[name] for name in names], np.int64)


def _agree(held: Store, source: Store, start: int, stop: int) -> bool:
    stop = min(start + _READ_ROWS, stop)
    ours, theirs = (store.rows("image_id", start, stop) for store in (source, held))
    return bool((ours == theirs).all())


def good_batches(source: Store, block: Block, batch_size: int) -> Iterator[list[int]]:
    """Yield the rows of each batch of a block; a skipped image is in none."""
    good_N = np.ones(block.num_rows, bool)
    if "image_status" in source:
        good_N = source.rows("image_status", block.start, block.stop) == 0
    rows = (block.start + np.flatnonzero(good_N)).tolist()
    for at in range(0, len(rows), batch_size):
        yield rows[at : at + batch_size]
