"""The true masks behind an images store: picture files, or the masks of its boxes."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from wsltool.datasets.coco_rle import decode_rle
from wsltool.errors import BadImageError, DatasetError, LineageError
from wsltool.stores.schema import KINDS
from wsltool.stores.store import Store

__all__ = ["TrueMasks", "has_masks", "indexed_picture", "true_masks"]

_LABEL_IMAGE, _IGNORE_MASK = -1, -2
_LEFT_OUT = 255
_INDEXED = ("P", "L", "1")
# Rows whose paths and outlines are read at once: one read costs about a millisecond.
_BLOCK_ROWS = 256

Array = npt.NDArray[np.uint8]
Layers = list[tuple[int, bool, Array]]


def has_masks(truth: Store) -> bool:
    """Return whether an images store has true masks: files, or outlines of its boxes."""
    return "mask_path" in truth or "box_rle" in truth


@functools.lru_cache(maxsize=2)
def true_masks(truth: Store) -> TrueMasks:
    """Return the `TrueMasks` of an open store, the same one each time it is asked for."""
    return TrueMasks(truth)


class TrueMasks:
    """Reads the masks of images.

    Where there are files, ``mask_class`` says what one is: −1 a label image (0 background,
    class + 1 elsewhere, 255 left out), −2 a mask of what is left out, otherwise a mask of that
    class; in both, anything but 0 belongs to it. Pixels of a label image that are left out are
    so for every class. Otherwise a class is the union of the masks of its boxes (``box_rle``,
    as COCO has it), and a crowd's region is left out for its class.

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
        self._num_classes = truth.shape("class_name")[0]
        self._root = _mask_root(truth) if "mask_path" in truth else None
        self._first, self._block = -1, dict[str, npt.NDArray[Any]]()

    def of_row(
        self, row: int, *, crowd: int = _LEFT_OUT, object_first: bool = False
    ) -> Callable[[int], Array]:
        """Return a function from a class to its mask, uint8 (H, W): 1 it, 0 not, 255 left out.

        Parameters
        ----------
        row : int
            Of the images store.
        crowd : int
            What the pixels of a crowd are that no instance covers: left out, or 1.
        object_first : bool
            Whether pixels of the class are so even where a mask leaves them out.

        Raises
        ------
        BadImageError
            A file is missing, no 8-bit indexed or grey picture, of another size than the
            image, or holds a label that is no class; or a box of the image has no mask, or
            one that does not fill the image.
        """
        shape = self._shape(row)
        if self._root is None:
            return lambda index: _mask_of(index, self._outlined(row, shape, index), shape, crowd)
        layers = self._files(self._root, row, shape)
        return lambda index: _mask_of(index, layers, shape, crowd, object_first)

    def label_image(self, row: int) -> Array:
        """Return all classes in one picture, uint8 (H, W): 0 background, class + 1, 255 left out.

        A label image is taken as it is. Masks of single classes are laid on each other; where
        two classes claim a pixel, it is left out.

        Raises
        ------
        BadImageError
            As `of_row`; also if there are more than 254 classes.
        """
        if self._num_classes >= _LEFT_OUT:
            raise BadImageError(
                f"{self._truth.path.name}: {self._num_classes} classes, but a label image of 8 "
                f"bits has room for {_LEFT_OUT - 1}. Select fewer."
            )
        shape = self._shape(row)
        if self._root is None:
            layers = self._outlined(row, shape)
        else:
            layers = self._files(self._root, row, shape)
        if len(layers) == 1 and layers[0][0] == _LABEL_IMAGE:
            return layers[0][2]
        label_HW = np.zeros(shape, np.uint8)
        for index in sorted(_classes_in(layers)):
            mask_HW = _mask_of(index, layers, shape, _LEFT_OUT)
            twice_HW = (mask_HW == 1) & (label_HW != 0)
            label_HW[mask_HW == 1] = index + 1
            label_HW[twice_HW | (mask_HW == _LEFT_OUT)] = _LEFT_OUT
        label_HW[_left_out(layers, shape)] = _LEFT_OUT
        return label_HW

    def annotated(self, row: int) -> bool:
        """Return whether somebody drew the masks of an image: a file, or outlines of its boxes."""
        return self._root is None or len(self._of_block("mask_class", row)) > 0

    def _shape(self, row: int) -> tuple[int, int]:
        width, height = self._of_block("image_size", row)[0].tolist()
        return height, width

    def _files(self, root: Path, row: int, shape: tuple[int, int]) -> Layers:
        """Return the masks of an image's files."""
        layers: Layers = []
        kinds = self._of_block("mask_class", row).tolist()
        for path, kind in zip(self._of_block("mask_path", row).tolist(), kinds, strict=True):
            layer_HW = _read(root, str(path), shape)
            if kind == _LABEL_IMAGE:
                _check_labels(str(path), layer_HW, self._num_classes)
            layers.append((kind, False, layer_HW))
        return layers

    def _outlined(self, row: int, shape: tuple[int, int], index: int | None = None) -> Layers:
        """Return the masks of an image's boxes, those of one class if that is given."""
        class_B = self._of_block("box_class", row).tolist()
        outline_B = self._of_block("box_rle", row).tolist()
        crowd_B = [0] * len(class_B)
        if "box_crowd" in self._truth:
            crowd_B = self._of_block("box_crowd", row).tolist()
        layers: Layers = []
        for n, outline in enumerate(outline_B):
            if index is not None and class_B[n] != index:
                continue
            place = f"truth row {row}: box {n} (class {class_B[n]})"
            if not outline:
                raise BadImageError(
                    f"{place} has no mask; expected one for every box. Ingest annotations with "
                    "masks, or use a protocol of boxes."
                )
            try:
                layers.append((class_B[n], bool(crowd_B[n]), decode_rle(str(outline), shape)))
            except DatasetError as error:
                raise BadImageError(f"{place}: {error} Ingest the annotations again.") from error
        return layers

    def _of_block(self, name: str, row: int) -> npt.NDArray[Any]:
        """Return what an array holds for one image, read with its neighbours."""
        first = row - row % _BLOCK_ROWS
        if first != self._first:
            self._first, self._block = first, {}
        axis = KINDS["images"][name].dims[0]
        stop = min(first + _BLOCK_ROWS, len(self._truth))
        if axis == "image":
            if name not in self._block:
                self._block[name] = self._truth.rows(name, first, stop)
            return self._block[name][row - first : row - first + 1]
        edge_key = f"{axis} edges"
        if edge_key not in self._block:
            self._block[edge_key] = self._truth.ragged(axis, first, stop)[0]
        if name not in self._block:
            where = self._truth.ragged(axis, first, stop)[1]
            self._block[name] = self._truth.rows(name, where.start, where.stop)
        low, high = self._block[edge_key][row - first : row - first + 2]
        return self._block[name][low:high]


def _read(root: Path, name: str, shape: tuple[int, int]) -> Array:
    try:
        data = (root / name).read_bytes()
    except OSError as error:
        raise BadImageError(f"mask {name} cannot be read: {error.strerror}.") from error
    picture_HW = indexed_picture(data, f"mask {name}")
    if picture_HW.shape != shape:
        own, other = (f"{one[1]}x{one[0]}" for one in (picture_HW.shape, shape))
        raise BadImageError(f"mask {name} is {own} pixels, its image {other}; expected the same.")
    return picture_HW


def indexed_picture(data: bytes, what: str) -> Array:
    """Return the indices of an encoded indexed or grey picture, uint8 (H, W).

    Raises
    ------
    BadImageError
        It cannot be decoded or has colours or more than 8 bits; the message starts with `what`.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.mode not in _INDEXED:
                raise BadImageError(
                    f"{what} has mode {picture.mode}; expected an 8-bit indexed or grey picture."
                )
            return np.array(picture, np.uint8)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, BadImageError):
            raise
        raise BadImageError(f"{what} cannot be decoded: {error}.") from error


def _mask_root(truth: Store) -> Path:
    recorded = str(truth.attributes.get("root", "."))
    places = [truth.path.parent / recorded, truth.path.parent / Path(recorded).name]
    root = next((place for place in places if place.is_dir()), None)
    if root is None:
        raise LineageError(
            f"{truth.path.name}: its masks' folder {recorded} is not there. Put it back, or "
            "ingest it again and pass --truth."
        )
    return root


def _check_labels(name: str, label_HW: Array, num_classes: int) -> None:
    odd_HW = (label_HW > num_classes) & (label_HW != _LEFT_OUT)
    if odd_HW.any():
        raise BadImageError(
            f"mask {name} holds the label {label_HW[odd_HW][0]}; expected 0 to {num_classes}, "
            "or 255 for what is left out. Ingest with the class list of the masks."
        )


def _mask_of(
    index: int, layers: Layers, shape: tuple[int, int], crowd: int, object_first: bool = False
) -> Array:
    """Return the mask of one class, made of all layers of its image."""
    mask_HW = np.zeros(shape, np.uint8)
    for kind, is_crowd, layer_HW in layers:
        if kind == index and is_crowd:
            mask_HW[layer_HW != 0] = crowd
    for kind, is_crowd, layer_HW in layers:
        if kind == _LABEL_IMAGE:
            mask_HW[layer_HW == index + 1] = 1
        elif kind == index and not is_crowd:
            mask_HW[layer_HW != 0] = 1
    left_out_HW = _left_out(layers, shape)
    mask_HW[left_out_HW & (mask_HW != 1) if object_first else left_out_HW] = _LEFT_OUT
    return mask_HW


def _left_out(layers: Layers, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return what is left out for every class."""
    left_out_HW = np.zeros(shape, bool)
    for kind, _, layer_HW in layers:
        if kind == _LABEL_IMAGE:
            left_out_HW |= layer_HW == _LEFT_OUT
        elif kind == _IGNORE_MASK:
            left_out_HW |= layer_HW != 0
    return left_out_HW


def _classes_in(layers: Layers) -> set[int]:
    found: set[int] = set()
    for kind, _, layer_HW in layers:
        if kind == _LABEL_IMAGE:
            found.update(int(label) - 1 for label in np.unique(layer_HW) if 0 < label < _LEFT_OUT)
        elif kind >= 0:
            found.add(kind)
    return found
