"""HDF5 files with the same arrays: chunked, gzip, fletcher32 checksums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wsltool.errors import StoreCorruptError
from wsltool.stores.container import META_KEY, chunk_rows, first_line

__all__ = ["Hdf5Reader", "Hdf5Writer"]

_DIMS = "dimension_names"


class Hdf5Reader:
    """Reads an HDF5 file; opened without locks, since a finished store never changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = h5py.File(path, "r", locking=False)
        except OSError as error:
            raise StoreCorruptError(
                f"{path.name}: cannot be opened as HDF5: {first_line(error)}. "
                "Copy or make it again."
            ) from error

    def attributes(self) -> dict[str, Any]:
        """Return the root attributes."""
        found = dict(self._file.attrs.items())
        return found | {k: json.loads(v) for k, v in found.items() if k == META_KEY}

    def names(self) -> list[str]:
        """Return the names of the arrays."""
        return [name for name, item in self._file.items() if isinstance(item, h5py.Dataset)]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array."""
        return tuple(self._file[name].shape)

    def dtype(self, name: str) -> str:
        """Return the dtype of an array, ``"string"`` for strings."""
        dtype = self._file[name].dtype
        return "string" if h5py.check_string_dtype(dtype) else str(dtype.name)

    def dims(self, name: str) -> tuple[str, ...]:
        """Return the names of the axes of an array."""
        return tuple(str(dim) for dim in self._file[name].attrs.get(_DIMS, ()))

    def read(self, name: str, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Return rows ``start:stop`` along the first axis."""
        data = self._file[name]
        try:
            if self.dtype(name) == "string":
                return np.array(data.asstr()[start:stop], dtype=np.dtypes.StringDType())
            return np.asarray(data[start:stop])
        except OSError as error:
            raise StoreCorruptError(
                f"{self._path.name}: array {name}, rows {start} to {stop}: {first_line(error)}. "
                "Copy or make the store again."
            ) from error

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class Hdf5Writer:
    """Writes a new HDF5 file; strings have no checksum of their own, the digest covers them."""

    def __init__(self, path: Path) -> None:
        self._file = h5py.File(path, "x", locking=False)

    def create(
        self, name: str, shape: tuple[int, ...], dtype: str, dims: tuple[str, ...], *, raw: bool
    ) -> int:
        """Make an array and return how many rows are best written at once."""
        rows = chunk_rows(shape, dtype)
        text = dtype == "string"
        options: dict[str, Any] = {}
        if 0 not in shape:
            options = {"chunks": (rows, *shape[1:])}
            if not text:
                options |= {"fletcher32": True}
            if not (text or raw):
                options |= {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        kind = h5py.string_dtype() if text else dtype
        data = self._file.create_dataset(name, shape, kind, track_times=False, **options)
        data.attrs[_DIMS] = np.array(dims, dtype=h5py.string_dtype())
        return rows

    def write(self, name: str, start: int, values: np.ndarray[Any, Any]) -> None:
        """Write rows from `start` on."""
        if values.dtype.kind == "T":
            values = values.astype(object)
        self._file[name][start : start + len(values)] = values

    def finish(self, attributes: dict[str, Any]) -> None:
        """Write the root attributes (objects as JSON) and close."""
        for name, value in attributes.items():
            self._file.attrs[name] = value if isinstance(value, str) else json.dumps(value)
        self._file.close()
