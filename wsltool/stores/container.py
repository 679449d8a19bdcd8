"""The small interface that both containers (Zarr folder, HDF5 file) fulfil."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wsltool.errors import UsageError

__all__ = [
    "META_KEY",
    "SUFFIXES",
    "Reader",
    "Writer",
    "check_suffix",
    "chunk_rows",
    "first_line",
    "reader_for",
    "writer_for",
]

SUFFIXES = (".zarr", ".h5")
META_KEY = "wsltool"  # the root attribute that makes a container one of our stores
_CHUNK_BYTES = 1 << 20


class Reader(Protocol):
    """Read side of a container."""

    def attributes(self) -> dict[str, Any]:
        """Return the root attributes."""
        ...

    def names(self) -> list[str]:
        """Return the names of the arrays."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array."""
        ...

    def dtype(self, name: str) -> str:
        """Return the dtype of an array, ``"string"`` for strings."""
        ...

    def dims(self, name: str) -> tuple[str, ...]:
        """Return the names of the axes of an array."""
        ...

    def read(self, name: str, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Return rows ``start:stop`` along the first axis."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...


class Writer(Protocol):
    """Write side of a container: arrays are made with their final shape, then filled."""

    def create(
        self, name: str, shape: tuple[int, ...], dtype: str, dims: tuple[str, ...], *, raw: bool
    ) -> int:
        """Make an array and return how many rows are best written at once."""
        ...

    def write(self, name: str, start: int, values: np.ndarray[Any, Any]) -> None:
        """Write rows from `start` on."""
        ...

    def finish(self, attributes: dict[str, Any]) -> None:
        """Write the root attributes and close."""
        ...


def chunk_rows(shape: tuple[int, ...], dtype: str) -> int:
    """Return the rows of a chunk of about 1 MB, at least one, at most all."""
    item = 64 if dtype == "string" else np.dtype(dtype).itemsize
    row_bytes = item * int(np.prod(shape[1:], dtype=np.int64))
    return int(max(1, min(shape[0], _CHUNK_BYTES // max(1, row_bytes))))


def first_line(error: BaseException) -> str:
    """Return a library's message as one clause, to put inside a line of our own."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def check_suffix(path: Path) -> str:
    """Return the suffix of a store's name; UsageError where it names no container."""
    if path.suffix not in SUFFIXES:
        raise UsageError(
            f'{path}: a store ends in .zarr or .h5, this name ends in "{path.suffix}". '
            f"Name it {path.name}.zarr, for instance."
        )
    return path.suffix


def reader_for(path: Path, suffix: str | None = None) -> Reader:
    """Open the container at `path` for reading; its suffix picks which one it is."""
    if (suffix or check_suffix(path)) == ".zarr":
        from wsltool.stores.zarr_container import ZarrReader

        return ZarrReader(path)
    from wsltool.stores.hdf5_container import Hdf5Reader

    return Hdf5Reader(path)


def writer_for(path: Path) -> Writer:
    """Make a new container at `path`; its suffix picks which one."""
    if check_suffix(path) == ".zarr":
        from wsltool.stores.zarr_container import ZarrWriter

        return ZarrWriter(path)
    from wsltool.stores.hdf5_container import Hdf5Writer

    return Hdf5Writer(path)
