"""PASCAL VOC classification: mean average precision of the class scores (``VOCevalcls.m``).

For each class all images are ranked by its score, by falling score; equals stay in the order of
the images (MATLAB's stable sort). An image where the class is present (1) is a true positive,
where it is absent (0) a false one, and where it is undecided (255: only difficult objects)
neither. An image without a prediction has the score −inf: it stands at the end and counts.
The curve is summed as VOC does from 2010 on (`wsltool.metrics.average_precision.area_ap`).
A class that is present nowhere has no AP and is left out of the mean. ILSVRC's excluded images
stay in: what they show is not in question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError
from wsltool.metrics.ranking import FALSE, NEITHER, TRUE, average_precision
from wsltool.metrics.records import ClassScores, Truth, check_class_scores
from wsltool.metrics.result import Result, class_mean, mean_result
from wsltool.metrics.tally import Tally

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["classification_ap", "count", "result"]

_OUTCOME = np.full(256, NEITHER, np.int8)
_OUTCOME[[0, 1]] = FALSE, TRUE


def classification_ap(
    score_NK: npt.NDArray[Any], label_NK: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float64], float]:
    """Return the average precision of each class and their mean, in per cent.

    Parameters
    ----------
    score_NK : array of float
        How sure the classifier is that image n shows class k; −inf and inf are ranked.
    label_NK : array of integers
        1 present, 0 absent, 255 undecided.

    Returns
    -------
    ap_K : array of float64
        In [0, 100]; NaN for a class that is present in no image.
    mean : float
        Over the classes that have an AP; NaN where none has.

    Raises
    ------
    ProtocolError
        If the shapes differ, a score is NaN, or a label is none of the three.
    """
    score_NK, label_NK = np.asarray(score_NK), np.asarray(label_NK)
    if score_NK.ndim != 2 or score_NK.shape != label_NK.shape:
        raise ProtocolError(
            f"scores have shape {score_NK.shape}, labels {label_NK.shape}; expected two of "
            "(images, classes)."
        )
    if np.isnan(score_NK).any():
        image, index = (int(axis[0]) for axis in np.nonzero(np.isnan(score_NK)))
        raise ProtocolError(f"the score of image {image}, class {index} is nan; expected a number.")
    odd_NK = ~np.isin(label_NK, (0, 1, 255))
    if odd_NK.any():
        raise ProtocolError(
            f"a label is {label_NK[odd_NK][0]}; expected 1 (present), 0 (absent) or 255 "
            "(undecided)."
        )
    _, outcome_NK = _ranked(score_NK, label_NK)
    ap_K = _average_precisions(outcome_NK, (label_NK == 1).sum(axis=0))
    return ap_K, class_mean(ap_K)[0]


def count(_protocol: ScoreProtocol, predicted: ClassScores, truth: Truth) -> Tally:
    """Return the counts of a block of images.

    The table ``image`` has scores and labels of all classes, (N, K).

    Raises
    ------
    ProtocolError
        If the records are not sound, for instance if a score is NaN.
    """
    check_class_scores(predicted, truth)
    here_N = np.asarray(predicted.has_prediction_N, dtype=bool)
    image = {
        "row": truth.row_N.astype(np.int64),
        "predicted": here_N,
        "score": np.where(here_N[:, None], predicted.class_score_NK, -np.inf),
        "label": truth.label_NK,
    }
    return Tally(truth.num_classes, {"image": image})


def result(protocol: ScoreProtocol, tally: Tally) -> Result:
    """Return the mean average precision over classes in per cent, and each class's own."""
    order_NK, outcome_NK = tally.once("ranking", lambda: _by_row(tally))
    weight_NK = None if tally.times_N is None else tally.weight("image")[order_NK]
    num_K = {
        name: _num_labels(tally, name, label)
        for name, label in (("num_positives", 1), ("num_negatives", 0), ("num_undecided", 255))
    }
    num_missing = tally.num("image", ~tally.column("image", "predicted"))
    words = "images have no prediction and stand last in the ranking."
    return mean_result(
        protocol,
        _average_precisions(outcome_NK, num_K["num_positives"], weight_NK),
        num_K,
        extra={"num_images": tally.num("image"), "num_without_prediction": num_missing},
        cases=((num_missing, words),),
        without="classes are present in no image",
    )


def _num_labels(tally: Tally, name: str, label: int) -> npt.NDArray[np.int64]:
    """Return how many images have a label of each class, int64 (K,)."""
    has_NK = tally.once(name, lambda: tally.column("image", "label") == label)
    if tally.times_N is None:
        return np.asarray(has_NK.sum(axis=0), np.int64)
    # Whole numbers below 2**53 are exact in float64, whose products are fast.
    return np.asarray(tally.weight("image").astype(np.float64) @ has_NK, np.int64)


def _by_row(tally: Tally) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int8]]:
    """Return the ranked images of each class, and the outcomes."""
    row_N = np.argsort(tally.row_N, kind="stable")
    score_NK, label_NK = (tally.column("image", name)[row_N] for name in ("score", "label"))
    order_NK, outcome_NK = _ranked(score_NK, label_NK)
    return row_N[order_NK], outcome_NK


def _ranked(
    score_NK: npt.NDArray[Any], label_NK: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int8]]:
    order_NK = np.argsort(-score_NK.astype(np.float64), axis=0, kind="stable")
    return order_NK, _OUTCOME[np.take_along_axis(label_NK, order_NK, axis=0)]


def _average_precisions(
    outcome_NK: npt.NDArray[np.int8],
    num_positives_K: npt.NDArray[np.int64],
    weight_NK: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float64]:
    """Return the average precision of each class in per cent, NaN without positives."""
    return np.array(
        [
            average_precision(
                outcome_NK[:, index],
                int(num),
                weight_D=None if weight_NK is None else weight_NK[:, index],
            )
            for index, num in enumerate(num_positives_K)
        ],
        np.float64,
    )
