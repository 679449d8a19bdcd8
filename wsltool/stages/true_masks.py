"""The true masks behind an images store."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from wsltool.errors import BadImageError, LineageError
from wsltool.stores.store import Store

__all__ = ["TrueMasks"]

_LABEL_IMAGE, _IGNORE_MASK = -1, -2
_LEFT_OUT = 255
_INDEXED = ("P", "L", "1")

Array = npt.NDArray[np.uint8]


class TrueMasks:
    """Reads the masks of images.

    ``mask_class`` says what a file is: −1 a label image (0 background, class + 1 elsewhere, 255
    left out), −2 a mask of what is left out, otherwise a mask of that class; in both, anything
    but 0 belongs to it. Pixels of a label image that are left out are so for every class.

    Parameters
    ----------
    truth : Store
        An ``images`` store with masks.

    Raises
    ------
    LineageError
        The folder of the masks is not there.
    """

    def __init__(self, truth: Store) -> None:
        self._truth = truth
        recorded = str(truth.attributes.get("root", "."))
        places = [truth.path.parent / recorded, truth.path.parent / Path(recorded).name]
        root = next((place for place in places if place.is_dir()), None)
        if root is None:
            raise LineageError(
                f"{truth.path.name}: its masks' folder {recorded} is not there. Put it back, or "
                "ingest it again and pass --truth."
            )
        self._root = root

    def of_row(self, row: int) -> Callable[[int], Array]:
        """Return a function from a class to its mask, uint8 (H, W): 1 it, 0 not, 255 left out.

        Raises
        ------
        BadImageError
            A file is missing, no 8-bit indexed or grey picture, of another size than the
            image, or holds a label that is no class.
        """
        found = self._truth.ragged_rows("mask", row, row + 1)
        size_wh = self._truth.rows("image_size", row, row + 1)[0]
        num_classes = self._truth.shape("class_name")[0]
        files = [
            (int(kind), self._read(str(path), size_wh))
            for path, kind in zip(found["mask_path"].tolist(), found["mask_class"], strict=True)
        ]
        for path, (kind, label_HW) in zip(found["mask_path"].tolist(), files, strict=True):
            if kind == _LABEL_IMAGE:
                _check_labels(str(path), label_HW, num_classes)
        return lambda index: _mask_of(index, files, (int(size_wh[1]), int(size_wh[0])))

    def _read(self, name: str, size_wh: npt.NDArray[Any]) -> Array:
        try:
            data = (self._root / name).read_bytes()
        except OSError as error:
            raise BadImageError(f"mask {name} cannot be read: {error.strerror}.") from error
        try:
            with Image.open(io.BytesIO(data)) as picture:
                if picture.mode not in _INDEXED:
                    raise BadImageError(
                        f"mask {name} has mode {picture.mode}; expected an 8-bit indexed or grey "
                        "picture."
                    )
                if picture.size != tuple(size_wh.tolist()):
                    raise BadImageError(
                        f"mask {name} is {picture.width}x{picture.height} pixels, its image "
                        f"{size_wh[0]}x{size_wh[1]}; expected the same."
                    )
                return np.array(picture, np.uint8)
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise BadImageError(f"mask {name} cannot be decoded: {error}.") from error


def _check_labels(name: str, label_HW: Array, num_classes: int) -> None:
    odd_HW = (label_HW > num_classes) & (label_HW != _LEFT_OUT)
    if odd_HW.any():
        raise BadImageError(
            f"mask {name} holds the label {label_HW[odd_HW][0]}; expected 0 to {num_classes}, "
            "or 255 for what is left out. Ingest with the class list of the masks."
        )


def _mask_of(index: int, files: list[tuple[int, Array]], shape: tuple[int, int]) -> Array:
    """Return the mask of one class, made of all files of its image."""
    mask_HW = np.zeros(shape, np.uint8)
    left_out_HW = np.zeros(shape, bool)
    for kind, label_HW in files:
        if kind == _LABEL_IMAGE:
            mask_HW[label_HW == index + 1] = 1
            left_out_HW |= label_HW == _LEFT_OUT
        elif kind == _IGNORE_MASK:
            left_out_HW |= label_HW != 0
        elif kind == index:
            mask_HW[label_HW != 0] = 1
    mask_HW[left_out_HW] = _LEFT_OUT
    return mask_HW
