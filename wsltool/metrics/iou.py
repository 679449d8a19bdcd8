"""Intersection over union of half-open boxes.

The inclusive boxes of the VOC and ILSVRC devkits, ``xmin ymin xmax ymax`` with ``+ 1`` on every
width and height, are the half-open boxes ``xmin-1 ymin-1 xmax ymax`` here: the widths, hence
all products and the quotient, are the same numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["box_area", "iou_matrix", "pair_intersection", "pair_iou"]


def pair_iou(a_xyxy_P4: npt.NDArray[Any], b_xyxy_P4: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the intersection over union of boxes, pair by pair.

    Parameters
    ----------
    a_xyxy_P4, b_xyxy_P4 : arrays, (..., 4)
        Half-open boxes ``x0 y0 x1 y1``; the leading axes broadcast.

    Returns
    -------
    iou_P : array of float64, (...)
        In [0, 1]; 0 where boxes only touch or the union has no area.
    """
    a, b = np.asarray(a_xyxy_P4, dtype=np.float64), np.asarray(b_xyxy_P4, dtype=np.float64)
    intersection = pair_intersection(a, b)
    union = box_area(a) + box_area(b) - intersection
    iou = np.zeros(intersection.shape)
    np.divide(intersection, union, out=iou, where=union > 0)
    return iou


def iou_matrix(a_xyxy_A4: npt.NDArray[Any], b_xyxy_B4: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the intersection over union of every a with every b, float64 (A, B)."""
    return pair_iou(np.asarray(a_xyxy_A4)[:, None], np.asarray(b_xyxy_B4)[None])


def pair_intersection(
    a_xyxy_P4: npt.NDArray[Any], b_xyxy_P4: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Return the area that boxes share in square pixels, pair by pair, float64 (...)."""
    a, b = np.asarray(a_xyxy_P4, dtype=np.float64), np.asarray(b_xyxy_P4, dtype=np.float64)
    side = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    side = np.maximum(side, 0.0)
    intersection: npt.NDArray[np.float64] = side[..., 0] * side[..., 1]
    return intersection


def box_area(box_xyxy_B4: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the area of boxes in square pixels, float64 (...), 0 where they are turned over."""
    box = np.asarray(box_xyxy_B4, dtype=np.float64)
    side = np.maximum(box[..., 2:] - box[..., :2], 0.0)
    area: npt.NDArray[np.float64] = side[..., 0] * side[..., 1]
    return area
