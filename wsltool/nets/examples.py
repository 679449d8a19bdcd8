"""The pictures that training shows, and their boxes, changed at random and batch after batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from wsltool.errors import BadImageError, TrainingError, WslError
from wsltool.nets.augment import Augment
from wsltool.nets.loading import load_batches
from wsltool.nets.picture_inputs import LoadPicture
from wsltool.nets.preprocess import Preprocess
from wsltool.nets.sampling import Draw, stream

__all__ = ["Batch", "Boxes", "Examples", "LoadBoxes", "picture_batches"]

Boxes = tuple[NDArray[np.float64], NDArray[np.integer[Any]]]
"""Boxes ``x0 y0 x1 y1`` (num_boxes, 4), half-open, and the class of each (num_boxes,)."""

LoadBoxes = Callable[[int], Boxes]
"""Takes a row, returns its boxes in continuous pixels of the picture; can be pickled."""

_PICTURE = 4  # streams 1 to 3 belong to wsltool.nets.sampling


@dataclass(frozen=True)
class Examples:
    """Pictures to learn from; can be pickled if `load_picture` and `boxes` can.

    Attributes
    ----------
    load_picture, rows
        `load_picture` takes one of `rows`; place i of an epoch is ``rows[i]``.
    preprocess
        From picture to input.
    augment
        ``crop_area``, ``rotate_deg`` and ``noise_std`` are applied here, ``mirror`` and
        ``scale`` as each `Draw` says.
    seed
        What is random of a picture is drawn from (seed, epoch, position), whichever process
        makes it and however the epoch is divided.
    boxes
        Where boxes are wanted: takes one of `rows`.

    Raises
    ------
    TrainingError
        Boxes and rotation together: a turned box is no box.
    ModelError
        The smallest or largest scale makes an impossible input size.
    """

    load_picture: LoadPicture
    rows: Sequence[int]
    preprocess: Preprocess
    augment: Augment
    seed: int
    boxes: LoadBoxes | None = None

    def __post_init__(self) -> None:
        if self.boxes is not None and self.augment.rotate_deg > 0:
            raise TrainingError(
                f"--augment {self.augment.text}: rotate cannot be combined with boxes, since a "
                "turned box is no box. Leave rotate out."
            )
        for factor in self.augment.scale:
            self.preprocess.scaled(factor)

    def plain(self) -> Examples:
        """Return the same without random changes."""
        return replace(self, augment=Augment())


class Batch(NamedTuple):
    """Pictures as the network gets them.

    Attributes
    ----------
    place_N
        Which of the examples.
    input_NCHW
        (num_images, 3, row, column) uint8, not normalised.
    inside_N4
        (num_images, 4) float32, the part of the input that shows the picture, ``x0 y0 x1 y1``
        in fractions of its width and height. What a rotation filled counts as picture.
    boxes
        None where the examples have none. Else of each image (num_boxes, 4) float64, clipped
        to what is shown of the picture, in fractions of the input's width and height, and
        (num_boxes,) their classes; boxes that are cut away, or have no area, are left out.
    """

    place_N: list[int]
    input_NCHW: Tensor
    inside_N4: Tensor
    boxes: list[Boxes] | None


def picture_batches(
    examples: Examples,
    batches: Sequence[Sequence[Draw]],
    epoch: int,
    *,
    workers: int,
    pin: bool = False,
) -> Generator[Batch]:
    """Yield the pictures of one epoch, or of a part of it.

    Each is loaded, cropped, rotated about its centre (what is left free gets the mean
    colour), made an input by `Preprocess.apply` at the scale of its draw, mirrored, and
    given noise, rounded and clipped to 0 … 255; a border of the input gets noise too.

    Parameters
    ----------
    examples
        What to show.
    batches
        From `wsltool.nets.sampling`; each with one scale and not empty.
    epoch
        From 0.
    workers
        Number of processes; 0 for none but this one.
    pin
        Put pictures into memory from which a GPU copies faster.

    Raises
    ------
    BadImageError
        A picture or its boxes cannot be used; the message names the row.
    TrainingError
        A batch is empty, or has several scales.
    """
    for number, batch in enumerate(batches):
        if len({draw.scale for draw in batch}) != 1:
            raise TrainingError(
                f"batch {number} has {len(batch)} pictures of several scales or none; expected "
                "at least one, all of one scale."
            )
    loaded = load_batches(
        _Shown(examples, epoch), cast(Any, batches), _collate, workers=workers, pin=pin
    )
    with closing(loaded):
        for one in loaded:
            if isinstance(one.result, WslError):
                raise one.result
            yield one.result


class _Item(NamedTuple):
    place: int
    input_CHW: NDArray[np.uint8]
    inside_B4: NDArray[np.float64]
    boxes: Boxes | None


class _Shown(Dataset[_Item | WslError]):
    """Pictures as the draws of one epoch show them; an error is returned, not raised."""

    def __init__(self, examples: Examples, epoch: int) -> None:
        self.examples = examples
        self.epoch = epoch

    def __getitem__(self, draw: Draw) -> _Item | WslError:
        row = self.examples.rows[draw.place]
        try:
            return _show(self.examples, row, draw, self.epoch)
        except BadImageError as error:
            return BadImageError(f"row {row}: {error}")
        except WslError as error:
            return error


@dataclass
class _Loaded:
    """What a worker hands over: a batch, or why there is none."""

    result: Batch | WslError

    def pin_memory(self) -> _Loaded:
        """Return the same with the tensors in pinned memory; torch calls this."""
        if isinstance(self.result, WslError):
            return self
        pictures, inside = self.result.input_NCHW.pin_memory(), self.result.inside_N4.pin_memory()
        return _Loaded(self.result._replace(input_NCHW=pictures, inside_N4=inside))


def _collate(items: list[_Item | WslError]) -> _Loaded:
    good = [item for item in items if isinstance(item, _Item)]
    for item in items:
        if isinstance(item, WslError):
            return _Loaded(item)
    boxes = [item.boxes for item in good if item.boxes is not None]
    batch = Batch(
        [item.place for item in good],
        torch.from_numpy(np.stack([item.input_CHW for item in good])),
        torch.from_numpy(np.concatenate([item.inside_B4 for item in good]).astype(np.float32)),
        boxes if len(boxes) == len(good) else None,
    )
    return _Loaded(batch)


def _show(examples: Examples, row: int, draw: Draw, epoch: int) -> _Item:
    """Show one picture as `draw` says."""
    random = stream(examples.seed, _PICTURE, epoch, draw.position)
    preprocess = examples.preprocess.scaled(draw.scale)
    picture_HWC = examples.load_picture(row)
    left, top = 0, 0
    if _is_picture(picture_HWC):  # what is not, `apply` refuses
        left, top, cols, rows = _random_crop(picture_HWC.shape, examples.augment.crop_area, random)
        picture_HWC = picture_HWC[top : top + rows, left : left + cols]
        picture_HWC = _rotated(picture_HWC, examples.augment.rotate_deg, preprocess, random)
    input_CHW, _ = preprocess.apply(picture_HWC)
    if draw.mirrored:
        input_CHW = np.ascontiguousarray(input_CHW[:, :, ::-1])
    input_CHW = _with_noise(input_CHW, examples.augment.noise_std, random)
    height_px, width_px = picture_HWC.shape[:2]
    inside_B4 = np.array([preprocess.inside(width_px, height_px)])
    boxes = None
    if examples.boxes is not None:
        box_B4, class_B = _checked_boxes(*examples.boxes(row))
        box_B4 = _in_input(box_B4 - [left, top, left, top], width_px, height_px, preprocess)
        has_area_B = (box_B4[:, :2] < box_B4[:, 2:]).all(axis=1)
        boxes = _mirrored(box_B4[has_area_B], draw.mirrored), class_B[has_area_B]
    return _Item(draw.place, input_CHW, _mirrored(inside_B4, draw.mirrored), boxes)


def _is_picture(picture_HWC: NDArray[np.uint8]) -> bool:
    """Whether the array is an RGB picture with at least one pixel."""
    is_rgb = picture_HWC.ndim == 3 and picture_HWC.shape[2] == 3
    return picture_HWC.dtype == np.uint8 and is_rgb and picture_HWC.size > 0


def _random_crop(
    shape: tuple[int, ...], smallest: float, random: np.random.Generator
) -> tuple[int, int, int, int]:
    """Return left, top, columns and rows of a share of at least `smallest` of the picture.

    The share is drawn uniformly, the change of its proportions log-uniformly within 4/3;
    what would reach beyond the picture is cut off.
    """
    height_px, width_px = shape[:2]
    if smallest >= 1:
        return 0, 0, width_px, height_px
    side = np.sqrt(random.uniform(smallest, 1.0))
    stretch = np.exp(random.uniform(-1, 1) * np.log(4 / 3) / 2)
    rows = min(height_px, max(1, round(height_px * side / stretch)))
    cols = min(width_px, max(1, round(width_px * side * stretch)))
    top = int(random.integers(0, height_px - rows + 1))
    left = int(random.integers(0, width_px - cols + 1))
    return left, top, cols, rows


def _rotated(
    picture_HWC: NDArray[np.uint8],
    most_deg: float,
    preprocess: Preprocess,
    random: np.random.Generator,
) -> NDArray[np.uint8]:
    """Turn a picture about its centre; its size stays, what is left free is the mean colour."""
    if most_deg <= 0:
        return picture_HWC
    angle_deg = random.uniform(-most_deg, most_deg)
    colour = tuple(round(255 * value) for value in preprocess.mean)
    image = Image.fromarray(np.ascontiguousarray(picture_HWC))
    turned = image.rotate(angle_deg, Image.Resampling.BILINEAR, fillcolor=cast(Any, colour))
    return np.asarray(turned)


def _with_noise(
    input_CHW: NDArray[np.uint8], std: float, random: np.random.Generator
) -> NDArray[np.uint8]:
    if std <= 0:
        return input_CHW
    noise_CHW = std * random.standard_normal(input_CHW.shape, np.float32)
    return np.clip(np.rint(input_CHW + noise_CHW), 0, 255).astype(np.uint8)


def _checked_boxes(box_B4: NDArray[np.float64], class_B: NDArray[np.integer[Any]]) -> Boxes:
    """Return the boxes as float64.

    Raises
    ------
    BadImageError
        They are not (num_boxes, 4) with a class each, or not finite.
    """
    box_B4, class_B = np.asarray(box_B4, np.float64), np.asarray(class_B)
    if box_B4.ndim != 2 or box_B4.shape[1] != 4 or class_B.shape != (len(box_B4),):
        raise BadImageError(
            f"boxes are {box_B4.shape} with classes {class_B.shape}, expected (num_boxes, 4) "
            "and (num_boxes,)."
        )
    if not np.isfinite(box_B4).all():
        wrong = box_B4[~np.isfinite(box_B4).all(axis=1)][0].tolist()
        raise BadImageError(f"a box is {wrong}, expected finite numbers.")
    return box_B4, class_B


def _in_input(
    box_B4: NDArray[np.float64], width_px: int, height_px: int, preprocess: Preprocess
) -> NDArray[np.float64]:
    """Clip boxes in pixels to the picture and to the input; return fractions of the input."""
    x0, y0, x1, y1 = preprocess.extent(width_px, height_px)
    within_B4 = np.clip(box_B4, 0.0, [width_px, height_px, width_px, height_px])
    frac_B4 = (within_B4 - [x0, y0, x0, y0]) / np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])
    return np.asarray(np.clip(frac_B4, 0.0, 1.0))


def _mirrored(box_B4: NDArray[np.float64], is_mirrored: bool) -> NDArray[np.float64]:
    """Change left and right of boxes in fractions, if so asked."""
    x0, y0, x1, y1 = box_B4.T
    return np.stack([1 - x1, y0, 1 - x0, y1], axis=1) if is_mirrored else box_B4
