"""What ``view`` shows: every class present in every image, judged, and the cases to draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from wsltool.errors import BadImageError
from wsltool.localize.boxes import boxes_from_heat, heat_level
from wsltool.localize.priors import centred_box
from wsltool.metrics.baselines import CENTRED_FRACTIONS
from wsltool.metrics.iou import pair_iou
from wsltool.metrics.matching import join, key_of, nth_box, truth_keys
from wsltool.metrics.records import Truth
from wsltool.stages.map_rows import MapRow, map_rows, row_named
from wsltool.stages.pictures import Pictures
from wsltool.stages.report import Reporter
from wsltool.stages.scored import join_images
from wsltool.stages.scored_records import box_predictions, truths
from wsltool.stores.store import Store
from wsltool.views.gallery import Case

__all__ = ["DEFAULT_THRESHOLD", "HIT_IOU", "Judged", "Shown", "drawn_at", "judge"]

Array = np.ndarray[Any, Any]

DEFAULT_THRESHOLD = 0.2
"""Of the maximum: where boxes are drawn when there are only maps."""
HIT_IOU = 0.5
"""From this IoU with a true box on a box is right."""


@dataclass(frozen=True)
class Judged:
    """M pairs of an image and a class that is present in it.

    Attributes
    ----------
    truth_row_M, row_M, class_M : int64 ndarrays
        Row of the image in the truth, and in the store or -1 where that has no prediction.
    box_M4 : float64 ndarray
        The class's first box, NaN where there is none.
    iou_M : float64 ndarray
        Best IoU of the class's first box with a true box of the class; NaN without a box,
        and where the truth has no boxes at all.
    prior_MF : float64 ndarray
        The same of centred boxes, by `CENTRED_FRACTIONS`.
    has_boxes : bool
        Whether the truth has boxes.
    """

    truth_row_M: Array
    row_M: Array
    class_M: Array
    box_M4: Array
    iou_M: Array
    prior_MF: Array
    has_boxes: bool

    def take(self, place_M: Array) -> Judged:
        """Return some of the pairs, in the given order."""
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        held = {name: one[place_M] for name, one in own.items() if name != "has_boxes"}
        return Judged(**held, has_boxes=self.has_boxes)


def judge(store: Store, truth: Store) -> Judged:
    """Judge every pair; an image that the store lacks counts as one without a box.

    Raises
    ------
    ProtocolError
        The two do not belong together.
    """
    images = join_images(store, truth, given=store, without_skipped=False)
    read_boxes = _first_boxes if store.kind == "boxes" else _drawn_boxes
    at, parts = 0, []
    for true in truths(truth, images):
        row_N = images.row_N[at : at + len(true)]
        image_Q, class_Q = np.nonzero(true.label_NK == 1)
        iou_Q = np.full(len(image_Q), np.nan)
        box_Q4 = read_boxes(store, row_N, image_Q, class_Q)
        boxed_Q = ~np.isnan(box_Q4).any(axis=1)
        if "box" in truth:
            boxed = image_Q[boxed_Q], class_Q[boxed_Q]
            iou_Q[boxed_Q] = _best_iou(box_Q4[boxed_Q], *boxed, true)
        prior_FQ = [
            _best_iou(centred_box(true.size_wh_N2[image_Q], fraction), image_Q, class_Q, true)
            for fraction in CENTRED_FRACTIONS
        ]
        rows = true.row_N[image_Q], row_N[image_Q], class_Q
        parts.append((*rows, box_Q4, iou_Q, np.array(prior_FQ).T))
        at += len(true)
    truth_row_M, row_M, class_M, box_M4, iou_M, prior_MF = map(
        np.concatenate, zip(*parts, strict=True)
    )
    return Judged(truth_row_M, row_M, class_M, box_M4, iou_M, prior_MF, "box" in truth)


def _best_iou(box_Q4: Array, image_Q: Array, class_Q: Array, true: Truth) -> Array:
    """Return the IoU of each box with the nearest true box of its class, 0 without one."""
    query_P, true_P = join(key_of(image_Q, class_Q, true.num_classes), truth_keys(true))
    iou_Q = np.zeros(len(box_Q4))
    np.maximum.at(iou_Q, query_P, pair_iou(box_Q4[query_P], true.box_xyxy_B4[true_P]))
    return iou_Q


def _first_boxes(boxes: Store, row_N: Array, image_Q: Array, class_Q: Array) -> Array:
    """Return the first box of a class in an image, float64 (Q, 4), NaN where there is none."""
    box_Q4 = np.full((len(image_Q), 4), np.nan)
    predicted = box_predictions(boxes, row_N)
    box_Q = nth_box(predicted, image_Q, class_Q, np.zeros_like(image_Q))
    box_Q4[box_Q >= 0] = predicted.box_xyxy_B4[box_Q[box_Q >= 0]]
    return box_Q4


def _drawn_boxes(maps: Store, row_N: Array, image_Q: Array, class_Q: Array) -> Array:
    """Return the same of maps, whose boxes are drawn at the default threshold."""
    box_Q4 = np.full((len(image_Q), 4), np.nan)
    for n in np.flatnonzero(row_N >= 0):
        row = int(row_N[n])
        maps_of_image = next(map_rows(maps, row, row + 1))
        if maps_of_image is not None:
            with row_named(maps, row):
                for q in np.flatnonzero(image_Q == n):
                    box_Q4[q] = _drawn(maps_of_image, int(class_Q[q]))
    return box_Q4


def _drawn(maps_of_image: MapRow, class_index: int) -> Array:
    """Return the box of a class at the default threshold, NaN where there is none."""
    slot = maps_of_image.slot_of(class_index)
    if slot is not None:
        found = boxes_from_heat(maps_of_image.heat(slot), threshold=DEFAULT_THRESHOLD)
        if len(found):
            box_4: Array = found.box_xyxy_B4[0]
            return box_4
    return np.full(4, np.nan)


@dataclass
class Shown:
    """Draws the chosen pairs.

    Attributes
    ----------
    store, truth : Store
        What is looked at, and the images.
    maps : Store or None
        The maps behind boxes, if they are still there.
    pictures : Pictures
    num_left_out : int
        Cases whose picture could not be read, so far.
    """

    store: Store
    truth: Store
    maps: Store | None
    pictures: Pictures
    num_left_out: int = 0

    def cases(self, judged: Judged, chosen: Array, report: Reporter) -> Iterator[Case]:
        """Yield the cases one at a time; a picture that cannot be read is left out."""
        return (case for _, case in self.numbered(judged, chosen, report))

    def numbered(
        self, judged: Judged, chosen: Array, report: Reporter
    ) -> Iterator[tuple[int, Case]]:
        """Yield the same with the numbers of their pairs."""
        names = self.truth.class_names()
        map_row = {} if self.maps is None else _row_of(self.maps)
        for index, image_id, picture in self.readable(judged.truth_row_M, chosen, report):
            class_index, box_4 = int(judged.class_M[index]), judged.box_M4[index]
            heat, level, score = self._heat(map_row.get(image_id), class_index)
            case = Case(
                image_id=image_id,
                class_name=names[class_index],
                picture_HWC=picture,
                heat_HW=heat,
                predicted_box_B4=None if np.isnan(box_4).any() else box_4[None],
                true_box_B4=self.true_boxes(int(judged.truth_row_M[index]), class_index),
                iou=float(judged.iou_M[index]),
                class_score=score,
                note="" if self.maps is None or heat is not None else "no map of this class",
                contour_level=level,
            )
            yield index, case

    def readable(
        self, truth_row_M: Array, chosen: Array, report: Reporter
    ) -> Iterator[tuple[int, str, Array]]:
        """Yield number, image id and picture of the chosen pairs; an unreadable one is told."""
        with report.progress("view", len(chosen), "pictures") as advance:
            for index in chosen.tolist():
                advance(1)
                row = int(truth_row_M[index])
                image_id = str(self.truth.rows("image_id", row, row + 1)[0])
                try:
                    picture = self.pictures(row)
                except BadImageError as error:
                    report.warn(f'{self.truth.path.name} row {row} "{image_id}": {error} Left out.')
                    self.num_left_out += 1
                    continue
                yield index, image_id, picture

    def true_boxes(self, row: int, class_index: int) -> Array | None:
        """Return the true boxes of a class in an image (a row of the truth), None if untold."""
        if "box" not in self.truth:
            return None
        found = self.truth.ragged_rows("box", row, row + 1)
        box_B4: Array = found["box"][found["box_class"] == class_index]
        return box_B4

    def _heat(
        self, row: int | None, class_index: int
    ) -> tuple[Array | None, float | None, float | None]:
        """Return heat, the level above which boxes were drawn, and the class's score."""
        if self.maps is None or row is None:
            return None, None, None
        maps_of_image = next(map_rows(self.maps, row, row + 1))
        slot = None if maps_of_image is None else maps_of_image.slot_of(class_index)
        if maps_of_image is None or slot is None:
            return None, None, None
        threshold, of = drawn_at(self.store, class_index)
        with row_named(self.maps, row):
            heat = maps_of_image.heat(slot)
            level = None if threshold is None else heat_level(heat, threshold, of)
        return heat, level, float(self.maps.rows("map_score", row, row + 1)[0, slot])


def drawn_at(store: Store, class_index: int = 0) -> tuple[float | None, Literal["max", "range"]]:
    """Return the threshold that the boxes of a class were drawn at, and what it is a share of.

    None where a rule has several. Of maps: the one at which `judge` draws boxes.
    """
    params = store.meta.get("params", {}) if store.kind == "boxes" else {}
    told = store.attributes.get("thresholds") or {"value": params.get("threshold")}
    value = told["value"]
    if told.get("source") == "rule":
        return None, "max"
    if isinstance(value, list):  # one a class
        value = value[class_index]
    threshold = DEFAULT_THRESHOLD if value is None else float(value)
    return threshold, params.get("threshold_of", "max")


def _row_of(store: Store) -> dict[str, int]:
    return {str(name): row for row, name in enumerate(store.whole("image_id").tolist())}
