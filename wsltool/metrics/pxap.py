"""PxAP: pixels of heat maps against masks, pooled over all images (wsolevaluation).

Choe et al. 2020; the evaluator's own code (``evaluation.py``, `MaskEvaluator`) is the rule. The
heat of every pixel of the 224 x 224 grid that is not left out goes into one of two histograms,
of the object and of anything else, of all images together. Bins begin at the thresholds
``arange(0, 1, interval)``, at 1, and at 2 (never reached). With TP and FP summed from the
highest bin down, ``P = TP / (TP + FP)`` and ``R = TP / all of the object``::

    PxAP = 100 sum over i >= 1 of P_i (R_i - R_(i-1))

Rows of bins in which nothing is counted yet are skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError
from wsltool.metrics.grid_heats import GridHeats, check_grid_heats, flat_maps
from wsltool.metrics.records import Truth, single_label
from wsltool.metrics.result import Result, told
from wsltool.metrics.tally import Tally

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["count", "result"]

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Object, anything else, and what is left out.
_ROW_OF_LABEL = np.full(256, 2, np.intp)
_ROW_OF_LABEL[1], _ROW_OF_LABEL[0] = 0, 1

_CASES = (
    ("num_without_map", "images have no map of their class and count as 0 throughout"),
    ("num_flat_maps", "maps are the same everywhere, or NaN, and count as 0 throughout"),
    ("num_off_grid", "maps do not cover their image or are suppressed, and are bilinear"),
)


def count(protocol: ScoreProtocol, predicted: GridHeats, truth: Truth) -> Tally:
    """Return the counts of a block of images.

    Raises
    ------
    ProtocolError
        If an image has not exactly one label, heat is not in [0, 1] on the grid, or masks lack.
    """
    label_N = single_label(truth, protocol.name)
    check_grid_heats(predicted, truth)
    if predicted.masks is None:
        raise ProtocolError(f"{len(truth)} images have no masks; pxap expects one for each.")
    mask_NHW = predicted.masks()
    if mask_NHW.shape != predicted.heat_NHW.shape:
        raise ProtocolError(
            f"masks have shape {mask_NHW.shape}; expected that of heat, {predicted.heat_NHW.shape}."
        )
    edge_E = _edges(protocol)
    pixels_N2B = np.zeros((len(truth), 2, len(edge_E) - 1), np.int32)
    for image, (heat_HW, mask_HW) in enumerate(zip(predicted.heat_NHW, mask_NHW, strict=True)):
        pixels_N2B[image] = _histograms(heat_HW, mask_HW, edge_E, protocol.interval)
    has_N = np.asarray(predicted.has_map_N, dtype=bool)
    off_N = np.zeros(len(truth), bool) if predicted.off_grid_N is None else predicted.off_grid_N
    image_columns: dict[str, npt.NDArray[Any]] = {
        "row": truth.row_N.astype(np.int64),
        "label": label_N.astype(np.int32),
        "mapped": has_N,
        "flat": has_N & flat_maps(predicted),
        "off_grid": np.asarray(off_N, dtype=bool),
    }
    if protocol.by_image:
        image_columns["pixels"] = pixels_N2B
    sums = {"pixels": pixels_N2B.sum(axis=0, dtype=np.int64)}
    return Tally(truth.num_classes, {"image": image_columns}, sums)


def _edges(protocol: ScoreProtocol) -> Floats:
    return np.append(np.arange(0, 1, protocol.interval), [1.0, 2.0, 3.0])


def _histograms(
    heat_HW: Floats, mask_HW: npt.NDArray[np.uint8], edge_E: Floats, interval: float
) -> Counts:
    """Return the pixels of the object and of anything else by bin, as ``numpy.histogram`` has it.

    Pixel by pixel: bin b has ``edge[b] <= heat < edge[b + 1]``. The quotient by the interval is
    at most one bin away from it.
    """
    heat_P, num_bins = heat_HW.ravel(), len(edge_E) - 1
    near_P = (heat_P / interval).astype(np.intp)
    np.minimum(near_P, num_bins - 3, out=near_P)
    bin_P = near_P + (heat_P >= edge_E[1:].take(near_P))
    bin_P -= heat_P < edge_E.take(near_P)
    row_P = _ROW_OF_LABEL.take(mask_HW.ravel())
    row_P *= num_bins
    bin_P += row_P
    return np.bincount(bin_P, minlength=3 * num_bins)[: 2 * num_bins].reshape(2, num_bins)


def result(protocol: ScoreProtocol, tally: Tally) -> Result:
    """Return the area under the precision-recall curve of all pixels, in per cent.

    Raises
    ------
    ProtocolError
        If a sample is asked for of pixels that were not kept for each image.
    """
    pixels_2B = _pixels(tally)
    value, precision_B, recall_B = _area(pixels_2B)
    mapped_N, flat_N, off_N = (tally.column("image", one) for one in ("mapped", "flat", "off_grid"))
    num = {
        "num_images": tally.num("image"),
        "num_object_px": int(pixels_2B[0].sum()),
        "num_other_px": int(pixels_2B[1].sum()),
        "num_without_map": tally.num("image", ~mapped_N),
        "num_flat_maps": tally.num("image", flat_N),
        "num_off_grid": tally.num("image", off_N),
    }
    lines = told((num[name], words) for name, words in _CASES)
    if not num["num_object_px"]:
        lines = (*lines, "no pixel of any mask shows the object: there is nothing to find")
    # From the second highest bin on, as nothing is in the highest.
    curve = {
        "recall": recall_B[1:].tolist(),
        "precision": (100 * precision_B[1:]).tolist(),
        "threshold": _edges(protocol)[:-2][::-1].tolist(),
    }
    return Result.of(protocol, value, extra=num, warnings=lines, curve=curve)


def _pixels(tally: Tally) -> Counts:
    """Return both histograms of all images, of a sample from those of each image."""
    if tally.times_N is None:
        return tally.sums["pixels"]
    if "pixels" not in tally.tables["image"]:
        raise ProtocolError(
            "pxap: pixels were added up over all images and cannot be resampled; expected those "
            "of each image. Count with by_image."
        )
    return tally.total("image", "pixels")


def _area(pixels_2B: Counts) -> tuple[float, Floats, Floats]:
    """Return PxAP, precision and recall from the highest bin down; NaN without an object."""
    true_B, false_B = pixels_2B[:, ::-1].astype(np.float64).cumsum(axis=1)
    precision_B = np.full(len(true_B), np.nan)
    np.divide(true_B, true_B + false_B, out=precision_B, where=true_B + false_B > 0)
    if not true_B[-1]:
        return float("nan"), precision_B, np.full(len(true_B), np.nan)
    recall_B = true_B / true_B[-1]
    used_B = ~np.isnan(precision_B[1:])
    value = 100 * (precision_B[1:] * np.diff(recall_B))[used_B].sum()
    return float(value), precision_B, recall_B
