"""What went wrong, counted: what is the matter with a box that is not right.

A predicted box is held against the true boxes of its image, difficult ones too. With the shares
``of true`` = intersection / area of the true box and ``of predicted`` = intersection / area of the
predicted box, it is the first of these that holds::

    right              IoU >= the protocol's with a true box of its class
    wrong class        the image has no true box of its class, and the IoU with a box of another
                       class is as high
    several instances  of true > .3 for at least two true boxes of its class
    only a part        of predicted > .5 for a true box of its class
    too large          of true > .7 for a true box of its class
    misplaced          IoU >= .1 with a true box of its class
    background         otherwise

Protocols add four of their own: ``duplicate``, a box on an object that is found already; and,
where each image has one label to be guessed, ``wrong class`` if no guess is the label, ``no box``
if the label has no box, ``no true box`` if the truth has none.

The shares and their limits are those of TS-CAM (Gao et al. 2021): M-Ins, LPE (part) and LME
(more). There, the three are counted apart and one box may count in several; the order, and that
a box counts once, are ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from wsltool.metrics.iou import box_area, pair_intersection, pair_iou
from wsltool.metrics.matching import join, key_of, truth_keys
from wsltool.metrics.records import Truth, image_of_box
from wsltool.metrics.tally import Tally

__all__ = ["DETECTION_MISTAKES", "GUESS_MISTAKES", "MISTAKES", "count_mistakes", "mistake_of"]

MISTAKES = (
    "right",
    "wrong class",
    "several instances",
    "only a part",
    "too large",
    "misplaced",
    "background",
    "duplicate",
    "no box",
    "no true box",
)
"""Their names; a column ``mistake`` of a tally holds places in it, −1 for what is not judged."""

_OF_BOXES = MISTAKES[:7]
DETECTION_MISTAKES = (*_OF_BOXES, "duplicate")
GUESS_MISTAKES = (*_OF_BOXES, "no box", "no true box")

Integers = npt.NDArray[np.integer[Any]]
_CODE = {name: code for code, name in enumerate(MISTAKES)}


def mistake_of(
    box_Q4: npt.NDArray[Any], image_Q: Integers, class_Q: Integers, truth: Truth, iou: float
) -> npt.NDArray[np.int8]:
    """Return what is the matter with each of Q predicted boxes.

    Parameters
    ----------
    box_Q4 : array, (Q, 4)
        Half-open boxes ``x0 y0 x1 y1`` in pixels.
    image_Q, class_Q : arrays of integers
        The image of each, an index into those of `truth`, and its class.
    truth : Truth
    iou : float
        From which a box is right (``>=``).

    Returns
    -------
    mistake_Q : array of int8
        Places in `MISTAKES`, ``right`` to ``background``.
    """
    key_Q = key_of(image_Q, class_Q, truth.num_classes)
    query_P, true_P = join(key_Q, truth_keys(truth))
    own_P4, true_P4 = box_Q4[query_P], truth.box_xyxy_B4[true_P]
    shared_P = pair_intersection(own_P4, true_P4)
    of_true_P = _share(shared_P, box_area(true_P4))
    iou_P = pair_iou(own_P4, true_P4)

    def num_of(where_P: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
        return np.bincount(query_P[where_P], minlength=len(key_Q))

    cases = {
        "misplaced": num_of(iou_P >= 0.1) > 0,
        "too large": num_of(of_true_P > 0.7) > 0,
        "only a part": num_of(_share(shared_P, box_area(own_P4)) > 0.5) > 0,
        "several instances": num_of(of_true_P > 0.3) > 1,
        "right": num_of(iou_P >= iou) > 0,
    }
    mistake_Q = np.full(len(key_Q), _CODE["background"], np.int8)
    for name, holds_Q in cases.items():
        mistake_Q[holds_Q] = _CODE[name]
    absent_Q = np.ones(len(key_Q), bool)
    absent_Q[query_P] = False
    absent = np.flatnonzero(absent_Q)
    hit = absent[_hits_any(box_Q4[absent], image_Q[absent], truth, iou)]
    mistake_Q[hit] = _CODE["wrong class"]
    return mistake_Q


def count_mistakes(
    tally: Tally,
    table: str,
    names: Iterable[str],
    where: npt.NDArray[np.bool_] | None = None,
) -> dict[str, int]:
    """Return how many entries of a table have each mistake of those named.

    Parameters
    ----------
    tally : Tally
        Its table has a column ``mistake``, as `mistake_of` gives it.
    table : str
    names : iterable of str
        Of `MISTAKES`.
    where : array of bool, optional
        Which entries are counted; by default all.
    """
    judged_E = tally.column(table, "mistake") >= 0
    judged_E = judged_E if where is None else judged_E & where
    num = tally.num_by(table, "mistake", judged_E, len(MISTAKES))
    return {name: int(num[_CODE[name]]) for name in names}


def _share(
    shared_P: npt.NDArray[np.float64], area_P: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the share of an area, 0 of none."""
    share_P = np.zeros(len(area_P))
    np.divide(shared_P, area_P, out=share_P, where=area_P > 0)
    return share_P


def _hits_any(
    box_Q4: npt.NDArray[Any], image_Q: Integers, truth: Truth, iou: float
) -> npt.NDArray[np.bool_]:
    """Return whether a box reaches `iou` with a true box of any class."""
    query_P, true_P = join(image_Q, image_of_box(truth.box_start))
    hit_P = pair_iou(box_Q4[query_P], truth.box_xyxy_B4[true_P]) >= iou
    return np.bincount(query_P[hit_P], minlength=len(image_Q)) > 0
