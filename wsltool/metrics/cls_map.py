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

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError
from wsltool.metrics.ranking import FALSE, NEITHER, TRUE, average_precision
from wsltool.metrics.records import ClassScores, Truth, check_class_scores
from wsltool.metrics.result import ClassRow, Result, class_mean

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["ClsMapCounts", "classification_ap", "count", "result"]

_OUTCOME = np.full(256, NEITHER, np.int8)
_OUTCOME[[0, 1]] = FALSE, TRUE


@dataclass(frozen=True, slots=True, eq=False)
class ClsMapCounts:
    """Class scores and labels of some images, as blocks in any order.

    Attributes
    ----------
    row_parts : tuple of int64 arrays, each (N,)
        Rows of the images among all that are scored.
    score_parts : tuple of float arrays, each (N, K)
        −inf where there is no prediction.
    label_parts : tuple of uint8 arrays, each (N, K)
    num_without_prediction : int
        Images that have none.
    """

    row_parts: tuple[npt.NDArray[np.int64], ...]
    score_parts: tuple[npt.NDArray[Any], ...]
    label_parts: tuple[npt.NDArray[np.uint8], ...]
    num_without_prediction: int

    def __add__(self, other: ClsMapCounts) -> ClsMapCounts:
        return ClsMapCounts(
            self.row_parts + other.row_parts,
            self.score_parts + other.score_parts,
            self.label_parts + other.label_parts,
            self.num_without_prediction + other.num_without_prediction,
        )


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
    order_NK = np.argsort(-score_NK.astype(np.float64), axis=0, kind="stable")
    outcome_NK = _OUTCOME[np.take_along_axis(label_NK, order_NK, axis=0)]
    num_positives_K = (label_NK == 1).sum(axis=0)
    ap_K = np.array(
        [
            average_precision(outcome_N, int(num))
            for outcome_N, num in zip(outcome_NK.T, num_positives_K, strict=True)
        ],
        np.float64,
    )
    return ap_K, class_mean(ap_K)[0]


def count(_protocol: ScoreProtocol, predicted: ClassScores, truth: Truth) -> ClsMapCounts:
    """Return the counts of a block of images.

    Raises
    ------
    ProtocolError
        If the records are not sound, for instance if a score is NaN.
    """
    check_class_scores(predicted, truth)
    here_N = np.asarray(predicted.has_prediction_N, dtype=bool)
    score_NK = np.where(here_N[:, None], predicted.class_score_NK, -np.inf)
    return ClsMapCounts(
        (truth.row_N.astype(np.int64),), (score_NK,), (truth.label_NK,), int((~here_N).sum())
    )


def result(protocol: ScoreProtocol, counts: ClsMapCounts) -> Result:
    """Return the mean average precision over classes in per cent, and each class's own."""
    order_N = np.argsort(np.concatenate(counts.row_parts), kind="stable")
    label_NK = np.concatenate(counts.label_parts)[order_N]
    ap_K, _ = classification_ap(np.concatenate(counts.score_parts)[order_N], label_NK)
    mean, num = class_mean(ap_K, protocol.chosen)
    num_label_K3 = np.stack([(label_NK == label).sum(axis=0) for label in (1, 0, 255)], axis=1)
    names = ("num_positives", "num_negatives", "num_undecided")
    return Result(
        protocol=protocol.name,
        value=mean,
        unit=protocol.unit,
        higher_is_better=protocol.higher_is_better,
        parameters=protocol.parameters,
        per_class=tuple(
            ClassRow(index, float(ap), dict(zip(names, numbers, strict=True)))
            for index, (ap, numbers) in enumerate(zip(ap_K, num_label_K3.tolist(), strict=True))
        ),
        extra={
            **num,
            "num_images": len(label_NK),
            "num_without_prediction": counts.num_without_prediction,
        },
        warnings=tuple(_warnings(counts, num["num_classes_without_positives"])),
    )


def _warnings(counts: ClsMapCounts, num_without_positives: int) -> list[str]:
    cases = (
        (counts.num_without_prediction, "images have no prediction and stand last in the ranking."),
        (num_without_positives, "classes are present in no image and are left out of the mean."),
    )
    return [f"{number} {what}" for number, what in cases if number]
