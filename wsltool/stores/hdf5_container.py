"""HDF5 files with the same arrays: chunked, gzip, fletcher32 checksums."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wsltool.errors import StoreCorruptError, StoreError
from wsltool.stores.container import META_KEY, chunk_rows, first_line

__all__ = ["Hdf5Reader", "Hdf5Writer"]

_DIMS = "dimension_names"
_CHECKSUMS = "crc32"  # of strings, which HDF5 keeps outside its chunks: one for each chunk's rows
_METADATA = "v110"  # the first format with checksums over all of HDF5's own bookkeeping


class Hdf5Reader:
    """Reads an HDF5 file; opened without locks, since a finished store never changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._checked: set[tuple[str, int]] = set()
        with self._damage_told("cannot be opened as HDF5"):
            self._file = h5py.File(path, "r", locking=False)
            found = {name: self._file[name] for name in self._file}
            self._arrays = {n: item for n, item in found.items() if isinstance(item, h5py.Dataset)}

    def attributes(self) -> dict[str, Any]:
        """Return the root attributes."""
        with self._damage_told("root attributes"):
            return {name: _plain(name, value) for name, value in self._file.attrs.items()}

    def names(self) -> list[str]:
        """Return the names of the arrays."""
        return list(self._arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array."""
        return tuple(self._arrays[name].shape)

    def dtype(self, name: str) -> str:
        """Return the dtype of an array, ``"string"`` for strings."""
        with self._damage_told(f"array {name}"):
            dtype = self._arrays[name].dtype
            return "string" if h5py.check_string_dtype(dtype) else str(dtype.name)

    def dims(self, name: str) -> tuple[str, ...]:
        """Return the names of the axes of an array."""
        with self._damage_told(f"array {name}, its axes"):
            return tuple(str(dim) for dim in self._arrays[name].attrs.get(_DIMS, ()))

    def read(self, name: str, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Return rows ``start:stop`` along the first axis."""
        with self._damage_told(f"array {name}, rows {start} to {stop}"):
            data = self._arrays[name]
            stop = min(stop, data.shape[0])
            if self.dtype(name) != "string":
                return np.asarray(data[start:stop])
            self._check_strings(name, start, stop)
            return np.array(data.asstr()[start:stop], dtype=np.dtypes.StringDType())

    def _check_strings(self, name: str, start: int, stop: int) -> None:
        """Raise where the strings of a chunk are not those that were written."""
        data = self._arrays[name]
        recorded = data.attrs.get(_CHECKSUMS, ())
        if not len(recorded) or stop <= start:
            return
        rows = data.chunks[0]
        for chunk in range(start // rows, (stop - 1) // rows + 1):
            if (name, chunk) not in self._checked:
                text = data.asstr()[chunk * rows : (chunk + 1) * rows]
                if _checksum(text) != recorded[chunk]:
                    raise OSError("checksum error detected in strings")
                self._checked.add((name, chunk))

    @contextlib.contextmanager
    def _damage_told(self, where: str) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise StoreCorruptError(
                f"{self._path.name}: {where}: {first_line(error)}. Copy or make the store again."
            ) from error

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _plain(name: str, value: Any) -> Any:
    """Return an attribute as plain data, the inverse of what `Hdf5Writer.finish` stores."""
    if isinstance(value, str) and (name == META_KEY or value[:1] in ("{", "[")):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def _checksum(text: Any) -> int:
    total = 0
    for one in text:
        total = zlib.crc32(one.encode() + b"\0", total)
    return total


class Hdf5Writer:
    """Writes a new HDF5 file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = h5py.File(path, "x", locking=False, libver=_METADATA)
        self._checksums: dict[str, list[int]] = {}

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
        if text:
            self._checksums[name] = []
        return rows

    def write(self, name: str, start: int, values: np.ndarray[Any, Any]) -> None:
        """Write rows from `start` on, whole chunks but for the last."""
        data = self._file[name]
        if values.dtype.kind == "T":
            values = values.astype(object)
            rows = data.chunks[0]
            pieces = [values[at : at + rows] for at in range(0, len(values), rows)]
            self._checksums[name] += map(_checksum, pieces)
        try:
            data[start : start + len(values)] = values
        except ValueError as error:
            raise StoreError(
                f"{self._path.name}: array {name}: HDF5 cannot hold it: {first_line(error)}. "
                "Pass -o with a name that ends in .zarr."
            ) from error

    def finish(self, attributes: dict[str, Any]) -> None:
        """Write the root attributes (lists and objects as JSON) and close."""
        for name, found in self._checksums.items():
            self._file[name].attrs[_CHECKSUMS] = np.array(found, np.uint32)
        for name, value in attributes.items():
            plain = isinstance(value, (str, bool, int, float))
            self._file.attrs[name] = value if plain else json.dumps(value)
        self._file.close()
