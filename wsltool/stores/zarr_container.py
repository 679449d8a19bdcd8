"""Zarr v3 folders: sharded chunks with checksums, named dimensions, consolidated metadata."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import ZarrUserWarning

from wsltool.errors import StoreCorruptError
from wsltool.stores.container import chunk_rows, first_line

__all__ = ["ZarrReader", "ZarrWriter"]

_SHARD_CHUNKS = 32


class ZarrReader:
    """Reads a Zarr v3 group; a chunk that is missing or flipped is an error, never zeros."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._group = zarr.open_group(str(path), mode="r", zarr_format=3)
            self._arrays = dict(self._group.arrays())
        except Exception as error:
            raise StoreCorruptError(
                f"{path.name}: cannot be opened as a Zarr v3 group: {first_line(error)}. "
                "Copy or make it again."
            ) from error

    def attributes(self) -> dict[str, Any]:
        """Return the root attributes."""
        return dict(self._group.attrs)

    def names(self) -> list[str]:
        """Return the names of the arrays."""
        return list(self._arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array."""
        return tuple(self._arrays[name].shape)

    def dtype(self, name: str) -> str:
        """Return the dtype of an array, ``"string"`` for strings."""
        dtype = self._arrays[name].dtype
        return "string" if dtype.kind in "TOU" else dtype.name

    def dims(self, name: str) -> tuple[str, ...]:
        """Return the names of the axes of an array."""
        named = getattr(self._arrays[name].metadata, "dimension_names", None)
        return tuple(str(dim) for dim in named or ())

    def read(self, name: str, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Return rows ``start:stop`` along the first axis."""
        array = self._arrays[name]
        stop = min(stop, array.shape[0])
        if stop <= start or 0 in array.shape:
            dtype = np.dtypes.StringDType() if self.dtype(name) == "string" else array.dtype
            return np.empty((max(0, stop - start), *array.shape[1:]), dtype)
        self._check_chunks(name, start, stop)
        try:
            values = np.asarray(array[start:stop])
        except Exception as error:
            raise StoreCorruptError(
                f"{self._path.name}: array {name}, rows {start} to {stop}: {first_line(error)}. "
                "Copy or make the store again."
            ) from error
        if self.dtype(name) == "string":
            return values.astype(np.dtypes.StringDType())
        return values

    def _check_chunks(self, name: str, start: int, stop: int) -> None:
        """Raise where a file that holds some of the rows is missing (Zarr would give zeros)."""
        array = self._arrays[name]
        per_file = (array.shards or array.chunks)[0]
        sizes = zip(array.shape[1:], (array.shards or array.chunks)[1:], strict=True)
        others = [range(-(-size // chunk)) for size, chunk in sizes]
        first = range(start // per_file, (stop - 1) // per_file + 1)
        for index in itertools.product(first, *others):
            key = array.metadata.encode_chunk_key(index)
            if not (self._path / name / key).is_file():
                raise StoreCorruptError(
                    f"{self._path.name}: array {name}: chunk {key} is missing. Copy or make the "
                    "store again; zarr leaves chunks of zeros out unless write_empty_chunks is set."
                )

    def close(self) -> None:
        """Nothing is held open."""


class ZarrWriter:
    """Writes a new Zarr v3 group; every chunk is written, whole shards at a time."""

    def __init__(self, path: Path) -> None:
        self._group = zarr.create_group(str(path), zarr_format=3)
        self._arrays: dict[str, Any] = {}

    def create(
        self, name: str, shape: tuple[int, ...], dtype: str, dims: tuple[str, ...], *, raw: bool
    ) -> int:
        """Make an array and return how many rows are best written at once."""
        rows = chunk_rows(shape, dtype)
        trailing = tuple(max(1, size) for size in shape[1:])
        shard_rows = rows * min(_SHARD_CHUNKS, -(-max(1, shape[0]) // rows))
        sharded = dtype != "string" and shard_rows > rows
        self._arrays[name] = self._group.create_array(
            name,
            shape=shape,
            chunks=(rows, *trailing),
            shards=(shard_rows, *trailing) if sharded else None,
            dtype=dtype,
            compressors=[Crc32cCodec()] if raw else [ZstdCodec(level=1, checksum=True)],
            dimension_names=dims,
            config={"write_empty_chunks": True},
        )
        return shard_rows if sharded else rows

    def write(self, name: str, start: int, values: np.ndarray[Any, Any]) -> None:
        """Write rows from `start` on."""
        self._arrays[name][start : start + len(values)] = values

    def finish(self, attributes: dict[str, Any]) -> None:
        """Write the root attributes and consolidate the metadata."""
        self._group.attrs.update(attributes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZarrUserWarning)  # consolidated v3 metadata, wanted
            zarr.consolidate_metadata(self._group.store)
