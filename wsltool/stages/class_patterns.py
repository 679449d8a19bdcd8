"""The patterns of one class, read from a store of features in pieces and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from wsltool.errors import StoreCorruptError, StoreError
from wsltool.localize.spectral import PIECE_ROWS
from wsltool.stores.container import chunk_rows
from wsltool.stores.store import Store

__all__ = ["ClassPatterns"]

Array = np.ndarray[Any, Any]

_READ_CHUNKS = 4  # of features, read at once where patterns lie close together
_KEPT_BYTES = 256 << 20  # a class that fits in so much is read once


class ClassPatterns:
    """Where the patterns of every class lie in a store of features.

    The store keeps patterns by image; where its images are not sorted by class, those of one
    class lie all over. One pass over ``pattern_class`` finds in which windows of it a class
    occurs; after that only these windows, and the chunks of ``feature`` that they name, are
    read for the class.

    Parameters
    ----------
    features : Store
        A ``features`` store that maps chose the cells of.

    Attributes
    ----------
    count_K : int64 ndarray of shape (K,)
        Patterns of each class.

    Raises
    ------
    StoreError
        The store has no patterns, since no maps said what fires.
    StoreCorruptError
        A pattern names a class that there is not; later, a cell that there is not, or cells
        that do not rise.
    """

    def __init__(self, features: Store) -> None:
        if not {"pattern_cell", "pattern_class"} <= set(features.names):
            raise StoreError(
                f"{features.path.name}: does not say which class fires where (no pattern_class), "
                "so there is nothing to cluster for a class. It was made from images alone; run "
                "wsltool extract-features on maps (wsltool cam)."
            )
        self._features = features
        self._window = chunk_rows(features.shape("pattern_cell"), features.dtype("pattern_cell"))
        self._reach = _READ_CHUNKS * chunk_rows(
            features.shape("feature"), features.dtype("feature")
        )
        self.count_K = np.zeros(features.shape("class_name")[0], np.int64)
        self._windows_of: list[list[int]] = [[] for _ in self.count_K]
        for start in range(0, features.shape("pattern_class")[0], self._window):
            self._note_window(start)

    def _note_window(self, start: int) -> None:
        class_P = self._features.rows("pattern_class", start, start + self._window)
        class_U, count_U = np.unique(class_P, return_counts=True)
        if class_U[0] < 0 or class_U[-1] >= len(self.count_K):
            row = start + int(((class_P < 0) | (class_P >= len(self.count_K))).argmax())
            raise StoreCorruptError(
                f"{self._features.path.name}: pattern_class is {class_P[row - start]} in row "
                f"{row}, expected 0 to {len(self.count_K) - 1}. Make the features again."
            )
        self.count_K[class_U] += count_U
        for class_index in class_U.tolist():
            self._windows_of[class_index].append(start)

    def of(self, class_index: int) -> Callable[[], Iterator[Array]]:
        """Return a function that yields the patterns of a class, raw, 4096 rows at a time.

        They come in the order of the store, the same each time. Cells are found once (8 bytes
        a pattern); features are kept in memory where all of the class take 256 MB or less.
        """
        cell_P = self._cells(class_index)
        if cell_P.size * self._row_bytes() <= _KEPT_BYTES:
            pieces = list(self._read(cell_P))
            return lambda: iter(pieces)
        return lambda: self._read(cell_P)

    def place(self, class_index: int, pattern: int) -> str:
        """Return which image and cell a pattern of a class is of, in words."""
        cell = int(self._cells(class_index)[pattern])
        image = int(np.searchsorted(self._features.whole("cell_start"), cell, side="right")) - 1
        name = self._features.rows("image_id", image, image + 1)[0]
        row, col = self._features.rows("cell", cell, cell + 1)[0]
        return f'image {image} "{name}", cell at row {row}, column {col}'

    def _row_bytes(self) -> int:
        item = np.dtype(self._features.dtype("feature")).itemsize
        return item * self._features.shape("feature")[1]

    def _cells(self, class_index: int) -> Array:
        """Return the cells of a class's patterns, int64, rising."""
        found = [np.zeros(0, np.int64)]
        for start in self._windows_of[class_index]:
            stop = start + self._window
            chosen = self._features.rows("pattern_class", start, stop) == class_index
            found.append(self._features.rows("pattern_cell", start, stop)[chosen])
        cell_P = np.concatenate(found)
        num_cells = self._features.shape("feature")[0]
        if len(cell_P) and (np.diff(cell_P, prepend=0, append=num_cells - 1) < 0).any():
            raise StoreCorruptError(
                f"{self._features.path.name}: pattern_cell of class {class_index} falls, or is not "
                f"in 0 to {num_cells - 1}; expected cells in rising order. Make the features again."
            )
        return cell_P

    def _read(self, cell_P: Array) -> Iterator[Array]:
        for at in range(0, len(cell_P), PIECE_ROWS):
            yield self._piece(cell_P[at : at + PIECE_ROWS])

    def _piece(self, cell_P: Array) -> Array:
        """Return the features of rising cells, read in runs of neighbours."""
        edges = np.flatnonzero(np.diff(cell_P // self._reach)) + 1
        parts = []
        for run in np.split(cell_P, edges):
            first = int(run[0])
            rows = self._features.rows("feature", first, int(run[-1]) + 1)
            parts.append(rows if len(rows) == len(run) else rows[run - first])
        return np.concatenate(parts)
