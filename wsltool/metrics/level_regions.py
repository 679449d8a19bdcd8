"""Extents and areas of all components of all levels, from basins.

Whatever a component's pixels add to its extent or area is an event: a basin, a level from which
on (downwards) it counts, and a number. Events go to the component that its basin is in at that
level, then down the levels of this component, and where the component ends, to the one that it
becomes a part of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from wsltool.metrics.level_sets import Basins, Bytes, Index, Stack

__all__ = ["Regions", "doubled_areas", "find_regions", "num_holes"]

Ints: TypeAlias = npt.NDArray[np.int64]

# Above every coordinate; twice as much divides the components in a running minimum.
_FAR = 1 << 11


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """C components, each at one level: the levels of a basin falling, the basins in order.

    Attributes
    ----------
    basin_C : intp array
        The highest basin of each.
    level_C : int64 array
    box_4C : int32 array
        ``x0, y0, x1, y1``, inclusive, in pixels of its picture.
    image_C : intp array
        Its picture.
    num_K : int64 array
        How many there are of each basin.
    zero_K : int64 array
        The component of basin k at level l stands at ``zero_K[k] - l``.
    """

    basin_C: Index
    level_C: Ints
    box_4C: npt.NDArray[np.int32]
    image_C: Index
    num_K: Ints
    zero_K: Ints


def find_regions(pictures: Stack, basins: Basins) -> Regions:
    """Return the components of a stack, those that touch the frame left out for holes."""
    num_K = basins.peak_K - basins.death_K
    num_K[: basins.num_frames] = 0
    end_K = np.cumsum(num_K)
    zero_K = end_K - num_K + basins.peak_K - 1
    basin_C = np.repeat(np.arange(len(num_K)), num_K)
    image_C = basins.image_K[basin_C]
    level_C = zero_K[basin_C] - np.arange(len(basin_C))
    box_4C = np.full((4, len(basin_C)), _FAR - 1, np.int32)
    regions = Regions(basin_C, level_C, box_4C, image_C, num_K, zero_K)
    for axis, events in enumerate((_columns(pictures, basins), _rows(pictures, basins))):
        place, number = _placed(regions, basins, *events)
        # Events come in rising order, and of several for one place the last is written.
        box_4C[axis][place[::-1]] = number[::-1]
        box_4C[axis + 2][place] = -number
    _pour_extents(regions, basins)
    shift_C = basin_C.astype(np.int32) * np.int32(2 * _FAR)
    box_4C -= shift_C
    np.minimum.accumulate(box_4C, axis=1, out=box_4C)
    box_4C += shift_C
    np.negative(box_4C[2:], out=box_4C[2:])
    return regions


def doubled_areas(pictures: Stack, basins: Basins, regions: Regions, images: Iterable[int]) -> Ints:
    """Return twice the area of each component of some pictures, int64 (C,); 0 of the others.

    The area is what lies between its outlines, which go through the centres of pixels: of a
    square between four centres all of it where the four are foreground, half where three are.
    That of a component without holes is what its outer outline encloses.
    """
    events = []
    for image in images:
        a, b, c, d = _squares(pictures, basins.level_P, image)
        la, lb, _, _ = _squares(pictures, basins.label_P, image)
        low_ab, low_cd = np.minimum(a, b), np.minimum(c, d)
        inner = np.minimum(np.maximum(a, b), np.maximum(c, d))
        # One of two pixels is among the three highest, which are one component.
        label_Q = np.where(a >= b, la, lb)
        for level_Q in (np.minimum(low_ab, low_cd), np.minimum(np.maximum(low_ab, low_cd), inner)):
            events.append(_counted(basins, image, label_Q, level_Q, 1))
    return _sums(regions, basins, events)


def num_holes(pictures: Stack, basins: Basins, regions: Regions, images: Iterable[int]) -> Ints:
    """Return how many holes each component of some pictures has, int64 (C,); 0 of the others.

    A component minus its holes is a fourth of Euler's sum over the squares between four
    pixels: 1 where one is foreground, −1 where three are, −2 where two are that touch only at
    their corners.
    """
    events, looked_at = [], np.zeros(len(pictures.num_levels_N), np.bool_)
    for image in images:
        looked_at[image] = True
        a, b, c, d = _squares(pictures, basins.level_P, image)
        la, lb, lc, ld = _squares(pictures, basins.label_P, image)
        low_ab, high_ab = np.minimum(a, b), np.maximum(a, b)
        low_cd, high_cd = np.minimum(c, d), np.maximum(c, d)
        one, other = np.maximum(low_ab, low_cd), np.minimum(high_ab, high_cd)
        label_Q = np.where(high_ab >= high_cd, np.where(a >= b, la, lb), np.where(c >= d, lc, ld))
        corners = np.flatnonzero(
            (np.minimum(a, d) > np.maximum(b, c)) | (np.minimum(b, c) > np.maximum(a, d))
        )
        second, third = np.maximum(one, other), np.minimum(one, other)
        for level_Q, weight in (
            (np.maximum(high_ab, high_cd), 1),
            (second, -1),
            (third, -1),
            (np.minimum(low_ab, low_cd), 1),
        ):
            events.append(_counted(basins, image, label_Q, level_Q, weight))
        for level_Q, weight in ((second, -2), (third, 2)):
            events.append(_counted(basins, image, label_Q[corners], level_Q[corners], weight))
    holes_C = 1 - _sums(regions, basins, events) // 4
    holes_C[~looked_at[regions.image_C]] = 0
    return holes_C


def _squares(pictures: Stack, value_P: npt.NDArray[Any], image: int) -> Iterator[npt.NDArray[Any]]:
    """Return the four pixels of every square that touches a picture, each as a flat array."""
    side, area = pictures.stride, pictures.stride**2
    first = image * area - 1  # left above the first pixel; before the stack there is frame, too
    value_P = (
        np.concatenate([value_P[:1], value_P[: area + side]]) if first < 0 else value_P[first:]
    )
    return (value_P[step : step + area] for step in (0, 1, side, side + 1))


def _counted(
    basins: Basins, image: int, label_Q: npt.NDArray[Any], level_Q: Bytes, weight: int
) -> tuple[Index, Bytes, Index]:
    """Return basins, levels and how many squares there are of both, times a weight."""
    first, last = np.searchsorted(basins.image_K, [image, image + 1])
    # In the frame, the labels of other pictures stand; there is nothing at any level.
    wide = np.uint16 if last - first <= 256 else np.int32
    local_Q = np.where(level_Q > 0, label_Q, first) - label_Q.dtype.type(first)
    num = np.bincount(local_Q.astype(wide) << 8 | level_Q)
    used = np.flatnonzero(num)
    return (used >> 8) + first, (used & 255).astype(np.uint8), num[used] * weight


def _sums(regions: Regions, basins: Basins, events: list[tuple[Index, Bytes, Index]]) -> Ints:
    """Return the sums of events over each component."""
    own_C = np.zeros(len(regions.basin_C), np.int64)
    if events:
        basin_E, count_E, number_E = (np.concatenate(one) for one in zip(*events, strict=True))
        place, number = _placed(regions, basins, basin_E, count_E, number_E)
        own_C = np.bincount(place, number, minlength=len(own_C)).astype(np.int64)
    return _poured_sums(regions, basins, own_C)


def _placed(
    regions: Regions, basins: Basins, basin_E: Index, count_E: Bytes, number_E: Index
) -> tuple[Index, npt.NDArray[np.int32]]:
    """Return where events stand, which begin at the highest of `count_E` levels, and numbers."""
    real = np.flatnonzero(count_E)
    level = count_E[real].astype(np.int64) - 1
    head = basins.head(basin_E[real], level)
    number = number_E[real].astype(np.int32)
    if basins.num_frames:
        kept = np.flatnonzero(head >= basins.num_frames)
        head, level, number = head[kept], level[kept], number[kept]
    return regions.zero_K[head] - level, number


def _rows(pictures: Stack, basins: Basins) -> tuple[Index, Bytes, Index]:
    """Return the rows of each basin with its highest level there, in rising order."""
    side = pictures.stride
    return basins.basin_I, basins.level_P[basins.peak_I], (basins.peak_I // side - 1) % side


def _columns(pictures: Stack, basins: Basins) -> tuple[Index, Bytes, Index]:
    """Return the columns of each basin with its highest level there, in rising order."""
    level_P, label_P = (
        cv2.transpose(one.reshape(-1, pictures.stride)) for one in (basins.level_P, basins.label_P)
    )
    num_rows = level_P.shape[1]
    level_P, label_P = level_P.ravel(), label_P.ravel()
    new_P = np.empty(len(label_P), np.bool_)
    np.not_equal(label_P[1:], label_P[:-1], out=new_P[1:])
    new_P[::num_rows] = True
    run_J = np.flatnonzero(new_P)
    return label_P[run_J].astype(np.intp), np.maximum.reduceat(level_P, run_J), run_J // num_rows


def _by_depth(regions: Regions, basins: Basins) -> Iterator[tuple[Index, Index, Index]]:
    """Yield basins, those that they become parts of, and where these take their components on.

    The deepest first, so that a basin has everything when its turn comes. The place is −1 where
    the other one ends at the very same level, and takes them further itself.
    """
    depth_K = (basins.parent_K != np.arange(len(basins.parent_K))).astype(np.intp)
    above_K = basins.parent_K
    while (above_K[above_K] != above_K).any():
        depth_K, above_K = depth_K + depth_K[above_K], above_K[above_K]
    alive_K = regions.num_K > 0
    low = np.flatnonzero(alive_K & alive_K[basins.parent_K] & (depth_K > 0))
    low = low[np.argsort(-depth_K[low], kind="stable")]
    for few in np.split(low, np.flatnonzero(np.diff(depth_K[low])) + 1):
        high = basins.parent_K[few]
        death = basins.death_K[few]
        place = np.where(death > basins.death_K[high], regions.zero_K[high] - death + 1, -1)
        yield few, high, place


def _pour_extents(regions: Regions, basins: Basins) -> None:
    start_K = np.cumsum(regions.num_K) - regions.num_K
    alive = np.flatnonzero(regions.num_K)
    if not len(alive):
        return
    least_4K = np.zeros((4, len(start_K)), np.int32)
    least_4K[:, alive] = np.minimum.reduceat(regions.box_4C, start_K[alive], axis=1)
    for low, high, place in _by_depth(regions, basins):
        kept = np.flatnonzero(place >= 0)
        for least_K, box_C in zip(least_4K, regions.box_4C, strict=True):
            np.minimum.at(least_K, high, least_K[low])
            np.minimum.at(box_C, place[kept], least_K[low[kept]])


def _poured_sums(regions: Regions, basins: Basins, own_C: Ints) -> Ints:
    """Return the sums of each component, of what is added to it at each level."""
    start_K = np.cumsum(regions.num_K) - regions.num_K
    before_C = np.concatenate([[0], np.cumsum(own_C)])
    total_K = before_C[start_K + regions.num_K] - before_C[start_K]
    for low, high, place in _by_depth(regions, basins):
        kept = np.flatnonzero(place >= 0)
        np.add.at(total_K, high, total_K[low])
        np.add.at(own_C, place[kept], total_K[low[kept]])
    sum_C = np.cumsum(own_C)
    started_K = np.concatenate([[0], sum_C])[start_K]
    return np.asarray(sum_C - started_K[regions.basin_C])
