"""How a picture becomes a network's input, and which part of the picture that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wsltool.errors import BadImageError, ModelError

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Fit", "Interpolation", "Preprocess"]

Fit = Literal["warp", "crop", "letterbox"]
Interpolation = Literal["bilinear", "bicubic"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_FITS = ("warp", "crop", "letterbox")
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_LARGEST_PX = 8192


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing that belongs to a model.

    Attributes
    ----------
    size
        Rows and columns of the network's input at scale 1.
    fit
        ``warp``: the whole picture, its proportions given up. ``letterbox``: the longest
        side becomes `size`, the rest is filled with the mean colour, the picture in the
        centre; normalised, that colour is 0 to within half a grey level, the padding with
        zeros of Oquab et al. (2015, §4). ``crop``: resize, then cut `size` × `size` out of
        the centre.
    resize
        For ``crop``: the shorter side before the cut; None for `size`.
    squash
        For ``crop``: resize to `resize` × `resize` instead, proportions given up.
    interpolation
        ``bilinear`` or ``bicubic``, always with antialiasing (Pillow's filters).
    mean, std
        Of the three colours (RGB), on a scale of 0 … 1.
    scale
        Multiplies the input's size without changing what the input shows.

    Raises
    ------
    ModelError
        A value is impossible.
    """

    size: int
    fit: Fit = "warp"
    resize: int | None = None
    squash: bool = False
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.fit not in _FITS:
            raise ModelError(f'fit must be one of {", ".join(_FITS)}, got "{self.fit}".')
        if self.interpolation not in _RESAMPLING:
            raise ModelError(
                f'interpolation must be bilinear or bicubic, got "{self.interpolation}".'
            )
        _check_size("size", self.size)
        if self.resize is not None:
            _check_size("resize", self.resize)
            if self.fit == "crop" and self.resize < self.size:
                raise ModelError(f"resize must be at least size {self.size}, got {self.resize}.")
        _check_colours("mean", self.mean, 0.0)
        _check_colours("std", self.std, 1e-6)
        if not self.scale > 0 or self.size_px > _LARGEST_PX:
            raise ModelError(
                f"scale must be above 0 and give at most {_LARGEST_PX} pixels, got {self.scale}."
            )

    @property
    def size_px(self) -> int:
        """Rows and columns of the input at this scale."""
        return max(1, round(self.size * self.scale))

    def at(self, size: int | None = None, fit: Fit | None = None) -> Preprocess:
        """Return a copy with another input size or fit; the crop keeps its proportion."""
        new_size = self.size if size is None else size
        resize = None if self.resize is None else round(self.resize * new_size / self.size)
        return replace(self, size=new_size, fit=fit or self.fit, resize=resize)

    def scaled(self, factor: float) -> Preprocess:
        """Return a copy whose input shows the same with `factor` times the rows and columns.

        For ``letterbox`` the border is rounded to whole pixels at each scale, so what is
        shown moves by less than one input pixel.
        """
        return replace(self, scale=self.scale * factor)

    def extent(self, width_px: int, height_px: int) -> tuple[float, float, float, float]:
        """Return the part of the picture that the input covers.

        Parameters
        ----------
        width_px, height_px
            Of the original picture.

        Returns
        -------
        tuple of float
            ``x0 y0 x1 y1``, half-open, in continuous pixels of the original picture. Inside
            it for ``crop``, beyond it for ``letterbox``.
        """
        if self.fit == "warp":
            return (0.0, 0.0, float(width_px), float(height_px))
        if self.fit == "crop":
            resized_wh, frame_px = self._resized_for_crop(width_px, height_px), self.size
            # torchvision's center_crop: int(round((resized - size) / 2))
            left, top = (round((side - frame_px) / 2) for side in resized_wh)
        else:
            resized_wh, frame_px = self._resized_for_letterbox(width_px, height_px), self.size_px
            left, top = (-before for before in self._letterbox_border(resized_wh))
        x_px, y_px = width_px / resized_wh[0], height_px / resized_wh[1]
        return (left * x_px, top * y_px, (left + frame_px) * x_px, (top + frame_px) * y_px)

    def inside(self, width_px: int, height_px: int) -> tuple[float, float, float, float]:
        """Return the part of the input that shows the picture.

        Parameters
        ----------
        width_px, height_px
            Of the original picture.

        Returns
        -------
        tuple of float
            ``x0 y0 x1 y1``, half-open, as fractions of the input's width and height, to the
            whole input pixel; 0, 0, 1, 1 where nothing is padded.
        """
        if self.fit != "letterbox":
            return (0.0, 0.0, 1.0, 1.0)
        frame_px = self.size_px
        width, height = self._resized_for_letterbox(width_px, height_px)
        left, top = self._letterbox_border((width, height))
        end_x, end_y = left + width, top + height
        return (left / frame_px, top / frame_px, end_x / frame_px, end_y / frame_px)

    def apply(self, picture_HWC: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """Make the network's input from a picture.

        Parameters
        ----------
        picture_HWC
            (row, column, 3) uint8, RGB.

        Returns
        -------
        input_CHW : ndarray
            (3, size_px, size_px) uint8, not normalised yet.
        extent_xyxy : ndarray
            (4,) float32, see `extent`.

        Raises
        ------
        BadImageError
            The array is no RGB picture, or has no pixel.
        """
        is_rgb = picture_HWC.ndim == 3 and picture_HWC.shape[2] == 3
        if picture_HWC.dtype != np.uint8 or not is_rgb or picture_HWC.size == 0:
            raise BadImageError(
                f"the picture is {picture_HWC.dtype} {picture_HWC.shape}, "
                "expected uint8 (row, column, 3) with at least one pixel."
            )
        height_px, width_px = picture_HWC.shape[:2]
        extent_xyxy = self.extent(width_px, height_px)
        image = Image.fromarray(np.ascontiguousarray(picture_HWC))
        if self.fit == "letterbox":
            framed = self._letterbox(image)
        else:
            x0, y0, x1, y1 = extent_xyxy
            box = (x0, y0, min(x1, float(width_px)), min(y1, float(height_px)))
            side = (self.size_px, self.size_px)
            framed = image.resize(side, _RESAMPLING[self.interpolation], box)
        input_CHW = np.ascontiguousarray(np.asarray(framed).transpose(2, 0, 1))
        return input_CHW, np.array(extent_xyxy, np.float32)

    def warp_box(
        self, picture_HWC: NDArray[np.uint8], box_xyxy: Sequence[float]
    ) -> NDArray[np.uint8]:
        """Make the network's input from a part of a picture, its proportions given up.

        Parameters
        ----------
        picture_HWC
            (row, column, 3) uint8, RGB.
        box_xyxy
            ``x0 y0 x1 y1``, half-open, continuous pixels inside the picture; nothing is rounded.

        Returns
        -------
        ndarray
            (3, size_px, size_px) uint8, not normalised yet.
        """
        height_px, width_px = picture_HWC.shape[:2]
        x0, y0, x1, y1 = (float(side) for side in box_xyxy)
        inside = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width_px)), min(y1, float(height_px)))
        side = (self.size_px, self.size_px)
        image = Image.fromarray(picture_HWC)
        warped = image.resize(side, _RESAMPLING[self.interpolation], inside)
        return np.ascontiguousarray(np.asarray(warped).transpose(2, 0, 1))

    def normalise(self, batch_NCHW: Tensor) -> Tensor:
        """Return ``(x / 255 − mean) / std`` as float32, for x (num_images, 3, row, column)."""
        mean = torch.tensor(self.mean, dtype=torch.float64)
        std = torch.tensor(self.std, dtype=torch.float64)
        factor = (1 / (255 * std)).float().to(batch_NCHW.device)[:, None, None]
        shift = (-mean / std).float().to(batch_NCHW.device)[:, None, None]
        return batch_NCHW.float().mul_(factor).add_(shift)

    def to_header(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> Preprocess:
        """Read back what `to_header` returned; entries that are missing take their default.

        Raises
        ------
        ModelError
            An entry is unknown, missing without a default, or impossible.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(header) - known)
        if unknown or "size" not in header:
            wrong = f"{unknown[0]!r} is unknown" if unknown else "'size' is missing"
            raise ModelError(
                f"preprocessing: {wrong}; expected size and, if wanted, "
                f"{', '.join(sorted(known - {'size'}))}."
            )
        values = dict(header)
        for name in ("mean", "std"):
            if isinstance(values.get(name), list):
                values[name] = tuple(values[name])
        return cls(**values)

    def _resized_for_crop(self, width_px: int, height_px: int) -> tuple[int, int]:
        resize = self.size if self.resize is None else self.resize
        if self.squash:
            return resize, resize
        short_px = min(width_px, height_px)
        # torchvision's resize: the longer side is cut to a whole number
        return int(resize * width_px / short_px), int(resize * height_px / short_px)

    def _resized_for_letterbox(self, width_px: int, height_px: int) -> tuple[int, int]:
        factor = self.size_px / max(width_px, height_px)
        return max(1, round(width_px * factor)), max(1, round(height_px * factor))

    def _letterbox_border(self, resized_wh: tuple[int, int]) -> tuple[int, int]:
        """Return the columns left of the picture and the rows above it."""
        width, height = resized_wh
        return (self.size_px - width) // 2, (self.size_px - height) // 2

    def _letterbox(self, image: Image.Image) -> Image.Image:
        side_wh = self._resized_for_letterbox(*image.size)
        colour = cast(tuple[int, int, int], tuple(round(255 * value) for value in self.mean))
        frame = Image.new("RGB", (self.size_px, self.size_px), colour)
        resized = image.resize(side_wh, _RESAMPLING[self.interpolation])
        frame.paste(resized, self._letterbox_border(side_wh))
        return frame


def _check_size(name: str, value: object) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not 1 <= cast(int, value) <= _LARGEST_PX:
        raise ModelError(f"{name} must be a whole number in 1 ... {_LARGEST_PX}, got {value!r}.")


def _check_colours(name: str, values: object, low: float) -> None:
    fine = isinstance(values, tuple) and len(values) == 3
    if not fine or not all(
        isinstance(v, float | int) and low <= v <= 1e6 for v in cast(Any, values)
    ):
        raise ModelError(f"{name} must be three numbers of at least {low}, got {values!r}.")
