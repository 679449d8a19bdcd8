"""Backgrounds and clutter of the drawn scenes: everything that belongs to no class."""

from __future__ import annotations

import numpy as np

from wsltool.datasets.scene_shapes import Bools, Floats, Frame

__all__ = ["BACKGROUNDS", "PALETTE", "background", "clutter", "value_noise"]

PALETTE = np.array(
    [
        (38, 70, 83), (42, 157, 143), (138, 177, 125), (233, 196, 106), (244, 162, 97),
        (231, 111, 81), (155, 34, 38), (94, 84, 142), (190, 149, 196), (53, 80, 112),
        (120, 190, 220), (240, 233, 216), (60, 60, 66), (112, 141, 90), (181, 131, 141),
        (214, 220, 228),
    ],
    np.float64,
)  # fmt: skip
"""Colours for everything, so that none belongs to a class."""

BACKGROUNDS = ("gradient", "noise", "checker", "stripes", "blobs")


def value_noise(rng: np.random.Generator, height: int, width: int, cell: float) -> Floats:
    """Smooth noise in [0, 1]: random values on a coarse grid, bilinear in between."""
    rows, cols = np.arange(height) / cell, np.arange(width) / cell
    grid = rng.integers(0, 256, (int(rows[-1]) + 2, int(cols[-1]) + 2)) / 255
    row, col = np.floor(rows).astype(np.int64), np.floor(cols).astype(np.int64)
    down, right = (rows - row)[:, None], (cols - col)[None, :]
    top = grid[row][:, col] * (1 - right) + grid[row][:, col + 1] * right
    bottom = grid[row + 1][:, col] * (1 - right) + grid[row + 1][:, col + 1] * right
    noise: Floats = top * (1 - down) + bottom * down
    return noise


def background(rng: np.random.Generator, x_px_W: Floats, y_px_H: Floats) -> Floats:
    """Draw one of the `BACKGROUNDS` in two muted colours; float64 (H, W, 3), 0 to 255."""
    kind = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    size_px = float(x_px_W[-1] + y_px_H[-1]) / 2
    frame = Frame(0, 0, size_px, turn=int(rng.integers(4096)))
    u_HW, v_HW = frame.local(x_px_W, y_px_H)
    num_rows, num_cols = u_HW.shape
    soft_HW = value_noise(rng, num_rows, num_cols, max(num_rows, num_cols) / 3)
    count = int(rng.integers(4, 9))
    pattern_HW = soft_HW
    if kind == "gradient":
        pattern_HW = np.clip((u_HW + 1) / 2, 0, 1)
    elif kind == "noise":
        pattern_HW = value_noise(rng, num_rows, num_cols, max(num_rows, num_cols) / 24)
    elif kind == "checker":
        pattern_HW = (np.floor(u_HW * count) + np.floor(v_HW * count)) % 2
    elif kind == "stripes":
        pattern_HW = np.floor(u_HW * count * 1.5) % 2
    elif kind == "blobs":
        blobs_HW = value_noise(rng, num_rows, num_cols, max(num_rows, num_cols) / 7)
        pattern_HW = (blobs_HW > 0.5).astype(np.float64)
    first, second = PALETTE[rng.choice(len(PALETTE), 2, replace=False)]
    second = first + (second - first) * rng.uniform(0.25, 0.6)
    mixed_HWC = first + (second - first) * (0.7 * pattern_HW + 0.3 * soft_HW)[..., None]
    grey = 60 + 150 * rng.random()
    muted_HWC: Floats = 0.75 * mixed_HWC + 0.25 * grey
    return muted_HWC


def clutter(rng: np.random.Generator, canvas_HWC: Floats, x_px_W: Floats, y_px_H: Floats) -> None:
    """Scatter plain rods, pebbles and crescents over the canvas, in place."""
    size_px = min(float(x_px_W[-1]), float(y_px_H[-1]))
    for _ in range(rng.integers(3, 10)):
        frame = Frame(
            rng.uniform(0, float(x_px_W[-1])),
            rng.uniform(0, float(y_px_H[-1])),
            size_px * rng.uniform(0.04, 0.14),
            turn=int(rng.integers(4096)),
        )
        u_HW, v_HW = frame.local(x_px_W, y_px_H)
        covered_HW = _piece(int(rng.integers(3)), u_HW, v_HW)
        canvas_HWC[covered_HW] = PALETTE[rng.integers(len(PALETTE))]


def _piece(kind: int, u: Floats, v: Floats) -> Bools:
    if kind == 0:
        return (np.abs(u) <= 1.2) & (np.abs(v) <= 0.16)
    if kind == 1:
        return np.asarray(u * u + 2.6 * v * v <= 0.5)
    return (u * u + v * v <= 1) & ((u - 0.45) * (u - 0.45) + v * v > 0.9)
