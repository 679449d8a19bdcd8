"""What protocols count: predictions and truth of a block of N images, as plain arrays.

Ragged arrays stand behind offsets: the boxes of image n are
``box_xyxy_B4[box_start[n]:box_start[n + 1]]``. Boxes are half-open, in pixels. Nothing is
checked when a record is made; `check_predictions`, `check_peaks` and `check_class_scores` do it
when it is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError

__all__ = [
    "ClassScores",
    "Peaks",
    "Predictions",
    "Truth",
    "check_class_scores",
    "check_peaks",
    "check_predictions",
    "image_of_box",
    "single_label",
]

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Integers: TypeAlias = npt.NDArray[np.integer[Any]]
Flags: TypeAlias = npt.NDArray[np.bool_ | np.integer[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Ranked classes and boxes of N images, as in a boxes store.

    Attributes
    ----------
    has_prediction_N : array of bool
        False for an image that was skipped, or that the store lacks; it is empty then.
    map_class_NS : array of int32
        The ranked classes, −1 for none.
    map_score_NS : array of float
        Their scores, in falling order.
    box_start : array of int64, (N + 1,)
    box_xyxy_B4 : array of float
    box_class_B : array of int32
    box_score_B : array of float
        Boxes of equal class stand in the order in which they are to be guessed.
    """

    has_prediction_N: Flags
    map_class_NS: Integers
    map_score_NS: Floats
    box_start: Integers
    box_xyxy_B4: Floats
    box_class_B: Integers
    box_score_B: Floats

    def __len__(self) -> int:
        return len(self.has_prediction_N)

    def take(self, image: Integers) -> Self:
        """Return the given images (indices, in any order) as a record of their own."""
        box_start, box = _take_ragged(self.box_start, image)
        return type(self)(
            has_prediction_N=self.has_prediction_N[image],
            map_class_NS=self.map_class_NS[image],
            map_score_NS=self.map_score_NS[image],
            box_start=box_start,
            box_xyxy_B4=self.box_xyxy_B4[box],
            box_class_B=self.box_class_B[box],
            box_score_B=self.box_score_B[box],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Peaks:
    """Where the maps of N images peak.

    Attributes
    ----------
    has_prediction_N : array of bool
        False for an image that was skipped, or that the store lacks; it is empty then.
    map_class_NS : array of int32
        The ranked classes, −1 for none.
    map_score_NS : array of float
        Their scores, in falling order.
    peak_xy_NS2 : array of float64
        The centre of the hottest pixel of each map, in pixels; anything in an empty slot.
    peak_value_NS : array of float
        The map's value there; anything in an empty slot.
    """

    has_prediction_N: Flags
    map_class_NS: Integers
    map_score_NS: Floats
    peak_xy_NS2: Floats
    peak_value_NS: Floats

    def __len__(self) -> int:
        return len(self.has_prediction_N)

    def take(self, image: Integers) -> Self:
        """Return the given images (indices, in any order) as a record of their own."""
        return type(self)(
            has_prediction_N=self.has_prediction_N[image],
            map_class_NS=self.map_class_NS[image],
            map_score_NS=self.map_score_NS[image],
            peak_xy_NS2=self.peak_xy_NS2[image],
            peak_value_NS=self.peak_value_NS[image],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassScores:
    """How sure a classifier is of each of K classes, in N images.

    Attributes
    ----------
    has_prediction_N : array of bool
        False for an image that was skipped, or that the store lacks.
    class_score_NK : array of float
        Anything where there is no prediction.
    """

    has_prediction_N: Flags
    class_score_NK: Floats

    def __len__(self) -> int:
        return len(self.has_prediction_N)

    def take(self, image: Integers) -> Self:
        """Return the given images (indices, in any order) as a record of their own."""
        return type(self)(
            has_prediction_N=self.has_prediction_N[image],
            class_score_NK=self.class_score_NK[image],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """What N images really show, as in an images store, with K classes.

    Attributes
    ----------
    row_N : array of int64
        The row of each image among all that are scored. It orders detections of equal
        confidence, so that the division into blocks makes no difference, and names the
        image in messages.
    size_wh_N2 : array of int32
        Width and height in pixels.
    label_NK : array of uint8
        1 present, 0 absent, 255 undecided.
    excluded_N : array of bool
        ILSVRC's blacklist: what is shown is not in question, where it stands is.
    box_start : array of int64, (N + 1,)
    box_xyxy_B4 : array of float
    box_class_B : array of int32
    box_difficult_B : array of bool or uint8
    box_crowd_B, box_truncated_B : arrays of bool or uint8, or None
        None: no box is.
    box_area_B : array of float64, or None
        The annotated object's own area in square pixels; None: that of the box.
    """

    row_N: Integers
    size_wh_N2: Integers
    label_NK: npt.NDArray[np.uint8]
    excluded_N: Flags
    box_start: Integers
    box_xyxy_B4: Floats
    box_class_B: Integers
    box_difficult_B: Flags
    box_crowd_B: Flags | None = None
    box_truncated_B: Flags | None = None
    box_area_B: Floats | None = None

    def __len__(self) -> int:
        return len(self.row_N)

    @property
    def num_classes(self) -> int:
        """The number K of classes."""
        return int(self.label_NK.shape[1])

    def take(self, image: Integers) -> Self:
        """Return the given images (indices, in any order) as a record of their own."""
        box_start, box = _take_ragged(self.box_start, image)
        return type(self)(
            row_N=self.row_N[image],
            size_wh_N2=self.size_wh_N2[image],
            label_NK=self.label_NK[image],
            excluded_N=self.excluded_N[image],
            box_start=box_start,
            box_xyxy_B4=self.box_xyxy_B4[box],
            box_class_B=self.box_class_B[box],
            box_difficult_B=self.box_difficult_B[box],
            box_crowd_B=None if self.box_crowd_B is None else self.box_crowd_B[box],
            box_truncated_B=None if self.box_truncated_B is None else self.box_truncated_B[box],
            box_area_B=None if self.box_area_B is None else self.box_area_B[box],
        )


def image_of_box(box_start: Integers) -> npt.NDArray[np.intp]:
    """Return the image of every box, from the offsets."""
    return np.repeat(np.arange(len(box_start) - 1), np.diff(box_start))


def single_label(truth: Truth, protocol: str) -> npt.NDArray[np.intp]:
    """Return the one class of every image, intp (N,).

    Raises
    ------
    ProtocolError
        If an image has no class present, or more than one.
    """
    present_NK: npt.NDArray[np.bool_] = truth.label_NK == 1
    wrong_N = present_NK.sum(axis=1) != 1
    if wrong_N.any():
        image = int(wrong_N.argmax())
        classes = np.flatnonzero(present_NK[image])
        which = f" ({', '.join(str(one) for one in classes[:5])})" if len(classes) else ""
        raise ProtocolError(
            f"truth row {truth.row_N[image]}: {len(classes)} classes are present{which}; "
            f"{protocol} expects exactly one in every image. For images with several classes "
            "use --protocol voc-ap or peak-in-box."
        )
    label_N: npt.NDArray[np.intp] = present_NK.argmax(axis=1)
    return label_N


def check_predictions(predicted: Predictions, truth: Truth) -> None:
    """Check that predictions and truth are sound and of the same images.

    Raises
    ------
    ProtocolError
        Naming the first row that is wrong and its value.
    """
    _check_ranks(predicted, truth)
    _check_truth(truth)
    _check_boxes("boxes", predicted, truth)
    nan_B = np.isnan(predicted.box_score_B)
    if nan_B.any():
        _refuse_box("boxes", predicted.box_start, truth, nan_B, "score nan; expected a number")
    num_boxes_N = np.diff(predicted.box_start)
    _check_absent(predicted.has_prediction_N, num_boxes_N, truth)


def check_peaks(peaks: Peaks, truth: Truth) -> None:
    """Check that peaks and truth are sound and of the same images.

    Raises
    ------
    ProtocolError
        Naming the first row that is wrong and its value.
    """
    _check_ranks(peaks, truth)
    _check_truth(truth)
    bad_NS = ~np.isfinite(peaks.peak_xy_NS2).all(axis=2) & (peaks.map_class_NS >= 0)
    if bad_NS.any():
        image, slot = (int(axis[0]) for axis in np.nonzero(bad_NS))
        x, y = peaks.peak_xy_NS2[image, slot]
        raise ProtocolError(
            f"maps row {truth.row_N[image]}: slot {slot} peaks at ({x}, {y}); expected pixels."
        )
    bad_NS = np.isnan(peaks.peak_value_NS) & (peaks.map_class_NS >= 0)
    if bad_NS.any():
        image, slot = (int(axis[0]) for axis in np.nonzero(bad_NS))
        raise ProtocolError(
            f"maps row {truth.row_N[image]}: slot {slot} is nan at its peak; expected a number."
        )


def check_class_scores(scores: ClassScores, truth: Truth) -> None:
    """Check that class scores and truth are sound and of the same images and classes.

    Raises
    ------
    ProtocolError
        Naming the first row that is wrong and its value.
    """
    if scores.class_score_NK.shape != truth.label_NK.shape:
        raise ProtocolError(
            f"class_score has shape {scores.class_score_NK.shape}, but the truth "
            f"{truth.label_NK.shape}; expected the same images and classes."
        )
    _check_truth(truth)
    bad_NK = np.isnan(scores.class_score_NK) & np.asarray(scores.has_prediction_N, bool)[:, None]
    if bad_NK.any():
        image, index = (int(axis[0]) for axis in np.nonzero(bad_NK))
        raise ProtocolError(
            f"predictions row {truth.row_N[image]}: the score of class {index} is nan; expected "
            "a number."
        )


def _check_ranks(predicted: Predictions | Peaks, truth: Truth) -> None:
    if len(predicted) != len(truth):
        raise ProtocolError(
            f"{len(predicted)} images are predicted, but the truth has {len(truth)}; expected "
            "the same images in the same order."
        )
    class_NS, score_NS = predicted.map_class_NS, predicted.map_score_NS
    _check_classes("map_class", class_NS.max(axis=1, initial=-1), truth)
    filled_NS = class_NS >= 0
    num_filled_N = filled_NS.sum(axis=1)
    _check_absent(predicted.has_prediction_N, num_filled_N, truth)
    unordered_NS = ~(score_NS[:, 1:] <= score_NS[:, :-1]) & filled_NS[:, 1:]
    unordered_N = unordered_NS.any(axis=1) | (np.isnan(score_NS) & filled_NS).any(axis=1)
    if unordered_N.any():
        image = int(unordered_N.argmax())
        raise ProtocolError(
            f"predictions row {truth.row_N[image]}: the scores of the ranked classes are "
            f"{score_NS[image][filled_NS[image]].tolist()[:5]}; expected them in falling order."
        )


def _check_absent(has_prediction_N: Flags, num_N: Integers, truth: Truth) -> None:
    bad_N = ~np.asarray(has_prediction_N, dtype=bool) & (num_N > 0)
    if bad_N.any():
        image = int(bad_N.argmax())
        raise ProtocolError(
            f"predictions row {truth.row_N[image]}: marked as without prediction, but has "
            f"{num_N[image]} classes or boxes; expected none."
        )


def _check_classes(name: str, class_N: Integers, truth: Truth) -> None:
    bad_N = class_N >= truth.num_classes
    if bad_N.any():
        image = int(bad_N.argmax())
        raise ProtocolError(
            f"row {truth.row_N[image]}: {name} is {class_N[image]}, but the truth has "
            f"{truth.num_classes} classes; expected both to have the same classes."
        )


def _check_truth(truth: Truth) -> None:
    odd_N = ((truth.label_NK > 1) & (truth.label_NK != 255)).any(axis=1)
    if odd_N.any():
        image = int(odd_N.argmax())
        labels = sorted({int(label) for label in truth.label_NK[image]} - {0, 1, 255})
        raise ProtocolError(
            f"truth row {truth.row_N[image]}: label is {labels[0]}; expected 1 (present), "
            "0 (absent) or 255 (undecided)."
        )
    _check_boxes("truth", truth, truth)


def _check_boxes(name: str, boxes: Predictions | Truth, truth: Truth) -> None:
    start, box_B4, class_B = boxes.box_start, boxes.box_xyxy_B4, boxes.box_class_B
    whole = len(start) == len(truth) + 1 and start[0] == 0 and start[-1] == len(box_B4)
    if not whole or (np.diff(start) < 0).any() or len(class_B) != len(box_B4):
        raise ProtocolError(
            f"{name}: box_start of {len(start)} offsets does not divide {len(box_B4)} boxes "
            f"among {len(truth)} images; expected offsets that rise from 0 to the number of boxes."
        )
    good_B4 = np.isfinite(box_B4) & np.tile(box_B4[:, 2:] >= box_B4[:, :2], 2)
    bad_B = np.asarray((~good_B4).any(axis=1), dtype=np.bool_)
    if bad_B.any():
        box = box_B4[int(bad_B.argmax())].tolist()
        _refuse_box(name, start, truth, bad_B, f"{box}; expected finite x0 <= x1 and y0 <= y1")
    bad_B = (class_B < 0) | (class_B >= truth.num_classes)
    if bad_B.any():
        what = f"class {class_B[int(bad_B.argmax())]}; expected 0 to {truth.num_classes - 1}"
        _refuse_box(name, start, truth, bad_B, what)


def _refuse_box(
    name: str, start: Integers, truth: Truth, bad_B: npt.NDArray[np.bool_], what: str
) -> NoReturn:
    image = int(image_of_box(start)[int(bad_B.argmax())])
    raise ProtocolError(f"{name} row {truth.row_N[image]}: a box has {what}.")


def _take_ragged(
    start: Integers, image: Integers
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the offsets of the given images, and the indices of their boxes."""
    num = np.diff(start)[image]
    new_start = np.concatenate([[0], np.cumsum(num)]).astype(np.int64)
    box = np.arange(new_start[-1]) + np.repeat(start[:-1][image] - new_start[:-1], num)
    return new_start, box
