"""wsolevaluation's rule in plain loops with OpenCV at every threshold, for comparison."""

from __future__ import annotations

import cv2
import numpy as np


def boxes_at(heat_HW, threshold, *, largest):
    """Return the boxes of one map at one threshold, sorted."""
    byte_HW = (heat_HW * 255).astype(np.uint8)
    cut = int(threshold * byte_HW.max())
    _, shown_HW = cv2.threshold(byte_HW, cut, 255, cv2.THRESH_BINARY)
    contours, _ = cv2.findContours(shown_HW, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return [(0, 0, 0, 0)]
    if largest:
        contours = [max(contours, key=cv2.contourArea)]
    last = heat_HW.shape[0] - 1
    found = []
    for contour in contours:
        x, y, wide, high = cv2.boundingRect(contour)
        found.append((x, y, min(x + wide, last), min(y + high, last)))
    return sorted(found)


def overlap(a, b):
    """Return the IoU of two boxes that include their right and lower edge."""
    wide = min(a[2], b[2]) - max(a[0], b[0]) + 1
    high = min(a[3], b[3]) - max(a[1], b[1]) + 1
    shared = max(wide, 0) * max(high, 0)
    areas = [(one[2] - one[0] + 1) * (one[3] - one[1] + 1) for one in (a, b)]
    return shared / (sum(areas) - shared)


def right_at(heat_HW, threshold, true_boxes, iou, *, largest):
    """Return whether any box has such an IoU with any true box (both on the grid)."""
    boxes = boxes_at(heat_HW, threshold, largest=largest)
    return any(overlap(box, true) >= iou for box in boxes for true in true_boxes)
