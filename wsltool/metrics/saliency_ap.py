"""Saliency of present classes against their masks (Kim et al. 2017, §5).

Counted are pairs of an image with a mask and a class that is present in it (label 1) and has a
pixel in the mask. Every pixel of the class's map, upsampled to the image, is a prediction that
the pixel shows the class; its confidence is the map's value over the map's maximum, 0 where that
is negative. Ignored pixels (255: borders and what could not be told) are left out.

"pooled": the pixels of all pairs make one precision-recall curve. "per-pair": each pair makes its
own, and the value is the mean of their average precisions. Curves are summed as VOC does from
2010 on. Pixels are counted in 65536 bins (`wsltool.metrics.pixel_histogram`), so any number of
them takes the same memory; the exact value is at least the value, at most ``exact_at_most``.

Where the pooled value is to be resampled (`ScoreProtocol.by_image`), pixels are counted in 1024
bins a pair as well, and a sample of images has the value of those bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError
from wsltool.metrics.pixel_histogram import histogram_ap, pixel_histogram
from wsltool.metrics.records import Truth
from wsltool.metrics.result import Extra, Result, class_rows, told
from wsltool.metrics.tally import Tally

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["NUM_BINS", "SaliencyPair", "SaliencyPairs", "count", "result"]

NUM_BINS = 65536
_NUM_BINS_PAIR = 1024


@dataclass(frozen=True, slots=True, eq=False)
class SaliencyPair:
    """An image and a class present, with heat and mask at the image's size.

    Attributes
    ----------
    row : int
        Of the image among all that are scored.
    class_index : int
    mask_HW : uint8 array
        1 the class, 0 anything else, 255 left out.
    heat_HW : float array or None
        None where there is no map.
    """

    row: int
    class_index: int
    mask_HW: npt.NDArray[np.uint8]
    heat_HW: npt.NDArray[Any] | None


@dataclass(frozen=True, slots=True, eq=False)
class SaliencyPairs:
    """Pairs of some images; all pairs of an image stand in one record."""

    pairs: tuple[SaliencyPair, ...]


def count(protocol: ScoreProtocol, predicted: SaliencyPairs, truth: Truth) -> Tally:
    """Return the counts of a block of images.

    The table ``pair`` has one entry for each pair, also those without a pixel of the class. The
    sums ``class 0``, … are the pixels of each class that has pairs, (2, 65536).

    Raises
    ------
    ProtocolError
        If heat is not finite or not of its mask's shape.
    """
    pairs = predicted.pairs
    sums: dict[str, npt.NDArray[np.int64]] = {}
    ap_Q, num_px_Q2 = np.full(len(pairs), np.nan), np.zeros((len(pairs), 2), np.int32)
    for q, one in enumerate(pairs):
        if not (one.mask_HW == 1).any():
            continue
        count_2B = pixel_histogram(one.heat_HW, one.mask_HW, NUM_BINS)
        ap_Q[q], num_px_Q2[q] = histogram_ap(count_2B), count_2B.sum(axis=1)
        name = f"class {one.class_index}"
        sums[name] = sums[name] + count_2B if name in sums else count_2B
    pair: dict[str, npt.NDArray[Any]] = {
        "row": np.array([one.row for one in pairs], np.int64),
        "class": np.array([one.class_index for one in pairs], np.int32),
        "mapped": np.array([one.heat_HW is not None for one in pairs], bool),
        "ap": ap_Q,
        "num_px": num_px_Q2,
    }
    if protocol.by_image:
        pair["bins"] = _bins_of(pairs)
    tables = {"image": {"row": truth.row_N.astype(np.int64)}, "pair": pair}
    return Tally(truth.num_classes, tables, sums)


def _bins_of(pairs: Sequence[SaliencyPair]) -> npt.NDArray[np.int32]:
    """Return the pixels of each pair, int32 (Q, 2, 1024); none where it has no object."""
    count_Q2B = np.zeros((len(pairs), 2, _NUM_BINS_PAIR), np.int32)
    for q, one in enumerate(pairs):
        if (one.mask_HW == 1).any():
            count_Q2B[q] = pixel_histogram(one.heat_HW, one.mask_HW, _NUM_BINS_PAIR)
    return count_Q2B


def result(protocol: ScoreProtocol, tally: Tally) -> Result:
    """Return the average precision in per cent, pooled or the mean over pairs; each class's too.

    Raises
    ------
    ProtocolError
        If images are drawn, but pixels were not counted for each pair.
    """
    chosen = sorted(protocol.class_index) or list(range(tally.num_classes))
    counted_Q = ~np.isnan(tally.column("pair", "ap"))
    num_pairs_K = tally.num_by("pair", where=counted_Q)
    num_px_K2 = _pixels(tally)
    num_map = _num(tally, chosen, counted_Q & ~tally.column("pair", "mapped"))
    num_object = _num(tally, chosen, ~counted_Q)
    pooled = protocol.pairs == "pooled"
    extra: dict[str, Extra] = {}
    if pooled:
        extra["exact_at_most"] = histogram_ap(_pooled(tally, chosen), optimistic=True)
    extra |= {
        "num_classes": int((num_pairs_K[chosen] > 0).sum()),
        "num_pairs": int(num_pairs_K[chosen].sum()),
        "num_object_px": int(num_px_K2[chosen, 0].sum()),
        "num_other_px": int(num_px_K2[chosen, 1].sum()),
        "num_pairs_without_map": num_map,
        "num_pairs_without_object_px": num_object,
    }
    value = _pooled_ap if pooled else _mean_ap
    return Result.of(
        protocol,
        value(tally, chosen),
        per_class=class_rows(
            np.array([value(tally, [index]) for index in range(tally.num_classes)]),
            {
                "num_pairs": num_pairs_K,
                "num_object_px": num_px_K2[:, 0],
                "num_other_px": num_px_K2[:, 1],
            },
        ),
        extra=extra,
        warnings=told(
            (
                (num_map, "pairs have no map and count as zeros."),
                (num_object, "pairs have no pixel of the class in the mask and are left out."),
            )
        ),
    )


def _num(tally: Tally, chosen: list[int], where_Q: npt.NDArray[np.bool_]) -> int:
    return int(tally.num_by("pair", where=where_Q)[chosen].sum())


def _pixels(tally: Tally) -> npt.NDArray[np.int64]:
    """Return how many pixels of each class are of the object, and of anything else, (K, 2)."""
    num_K2 = np.zeros((tally.num_classes, 2), np.int64)
    weighted_Q2 = tally.column("pair", "num_px") * tally.weight("pair")[:, None]
    np.add.at(num_K2, tally.column("pair", "class"), weighted_Q2)
    return num_K2


def _pooled_ap(tally: Tally, chosen: list[int]) -> float:
    return histogram_ap(_pooled(tally, chosen))


def _pooled(tally: Tally, chosen: list[int]) -> npt.NDArray[Any]:
    """Return the pixels of some classes, whole numbers, (2, bins)."""
    if tally.times_N is None:
        of_chosen = [tally.sums[f"class {k}"] for k in chosen if f"class {k}" in tally.sums]
        return sum(of_chosen, start=np.zeros((2, NUM_BINS), np.int64))
    if "bins" not in tally.tables["pair"]:
        raise ProtocolError(
            "saliency-ap: the pixels of all images were added up; expected those of each image, "
            "to draw images. Count with by_image."
        )
    weight_Q, pooled_2B = tally.weight("pair"), np.zeros((2, _NUM_BINS_PAIR))
    for index in chosen:
        # Whole numbers below 2**53 are exact in float64, whose products are fast.
        of_class, bins = tally.once(f"bins {index}", partial(_class_bins, tally, index))
        pooled_2B += (weight_Q[of_class] @ bins).reshape(2, -1)
    return pooled_2B


def _class_bins(tally: Tally, index: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return the pairs of a class, and their pixels as float64 (Q, 2 * 1024)."""
    of_class = np.flatnonzero(tally.column("pair", "class") == index)
    bins = tally.column("pair", "bins")[of_class].astype(np.float64)
    return of_class, bins.reshape(len(of_class), 2 * _NUM_BINS_PAIR)


def _mean_ap(tally: Tally, chosen: list[int]) -> float:
    """Return the mean over the pairs of some classes, the same in any order; NaN of nothing."""
    ap_Q = tally.column("pair", "ap")
    of_chosen = np.isin(tally.column("pair", "class"), chosen) & ~np.isnan(ap_Q)
    weight_Q = tally.weight("pair")[of_chosen]
    num = int(weight_Q.sum())
    return math.fsum((ap_Q[of_chosen] * weight_Q).tolist()) / num if num else float("nan")
