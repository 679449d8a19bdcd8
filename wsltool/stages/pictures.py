"""The pictures behind an images store: embedded bytes, or files that are checked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from wsltool.datasets.pictures import decode
from wsltool.errors import BadImageError, LineageError
from wsltool.stores.open import open_store
from wsltool.stores.store import Store

__all__ = ["Pictures", "picture_root"]

_CACHED_ROWS = 256


def picture_root(images: Store, root: Path | None) -> Path | None:
    """Return the folder of the pictures, or None where the store holds them itself.

    Raises
    ------
    LineageError
        The folder is not there; the message names ``--images``.
    """
    if "byte" in images and root is None:
        return None
    recorded = str(images.attributes.get("root", "."))
    folder = images.path.parent
    places = [root] if root else [folder / recorded, folder / Path(recorded).name]
    for place in places:
        if place.is_dir():
            return Path(os.path.abspath(place))
    raise LineageError(
        f"{images.path.name}: its pictures' folder {root or recorded} is not there. "
        "Say where with --images."
    )


class Pictures:
    """Loads the picture of a row; picklable, so that worker processes can hold it.

    Parameters
    ----------
    images : Store
        An ``images`` store.
    root : Path or None
        Folder of the pictures if not where `ingest` found them.
    """

    def __init__(self, images: Store, root: Path | None = None) -> None:
        self._path = images.path
        self._root = picture_root(images, root)
        self._orientation = images.attributes.get("orientation", "ignored")
        self._images: Store | None = None
        self._cached: tuple[int, Any, Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_images": None, "_cached": None}

    def __call__(self, row: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return the picture of a row, uint8 of shape (H, W, 3), RGB.

        Raises
        ------
        BadImageError
            It is missing, has changed since `ingest`, or cannot be decoded.
        """
        return decode(self.encoded(row), self._orientation)

    def encoded(self, row: int) -> bytes:
        """Return the bytes of the picture file of a row."""
        start, path, num_bytes, size = self._block(row)
        if size[row - start].min() < 1:
            raise BadImageError("the picture was left out when it was ingested.")
        images = self._open()
        if self._root is None:
            _, where = images.ragged("n", row, row + 1)
            return bytes(images.rows("byte", where.start, where.stop))
        return _read_file(self._root, str(path[row - start]), int(num_bytes[row - start]))

    def _open(self) -> Store:
        if self._images is None:
            self._images = open_store(self._path)
        return self._images

    def _block(self, row: int) -> tuple[int, Any, Any, Any]:
        start = row - row % _CACHED_ROWS
        if self._cached is None or self._cached[0] != start:
            images = self._open()
            stop = min(start + _CACHED_ROWS, len(images))
            names = ("image_path", "image_num_bytes", "image_size")
            path, num_bytes, size = (images.rows(name, start, stop) for name in names)
            self._cached = (start, path, num_bytes, size)
        return self._cached


def _read_file(root: Path, name: str, num_bytes: int) -> bytes:
    try:
        data = (root / name).read_bytes()
    except OSError as error:
        raise BadImageError(f"picture {name} cannot be read: {error.strerror}.") from error
    if len(data) != num_bytes:
        raise BadImageError(
            f"picture {name} has {len(data)} bytes, {num_bytes} when it was ingested. "
            "Ingest the folder again."
        )
    return data
