"""Connected regions of grey pictures at every threshold at once, as a merge tree of basins.

A basin is what climbs to one local maximum: every pixel leads to a higher neighbour until there
is none. As the threshold falls, basins appear at their peaks and merge where they touch, the
lower one into the higher. So all connected components of all thresholds follow from one pass
over the pixels and a small tree; how many thresholds there are makes nearly no difference.

Along a row pixels are first taken together to stretches with one peak each, so that climbing is
done by some hundreds of stretches and not by all pixels. Several pictures stand in one stack,
divided by frames of width 1, and are worked on together.

Levels are counted from 0: a pixel of level count c is foreground at the levels ``0 … c - 1``.
Pixels are ordered by a real value, of which the level is a non-decreasing function; among equal
values the order is that of their places in the stack.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Basins", "Stack", "find_basins", "stack"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Index: TypeAlias = npt.NDArray[np.intp]
Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """N square pictures one below the other in a frame of width 1, flat: P pixels.

    Attributes
    ----------
    value_NHW : float64 array
        What orders the pixels; finite. The frame has −inf.
    level_P : uint8 array
        At how many levels each is foreground; 0 in the frame.
    num_levels_N : int64 array
        How many levels each picture has.
    turn_T : intp array
        Where values that rose from pixel to pixel (as equal ones do) begin to fall, and in
        between where they rise again: peaks and valleys in turn.
    """

    value_NHW: npt.NDArray[np.float64]
    level_P: Bytes
    num_levels_N: npt.NDArray[np.int64]
    turn_T: Index

    @property
    def size(self) -> int:
        """The side of the pictures."""
        return int(self.value_NHW.shape[1])

    @property
    def stride(self) -> int:
        """The pixels of a row; each picture has as many rows, after the first row of all."""
        return self.size + 1

    def value_at(self, place_E: Index) -> npt.NDArray[np.float64]:
        """Return the values of some pixels."""
        if not len(self.value_NHW):
            return np.full(len(place_E), -np.inf)
        index_E = _picture_index(len(self.value_NHW), self.size)[place_E]
        value_E = self.value_NHW.reshape(-1)[index_E]
        value_E[index_E < 0] = -np.inf
        return value_E


@functools.lru_cache(maxsize=4)
def _picture_index(num: int, size: int) -> npt.NDArray[np.int32]:
    """Return where the pixels of a stack are among those of its pictures, −1 in the frame."""
    index = np.full((num * (size + 1) + 1, size + 1), -1, np.int32)
    inside = index[1:].reshape(num, size + 1, size + 1)[:, :-1, :-1]
    inside[:] = np.arange(num * size**2).reshape(num, size, size)
    return index.ravel()


def stack(value_NHW: npt.NDArray[np.float64], levels: Iterable[Bytes], num_levels_N: Ints) -> Stack:
    """Return pictures as a stack.

    Parameters
    ----------
    value_NHW : float64 array
    levels : iterable of uint8 arrays, (H, W)
        Of one picture after the other.
    num_levels_N : int64 array
        How many levels each picture has; it may be filled while `levels` are made.
    """
    num, size = value_NHW.shape[:2]
    side = size + 1
    level_RS = np.zeros((num * side + 1, side), np.uint8)
    rises_RS = np.ones(level_RS.shape, np.bool_)  # to the next pixel; as equal ones do
    rises_RS[1:].reshape(num, side, side)[:, :-1, -2] = False
    for image, level_HW in enumerate(levels):
        rows = slice(image * side + 1, (image + 1) * side)
        level_RS[rows, :-1] = level_HW
        value_HW = value_NHW[image]
        np.greater_equal(value_HW[:, 1:], value_HW[:, :-1], out=rises_RS[rows, :-2])
    rises_P = rises_RS.ravel()[:-1]
    turn_T = np.flatnonzero(rises_P[1:] != rises_P[:-1]) + 1
    return Stack(value_NHW, level_RS.ravel(), num_levels_N, turn_T)


@dataclass(frozen=True, slots=True, eq=False)
class Basins:
    """K basins, picture by picture, the highest first; before them all, for holes, the frame.

    At the levels ``death_K[k] <= level < peak_K[k]`` basin k is the highest of a component;
    below, it is a part of that of a higher basin.

    Attributes
    ----------
    level_P : uint8 array
        Of the pixels of the stack, as they are seen: upside down for holes.
    label_P : array of integers
        The basin of each pixel.
    root_K, image_K : intp arrays
        The place of its highest pixel, and the picture that it is in.
    peak_K, death_K : int64 arrays
    parent_K : intp array
        The basin that it becomes a part of; itself for none.
    basin_I, peak_I : intp arrays
        Basin and highest pixel of every stretch, in the order of the stack.
    num_frames : int
        1 if the first basin is the frame, else 0.
    """

    level_P: Bytes
    label_P: npt.NDArray[np.integer[Any]]
    root_K: Index
    image_K: Index
    peak_K: npt.NDArray[np.int64]
    death_K: npt.NDArray[np.int64]
    parent_K: Index
    basin_I: Index
    peak_I: Index
    num_frames: int

    def head(self, basin_E: Index, level_E: Index) -> Index:
        """Return which basin heads the component that a basin is in at a level."""
        head_E = basin_E.copy()
        below_E = np.flatnonzero(level_E < self.death_K[head_E])
        while len(below_E):
            head_E[below_E] = self.parent_K[head_E[below_E]]
            below_E = below_E[level_E[below_E] < self.death_K[head_E[below_E]]]
        return head_E


def find_basins(pictures: Stack, *, holes: bool = False) -> Basins:
    """Return the basins of a stack.

    Parameters
    ----------
    pictures : Stack
    holes : bool
        False: of the foreground, 8-connected. True: of the background, 4-connected and turned
        upside down: its pixels are there at the levels ``0 … L - c - 1``, which stand for
        the levels ``L - 1 … c`` of a picture of L levels; the frame is there at all of them,
        and what it is a part of is not reported.
    """
    level_P = _upside_down(pictures) if holes else pictures.level_P
    start_I, peak_I = _stretches(pictures, holes)
    basin_I, root_K = _climb(pictures, start_I, peak_I, holes)
    length_I = np.diff(start_I, append=len(level_P))
    label_P = np.repeat(basin_I.astype(_label_dtype(len(root_K))), length_I)
    edges = np.zeros(0, np.int64)
    if len(root_K) > 1:
        edges = _edges(pictures.stride, level_P, label_P, start_I, holes)
    parent_K, death_K = _joined(len(root_K), edges)
    peak_K = level_P[root_K].astype(np.int64)
    basins = Basins(
        level_P,
        label_P,
        root_K,
        (root_K // pictures.stride - 1) // pictures.stride,
        peak_K,
        death_K,
        parent_K,
        basin_I,
        peak_I,
        num_frames=int(holes),
    )
    # It may have become a part of a basin that had itself ended above.
    ended = np.flatnonzero(death_K)
    parent_K[ended] = basins.head(parent_K[ended], death_K[ended] - 1)
    return basins


def _label_dtype(num_basins: int) -> type[np.integer[Any]]:
    """Return the smallest dtype, of those that OpenCV knows."""
    if num_basins <= 1 << 8:
        return np.uint8
    return np.uint16 if num_basins <= 1 << 16 else np.int32


def _upside_down(pictures: Stack) -> Bytes:
    num_levels_N = pictures.num_levels_N.astype(np.uint8)
    level_P = np.empty_like(pictures.level_P)
    level_P[: pictures.stride] = num_levels_N.max(initial=0)
    rest = level_P[pictures.stride :].reshape(len(num_levels_N), pictures.stride**2)
    np.subtract(
        num_levels_N[:, None], pictures.level_P[pictures.stride :].reshape(rest.shape), out=rest
    )
    return level_P


def _stretches(pictures: Stack, holes: bool) -> tuple[Index, Index]:
    """Return where the stretches with one peak begin, and their peaks.

    The frame is of equal values, so the stack begins and ends rising.
    """
    peak_I, valley_I = pictures.turn_T[::2], pictures.turn_T[1::2]
    first = np.zeros(1, np.intp)
    if holes:
        return np.concatenate([first, peak_I]), np.concatenate([first, valley_I])
    last = np.array([len(pictures.level_P) - 1])
    return np.concatenate([first, valley_I]), np.concatenate([peak_I, last])


def _climb(pictures: Stack, start_I: Index, peak_I: Index, holes: bool) -> tuple[Index, Index]:
    """Return the basin of every stretch, and the highest pixel of every basin."""
    side = pictures.stride
    next_I = np.arange(len(peak_I))
    # Most have a higher pixel right below or above; only where not, the corners are looked at.
    left_I = next_I
    for near in (
        ((side, -side),) if holes else ((side, -side), (side + 1, -side - 1, side - 1, 1 - side))
    ):
        to_L, climbs_L = _higher(pictures, peak_I[left_I], near, holes)
        up_L = np.flatnonzero(climbs_L)
        next_I[left_I[up_L]] = np.searchsorted(start_I, to_L[up_L], side="right") - 1
        left_I = left_I[np.flatnonzero(~climbs_L)]
    while True:
        further_I = next_I[next_I]
        if np.array_equal(further_I, next_I):
            break
        next_I = further_I
    place_K = peak_I[left_I]
    height_K = pictures.value_at(place_K) * (-1 if holes else 1)
    image_K = (place_K // side - 1) // side
    # Among equals the later one is higher, upside down the earlier one.
    tie_K = place_K if holes else -place_K
    root_K = left_I[np.lexsort((tie_K, -height_K, image_K))]
    basin_I = np.empty(len(peak_I), np.intp)
    basin_I[root_K] = np.arange(len(root_K))
    return basin_I[next_I], peak_I[root_K]


def _higher(
    pictures: Stack, at_L: Index, near: tuple[int, ...], holes: bool
) -> tuple[Index, npt.NDArray[np.bool_]]:
    """Return a neighbour of each pixel that is higher, and whether there is one.

    Upside down, where holes are looked for.
    """
    to_L, found_L = at_L.copy(), pictures.value_at(at_L)
    for step in near:
        place_L = np.clip(at_L + step, 0, len(pictures.level_P) - 1)
        value_L = pictures.value_at(place_L)
        if holes:
            better_L = (value_L < found_L) | ((value_L == found_L) & (place_L < to_L))
        else:
            better_L = (value_L > found_L) | ((value_L == found_L) & (place_L > to_L))
        np.copyto(to_L, place_L, where=better_L)
        np.copyto(found_L, value_L, where=better_L)
    return to_L, to_L != at_L


def _edges(
    side: int, level_P: Bytes, label_P: npt.NDArray[Any], start_I: Index, holes: bool
) -> npt.NDArray[np.int64]:
    """Return where basins touch, ``lower << 40 | higher << 8 | level``, once for each pair.

    Along a row stretches touch where they begin. Two pixels that touch at a corner only matter
    where both pixels between them are lower.
    """
    found = [(start_I[1:] - 1, start_I[1:])]
    at = np.flatnonzero(label_P[side:] != label_P[:-side])
    found.append((at, at + side))
    if not holes:
        found += _corners(side, level_P)
    keys = []
    for one, other in found:
        level = np.minimum(level_P[one], level_P[other])
        a, b = label_P[one], label_P[other]
        pair = np.maximum(a, b).astype(np.int64) << 40 | np.minimum(a, b).astype(np.int64) << 8
        first = np.flatnonzero(np.diff(pair, prepend=-1))
        if len(first):
            keys.append(pair[first] | np.maximum.reduceat(level, first))
    key: npt.NDArray[np.int64] = np.sort(np.concatenate([*keys, np.zeros(0, np.int64)]))
    key = key[np.flatnonzero(np.diff(key >> 8, append=-1))]
    kept = ((key & 255) > 0) & (key >> 40 != key >> 8 & 0xFFFFFFFF)
    return np.asarray(key[kept])


def _corners(side: int, level_P: Bytes) -> list[tuple[Index, Index]]:
    """Return pixels that touch at a corner and are higher than the two between them."""
    a, b, c, d = level_P[: -side - 1], level_P[1:-side], level_P[side:-1], level_P[side + 1 :]
    falls = np.minimum(a, d) > np.maximum(b, c)
    at = np.flatnonzero(falls | (np.minimum(b, c) > np.maximum(a, d)))
    down, up = at[falls[at]], at[~falls[at]]
    return [(down, down + side + 1), (up + 1, up + side)]


def _joined(num_basins: int, edges: npt.NDArray[np.int64]) -> tuple[Index, npt.NDArray[np.int64]]:
    """Return which basin each becomes a part of, itself for none, and below which level.

    In rounds: of the edges of a basin, with whatever became a part of it, the highest says where
    it stops to be alone. If that leads to a higher basin, it ends there.
    """
    parent_K = np.arange(num_basins)
    death_K = np.zeros(num_basins, np.int64)
    low_E, high_E, level_E = edges >> 40, edges >> 8 & 0xFFFFFFFF, edges & 255
    while len(low_E):
        # The highest level and then the highest basin, in one number.
        best_K = np.full(num_basins, -1)
        np.maximum.at(best_K, low_E, level_E * num_basins + (num_basins - 1 - high_E))
        np.maximum.at(best_K, high_E, level_E * num_basins + (num_basins - 1 - low_E))
        to_K = num_basins - 1 - best_K % num_basins
        ends = np.flatnonzero((best_K >= 0) & (to_K < np.arange(num_basins)))
        parent_K[ends], death_K[ends] = to_K[ends], best_K[ends] // num_basins
        into_K = np.arange(num_basins)
        into_K[ends] = to_K[ends]
        while ((further_K := into_K[into_K]) != into_K).any():
            into_K = further_K
        low_E, high_E = into_K[low_E], into_K[high_E]
        apart = np.flatnonzero(low_E != high_E)
        low_E, high_E, level_E = low_E[apart], high_E[apart], level_E[apart]
    return parent_K, death_K
