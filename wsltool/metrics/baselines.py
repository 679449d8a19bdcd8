"""The trivial prediction of the same kind, to stand beside every result.

Same images, same ranked classes, same class scores: only where the objects are is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError, UsageError
from wsltool.metrics.records import Peaks, Predictions
from wsltool.metrics.saliency_ap import SaliencyPair, SaliencyPairs

__all__ = [
    "CENTRED_FRACTIONS",
    "CentredFit",
    "centre_heat",
    "centre_peaks",
    "centred_boxes",
    "fit_centred",
    "flat_heat",
    "whole_boxes",
]

CENTRED_FRACTIONS: tuple[float, ...] = tuple(step / 20 for step in range(1, 21))
"""The fractions of a side that are tried: .05, .10, …, 1."""


@dataclass(frozen=True, slots=True)
class CentredFit:
    """The best centred box, and what was tried.

    Attributes
    ----------
    fraction : float
        Of each side of the image; the first, smallest, of the best.
    value : float
        What it scores.
    fractions, values : tuples of float
        All that were tried, and what each scores.
    """

    fraction: float
    value: float
    fractions: tuple[float, ...]
    values: tuple[float, ...]


def whole_boxes(predicted: Predictions, size_wh_N2: npt.NDArray[Any]) -> Predictions:
    """Return predictions whose every ranked class has the whole image as its box.

    See `centred_boxes`.
    """
    return centred_boxes(predicted, size_wh_N2, 1.0)


def centred_boxes(
    predicted: Predictions, size_wh_N2: npt.NDArray[Any], fraction: float
) -> Predictions:
    """Return predictions whose every ranked class has one box in the middle of the image.

    Parameters
    ----------
    predicted : Predictions
        Of N images. Its boxes are not looked at: a class that had none has one now.
    size_wh_N2 : array of numbers
        Width and height of the images, in pixels.
    fraction : float
        In (0, 1], of each side.

    Returns
    -------
    Predictions
        The same ranked classes and scores; one box for each, with the class's score, in the
        order of the classes. An image without a prediction stays without.

    Raises
    ------
    UsageError
        If `fraction` is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"fraction must be in (0, 1], got {fraction:g}.")
    image_B, slot_B = np.nonzero(predicted.map_class_NS >= 0)
    num_N = np.bincount(image_B, minlength=len(predicted))
    side_N2 = np.asarray(size_wh_N2, dtype=np.float64)
    box_N4 = np.hstack([side_N2 * ((1 - fraction) / 2), side_N2 * ((1 + fraction) / 2)])
    return replace(
        predicted,
        box_start=np.concatenate([[0], np.cumsum(num_N)]).astype(np.int64),
        box_xyxy_B4=box_N4[image_B],
        box_class_B=predicted.map_class_NS[image_B, slot_B],
        box_score_B=predicted.map_score_NS[image_B, slot_B],
    )


def centre_peaks(peaks: Peaks, size_wh_N2: npt.NDArray[Any]) -> Peaks:
    """Return peaks that all lie at the centre of the image, ``(width / 2, height / 2)``."""
    center_N2 = np.asarray(size_wh_N2, dtype=np.float64) / 2
    peak_xy_NS2 = np.repeat(center_N2[:, None], peaks.map_class_NS.shape[1], axis=1)
    return replace(peaks, peak_xy_NS2=peak_xy_NS2)


def flat_heat(predicted: SaliencyPairs) -> SaliencyPairs:
    """Return pairs whose every pixel has the same heat, those without a map left without."""
    return _with_heat(predicted, lambda height, width: np.ones((height, width)))


def centre_heat(predicted: SaliencyPairs) -> SaliencyPairs:
    """Return pairs whose heat falls evenly from the centre of the image to its corners.

    ``1 - hypot(u, v) / sqrt(2)``, where u and v go from −1 to 1 between opposite edges, at the
    centres of pixels. Pairs without a map are left without.
    """
    return _with_heat(predicted, _cone)


def _cone(height: int, width: int) -> npt.NDArray[np.float64]:
    v_H, u_W = ((np.arange(num) + 0.5) / num * 2 - 1 for num in (height, width))
    heat_HW: npt.NDArray[np.float64] = 1 - np.hypot(v_H[:, None], u_W) / np.sqrt(2)
    return heat_HW


def _with_heat(
    predicted: SaliencyPairs, make: Callable[[int, int], npt.NDArray[np.float64]]
) -> SaliencyPairs:
    def changed(pair: SaliencyPair) -> SaliencyPair:
        height, width = pair.mask_HW.shape
        return replace(pair, heat_HW=None if pair.heat_HW is None else make(height, width))

    return SaliencyPairs(tuple(changed(pair) for pair in predicted.pairs))


def fit_centred(
    evaluate: Callable[[float], float],
    *,
    higher_is_better: bool = True,
    fractions: Sequence[float] = CENTRED_FRACTIONS,
) -> CentredFit:
    """Return the fraction whose centred box scores best.

    Fit it on the images that the threshold beside it was chosen on, never on what is scored
    unless that was, too.

    Parameters
    ----------
    evaluate : callable
        Takes a fraction, returns what `centred_boxes` with it scores.
    higher_is_better : bool
        False for an error.
    fractions : sequence of float
        To be tried, in order; the first of equals is taken.

    Raises
    ------
    ProtocolError
        If every fraction scores NaN: there is nothing to score.
    """
    values = [float(evaluate(fraction)) for fraction in fractions]
    worth = np.array(values) if higher_is_better else -np.array(values)
    if np.isnan(worth).all():
        raise ProtocolError(
            f"the centred box scores nan at all {len(values)} fractions; expected at least one "
            "image with something to score."
        )
    best = int(np.nanargmax(worth))
    return CentredFit(fractions[best], values[best], tuple(fractions), tuple(values))
