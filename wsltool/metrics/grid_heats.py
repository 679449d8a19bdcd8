"""Heat on wsolevaluation's grid of 224 x 224, what MaxBoxAcc and PxAP count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError
from wsltool.metrics.records import Flags, Integers, Truth

__all__ = [
    "GRID_PX",
    "GridHeats",
    "centre_grid_heat",
    "centred_gaussian",
    "check_grid_heats",
    "flat_maps",
]

GRID_PX = 224
"""Rows and columns of the grid."""

FloatArray: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GridHeats:
    """Heat of the one class of each of N images, and its mask.

    Attributes
    ----------
    has_map_N : array of bool
        False for an image that was skipped, that the store lacks, or without a map of its
        class; its heat is 0 throughout.
    heat_NHW : float64 array, (N, 224, 224)
        In [0, 1]. A map that is the same everywhere, or NaN somewhere, is 0 throughout.
    off_grid_N : array of bool or None
        Maps that were brought to the grid bilinearly, since they do not cover their image or
        have suppressed cells; None: none was.
    masks : callable, or None
        Reads the masks, uint8 (N, 224, 224): 1 the object, 0 anything else, 255 left out. None
        where there are none.
    """

    has_map_N: Flags
    heat_NHW: FloatArray
    off_grid_N: Flags | None = None
    masks: Callable[[], npt.NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return len(self.has_map_N)

    def take(self, image: Integers) -> Self:
        """Return the given images (indices, in any order) as a record of their own."""
        masks = self.masks
        return type(self)(
            has_map_N=self.has_map_N[image],
            heat_NHW=self.heat_NHW[image],
            off_grid_N=None if self.off_grid_N is None else self.off_grid_N[image],
            masks=None if masks is None else lambda: masks()[image],
        )


def check_grid_heats(heats: GridHeats, truth: Truth) -> None:
    """Check that heat is what the evaluator takes, and of the images of the truth.

    Raises
    ------
    ProtocolError
        For another shape or dtype, and values that are NaN or outside [0, 1]; naming the row.
    """
    shape = (len(truth), GRID_PX, GRID_PX)
    if heats.heat_NHW.shape != shape or len(heats) != len(truth):
        raise ProtocolError(
            f"heat has shape {heats.heat_NHW.shape}; expected {shape}: {len(truth)} images on "
            f"the grid of {GRID_PX}x{GRID_PX}."
        )
    if heats.heat_NHW.dtype != np.float64:
        raise ProtocolError(f"heat is {heats.heat_NHW.dtype}; expected float64.")
    ends_N2 = np.array([(one.min(), one.max()) for one in heats.heat_NHW]).reshape(-1, 2)
    low_N, high_N = ends_N2.T
    bad_N = ~((low_N >= 0) & (high_N <= 1))
    if bad_N.any():
        image = int(bad_N.argmax())
        raise ProtocolError(
            f"maps row {truth.row_N[image]}: heat is between {low_N[image]} and "
            f"{high_N[image]}; expected values in [0, 1]."
        )


def flat_maps(heats: GridHeats) -> npt.NDArray[np.bool_]:
    """Return which heat is 0 throughout, bool (N,)."""
    return np.array([not heat_HW.any() for heat_HW in heats.heat_NHW], np.bool_)


def centred_gaussian(size: int = GRID_PX) -> FloatArray:
    """Return a Gaussian in the middle, float64 (size, size) from 0 to 1.

    The baseline of Choe et al. 2020 ("centre-Gaussian"): the middle is hottest. Its width makes no
    difference to protocols that try every threshold, but through quantisation; here the
    standard deviation is a quarter of the side. Normalised as maps are: minimum 0, maximum 1.
    """
    u_W = (2 * np.arange(size) + 1 - size) / (2 * size) / 0.25
    heat_HW = np.exp(-0.5 * (u_W[:, None] ** 2 + u_W**2))
    heat_HW -= heat_HW.min()
    top = heat_HW.max()
    normal_HW: FloatArray = heat_HW / top if top else heat_HW
    return normal_HW


def centre_grid_heat(heats: GridHeats) -> GridHeats:
    """Return the same record with a Gaussian in the middle of every image that has a map."""
    has_N = np.asarray(heats.has_map_N, dtype=bool)
    heat_NHW: npt.NDArray[Any] = has_N[:, None, None] * centred_gaussian(GRID_PX)
    return replace(heats, heat_NHW=heat_NHW)
