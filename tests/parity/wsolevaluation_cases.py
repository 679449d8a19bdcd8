"""The heat maps behind the frozen counts of wsolevaluation, from a seed.

Only additions, products and quotients, which are the same on every machine.
"""

from __future__ import annotations

import numpy as np

SIDE = 224
KINDS = ("bump", "ring", "grid", "peaks", "blocks", "dots", "noise", "constant")
GRID_V, GRID_U = np.mgrid[:SIDE, :SIDE].astype(np.float64)


def kind_of(index):
    """Return which kind of heat an image has; most are like a network's."""
    return "noise" if index % 160 == 7 else (*KINDS[:6], "constant", *KINDS[:4])[index % 11]


def generated_heat(index):
    """Return the heat of an image on the grid, from 0 to 1."""
    heat_HW = _MAKE[kind_of(index)](np.random.default_rng([20200121, index]))
    heat_HW -= heat_HW.min()
    top = heat_HW.max()
    return heat_HW / top if top > 0 else heat_HW


def _hill(rng, wide):
    v, u = rng.random(2) * SIDE
    a, b = wide * (0.5 + rng.random(2)) * SIDE
    return 1 / (1 + ((GRID_V - v) / a) ** 2 + ((GRID_U - u) / b) ** 2)


def _ring(rng):
    v, u = (0.3 + 0.4 * rng.random(2)) * SIDE
    distance = np.sqrt((GRID_V - v) ** 2 + (GRID_U - u) ** 2)
    return 1 / (1 + ((distance - 30 - 40 * rng.random()) / (4 + 20 * rng.random())) ** 2)


def _grid(rng):
    """Random cells, as coarse as a network's, bilinearly between, a hill on top."""
    side = int(rng.choice([7, 14, 28]))
    cell_HW = rng.random((side + 1, side + 1))
    at = np.arange(SIDE) * side / SIDE
    low = at.astype(int)
    part = at - low
    row_HW = cell_HW[low] * (1 - part)[:, None] + cell_HW[low + 1] * part[:, None]
    heat_HW = row_HW[:, low] * (1 - part) + row_HW[:, low + 1] * part
    return heat_HW * (rng.random() + _hill(rng, 0.2))


def _blocks(rng):
    """Cells without anything between: plateaus, with corners that touch."""
    side = int(rng.choice([7, 14, 28]))
    levels = int(rng.integers(2, 9))
    return np.kron(rng.integers(0, levels, (side, side)), np.ones((SIDE // side,) * 2)) * 1.0


def _dots(rng):
    """Pixels, lines and squares, many of them equally large."""
    heat_HW = np.zeros((SIDE, SIDE))
    for _ in range(30):
        row, col = rng.integers(0, SIDE, 2)
        high, wide = rng.integers(1, 6, 2) * rng.choice([1, 1, 8])
        heat_HW[row : row + high, col : col + wide] = rng.integers(1, 5)
    return heat_HW


_MAKE = {
    "bump": lambda rng: _hill(rng, 0.15),
    "ring": _ring,
    "grid": _grid,
    "peaks": lambda rng: sum(_hill(rng, 0.08) for _ in range(4)),
    "blocks": _blocks,
    "dots": _dots,
    "noise": lambda rng: rng.random((SIDE, SIDE)),
    "constant": lambda rng: np.full((SIDE, SIDE), rng.random()),
}
