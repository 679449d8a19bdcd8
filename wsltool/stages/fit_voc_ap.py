"""What thresholds reach on named images: the average precision of boxes, drawn as they will be.

At every threshold all boxes of all maps are drawn by the very rule of the run and counted as
``score --protocol voc-ap`` counts them, at IoU .5. What is kept of a box (threshold, score,
outcome) goes to a file without a name, so memory holds one block of images, then one class.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.ranking import average_precision
from wsltool.metrics.records import Predictions, Truth, check_predictions, image_of_box
from wsltool.metrics.voc_ap import outcomes
from wsltool.stages.box_rules import Kl16Rule
from wsltool.stages.fit_pairs import Reached, rows_in_truth
from wsltool.stages.map_rows import map_row, row_named
from wsltool.stages.scored import join_images, usable_slots
from wsltool.stages.scored_records import ranks, truths
from wsltool.stores.store import Store

__all__ = ["reached_by_voc_ap"]

Array = np.ndarray[Any, Any]

_IOU = 0.5
_BLOCK_ROWS = 64
_BOX = np.dtype([("threshold", np.uint16), ("score", np.float32), ("outcome", np.int8)])


def reached_by_voc_ap(
    fit: Store,
    truth: Store,
    threshold_T: Array,
    drawing: dict[str, Any],
    folder: Path,
    tick: Callable[[int], None],
) -> Reached:
    """Return VOC's average precision of every class at every threshold, 0 without an object.

    As `score` would give for the boxes of each threshold: images of the truth that the maps lack
    or skipped count as missed, unless the maps say that they hold only some.

    Parameters
    ----------
    fit, truth : Store
        Maps, and images with true boxes.
    threshold_T : float64 ndarray
    drawing : dict
        The options of `Kl16Rule`, without its thresholds.
    folder : Path
        Where a file of 7 bytes a box and threshold may lie meanwhile.
    tick : callable
        Is told of every image.

    Raises
    ------
    ProtocolError
        The truth holds none of the images, or it chose the classes of the maps.
    StoreCorruptError
        A map is not finite.
    """
    num_classes = fit.shape("class_name")[0]
    num_slots = usable_slots(fit, PROTOCOLS["voc-ap"])
    rows_in_truth(fit, truth)
    join = join_images(fit, truth, given=fit, without_skipped=False)
    rules = [Kl16Rule(np.full(num_classes, one), **drawing) for one in threshold_T]
    num_positives_K, num_pairs_K, num_maps_K = np.zeros((3, num_classes), np.int64)
    with tempfile.TemporaryFile(dir=folder) as file:
        kept = _Kept(file, num_classes)
        at = 0
        for true in truths(truth, join, _BLOCK_ROWS):
            row_N = join.row_N[at : at + len(true)]
            at += len(true)
            class_NS, score_NS = ranks(fit, row_N, num_slots)
            block = _Block(fit, row_N, class_NS, score_NS)
            kept.add(_drawn_boxes(block.drawn(rules), true))
            for total_K, part_K in zip(
                (num_positives_K, num_pairs_K, num_maps_K), _num_true(true, class_NS), strict=True
            ):
                total_K += part_K
            tick(len(true))
        value_KT = np.array(
            [
                _precisions(kept.of_class(index), len(threshold_T), int(num))
                for index, num in enumerate(num_positives_K)
            ]
        )
    return Reached(value_KT, int((num_positives_K > 0).sum()), num_pairs_K, num_maps_K)


@dataclass(frozen=True)
class _Block:
    """Some rows of the maps (-1: none) with the classes and scores of the slots that are read."""

    fit: Store
    row_N: Array
    class_NS: Array
    score_NS: Array

    def drawn(self, rules: Sequence[Kl16Rule]) -> Iterator[Predictions]:
        """Yield the boxes of all images by each rule; the heat of a map is made once."""
        found = [self._of_image(n, rules) for n in range(len(self.row_N))]
        for step in range(len(rules)):
            maps = [one for of_image in found for one in of_image]
            box = [np.zeros((0, 4)), *(drawn[step][0] for _, drawn in maps)]
            score = [np.zeros(0, np.float32), *(drawn[step][1] for _, drawn in maps)]
            num_N = [sum(len(drawn[step][0]) for _, drawn in of_image) for of_image in found]
            yield Predictions(
                has_prediction_N=self.row_N >= 0,
                map_class_NS=self.class_NS,
                map_score_NS=self.score_NS,
                box_start=np.concatenate([[0], np.cumsum(num_N)]).astype(np.int64),
                box_xyxy_B4=np.concatenate(box),
                box_class_B=np.repeat(
                    np.array([index for index, _ in maps], np.int32),
                    [len(drawn[step][0]) for _, drawn in maps],
                ),
                box_score_B=np.concatenate(score),
            )

    def _of_image(
        self, n: int, rules: Sequence[Kl16Rule]
    ) -> list[tuple[int, list[tuple[Array, Array]]]]:
        """Return the class of each map of an image, and its boxes and scores by each rule."""
        row = int(self.row_N[n])
        maps = map_row(self.fit, row) if row >= 0 else None
        found = []
        if maps is not None:
            with row_named(self.fit, row):
                for slot in np.flatnonzero(self.class_NS[n] >= 0).tolist():
                    index, score = int(self.class_NS[n, slot]), float(self.score_NS[n, slot])
                    heat_HW = maps.heat(slot)
                    found.append((index, [rule.draw(heat_HW, index, score) for rule in rules]))
        return found


def _drawn_boxes(drawn: Iterator[Predictions], true: Truth) -> tuple[Array, Array]:
    """Return class and `_BOX` of all boxes of all thresholds that count."""
    kept_N = ~np.asarray(true.excluded_N, bool)
    classes, boxes = [], []
    for step, predicted in enumerate(drawn):
        check_predictions(predicted, true)
        image_D = image_of_box(predicted.box_start)
        box_D = np.empty(len(image_D), _BOX)
        box_D["threshold"], box_D["score"] = step, predicted.box_score_B
        box_D["outcome"] = outcomes(predicted, true, image_D, _IOU)
        classes.append(predicted.box_class_B[kept_N[image_D]])
        boxes.append(box_D[kept_N[image_D]])
    return np.concatenate(classes), np.concatenate(boxes)


def _num_true(true: Truth, class_NS: Array) -> tuple[Array, Array, Array]:
    """Return how many objects each class has, in how many images, and those with a map."""
    image_B = image_of_box(true.box_start)
    used_B = (np.asarray(true.box_difficult_B) == 0) & ~np.asarray(true.excluded_N, bool)[image_B]
    num_NK = np.zeros(true.label_NK.shape, np.int64)
    np.add.at(num_NK, (image_B[used_B], true.box_class_B[used_B]), 1)
    image_M, slot_M = np.nonzero(class_NS >= 0)
    mapped_NK = np.zeros(num_NK.shape, bool)
    mapped_NK[image_M, class_NS[image_M, slot_M]] = True
    pair_NK = num_NK > 0
    return num_NK.sum(axis=0), pair_NK.sum(axis=0), (pair_NK & mapped_NK).sum(axis=0)


@dataclass
class _Kept:
    """Boxes of all images on disk, each block ordered by class, else as they came."""

    file: IO[bytes]
    num_classes: int
    edges: list[Array] = field(default_factory=list)

    def add(self, found: tuple[Array, Array]) -> None:
        """Write the boxes of further images."""
        class_D, box_D = found
        order_D = np.argsort(class_D, kind="stable")
        start = int(self.edges[-1][-1]) if self.edges else 0
        num_K = np.bincount(class_D, minlength=self.num_classes)
        self.edges.append(start + np.concatenate([[0], np.cumsum(num_K)]))
        self.file.write(box_D[order_D].tobytes())

    def of_class(self, index: int) -> Array:
        """Return all boxes of a class, of each threshold in the order of the images."""
        parts = []
        for edge_K in self.edges:
            low, high = edge_K[index : index + 2].tolist()
            self.file.seek(low * _BOX.itemsize)
            parts.append(self.file.read((high - low) * _BOX.itemsize))
        return np.frombuffer(b"".join(parts), _BOX)


def _precisions(box_D: Array, num_thresholds: int, num_positives: int) -> list[float]:
    """Return the average precision at every threshold, in [0, 1]; 0 without positives."""
    if not num_positives:
        return [0.0] * num_thresholds
    found = []
    for step in range(num_thresholds):
        own_D = box_D[box_D["threshold"] == step]
        outcome_D = own_D["outcome"][np.argsort(-own_D["score"], kind="stable")]
        found.append(average_precision(outcome_D, num_positives) / 100)
    return found
