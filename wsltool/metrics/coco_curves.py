"""Precision and recall of COCO detection (``COCOeval.accumulate``), from a tally.

The tally has the tables that `wsltool.metrics.coco_ap.count` makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.metrics.coco_matching import AREA_RANGES, IOU_THRESHOLDS, MAX_DETECTIONS
from wsltool.metrics.ranking import Ranking
from wsltool.metrics.tally import Tally

__all__ = ["RECALLS", "num_positives", "precision_and_recall"]

RECALLS: npt.NDArray[np.float64] = np.linspace(0.0, 1.0, 101)

FloatArray: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]
Indices: TypeAlias = npt.NDArray[np.intp]
Bits: TypeAlias = npt.NDArray[np.uint16]

_ALL_THRESHOLDS = (1 << len(IOU_THRESHOLDS)) - 1
_NUM_AREAS = len(AREA_RANGES)


def num_positives(tally: Tally) -> Integers:
    """Return how many true boxes of each class count in each range of area, int64 (K, 4)."""
    counts_GA = tally.column("true", "counts")
    return np.stack(
        [tally.num_by("true", where=counts_GA[:, area]) for area in range(_NUM_AREAS)], axis=1
    )


def precision_and_recall(
    tally: Tally, max_detections: int = MAX_DETECTIONS
) -> tuple[FloatArray, FloatArray]:
    """Return precision at 101 recalls, and the highest recall.

    Parameters
    ----------
    tally : Tally
        A joined one, or one drawn from it.
    max_detections : int
        How many detections of a class in an image take part, at most 100.

    Returns
    -------
    precision_TRKA : array of float64, (10, 101, K, 4)
    recall_TKA : array of float64, (10, K, 4)
        NaN for a class without a true box that counts, where pycocotools has -1.
    """
    ranked = tally.once(f"ranked {max_detections}", lambda: _ranked(tally, max_detections))
    positives_KA = num_positives(tally)
    needed_KAR = _needed(positives_KA)
    num_true_TKA = np.zeros((len(IOU_THRESHOLDS), *positives_KA.shape))
    precision_TRKA = np.zeros((len(IOU_THRESHOLDS), len(RECALLS), *positives_KA.shape))
    for area, threshold, steps in _all_steps(tally, ranked):
        num_true_TKA[threshold, :, area] = np.diff(steps.edge_K)
        sampled_KR = _sampled(steps, needed_KAR[:, area])
        precision_TRKA[threshold, :, :, area] = sampled_KR.T
    precision_TRKA[:, :, positives_KA == 0] = np.nan
    recall_TKA = np.full(num_true_TKA.shape, np.nan)
    np.divide(num_true_TKA, positives_KA, out=recall_TKA, where=positives_KA > 0)
    return precision_TRKA, recall_TKA


class _Ranked(NamedTuple):
    """What became of the detections of a ranking.

    Most find nothing and are ignored either at all thresholds or at none (``plain_AD``: at
    none); ``found_D`` marks the others, which alone need their bits.
    """

    ranking: Ranking
    plain_AD: Flags
    found_D: Flags
    true_AD: Bits
    ignored_AD: Bits


class _Steps(NamedTuple):
    """Precision at each true detection of a ranking; those of class k end at ``edge_K[k + 1]``."""

    precision_S: FloatArray
    edge_K: Indices


def _ranked(tally: Tally, max_detections: int) -> _Ranked:
    kept = np.flatnonzero(tally.column("detection", "place") < max_detections)
    row_D, score_D, class_D = (
        tally.column("detection", name)[kept] for name in ("row", "score", "class")
    )
    order_D = np.lexsort((row_D, -score_D, class_D))  # stable: equals stay in their order
    row_D, score_D, class_D = row_D[order_D], score_D[order_D], class_D[order_D]
    order_D = kept[order_D]
    true_AD, ignored_AD = (
        np.ascontiguousarray(tally.column("detection", name)[order_D].T)
        for name in ("true", "ignored")
    )
    same_AD = (ignored_AD == 0) | (ignored_AD == _ALL_THRESHOLDS)
    found_D = ~same_AD.all(axis=0) | (true_AD != 0).any(axis=0)
    plain_AD = (ignored_AD == 0) & ~found_D
    new_D = np.ones(len(order_D), bool)
    new_D[1:] = (row_D[1:] != row_D[:-1]) | (class_D[1:] != class_D[:-1])
    new_D[1:] |= score_D[1:] != score_D[:-1]
    start_G = np.append(np.flatnonzero(new_D), len(new_D))
    edge_K = np.searchsorted(class_D, np.arange(tally.num_classes + 1))
    ranking = Ranking(order_D, found_D.astype(np.int8), edge_K, start_G)
    return _Ranked(ranking, plain_AD, found_D, true_AD, ignored_AD)


def _drawn(tally: Tally, ranking: Ranking) -> tuple[Indices, Indices]:
    """Return places in the ranking, each as often as its image is taken, and the classes' edges."""
    if tally.times_N is None:
        return np.arange(len(ranking.order_D)), ranking.edge_K
    weight_D = tally.weight("detection")[ranking.order_D]
    place_E, edge_K, weight_E = ranking.drawn(weight_D)
    return np.repeat(place_E, weight_E), _sums(weight_E)[edge_K]


def _all_steps(tally: Tally, ranked: _Ranked) -> Iterator[tuple[int, int, _Steps]]:
    """Yield every range of area and threshold (their indices), with the steps of its curves."""
    place_E, edge_K = _drawn(tally, ranked.ranking)
    found = np.flatnonzero(ranked.found_D[place_E])
    found_edge_K = np.searchsorted(found, edge_K)
    found_place = place_E[found]
    for area in range(_NUM_AREAS):
        plain_E = _sums(ranked.plain_AD[area][place_E])
        plain_F, plain_K = plain_E[found + 1], plain_E[edge_K]
        true_F = ranked.true_AD[area][found_place]
        ignored_F = ranked.ignored_AD[area][found_place]
        for threshold in range(len(IOU_THRESHOLDS)):
            bit = np.uint16(1 << threshold)
            counted_F = _sums((ignored_F & bit) == 0)
            num_F = plain_F + counted_F[1:]
            before_K = plain_K + counted_F[found_edge_K]
            true = np.flatnonzero(true_F & bit)
            true_edge_K = np.searchsorted(true, found_edge_K)
            yield area, threshold, _steps(num_F[true], true_edge_K, before_K)


def _sums(num_E: Flags | Integers) -> Integers:
    """Return the sum before each entry, and before the end, int64 (E + 1,)."""
    sums_E = np.zeros(len(num_E) + 1, np.int64)
    np.cumsum(num_E, out=sums_E[1:])
    return sums_E


def _steps(num_S: Integers, edge_K: Indices, before_K: Integers) -> _Steps:
    """Return the precision at each true detection.

    ``num_S`` of all classes' detections that count stand up to there, ``before_K`` before those
    of a class.
    """
    size_K = np.diff(edge_K)
    rank_S = np.arange(1, len(num_S) + 1) - np.repeat(edge_K[:-1], size_K)
    counted_S = num_S - np.repeat(before_K[:-1], size_K)
    return _Steps(rank_S / (counted_S + np.spacing(1.0)), edge_K)


def _needed(positives_KA: Integers) -> Integers:
    """Return how many true detections first reach each recall, at least 1, int64 (K, A, R).

    The first n with ``n / positives >= recall``, in floating point.
    """
    whole = np.maximum(positives_KA, 1)[..., None]
    needed = np.ceil(RECALLS * whole)
    needed -= (needed - 1) / whole >= RECALLS
    needed += needed / whole < RECALLS
    return np.maximum(needed, 1).astype(np.int64)


def _sampled(steps: _Steps, needed_KR: Integers) -> FloatArray:
    """Return the best precision from the needed true detection on, 0 without one, (K, R).

    Precision falls at every false detection, so it is highest at a true one.
    """
    size_K = np.diff(steps.edge_K)
    class_K = np.arange(len(size_K))
    with_end = np.zeros(len(steps.precision_S) + len(class_K))  # each class ends with a 0
    at_S = np.arange(len(steps.precision_S)) + np.repeat(class_K, size_K)
    with_end[at_S] = steps.precision_S
    first_KR = np.minimum(needed_KR - 1, size_K[:, None]) + (steps.edge_K[:-1] + class_K)[:, None]
    best = np.maximum.reduceat(with_end, first_KR.ravel()).reshape(first_KR.shape)
    return np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
