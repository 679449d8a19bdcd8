"""Zhou's box rule against the text of the released C++ and MATLAB code, in slow loops.

The transcription shares no code with the rule, and no OpenCV: distances by trying all background
pixels, contours by filling. It follows ``dt.c`` (``dt_binary``, ``double_to_image``),
``dt_box.cpp`` (``fromDT``, ``getBBox``, ``rankBBox``, ``mergeBBox``) and the scripts around
them, line by line. The border of the image is cleared before contours are sought, as
``cvFindContours`` of OpenCV 2.4 does, with which the released program is linked.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from wsltool.localize.grid import resample
from wsltool.localize.zhou_boxes import zhou_boxes

LEVELS = (20, 100, 110)


def distance_image(mask):
    """dt_binary: 0 or 255 in, distance to the background scaled to 255 out."""
    rows, cols = mask.shape
    zeros = [(y, x) for y in range(rows) for x in range(cols) if not mask[y, x]]
    if not zeros or len(zeros) == rows * cols:  # mi == ma: the image stays as it is
        return np.where(mask, 255, 0)
    zero_y, zero_x = np.array(zeros).T
    distance = np.zeros((rows, cols))
    for y in range(rows):
        for x in range(cols):
            distance[y, x] = math.sqrt(((zero_y - y) ** 2 + (zero_x - x) ** 2).min())
    scale = 255.0 / distance.max()
    found = np.zeros((rows, cols), int)
    for y in range(rows):
        for x in range(cols):
            found[y, x] = min(255, int(distance[y, x] * scale + 0.5))
    return found


def filled(mask, steps):
    """The regions of a mask, as lists of pixels."""
    left = {(y, x) for y, x in zip(*np.nonzero(mask), strict=True)}
    regions = []
    while left:
        region, todo = [], [left.pop()]
        while todo:
            y, x = todo.pop()
            region.append((y, x))
            for dy, dx in steps:
                if (y + dy, x + dx) in left:
                    left.remove((y + dy, x + dx))
                    todo.append((y + dy, x + dx))
        regions.append(region)
    return regions


FOUR = [(-1, 0), (1, 0), (0, -1), (0, 1)]
EIGHT = [*FOUR, (-1, -1), (-1, 1), (1, -1), (1, 1)]


def contour_rects(mask):
    """Rectangles of outer borders (8-connected), and of holes: the pixels around them."""
    mask = mask.copy()
    mask[0] = mask[-1] = False
    mask[:, 0] = mask[:, -1] = False
    rects = []
    for region in filled(mask, EIGHT):
        y, x = np.array(region).T
        rects.append((x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1))
    for region in filled(~mask, FOUR):
        y, x = np.array(region).T
        if y.min() > 0:  # else it is what surrounds everything
            rects.append((x.min() - 1, y.min() - 1, x.max() - x.min() + 3, y.max() - y.min() + 3))
    return [tuple(int(value) for value in rect) for rect in rects]


def limit(value, low, high):
    return low if value < low else (high if value > high else value)


def big_overlap(a, b):
    half = int(float(max(a[2] * a[3], b[2] * b[3])) * 0.5)
    x11, y11, x12, y12 = a[0], a[1], a[0] + a[2], a[1] + a[3]
    x21, y21, x22, y22 = b[0], b[1], b[0] + b[2], b[1] + b[3]
    x_overlap = max(0, min(x12, x22) - max(x11, x21))
    y_overlap = max(0, min(y12, y22) - max(y11, y21))
    return x_overlap * y_overlap > half


def merged(rects, *, skips=True):
    rects = list(rects)
    i = 0
    while i < len(rects):
        j = i + 1
        while j < len(rects):
            if big_overlap(rects[i], rects[j]):
                del rects[j]
                if not skips:
                    continue
            j += 1
        i += 1
    return rects


def reference(heat, **options):
    """The boxes ``x0 y0 x1 y1`` of the released code; equal areas in our order."""
    rows, cols = heat.shape
    if heat.max() <= 0:
        return []
    gray = np.zeros((rows, cols), int)
    for y in range(rows):
        for x in range(cols):
            gray[y, x] = min(255, max(0, math.floor(255 * (heat[y, x] / heat.max()) + 0.5)))
    rects = []
    for level in LEVELS:
        for x, y, w, h in contour_rects(distance_image(gray > level) > 10):
            rect = (
                limit(x, 0, cols - 5),
                limit(y, 0, rows - 5),
                limit(w, 0, cols - x - 5),
                limit(h, 0, rows - y - 5),
            )
            rects.append((rect, level))
    rects.sort(key=lambda one: (-one[0][2] * one[0][3], one[1], one[0][1], one[0][0], one[0][2]))
    boxes = []
    for x, y, w, h in merged([rect for rect, _ in rects], **options):
        x0, x1, y0, y1 = min(x, x + w), max(x, x + w), min(y, y + h), max(y, y + h)
        boxes.append(
            [limit(v, 0, n) for v, n in zip((x0, y0, x1, y1), (cols, rows) * 2, strict=True)]
        )
    return boxes


def random_heat(seed):
    """A small picture's heat: smooth, rough, blocky or flat, with and without negative values."""
    rng = np.random.default_rng(seed)
    size_wh = tuple(int(side) for side in rng.integers(6, 40, 2))
    cells = int(rng.integers(2, 12))
    heat = rng.normal(size=(cells, cells)) ** int(rng.integers(1, 4))
    if seed % 3 == 0:
        heat = np.abs(heat)
    if seed % 5 == 0:
        heat = np.round(heat)
    return resample(heat, (0, 0, *size_wh), size_wh)


@pytest.mark.parametrize("start", range(0, 200, 25))
def test_boxes_are_those_of_the_released_code(start):
    for seed in range(start, start + 25):
        heat = random_heat(seed)
        assert zhou_boxes(heat).tolist() == reference(heat), seed


def test_the_skip_after_a_removal_is_seen_in_these_maps():
    """Without it some of the same maps give other boxes, so that the comparison tests it."""
    heats = [random_heat(seed) for seed in range(50)]
    assert sum(reference(heat) != reference(heat, skips=False) for heat in heats) >= 5


@pytest.mark.parametrize("size_wh", [(1, 1), (3, 9), (4, 4), (5, 5), (6, 5), (40, 2)])
def test_pictures_that_are_smaller_than_the_margin(size_wh):
    rng = np.random.default_rng(5)
    for _ in range(10):
        heat = rng.random(size_wh[::-1])
        assert zhou_boxes(heat).tolist() == reference(heat)
