"""What thresholds reach on named images: one box a pair of an image and a class present.

A pair is an image and a class present in it that has a true box (difficult and crowd boxes
apart). At every threshold of a grid the largest component of the pair's map gives one box, and
its IoU with the nearest true box of the class says how good it is. A pair without a map counts
as not found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsltool.errors import ProtocolError
from wsltool.localize.thresholds import largest_boxes
from wsltool.metrics.iou import iou_matrix
from wsltool.stages.map_rows import MapRow, map_rows, row_named
from wsltool.stages.plan import rows_per_block
from wsltool.stores.store import Store

__all__ = ["Reached", "reached_by_pairs", "rows_in_truth"]

Array = np.ndarray[Any, Any]

_LEAST_IOU = 0.5


@dataclass(frozen=True)
class Reached:
    """What K classes reach at each of T thresholds.

    Attributes
    ----------
    value_KT : float64 ndarray of shape (K, T)
        Of each class; the objective of a threshold is their sum over `num_judged`, in [0, 1].
    num_judged : int
        All pairs, or the classes that have an average precision.
    num_pairs_K, num_maps_K : int64 ndarray of shape (K,)
        Pairs of each class, and those of them that have a map.
    """

    value_KT: Array
    num_judged: int
    num_pairs_K: Array
    num_maps_K: Array


def reached_by_pairs(
    fit: Store,
    truth: Store,
    threshold_T: Array,
    drawing: dict[str, Any],
    hits: bool,
    tick: Callable[[int], None],
) -> Reached:
    """Return what the boxes of largest components reach, one image after the other.

    Parameters
    ----------
    fit, truth : Store
        Maps, and images with true boxes.
    threshold_T : float64 ndarray
    drawing : dict
        ``of``, ``connectivity`` and ``empty`` of the boxes; nothing else of it is read.
    hits : bool
        Count boxes with an IoU of at least .5, or sum up the IoU.
    tick : callable
        Is told of every image.

    Raises
    ------
    ProtocolError
        The truth holds none of the images.
    StoreCorruptError
        A map is not finite.
    """
    num_classes = fit.shape("class_name")[0]
    drawn = {name: drawing[name] for name in ("of", "connectivity", "empty")}
    value_KT = np.zeros((num_classes, len(threshold_T)))
    num_pairs_K, num_maps_K = np.zeros((2, num_classes), np.int64)
    for row, maps_of_image, true_boxes in _images(fit, truth):
        tick(1)
        for index, box_B4 in true_boxes.items():
            num_pairs_K[index] += 1
            slot = None if maps_of_image is None else maps_of_image.slot_of(index)
            if maps_of_image is None or slot is None:
                continue
            num_maps_K[index] += 1
            with row_named(fit, row):
                box_T4 = largest_boxes(maps_of_image.heat(slot), threshold_T, **drawn)
            iou_T = iou_matrix(box_T4, box_B4).max(axis=1)
            value_KT[index] += iou_T >= _LEAST_IOU if hits else iou_T
    return Reached(value_KT, int(num_pairs_K.sum()), num_pairs_K, num_maps_K)


def _images(fit: Store, truth: Store) -> Iterator[tuple[int, MapRow | None, dict[int, Array]]]:
    """Yield row, maps and the true boxes of each class of the images that count."""
    truth_row_N = rows_in_truth(fit, truth)
    step = rows_per_block(fit.row_bytes)
    for start in range(0, len(fit), step):
        stop = min(start + step, len(fit))
        good_N = truth_row_N[start:stop] >= 0
        if "image_status" in fit:
            good_N = good_N & (fit.rows("image_status", start, stop) == 0)
        true_boxes = _true_boxes(truth, truth_row_N[start:stop][good_N])
        for n, maps_of_image in enumerate(map_rows(fit, start, stop)):
            if good_N[n]:
                yield start + n, maps_of_image, next(true_boxes)


def rows_in_truth(fit: Store, truth: Store) -> Array:
    """Return the row of each image of the maps in the truth, int64 (N,), -1 for none.

    Raises
    ------
    ProtocolError
        It holds none of them.
    """
    row_of = {name: row for row, name in enumerate(truth.whole("image_id").tolist())}
    row_N = np.array([row_of.get(name, -1) for name in fit.whole("image_id").tolist()], np.int64)
    if (row_N < 0).all():
        raise ProtocolError(
            f"{truth.path.name}: holds none of the {len(fit)} images of {fit.path.name}. Give the "
            "images that these maps were made from as --fit-truth."
        )
    return row_N


def _true_boxes(truth: Store, row_M: Array) -> Iterator[dict[int, Array]]:
    """Yield the true boxes of every class present in some images, an excluded one has none."""
    if not len(row_M):
        return
    names = [name for name in ("label", "image_excluded") if name in truth]
    found = truth.gather(row_M, names, ["box"])
    usable_B = np.ones(len(found["box"]), bool)
    for name in ("box_difficult", "box_crowd"):
        if name in found:
            usable_B &= found[name] == 0
    excluded_M = found.get("image_excluded", np.zeros(len(row_M), np.uint8))
    edge = np.concatenate([[0], np.cumsum(found["box_start"])])
    for m in range(len(row_M)):
        own = np.arange(edge[m], edge[m + 1])[usable_B[edge[m] : edge[m + 1]]]
        class_B = found["box_class"][own]
        present_K = (found["label"][m] == 1) & (excluded_M[m] == 0)
        classes = np.flatnonzero(present_K).tolist()
        boxes = {k: found["box"][own[class_B == k]].astype(np.float64) for k in classes}
        yield {index: box_B4 for index, box_B4 in boxes.items() if len(box_B4)}
