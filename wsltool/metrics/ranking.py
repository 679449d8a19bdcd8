"""Detections of all images in one ranking a class, and the average precision of it.

A tally's table ``detection`` has the columns ``class``, ``score`` and ``outcome``. Equal scores
stand in the order of the images, then of their entries in the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.metrics.average_precision import area_ap, precision_recall
from wsltool.metrics.tally import Tally

__all__ = [
    "FALSE",
    "NEITHER",
    "TRUE",
    "Interpolation",
    "average_precision",
    "average_precisions",
    "count_outcomes",
    "mean_curve",
    "ranked",
]

FALSE, TRUE, NEITHER = 0, 1, 2
_RECALLS = np.linspace(0, 1, 101)

FloatArray: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.intp]
Interpolation: TypeAlias = Callable[[FloatArray, FloatArray], float]


def average_precision(
    outcome_D: npt.NDArray[Any],
    num_positives: int,
    interpolation: Interpolation = area_ap,
    weight_D: npt.NDArray[np.int64] | None = None,
) -> float:
    """Return the average precision of ranked outcomes in per cent, NaN without positives."""
    if not num_positives:
        return float("nan")
    curve = precision_recall(outcome_D == TRUE, outcome_D == FALSE, num_positives, weight_D)
    return 100 * interpolation(*curve)


def average_precisions(
    tally: Tally,
    num_positives_K: npt.NDArray[np.int64],
    interpolation: Interpolation = area_ap,
) -> FloatArray:
    """Return the average precision of each class in per cent, NaN without positives."""
    ranking = ranked(tally)
    outcome_D, edge_K, weight_D = ranking.outcome_D, ranking.edge_K, None
    if tally.times_N is not None:
        entry_D, edge_K, weight_D = ranking.drawn(tally.weight("detection")[ranking.order_D])
        outcome_D = outcome_D[entry_D]
    return np.array(
        [
            average_precision(
                outcome_D[low:high],
                num,
                interpolation,
                None if weight_D is None else weight_D[low:high],
            )
            for (low, high), num in zip(pairwise(edge_K.tolist()), num_positives_K, strict=True)
        ],
        np.float64,
    )


def mean_curve(
    tally: Tally, num_positives_K: npt.NDArray[np.int64], chosen: list[int] | slice
) -> dict[str, list[float]]:
    """Return the mean over classes of the best precision at 101 recalls, in per cent.

    The best at a recall or a higher one, 0 where no detection reaches it. Over the chosen
    classes with positives; empty without any, and for a sample of the bootstrap.
    """
    ranking = ranked(tally)
    edges = list(pairwise(ranking.edge_K.tolist()))
    classes = np.arange(tally.num_classes)[chosen]
    classes = classes[num_positives_K[classes] > 0]
    if tally.times_N is not None or not len(classes):
        return {}
    total = np.zeros(len(_RECALLS))
    for index in classes.tolist():
        outcome_D = ranking.outcome_D[slice(*edges[index])]
        positives = int(num_positives_K[index])
        precision_D, recall_D = precision_recall(outcome_D == TRUE, outcome_D == FALSE, positives)
        best_D = np.fmax.accumulate(np.append(precision_D, 0.0)[::-1])[::-1]
        total += best_D[np.searchsorted(recall_D, _RECALLS)]
    return {
        "recall": _RECALLS.tolist(),
        "mean precision": (100 * total / len(classes)).tolist(),
    }


def count_outcomes(tally: Tally) -> npt.NDArray[np.int64]:
    """Return how many detections of each class are false, true and neither, int64 (3, K)."""

    def keys() -> npt.NDArray[np.int64]:
        outcome_D = tally.column("detection", "outcome").astype(np.int64)
        return outcome_D * tally.num_classes + tally.column("detection", "class")

    num = np.bincount(
        tally.once("outcome and class", keys),
        None if tally.times_N is None else tally.weight("detection"),
        minlength=3 * tally.num_classes,
    )
    return num.astype(np.int64).reshape(3, tally.num_classes)


def ranked(tally: Tally) -> Ranking:
    """Return the ranking of a tally's detections, made once for all that is drawn from it."""
    return tally.once("ranking", lambda: _ranked(tally))


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Detections by class, then falling score.

    Attributes
    ----------
    order_D : array of intp
        The ranked entries of the table.
    outcome_D : array of int8
        Theirs.
    edge_K : array of intp, (K + 1,)
        Where each class begins.
    start_G : array of intp, (G + 1,), or None
        Where each run of entries begins that are of one class, score and image; None where
        no such run has different outcomes, so that their order does not matter.
    """

    order_D: Indices
    outcome_D: npt.NDArray[np.int8]
    edge_K: Indices
    start_G: Indices | None

    def drawn(
        self, weight_D: npt.NDArray[np.int64]
    ) -> tuple[Indices, Indices, npt.NDArray[np.int64]]:
        """Return the ranking with images taken several times.

        An image taken twice is two images, one behind the other: entries a, b of equal score
        make a, b, a, b and not a, a, b, b.

        Returns
        -------
        entry_E : array of intp
            Into `outcome_D`.
        edge_K : array of intp, (K + 1,)
            Where each class begins now.
        weight_E : array of int64
            How often each counts, one directly behind the other.
        """
        if self.start_G is None:
            return np.arange(len(weight_D)), self.edge_K, weight_D
        first_G, num_G = self.start_G[:-1], np.diff(self.start_G)
        several_G = num_G > 1
        rounds_G = np.where(several_G, weight_D[first_G], 1)
        run_R = np.repeat(np.arange(len(first_G)), rounds_G)
        num_R = num_G[run_R]
        entry_E = np.arange(num_R.sum()) + np.repeat(
            first_G[run_R] - np.cumsum(num_R) + num_R, num_R
        )
        weight_E = np.where(np.repeat(several_G[run_R], num_R), 1, weight_D[entry_E])
        edge_G = np.concatenate([[0], np.cumsum(rounds_G * num_G)])
        return entry_E, edge_G[np.searchsorted(self.start_G, self.edge_K)], weight_E


def _ranked(tally: Tally) -> Ranking:
    row_D, class_D, score_D, outcome_D = (
        tally.column("detection", name) for name in ("row", "class", "score", "outcome")
    )
    order_D = np.argsort(row_D, kind="stable")
    order_D = order_D[np.argsort(-score_D[order_D], kind="stable")]
    # A stable sort of short integers takes linear time.
    short = np.int16 if tally.num_classes < 2**15 else np.int32
    order_D = order_D[np.argsort(class_D[order_D].astype(short), kind="stable")]
    edge_K = np.searchsorted(class_D[order_D], np.arange(tally.num_classes + 1))
    outcome_D = outcome_D[order_D]
    same_D = np.ones(max(len(order_D) - 1, 0), bool)
    for column_D in (row_D, class_D, score_D):
        ranked_D = column_D[order_D]
        same_D &= ranked_D[1:] == ranked_D[:-1]
    if not (same_D & (outcome_D[1:] != outcome_D[:-1])).any():
        return Ranking(order_D, outcome_D, edge_K, None)
    start_G = np.concatenate([[0], np.flatnonzero(~same_D) + 1, [len(order_D)]])
    return Ranking(order_D, outcome_D, edge_K, start_G)
