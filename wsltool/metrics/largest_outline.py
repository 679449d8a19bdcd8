"""Which component of each level has the largest outline, as ``cv2.contourArea`` has it.

The area of a contour is that of the polygon through the centres of the outermost pixels, with
whatever holes are inside. For a component without holes it follows from the basins; for others
it lies between two bounds, and only where these do not tell, the outline is drawn.
"""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from wsltool.metrics.level_regions import Regions, doubled_areas, num_holes
from wsltool.metrics.level_sets import Basins, Index, Stack

__all__ = ["largest_outlines"]

Ints: TypeAlias = npt.NDArray[np.int64]


def largest_outlines(
    pictures: Stack,
    basins: Basins,
    regions: Regions,
    right_C: npt.NDArray[np.bool_] | None = None,
) -> Index:
    """Return the component of the largest outline of each level of each picture.

    Candidates are left out step by step, the cheap steps first. A component with an equal is
    never inside another, for that one were larger; so among equals OpenCV's order is known: the
    one whose first pixel in reading order comes last.

    Parameters
    ----------
    pictures, basins, regions
        As of `find_regions`.
    right_C : bool array, optional
        It is enough that the component returned is as right as the largest one.
    """
    kind_C = np.arange(len(regions.basin_C)) if right_C is None else right_C.astype(np.intp)
    group_C = regions.image_C * 256 + regions.level_C
    left = np.arange(len(group_C))
    bounds = _Bounds(pictures, basins, regions)
    for narrow in (
        bounds.by_basins,
        bounds.by_holes,
        bounds.by_outline,
        bounds.by_first_row,
        bounds.by_first_column,
    ):
        several = _undecided(left, group_C, kind_C)
        if not len(several):
            break
        narrow(several)
        decided = np.setdiff1d(left, several, assume_unique=True)
        left = np.concatenate([decided, bounds.best(several, group_C)])
    _, first = np.unique(group_C[left], return_index=True)
    return left[first]


def _undecided(left: Index, group_C: Index, kind_C: Index) -> Index:
    """Return those of `left` in whose group there are several kinds."""
    group_M, kind_M = group_C[left], kind_C[left]
    low_G = np.full(int(group_C.max(initial=0)) + 1, len(kind_C))
    high_G = np.full_like(low_G, -1)
    np.minimum.at(low_G, group_M, kind_M)
    np.maximum.at(high_G, group_M, kind_M)
    return left[low_G[group_M] < high_G[group_M]]


class _Bounds:
    """Between which two numbers lies what the components are compared by, (C,) each."""

    def __init__(self, pictures: Stack, basins: Basins, regions: Regions) -> None:
        self._pictures, self._basins, self._regions = pictures, basins, regions
        self._least_C = self._most_C = np.zeros(len(regions.basin_C), np.int64)

    def best(self, several: Index, group_C: Index) -> Index:
        """Return those of `several` that may have the largest number of their group."""
        top_G = np.full(int(group_C.max()) + 1, -1, np.int64)
        np.maximum.at(top_G, group_C[several], self._least_C[several])
        return several[self._most_C[several] >= top_G[group_C[several]]]

    def by_basins(self, several: Index) -> None:
        """Twice the area is at least that without holes, at most that of the box."""
        images = np.unique(self._regions.image_C[several]).tolist()
        x0, y0, x1, y1 = self._regions.box_4C.astype(np.int64)
        self._least_C = doubled_areas(self._pictures, self._basins, self._regions, images)
        self._most_C = 2 * (x1 - x0) * (y1 - y0)

    def by_holes(self, several: Index) -> None:
        """Without holes it is known."""
        images = np.unique(self._regions.image_C[several]).tolist()
        holes_C = num_holes(self._pictures, self._basins, self._regions, images)
        whole = several[holes_C[several] == 0]
        self._most_C[whole] = self._least_C[whole]

    def by_outline(self, several: Index) -> None:
        """Draw the others."""
        unsure = several[self._least_C[several] < self._most_C[several]]
        for component in unsure.tolist():
            self._least_C[component] = self._outlined(component)[0]
        self._most_C = self._least_C

    def by_first_row(self, several: Index) -> None:
        """Among equals the lowest first row counts."""
        self._least_C = self._most_C = self._regions.box_4C[1].astype(np.int64)

    def by_first_column(self, several: Index) -> None:
        """And there the rightmost first pixel."""
        self._least_C = self._most_C = np.zeros(len(self._least_C), np.int64)
        for component in several.tolist():
            self._least_C[component] = self._outlined(component)[1]

    def _outlined(self, component: int) -> tuple[int, int]:
        """Return twice the area inside the outline, and the column of the first pixel."""
        regions, side = self._regions, self._pictures.stride
        x0, y0, x1, y1 = regions.box_4C[:, component].tolist()
        top = int(regions.image_C[component]) * side + 1
        level_RS = self._pictures.level_P.reshape(-1, side)
        cut = level_RS[top + y0 : top + y1 + 1, x0 : x1 + 1] > regions.level_C[component]
        _, label = cv2.connectedComponents(cut.view(np.uint8), connectivity=8)
        row, col = divmod(int(self._basins.root_K[regions.basin_C[component]]), side)
        own = (label == label[row - top - y0, col - x0]).astype(np.uint8)
        contours, _ = cv2.findContours(own, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        return round(2 * cv2.contourArea(contours[0])), x0 + int(own[0].argmax())
