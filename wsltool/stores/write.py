"""Writes one new store, row by row in order, in bounded memory, with its digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wsltool.stores.container import META_KEY, writer_for
from wsltool.stores.schema import KINDS
from wsltool.stores.store import ArrayDigest

__all__ = ["StoreWriter"]

Array = np.ndarray[Any, Any]


class StoreWriter:
    """Fills the arrays of a new store. Rows are handed over in order; nothing is rewritten.

    Parameters
    ----------
    path : Path
        Where the store is made; nothing may be there.
    kind : str
        Its kind, which says what arrays and axes there are.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self._writer = writer_for(path)
        self._specs = KINDS[kind]
        self._digest = ArrayDigest()
        self._pending: dict[str, list[Array]] = {}
        self._unit: dict[str, int] = {}
        self._written: dict[str, int] = {}
        self._shape: dict[str, tuple[int, ...]] = {}
        self._dtype: dict[str, str] = {}

    def create(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """Make the array `name` with its final `shape`."""
        spec = self._specs[name]
        self._unit[name] = self._writer.create(name, shape, dtype, spec.dims, raw=spec.raw)
        self._digest.begin(name, shape, dtype)
        self._pending[name], self._written[name] = [], 0
        self._shape[name], self._dtype[name] = shape, dtype

    def append(self, name: str, values: Array) -> None:
        """Add rows; axes shorter than the array's are padded with the schema's fill."""
        if not len(values):
            return
        values = self._padded(name, values)
        self._digest.add(name, values)
        self._pending[name].append(values)
        held = sum(map(len, self._pending[name]))
        if held >= self._unit[name]:
            self._flush(name, held - held % self._unit[name])

    def put(self, name: str, values: Array) -> None:
        """Write a whole array at once."""
        dtype = "string" if values.dtype.kind == "T" else values.dtype.name
        self.create(name, values.shape, dtype)
        self.append(name, values)

    def finish(self, meta: dict[str, Any], attributes: dict[str, Any]) -> str:
        """Write what is pending and the attributes; return the digest of all arrays."""
        for name in self._pending:
            self._flush(name, sum(map(len, self._pending[name])))
            assert self._written[name] == self._shape[name][0], name
        digest = self._digest.result()
        self._writer.finish({META_KEY: meta | {"digest": digest}} | attributes)
        return digest

    def _padded(self, name: str, values: Array) -> Array:
        dtype = self._dtype[name]
        if dtype == "string":
            return values
        shape = (len(values), *self._shape[name][1:])
        if values.shape == shape:
            return values.astype(dtype, copy=False)
        full = np.full(shape, self._specs[name].fill, dtype)
        full[tuple(slice(size) for size in values.shape)] = values
        return full

    def _flush(self, name: str, num: int) -> None:
        """Write the first `num` pending rows, keep the rest."""
        if not num:
            return
        rows = np.concatenate(self._pending[name])
        self._writer.write(name, self._written[name], rows[:num])
        self._written[name] += num
        self._pending[name] = [rows[num:].copy()] if num < len(rows) else []
