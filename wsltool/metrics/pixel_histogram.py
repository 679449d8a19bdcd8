"""Pixels of a heat map against a mask as a histogram that adds up, and its average precision.

Pixels of one bin are ranked as equals. The precision-recall curve then holds some of the points
of the exact one, so its area is never larger than the exact one, and never smaller by more than
if in every bin all pixels of the object came first: ``histogram_ap(counts, optimistic=True)``.
Zeros and maxima have bins of their own, and are equals indeed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError
from wsltool.metrics.average_precision import area_ap

__all__ = ["histogram_ap", "pixel_histogram"]


def pixel_histogram(
    heat_HW: npt.NDArray[Any] | None, mask_HW: npt.NDArray[Any], num_bins: int
) -> npt.NDArray[np.int64]:
    """Return how many pixels of the object, and of anything else, have which heat.

    The heat is divided by its maximum over the whole image; what is negative (−inf too: a
    crop did not see it) becomes 0. A map without a positive value is 0 throughout.

    Parameters
    ----------
    heat_HW : array of float, or None
        None, where there is no map, counts as 0 throughout.
    mask_HW : array of integers
        1 object, 0 anything else, 255 left out.
    num_bins : int
        At least 3. The first is exactly 0, the last exactly 1, and bin b in between holds
        ``[b - 1, b) / (num_bins - 2)`` of what is above 0.

    Returns
    -------
    count_2B : array of int64, (2, num_bins)
        Of the object, of anything else.

    Raises
    ------
    ProtocolError
        If the shapes differ, or the heat is NaN or inf somewhere.
    """
    mask_HW = np.asarray(mask_HW)
    if heat_HW is None:
        bin_HW = np.zeros(mask_HW.shape, np.intp)
    else:
        bin_HW = _bins(np.asarray(heat_HW, np.float64), mask_HW.shape, num_bins)
    found = [np.bincount(bin_HW[mask_HW == label], minlength=num_bins) for label in (1, 0)]
    return np.stack(found).astype(np.int64)


def histogram_ap(count_2B: npt.NDArray[Any], *, optimistic: bool = False) -> float:
    """Return the average precision of pooled pixels in per cent.

    The hottest bin comes first. The curve is summed as VOC does from 2010 on.

    Parameters
    ----------
    count_2B : array of numbers, (2, bins)
        See `pixel_histogram`.
    optimistic : bool
        Rank the object's pixels before the others of their bin, the first and the last bin
        excepted: what the exact average precision cannot exceed.

    Returns
    -------
    float
        NaN where there is no pixel of an object.
    """
    true_B, false_B = np.asarray(count_2B, np.float64)[:, ::-1]
    if not true_B.any():
        return float("nan")
    true_sum_B, false_sum_B = true_B.cumsum(), false_B.cumsum()
    if optimistic:
        false_sum_B[1:-1] -= false_B[1:-1]
    used_B = (true_B > 0) | (false_B > 0)
    true_sum_B, counted_B = true_sum_B[used_B], (true_sum_B + false_sum_B)[used_B]
    precision_B = np.full(len(counted_B), np.nan)
    np.divide(true_sum_B, counted_B, out=precision_B, where=counted_B > 0)
    return 100 * area_ap(precision_B, true_sum_B / true_sum_B[-1])


def _bins(
    heat_HW: npt.NDArray[np.float64], shape: tuple[int, ...], num_bins: int
) -> npt.NDArray[np.intp]:
    if heat_HW.shape != shape:
        raise ProtocolError(f"heat has shape {heat_HW.shape}, its mask {shape}; expected the same.")
    top = float(heat_HW.max(initial=-np.inf))
    if np.isnan(top) or top == np.inf:
        raise ProtocolError(f"heat is {top} somewhere; expected finite values, or -inf.")
    if top <= 0:
        return np.zeros(shape, np.intp)
    part_HW = heat_HW / top
    bin_HW: npt.NDArray[np.intp] = 1 + np.floor(np.maximum(part_HW, 0) * (num_bins - 2)).astype(
        np.intp
    )
    np.minimum(bin_HW, num_bins - 2, out=bin_HW)
    bin_HW[part_HW <= 0] = 0
    bin_HW[part_HW == 1] = num_bins - 1
    return bin_HW
