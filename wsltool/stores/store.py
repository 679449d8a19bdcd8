"""A finished store, opened for reading: the one way that stages read arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from wsltool.errors import StoreCorruptError, StoreKindError
from wsltool.stores.container import META_KEY, Reader, chunk_rows
from wsltool.stores.schema import FORMAT, KINDS, RAGGED, row_axis, string_array

__all__ = ["ArrayDigest", "Store"]

Array = np.ndarray[Any, Any]

_SKIPPED_BEFORE = 2


class ArrayDigest:
    """Digest of arrays given in order: sha256 over their names, dtypes, shapes and values.

    It does not depend on the container, on chunks or on how the rows were handed over.
    """

    def __init__(self) -> None:
        self._hashes: dict[str, Any] = {}
        self._heads: dict[str, str] = {}

    def begin(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """Announce an array."""
        self._heads[name] = json.dumps([name, dtype, list(shape)])
        self._hashes[name] = hashlib.sha256()

    def add(self, name: str, values: Array) -> None:
        """Add the next rows of an announced array."""
        if values.dtype.kind == "T":
            for text in values.tolist():
                raw = text.encode()
                self._hashes[name].update(len(raw).to_bytes(8, "little") + raw)
        else:
            little = values.astype(values.dtype.newbyteorder("<"), copy=False)
            self._hashes[name].update(np.ascontiguousarray(little).data)

    def result(self) -> str:
        """Return the digest as ``sha256:`` and 64 hexadecimal digits."""
        total = hashlib.sha256()
        for name in sorted(self._heads):
            total.update(self._heads[name].encode() + self._hashes[name].digest())
        return "sha256:" + total.hexdigest()


class Store:
    """Read access to one finished store. Arrays come by rows, never whole by accident.

    Parameters
    ----------
    path : Path
        Where the store lies.
    reader : Reader
        Its opened container.

    Raises
    ------
    StoreCorruptError
        The container holds no ``wsltool`` attribute, a newer format, or an unknown kind.
    """

    def __init__(self, path: Path, reader: Reader) -> None:
        self.path = path
        self._reader = reader
        self.attributes = reader.attributes()
        meta = self.attributes.get(META_KEY)
        if not isinstance(meta, dict) or "kind" not in meta:
            raise StoreCorruptError(
                f'{path.name}: no attribute "wsltool" with a kind, so this is no store of '
                "wsltool. Give a store that `wsltool ingest` or a stage wrote."
            )
        self.meta: dict[str, Any] = meta
        written = meta.get("format", FORMAT)
        if not isinstance(written, int) or written < 1:
            raise StoreCorruptError(
                f'{path.name}: store format "{written}", expected a number from 1 to {FORMAT}. '
                "Copy or make the store again."
            )
        if written > FORMAT:
            raise StoreCorruptError(
                f"{path.name}: store format {written}, this wsltool reads up to {FORMAT}. "
                "Update wsltool."
            )
        if meta["kind"] not in KINDS:
            raise StoreCorruptError(
                f'{path.name}: unknown kind "{meta["kind"]}", expected one of '
                f"{', '.join(KINDS)}. Update wsltool or check the store."
            )
        self._names = set(reader.names())

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._reader.close()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def __len__(self) -> int:
        return self.shape("image_id" if self.has_images else "class_name")[0]

    @property
    def kind(self) -> str:
        """What the store holds, such as ``images``, ``maps`` or ``boxes``."""
        return str(self.meta["kind"])

    @property
    def names(self) -> list[str]:
        """The arrays that the store holds, those of the schema first and in its order."""
        known = self.known_names
        return known + sorted(self._names - set(known))

    @property
    def known_names(self) -> list[str]:
        """The arrays that the store holds and the schema knows, in the schema's order."""
        return [name for name in KINDS[self.kind] if name in self._names]

    @property
    def has_images(self) -> bool:
        """Whether a row is an image; of clusters it is a class."""
        return row_axis(self.kind) == "image"

    @property
    def row_bytes(self) -> int:
        """About how many bytes one row of all arrays takes."""
        total = 0
        for name in self.known_names:
            item = 64 if self.dtype(name) == "string" else np.dtype(self.dtype(name)).itemsize
            total += item * int(np.prod(self.shape(name), dtype=np.int64))
        return total // max(1, len(self)) + 1

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array."""
        return self._reader.shape(self._known(name))

    def dtype(self, name: str) -> str:
        """Return the dtype of an array, ``"string"`` for strings."""
        return self._reader.dtype(self._known(name))

    def dims(self, name: str) -> tuple[str, ...]:
        """Return the names of the axes as they are written in the container."""
        return self._reader.dims(self._known(name))

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Return rows ``start:stop`` of an array along its first axis."""
        return self._reader.read(self._known(name), start, stop)

    def whole(self, name: str) -> Array:
        """Return a whole array; for those without an image axis, and offsets."""
        return self.rows(name, 0, self.shape(name)[0])

    def ragged(self, axis: str, start: int, stop: int) -> tuple[Array, slice]:
        """Return the offsets of images ``start:stop`` on a ragged axis.

        Returns
        -------
        edge : int64 ndarray of shape (stop - start + 1,)
            Offsets relative to the first of these images.
        where : slice
            Their rows in the arrays of that axis, for `rows`.
        """
        offsets = self.rows(RAGGED[self.kind][axis], start, stop + 1).astype(np.int64)
        return offsets - offsets[0], slice(int(offsets[0]), int(offsets[-1]))

    def ragged_rows(self, axis: str, start: int, stop: int) -> dict[str, Array]:
        """Return every array on a ragged axis for images ``start:stop``, and their counts."""
        edge, where = self.ragged(axis, start, stop)
        found = {RAGGED[self.kind][axis]: np.diff(edge)}
        found |= {n: self.rows(n, where.start, where.stop) for n in self._on_axis(axis)}
        return found

    def pattern_rows(self, start: int, stop: int) -> slice:
        """Return which rows of the pattern arrays belong to images ``start:stop``.

        ``pattern_cell`` rises, so they are found by halving: a chunk is read a step, and the
        last one is searched whole.
        """
        offsets = self.rows("cell_start", start, stop + 1)
        low, high = (self._first_pattern(int(cell)) for cell in (offsets[0], offsets[-1]))
        return slice(low, high)

    def patterns(self, row_M: Array) -> dict[str, Array]:
        """Return the pattern arrays of some images, in their order.

        ``pattern_cell`` counts from the first cell of these images, as in what `gather` returns
        for the axis ``cell``.
        """
        row_R, place_M = np.unique(row_M, return_inverse=True)
        cell_P, class_P, num_cells_R, count_R = [], [], [], []
        for run in np.split(row_R, np.flatnonzero(np.diff(row_R) != 1) + 1):
            start, stop = int(run[0]), int(run[-1]) + 1
            edge = self.rows("cell_start", start, stop + 1)
            where = self.pattern_rows(start, stop)
            cell = self.rows("pattern_cell", where.start, where.stop)
            count = np.diff(np.searchsorted(cell, edge))
            cell_P.append(cell - np.repeat(edge[:-1], count))
            class_P.append(self.rows("pattern_class", where.start, where.stop))
            num_cells_R.append(np.diff(edge))
            count_R.append(count)
        counts = np.concatenate(count_R)
        index = _ragged_index(counts, place_M)
        num_cells_M = np.concatenate(num_cells_R)[place_M]
        first_M = np.cumsum(num_cells_M) - num_cells_M
        return {
            "pattern_cell": np.concatenate(cell_P)[index] + np.repeat(first_M, counts[place_M]),
            "pattern_class": np.concatenate(class_P)[index],
        }

    def _first_pattern(self, cell: int) -> int:
        """Return the first row of ``pattern_cell`` that is `cell` or more."""
        low, high = 0, self.shape("pattern_cell")[0]
        chunk = chunk_rows((high,), self.dtype("pattern_cell"))
        while high - low > chunk:
            middle = (low + high) // 2
            if int(self.rows("pattern_cell", middle, middle + 1)[0]) < cell:
                low = middle + 1
            else:
                high = middle
        return low + int(np.searchsorted(self.rows("pattern_cell", low, high), cell))

    def gather(
        self, row_M: Array, names: Iterable[str], axes: Iterable[str] = ()
    ) -> dict[str, Array]:
        """Return some rows, in the given order, read in rising runs of neighbours.

        Parameters
        ----------
        row_M : int ndarray of shape (M,), M >= 1
            Which images, in any order.
        names : iterable of str
            Arrays with an image axis.
        axes : iterable of str
            Ragged axes: every array on them comes along, and the counts of each image under
            the name of the offsets.
        """
        names, axes = list(names), list(axes)
        row_R, place_M = np.unique(row_M, return_inverse=True)
        pieces = []
        for run in np.split(row_R, np.flatnonzero(np.diff(row_R) != 1) + 1):
            start, stop = int(run[0]), int(run[-1]) + 1
            piece = {name: self.rows(name, start, stop) for name in names}
            for axis in axes:
                piece |= self.ragged_rows(axis, start, stop)
            pieces.append(piece)
        found = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        if len(row_R) == len(row_M) and (np.diff(place_M) == 1).all():
            return found
        taken = {name: found[name][place_M] for name in names}
        for axis in axes:
            count_R = found[RAGGED[self.kind][axis]]
            index = _ragged_index(count_R, place_M)
            taken |= {n: found[n][index] for n in self._on_axis(axis)}
            taken[RAGGED[self.kind][axis]] = count_R[place_M]
        return taken

    def _on_axis(self, axis: str) -> list[str]:
        specs = KINDS[self.kind]
        return [name for name in self.known_names if specs[name].dims[0] == axis]

    def class_names(self) -> list[str]:
        """Return the names of the classes."""
        return [str(name) for name in self.whole("class_name").tolist()]

    def carried(self, start: int, stop: int) -> dict[str, Array]:
        """Return what every later store keeps of images ``start:stop``.

        ``image_id`` and ``image_size`` as they are; ``image_status`` with "skipped here"
        turned into "skipped before"; ``image_note``. A store without the last two (written
        by somebody else) counts as all good.
        """
        return self.carried_rows(np.arange(start, stop))

    def carried_rows(self, row_M: Array) -> dict[str, Array]:
        """Return `carried` of the given rows, in their order."""
        names = ("image_id", "image_size", "image_status", "image_note")
        found = self.gather(row_M, [name for name in names if name in self])
        status = found.setdefault("image_status", np.zeros(len(row_M), np.uint8)).copy()
        status[status != 0] = _SKIPPED_BEFORE
        found["image_status"] = status
        found.setdefault("image_note", string_array([""] * len(row_M)))
        return found

    def blocks(self, name: str) -> Iterator[Array]:
        """Yield all rows of an array in pieces of a few megabytes."""
        shape, dtype = self.shape(name), self.dtype(name)
        step = 16 * chunk_rows(shape, dtype)
        for start in range(0, shape[0], step):
            yield self.rows(name, start, min(shape[0], start + step))

    def compute_digest(self) -> str:
        """Read every array that the schema knows and return their digest (see `ArrayDigest`)."""
        digest = ArrayDigest()
        for name in self.known_names:
            digest.begin(name, self.shape(name), self.dtype(name))
            for values in self.blocks(name):
                digest.add(name, values)
        return digest.result()

    def require(self, kind: str, reader: str, hint: str) -> Store:
        """Return the store itself if it is of `kind`; otherwise say what to run first."""
        if self.kind != kind:
            raise StoreKindError(
                f'{self.path.name}: kind is "{self.kind}", but {reader} reads "{kind}". {hint}'
            )
        return self

    def _known(self, name: str) -> str:
        if name not in self._names:
            raise StoreCorruptError(
                f'{self.path.name}: array "{name}" is missing, the store holds '
                f"{', '.join(self.names)}. Run: wsltool verify {self.path.name}"
            )
        return name


def _ragged_index(count_R: Array, place_M: Array) -> Array:
    """Return where the ragged rows of the images `place_M` stand among those of all images."""
    start_R = np.cumsum(count_R) - count_R
    count_M = count_R[place_M]
    shift_M = start_R[place_M] - (np.cumsum(count_M) - count_M)
    index: Array = np.arange(int(count_M.sum())) + np.repeat(shift_M, count_M)
    return index
