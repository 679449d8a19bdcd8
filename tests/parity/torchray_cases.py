"""Images, objects and maps for TorchRay's pointing game, made from a seed.

Used by ``make_torchray.py`` and by the test, so that only what the reference says is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Image", "Instance", "coco_images", "voc_images"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Instance:
    """One object: a devkit box (from 1, inclusive) or a mask."""

    class_index: int
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    difficult: bool = False
    mask_HW: Array | None = None
    crowd: bool = False


@dataclass(frozen=True)
class Image:
    """Width and height, objects, and a map for each class that has one."""

    size_wh: tuple[int, int]
    instances: list[Instance]
    map_of: dict[int, Array]


def _size(rng: np.random.Generator) -> tuple[int, int, tuple[int, int]]:
    """Return width, height and grid; every third one is a power of two times its grid."""
    rows, cols = (int(side) for side in rng.integers(2, 9, 2))
    if rng.random() < 0.35:
        return cols * 16, rows * 16, (rows, cols)
    width, height = (int(side) for side in rng.integers(40, 150, 2))
    return width, height, (rows, cols)


def _map(rng: np.random.Generator, size_wh: tuple[int, int], grid: tuple[int, int]) -> Array:
    """Return noise; or whole numbers with ties, where interpolation is exact.

    Noise does not peak in the last row or column: beyond the centres of these, torch mixes a
    value with itself by inexact weights, and rounding decides which pixel of a plateau is first.
    """
    exact = size_wh == (grid[1] * 16, grid[0] * 16)
    if not exact:
        map_HW = rng.normal(size=grid)
        map_HW[-1] = map_HW[:, -1] = -4
        return map_HW
    kind = rng.integers(4)
    if kind == 0:
        return np.full(grid, float(rng.integers(-1, 2)))
    map_HW = rng.integers(0, 3, grid).astype(np.float64)
    if kind == 1:  # at the border
        map_HW[:, -1] = 5
    return map_HW


def _box(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    x, y = (sorted(rng.integers(1, side + 1, 2).tolist()) for side in (width, height))
    if rng.random() < 0.5:  # a small one: many points lie close to the tolerance
        x, y = [x[0], min(x[0] + 12, width)], [y[0], min(y[0] + 9, height)]
    return x[0], y[0], x[1], y[1]


def voc_images(seed: int = 0, num: int = 150, num_classes: int = 5) -> list[Image]:
    """Return images with boxes, 30 % of them difficult; the last classes are rare."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(num):
        width, height, grid = _size(rng)
        classes = rng.choice(num_classes, rng.integers(1, 5), p=[0.4, 0.3, 0.2, 0.1, 0.0])
        instances = [
            Instance(int(index), _box(rng, width, height), bool(rng.random() < 0.3))
            for index in classes
        ]
        shown = sorted({one.class_index for one in instances})
        maps = {index: _map(rng, (width, height), grid) for index in shown}
        images.append(Image((width, height), instances, maps))
    return images


def coco_images(seed: int = 1, num: int = 80, num_classes: int = 4) -> list[Image]:
    """Return images with masks, some of crowds, some of one pixel, some empty."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(num):
        width, height, grid = _size(rng)
        instances = [
            Instance(
                int(rng.integers(num_classes)),
                mask_HW=_blob(rng, width, height),
                crowd=bool(rng.random() < 0.25),
            )
            for _ in range(rng.integers(1, 4))
        ]
        shown = sorted({one.class_index for one in instances})
        maps = {index: _map(rng, (width, height), grid) for index in shown}
        images.append(Image((width, height), instances, maps))
    return images


def _blob(rng: np.random.Generator, width: int, height: int) -> Array:
    """Return a disc, a ring, a pixel or nothing."""
    mask_HW = np.zeros((height, width), np.uint8)
    x, y, r = rng.integers(width), rng.integers(height), rng.integers(2, 30)
    v_H1, u_W = np.ogrid[:height, :width]
    distance_HW = (v_H1 - y) ** 2 + (u_W - x) ** 2
    kind = rng.integers(8)
    if kind == 0:
        mask_HW[y, x] = 1
    elif kind == 1:
        mask_HW[(distance_HW <= 45**2) & (distance_HW >= 40**2)] = 1
    elif kind > 2:
        mask_HW[distance_HW <= r**2] = 1
    return mask_HW
