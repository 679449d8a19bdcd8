"""Beam search over the sub-grids of a feature map (Bency et al. 2016, §3.3, §3.4).

A search tree says which candidates follow from one; a search keeps the best of each level for
every class of one image; the candidates that were kept become a heat map. What a candidate
scores is somebody else's: a search wants places and is told the scores.

Boxes are exact. They count in units of the frame, of which an axis has as many as it takes for
every level to come out whole, and are half-open ``(x0, y0, x1, y1)``, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsltool.errors import UsageError

__all__ = [
    "Box",
    "Candidates",
    "Children",
    "ImageSearch",
    "Mode",
    "Place",
    "SearchTree",
    "Wanted",
    "beam_heat",
]

Mode = Literal["recrop", "grid"]
Children = Literal[4, 9]

Box = tuple[int, int, int, int]
"""``(x0, y0, x1, y1)``, half-open: a candidate in units of its tree, or a sub-grid in cells."""


class Place(NamedTuple):
    """Where a candidate is scored: on a sub-grid of the features of a crop.

    Attributes
    ----------
    crop
        The part of the frame whose features are read, in units; the whole frame in mode
        ``grid``.
    sub_grid
        Columns and rows of those features.
    """

    crop: Box
    sub_grid: Box


class Candidates(NamedTuple):
    """The candidates of one class that were kept, by level, then by rank.

    Attributes
    ----------
    box_B4
        (num_candidates, 4) float64, ``x0 y0 x1 y1`` as fractions of the frame.
    score_B
        (num_candidates,) float64.
    level_B
        (num_candidates,) int16, from 1.
    """

    box_B4: NDArray[np.float64]
    score_B: NDArray[np.float64]
    level_B: NDArray[np.int16]


@dataclass(frozen=True)
class SearchTree:
    """Which candidates follow from one (Bency et al. 2016, eq. 6).

    A child has a column less than its parent, at the left or the right, or a row less, at the
    top or the bottom: four children (``§3.4``). With nine (``§3.3``) width and height are each as
    they are or one less at either end, the parent itself included.

    In mode ``grid`` (§3.4) cells are those of one grid over the frame, and a side of one cell
    stays. In mode ``recrop`` (§3.3, eq. 5) the features of each candidate are computed anew, on
    a whole grid, so a child is ``1/L`` of its parent's width or height smaller.

    Attributes
    ----------
    grid
        Rows and columns of the features that the head reads.
    mode
        ``grid`` or ``recrop``.
    levels
        The most levels of a search.
    children
        4 or 9.

    Raises
    ------
    UsageError
        A value is out of its range.
    """

    grid: tuple[int, int]
    mode: Mode
    levels: int
    children: Children = 4

    def __post_init__(self) -> None:
        if min(self.grid) < 1:
            raise UsageError(f"a grid must have rows and columns, got {self.grid}.")
        if self.levels < 1:
            raise UsageError(f"--levels must be at least 1, got {self.levels}.")
        if self.children not in (4, 9):
            raise UsageError(f"--children must be 4 or 9, got {self.children}.")

    @property
    def units_xy(self) -> tuple[int, int]:
        """Units of the frame along columns and rows."""
        rows, cols = self.grid
        power = self.levels if self.mode == "recrop" else 1
        return cols**power, rows**power

    @property
    def root(self) -> Box:
        """The whole frame."""
        return (0, 0, *self.units_xy)

    def following(self, box: Box) -> list[tuple[Box, Place]]:
        """Return the children of a candidate and where each is scored."""
        x0, y0, x1, y1 = box
        rows, cols = self.grid
        col_choices = self._shorter(x0, x1, cols)
        row_choices = self._shorter(y0, y1, rows)
        found = []
        for (x, sub_x), (y, sub_y) in product(col_choices, row_choices):
            child = (x[0], y[0], x[1], y[1])
            num_changed = (x != (x0, x1)) + (y != (y0, y1))
            if self.children == 9 or num_changed == 1:
                place = Place(box, (sub_x[0], sub_y[0], sub_x[1], sub_y[1]))
                found.append((child, Place(self.root, child) if self.mode == "grid" else place))
        return found

    def _shorter(
        self, start: int, stop: int, num_cells: int
    ) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Return what becomes of one side: as it is, less at its start, less at its end.

        Each with the cells that it has of the crop's own grid.
        """
        as_it_is = ((start, stop), (0, num_cells))
        num_left = num_cells if self.mode == "recrop" else stop - start
        if num_left == 1:
            return [as_it_is]
        step = (stop - start) // num_left
        return [
            as_it_is,
            ((start + step, stop), (1, num_cells)),
            ((start, stop - step), (0, num_cells - 1)),
        ]

    def fractions(self, boxes: Sequence[Box]) -> NDArray[np.float64]:
        """Return boxes as fractions of the frame, (num_boxes, 4) float64, each to the last bit."""
        units = self.units_xy * 2
        exact = [[side / unit for side, unit in zip(box, units, strict=True)] for box in boxes]
        return np.array(exact, np.float64).reshape(-1, 4)


class Wanted(NamedTuple):
    """A place that is to be scored, and for which classes.

    Attributes
    ----------
    place
        Where.
    classes
        Counted among those that are searched for, rising.
    """

    place: Place
    classes: list[int]


@dataclass
class ImageSearch:
    """The search in one image for several classes, side by side, level by level (§3.4).

    At each level the children of the boxes that are followed are ranked by falling score,
    equals by rising (y0, x0, y1, x1). Equal boxes are one, with the highest of their scores
    where they were scored on several crops.

    Attributes
    ----------
    tree
        Which candidates follow from one.
    num_classes
        Searched for; each has a beam of its own.
    beam
        How many candidates of a level are followed, M in the paper; None for all.
    counted
        How many of them are kept for the heat map; None for all that are followed.
    wanted
        What is to be scored next: each place once, those of a crop together. None once the
        search is over, or where all was scored a level before, as with nine children it may.
    is_over
        Whether there is no further level.
    """

    tree: SearchTree
    num_classes: int
    beam: int | None = 8
    counted: int | None = None
    level: int = 0
    wanted: list[Wanted] = field(init=False)
    is_over: bool = field(init=False, default=False)
    _followed: list[list[Box]] = field(init=False)
    _kept: list[list[tuple[int, Box, float]]] = field(init=False)
    _following: dict[Box, list[tuple[Box, Place]]] = field(init=False, default_factory=dict)
    _score: dict[Place, dict[int, float]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._followed = [[self.tree.root] for _ in range(self.num_classes)]
        self._kept = [[] for _ in range(self.num_classes)]
        self._expand()

    def advance(self, scores: Sequence[Sequence[float]]) -> None:
        """Go one level down.

        Parameters
        ----------
        scores
            Of each place in `wanted`, one a class.
        """
        for (place, classes), found in zip(self.wanted, scores, strict=True):
            self._score.setdefault(place, {}).update(zip(classes, found, strict=True))
        self.level += 1
        for k, followed in enumerate(self._followed):
            best: dict[Box, float] = {}
            for box in followed:
                for child, place in self._following[box]:
                    score = self._score[place][k]
                    best[child] = max(score, best.get(child, score))
            ranked = sorted(best.items(), key=_rank)[: self.beam]
            self._followed[k] = [box for box, _ in ranked]
            self._kept[k] += [(self.level, box, score) for box, score in ranked[: self.counted]]
        self._expand()

    def _expand(self) -> None:
        """Find the children of all that is followed, and which of them are not scored yet."""
        over = self.level == self.tree.levels
        boxes = [] if over else sorted({box for followed in self._followed for box in followed})
        self._following = {box: self.tree.following(box) for box in boxes}
        wanted: dict[Place, list[int]] = {
            place: [] for found in self._following.values() for _, place in found
        }
        self.is_over = not wanted
        for k, followed in enumerate(self._followed):
            places = {place for box in followed for _, place in self._following.get(box, [])}
            for place in places:
                if k not in self._score.get(place, {}):
                    wanted[place].append(k)
        self._score = {place: self._score[place] for place in wanted if place in self._score}
        self.wanted = [Wanted(place, classes) for place, classes in wanted.items() if classes]

    def num_alone(self) -> tuple[int, int]:
        """Return what the next level takes if classes share nothing: places and crops.

        Those on the whole frame, whose features are at hand, take no crop.
        """
        asked = [(k, place) for place, classes in self.wanted for k in classes]
        crops = {(k, place.crop) for k, place in asked if place.crop != self.tree.root}
        return len(asked), len(crops)

    def candidates(self, k: int) -> Candidates:
        """Return what was kept for one class, counted among those searched for."""
        kept = self._kept[k]
        return Candidates(
            self.tree.fractions([box for _, box, _ in kept]),
            np.array([score for _, _, score in kept], np.float64),
            np.array([level for level, _, _ in kept], np.int16),
        )


def _rank(candidate: tuple[Box, float]) -> tuple[float, int, int, int, int]:
    (x0, y0, x1, y1), score = candidate
    return -score, y0, x0, y1, x1


def beam_heat(candidates: Candidates, map_size: int) -> NDArray[np.float64]:
    """Sum candidates with their scores over the area that they cover (§3.4).

    ``heat[r, c] = sum over candidates of score * (share of cell (r, c) that the box covers)``, so
    that the sum over the map is ``map_size² * sum of score * area``.

    Parameters
    ----------
    candidates
        Of one class.
    map_size
        Rows and columns of the map, which covers the frame.

    Returns
    -------
    ndarray
        (map_size, map_size) float64; zeros without candidates.
    """
    x0, y0, x1, y1 = candidates.box_B4.T * map_size
    row_BH, col_BW = _covered(y0, y1, map_size), _covered(x0, x1, map_size)
    heat_HW: NDArray[np.float64] = (row_BH * candidates.score_B[:, None]).T @ col_BW
    return heat_HW


def _covered(
    start_B: NDArray[np.float64], stop_B: NDArray[np.float64], num_cells: int
) -> NDArray[np.float64]:
    """Return how much of each cell of an axis each interval covers, 0 to 1."""
    cell_W = np.arange(num_cells)
    end_BW = np.minimum(stop_B[:, None], cell_W + 1)
    covered_BW: NDArray[np.float64] = end_BW - np.maximum(start_B[:, None], cell_W)
    return covered_BW.clip(0, 1)
