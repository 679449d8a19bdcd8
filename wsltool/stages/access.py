"""A store in other people's hands: as a torch data set, as xarray."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsltool.errors import ExtraMissingError, UsageError
from wsltool.stages.options import PathLike
from wsltool.stages.pictures import Pictures
from wsltool.stores.open import open_store
from wsltool.stores.schema import KINDS, RAGGED, row_axis
from wsltool.stores.store import Store

if TYPE_CHECKING:
    import xarray

    from wsltool.nets.dataset import RowDataset

__all__ = ["StoreRows", "as_dataset", "as_xarray"]

Array = np.ndarray[Any, Any]


class StoreRows:
    """The images of a store, one by one; picklable, opened anew in every process.

    Parameters
    ----------
    path : path
        A finished store.
    pictures : Pictures, optional
        Adds ``picture``, uint8 (H, W, 3), to each row.
    """

    def __init__(self, path: PathLike, pictures: Pictures | None = None) -> None:
        self._path, self._pictures = Path(path), pictures
        with open_store(self._path) as store:
            self._length = len(store)
        self._store: Store | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_store": None}

    def __len__(self) -> int:
        return self._length

    def row(self, row: int) -> dict[str, Array]:
        """Return every array of one image: its row, or its rows on a ragged axis."""
        store = self._opened()
        found = {}
        for name, spec in KINDS[store.kind].items():
            if name in store and spec.dims[0] == row_axis(store.kind):
                found[name] = store.rows(name, row, row + 1)[0]
        for axis, offsets in RAGGED[store.kind].items():
            if offsets in store:
                ragged = store.ragged_rows(axis, row, row + 1)
                del ragged[offsets]
                found |= ragged
        if "pattern_cell" in store:
            found |= store.patterns(np.array([row]))
        if self._pictures is not None:
            found["picture"] = self._pictures(row)
        return found

    def _opened(self) -> Store:
        if self._store is None:
            self._store = open_store(self._path)
        return self._store


def as_dataset(
    path: PathLike, *, pictures: bool = False, images: PathLike | None = None
) -> RowDataset:
    """Open a store as a ``torch.utils.data.Dataset``.

    Item n is a dict of the arrays of image n: ``dataset[3]["map"]`` has shape (S, H, W),
    ``dataset[3]["box"]`` shape (B, 4). It may be used with any number of workers.

    Parameters
    ----------
    path : path
        A store of any kind.
    pictures : bool
        Add ``picture``, the decoded RGB picture, uint8 (H, W, 3); for an ``images`` store.
    images : path, optional
        Folder of the pictures, if not where `ingest` found them.

    Raises
    ------
    StoreError
        There is no such store, or it is not finished.
    """
    from wsltool.nets.dataset import RowDataset

    if not pictures:
        return RowDataset(StoreRows(path))
    with open_store(Path(path)) as store:
        store.require("images", "as_dataset(pictures=True)", "Leave pictures out.")
        loader = Pictures(store, None if images is None else Path(images))
    return RowDataset(StoreRows(path, loader))


def as_xarray(path: PathLike) -> xarray.Dataset:
    """Open a Zarr store as an ``xarray.Dataset`` with named dimensions, lazily.

    Raises
    ------
    UsageError
        The store is HDF5; convert it first.
    ExtraMissingError
        xarray is not installed.
    """
    with open_store(Path(path)) as store:
        if store.path.suffix != ".zarr":
            raise UsageError(f"{store.path}: xarray opens .zarr stores. Run: wsltool convert")
    try:
        import xarray
    except ImportError as error:
        raise ExtraMissingError(
            "xarray is not installed. Run: pip install wsltool[xarray]"
        ) from error
    dataset: xarray.Dataset = xarray.open_zarr(str(path), consolidated=True)
    return dataset
