"""Connected components of a foreground, in an order that depends on nothing but the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from wsltool.errors import UsageError

__all__ = ["Components", "find_components"]


@dataclass(frozen=True, slots=True)
class Components:
    """Connected components, the one with the most pixels first.

    Attributes
    ----------
    label_HW : array of int32, (height, width)
        The component of each pixel, 0 for background. The numbers mean nothing.
    label_C : array of int32
        The number that each component has in `label_HW`.
    box_C4 : array of int64
        The tightest half-open box ``x0 y0 x1 y1`` of each, in pixels.
    num_px_C : array of int64
        The number of pixels of each.
    """

    label_HW: npt.NDArray[np.int32]
    label_C: npt.NDArray[np.int32]
    box_C4: npt.NDArray[np.int64]
    num_px_C: npt.NDArray[np.int64]


def find_components(
    mask_HW: npt.NDArray[np.bool_],
    *,
    connectivity: int = 8,
    which: Literal["largest", "all"] = "all",
) -> Components:
    """Return the connected components of a mask, or only the largest one.

    Parameters
    ----------
    mask_HW : array of bool, (height, width)
        The foreground.
    connectivity : 8 or 4
        Whether pixels that touch at a corner belong together.
    which : "all" or "largest"
        The largest has the most pixels.

    Returns
    -------
    Components
        By falling number of pixels; among equals the one first that has the first pixel in
        row-major order (the upper one, then the left one). None for an empty mask.

    Raises
    ------
    UsageError
        If `connectivity` is neither 4 nor 8, or `which` neither "largest" nor "all".
    """
    if connectivity not in (4, 8):
        raise UsageError(f"connectivity must be 4 or 8, got {connectivity}.")
    if which not in ("largest", "all"):
        raise UsageError(f'components must be "largest" or "all", got {which!r}.')
    _, label, stats, _ = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(mask_HW).view(np.uint8), connectivity=connectivity
    )
    label_HW = label.astype(np.int32, copy=False)
    left, top, width, height, num_px = stats[1:].astype(np.int64).T
    chosen_C = _ordered(label_HW, num_px, which)
    box_C4 = np.stack([left, top, left + width, top + height], axis=1)[chosen_C]
    label_C = (chosen_C + 1).astype(np.int32)
    return Components(label_HW, label_C, box_C4, num_px[chosen_C])


def _ordered(
    label_HW: npt.NDArray[Any], num_px_C: npt.NDArray[np.int64], which: str
) -> npt.NDArray[np.intp]:
    """Return the components to report, as indices from 0, in order."""
    chosen_C = np.arange(len(num_px_C))
    if which == "largest" and len(chosen_C):
        chosen_C = np.flatnonzero(num_px_C == num_px_C.max())
    if len(np.unique(num_px_C[chosen_C])) == len(chosen_C):  # no two are equal
        return chosen_C[np.argsort(-num_px_C[chosen_C])]
    first_C = _first_pixel(label_HW, len(num_px_C))
    order = np.lexsort((first_C[chosen_C], -num_px_C[chosen_C]))
    return chosen_C[order[:1]] if which == "largest" else chosen_C[order]


def _first_pixel(label_HW: npt.NDArray[Any], num_components: int) -> npt.NDArray[np.int64]:
    """Return where each component begins in row-major order."""
    label_P = label_HW.ravel()
    backwards = np.flatnonzero(label_P)[::-1]
    first_C = np.empty(num_components, dtype=np.int64)
    first_C[label_P[backwards] - 1] = backwards  # the last one written is the first pixel
    return first_C
