"""An annotator made of ground truth: which clusters are distractors, for experiments.

A person sees heat maps and says which clusters lie on the object (Kolesnikov and Lampert 2016,
section 3). The oracle counts instead how many cells of each cluster lie in the truth. Its rule
is relative by default: the patterns of a class such as *car* are so large that no cluster has half
of its cells in the masks, and a fixed bound would throw all of them away. The fixed bound, half of
a cluster's cells, is what somebody sees who looks at heat maps: the better stand-in for a person
where truth is generous (boxes) and the distractor fires more often than the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["OracleRule", "cells_in_boxes", "cells_in_mask", "judged_by_share", "shuffled_words"]

OracleRule = Literal["mean", "half"]
"""What a cluster's share in the truth is measured by: the class's mean share, or a half."""

_OBJECT, _DISTRACTOR, _UNSURE = "object", "distractor", "unsure"
_DISTRACTOR_SHARE = Fraction(1, 2)

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def judged_by_share(
    num_inside_Q: npt.NDArray[np.integer[Any]],
    num_counted_Q: npt.NDArray[np.integer[Any]],
    rule: OracleRule = "mean",
) -> tuple[str, ...] | None:
    """Return what the oracle says of the clusters of one class.

    A cluster's share is ``num_inside / num_counted``. By ``mean`` it is a distractor if its share
    is under half of the class's mean share, ``sum(num_inside) / sum(num_counted)``: the mean over
    the class's cells. The largest share is never under half of the mean, so a class keeps at least
    one cluster. By ``half`` it is a distractor if its share is under a half, but a class keeps the
    clusters of the largest share. Shares are compared exactly, and one on the bound is an object's;
    if no cell lies in the truth, a class keeps all.

    Parameters
    ----------
    num_inside_Q, num_counted_Q : arrays of int, (clusters,)
        How many of a cluster's cells lie in the truth, and how many were looked at.
    rule : {"mean", "half"}
        As above.

    Returns
    -------
    tuple of str, or None
        ``object`` or ``distractor`` a cluster; ``unsure`` for one without any cell that was
        looked at; None if that is so of all of them.
    """
    num_cells = int(num_counted_Q.sum())
    if not num_cells:
        return None
    pairs = list(zip(num_inside_Q.tolist(), num_counted_Q.tolist(), strict=True))
    bound = _DISTRACTOR_SHARE * Fraction(int(num_inside_Q.sum()), num_cells)
    if rule == "half":
        bound = min(_DISTRACTOR_SHARE, max(Fraction(one, num) for one, num in pairs if num))
    return tuple(_word(inside, counted, bound) for inside, counted in pairs)


def _word(num_inside: int, num_counted: int, bound: Fraction) -> str:
    if not num_counted:
        return _UNSURE
    return _DISTRACTOR if Fraction(num_inside, num_counted) < bound else _OBJECT


def shuffled_words(words: Sequence[str], seed: int, class_index: int) -> tuple[str, ...]:
    """Return the same words in an order drawn at random: the control of an annotation.

    So it has as many distractors in the same classes, on other clusters. What is drawn depends
    on `seed` and the class alone, not on which other classes are labelled.
    """
    order = np.random.default_rng([seed, class_index]).permutation(len(words))
    return tuple(words[n] for n in order)


def cells_in_boxes(x_px_P: Floats, y_px_P: Floats, box_B4: npt.NDArray[Any]) -> Bools:
    """Return which points lie in at least one box, bool (P,).

    Parameters
    ----------
    x_px_P, y_px_P : arrays of float, (P,)
        Points, in pixels of the image.
    box_B4 : array of float, (boxes, 4)
        ``x0 y0 x1 y1``, half-open: a point at ``x1`` or ``y1`` lies outside.
    """
    x0, y0, x1, y1 = np.asarray(box_B4, np.float64).reshape(-1, 4, 1).swapaxes(0, 1)
    inside_BP: Bools = (x0 <= x_px_P) & (x_px_P < x1) & (y0 <= y_px_P) & (y_px_P < y1)
    inside_P: Bools = np.logical_or.reduce(inside_BP, axis=0)
    return inside_P


def cells_in_mask(
    x_px_P: Floats, y_px_P: Floats, mask_HW: npt.NDArray[np.uint8]
) -> tuple[Bools, Bools]:
    """Return which points lie on a mask, and which are to be counted, bool (P,) each.

    Parameters
    ----------
    x_px_P, y_px_P : arrays of float, (P,)
        Points, in pixels of the image. One outside the image (on a letterbox's border) is
        counted, and lies on no mask.
    mask_HW : uint8 array of shape (height, width)
        1 the class, 0 not, 255 left out: points there are not counted.
    """
    height_px, width_px = mask_HW.shape
    row_P, col_P = np.floor(y_px_P).astype(np.int64), np.floor(x_px_P).astype(np.int64)
    seen_P = (row_P >= 0) & (row_P < height_px) & (col_P >= 0) & (col_P < width_px)
    value_P = np.zeros(len(row_P), np.uint8)
    value_P[seen_P] = mask_HW[row_P[seen_P], col_P[seen_P]]
    return value_P == 1, value_P <= 1
