"""Which detections find which true boxes, as COCO counts it (``cocoeval.py``, ``maskApi.c``).

In each image and class, for each of ten IoU thresholds and four ranges of area, the detections
take true boxes one after the other, by falling score::

    true boxes that count come before those that are ignored
    of those, the one with the largest IoU that reaches the threshold; the last one of equals
    a box that is taken is gone, but a crowd may be taken any number of times

A true box is ignored if it is a crowd, difficult, or its area lies outside the range; so is a
detection that takes such a box, or that takes none and whose own area lies outside the range.
The IoU with a crowd is the intersection over the area of the detection.

The 10 × 4 cases are bits of one word, 16 for each range of area, so all of them are decided at
once; and so are all images and classes, detection by detection.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.metrics.iou import box_area, pair_intersection
from wsltool.metrics.matching import join

__all__ = [
    "AREA_RANGES",
    "IOU_THRESHOLDS",
    "MAX_DETECTIONS",
    "Found",
    "group_place",
    "match",
    "within_areas",
]

IOU_THRESHOLDS: npt.NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
AREA_RANGES = {
    "all": (0.0, 1e5**2),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e5**2),
}
"""Square pixels, both ends included."""

MAX_DETECTIONS = 100
"""Of a class in an image; further ones are left out."""

Indices: TypeAlias = npt.NDArray[np.intp]
Words: TypeAlias = npt.NDArray[np.uint64]

_AREA_BITS = (1 << 16 * np.arange(4)).astype("<u8")  # the lowest bit of each range
_ALL_THRESHOLDS = np.uint64((1 << len(IOU_THRESHOLDS)) - 1)
_NONE, _ALL = np.uint64(0), ~np.uint64(0)
# The thresholds that are reached, of the first n; in all four ranges.
_REACHED = ((1 << np.arange(11)) - 1).astype("<u8") * _AREA_BITS.sum()


class Found(NamedTuple):
    """What becomes of D detections.

    Attributes
    ----------
    true_DA, ignored_DA : arrays of uint16, (D, 4)
        Bit t: whether the detection takes a true box that counts at the t-th threshold;
        whether it is ignored. One column for each range of area.
    """

    true_DA: npt.NDArray[np.uint16]
    ignored_DA: npt.NDArray[np.uint16]


def within_areas(area_B: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return whether areas lie in each of the ranges, both ends included, bool (B, 4)."""
    low_A, high_A = np.array(list(AREA_RANGES.values())).T
    return np.asarray((area_B[:, None] >= low_A) & (area_B[:, None] <= high_A))


def match(
    key_D: npt.NDArray[np.int64],
    box_D4: npt.NDArray[Any],
    key_G: npt.NDArray[np.int64],
    box_G4: npt.NDArray[Any],
    crowd_G: npt.NDArray[np.bool_],
    counts_GA: npt.NDArray[np.bool_],
) -> Found:
    """Return what becomes of D detections, given G true boxes.

    Parameters
    ----------
    key_D, key_G : arrays of int64
        One number for each image and class (`wsltool.metrics.matching.key_of`); detections
        stand by rising key, those of one key in the order in which they take boxes.
    box_D4, box_G4 : arrays of float
        Half-open boxes.
    crowd_G : array of bool
    counts_GA : array of bool, (G, 4)
        Whether the box counts in each range of area; otherwise it is ignored there.
    """
    pairs = _pairs(key_D, box_D4, key_G, box_G4, crowd_G)
    reached_P = _REACHED[np.searchsorted(IOU_THRESHOLDS, pairs.iou_P, side="right")]
    counted_G, once_G = _words(counts_GA), np.where(crowd_G, _NONE, _ALL)
    free_G = np.full(len(key_G), _ALL)
    true_D, spent_D = np.zeros(len(key_D), "<u8"), np.zeros(len(key_D), "<u8")

    def take(chunk: slice, among_G: Words, into_D: Words) -> None:
        detection, true = pairs.detection_P[chunk], pairs.true_P[chunk]
        bits = reached_P[chunk] & free_G[true] & among_G[true]
        bits &= ~(true_D[detection] | spent_D[detection])
        into_D[detection] |= bits
        free_G[true] &= ~(bits & once_G[true])

    for chunks in _turns(pairs):
        for chunk in chunks:
            take(chunk, counted_G, true_D)
        for chunk in chunks:
            take(chunk, ~counted_G, spent_D)
    outside_D = _words(~within_areas(box_area(box_D4)))
    ignored_D = spent_D | (outside_D & ~(true_D | spent_D))
    return Found(true_D.view("<u2").reshape(-1, 4), ignored_D.view("<u2").reshape(-1, 4))


def _words(flag_BA: npt.NDArray[np.bool_]) -> Words:
    """Return flags for each range of area as words, each flag for all thresholds."""
    words: Words = (flag_BA * (_AREA_BITS * _ALL_THRESHOLDS)).sum(axis=1, dtype="<u8")
    return words


class _Pairs(NamedTuple):
    """Detections and true boxes of one key that reach the lowest threshold, as they are tried.

    ``turn_P`` is the place of the detection among those of its key that are in a pair,
    ``rank_P`` that of the pair among those of its detection, the best one first.
    """

    detection_P: Indices
    true_P: Indices
    iou_P: npt.NDArray[np.float64]
    turn_P: Indices
    rank_P: Indices


def _pairs(
    key_D: npt.NDArray[np.int64],
    box_D4: npt.NDArray[Any],
    key_G: npt.NDArray[np.int64],
    box_G4: npt.NDArray[Any],
    crowd_G: npt.NDArray[np.bool_],
) -> _Pairs:
    detection_P, true_P = join(key_D, key_G)
    iou_P = _iou(box_D4[detection_P], box_G4[true_P], crowd_G[true_P])
    near = np.flatnonzero(iou_P >= IOU_THRESHOLDS[0])
    near = near[np.lexsort((-true_P[near], -iou_P[near], detection_P[near]))]
    detection_P = detection_P[near]
    found, of_P = np.unique(detection_P, return_inverse=True)
    turn_P, rank_P = group_place(key_D[found])[of_P], group_place(detection_P)
    tried = np.lexsort((rank_P, turn_P))
    near = near[tried]
    return _Pairs(detection_P[tried], true_P[near], iou_P[near], turn_P[tried], rank_P[tried])


def _iou(
    own_P4: npt.NDArray[Any], true_P4: npt.NDArray[Any], crowd_P: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Return the IoU of pairs, with a crowd the share of the detection's own area."""
    shared_P, area_P = pair_intersection(own_P4, true_P4), box_area(own_P4)
    whole_P = np.where(crowd_P, area_P, area_P + box_area(true_P4) - shared_P)
    iou_P = np.zeros(len(shared_P))
    np.divide(shared_P, whole_P, out=iou_P, where=shared_P > 0)
    return iou_P


def group_place(group_E: npt.NDArray[np.integer[Any]]) -> Indices:
    """Return the place of each entry, from 0, in its group; groups stand in one piece."""
    place_E = np.arange(len(group_E))
    first_E = np.diff(group_E, prepend=-1) != 0
    return place_E - np.maximum.accumulate(np.where(first_E, place_E, 0))


def _turns(pairs: _Pairs) -> Iterator[list[slice]]:
    """Yield the pairs of each turn, in chunks that hold no detection or true box twice."""
    new_P = (np.diff(pairs.turn_P, prepend=-1) != 0) | (np.diff(pairs.rank_P, prepend=-1) != 0)
    edge = [*np.flatnonzero(new_P).tolist(), len(new_P)]
    chunks: list[slice] = []
    for low, high in pairwise(edge):
        if pairs.rank_P[low] == 0 and chunks:
            yield chunks
            chunks = []
        chunks.append(slice(low, high))
    if chunks:
        yield chunks
