"""Which images stand for a class on the label page, and their heat."""

from __future__ import annotations

from typing import Any

import numpy as np

from wsltool.errors import BadImageError, StoreCorruptError
from wsltool.localize.cluster_heat import cluster_heat
from wsltool.stages.options import PathLike
from wsltool.stages.run import open_input
from wsltool.stores.lineage import find_input
from wsltool.stores.store import Store
from wsltool.views.label_strips import SampleHeat

__all__ = ["check_patterns", "features_behind", "sample_heat", "sampled_rows"]

Array = np.ndarray[Any, Any]

_READ_ROWS = 4096


def features_behind(clusters: Store, given: PathLike | None, reader: str) -> Store:
    """Open the features that clusters were made of, or those that ``--features`` names.

    Parameters
    ----------
    clusters : Store
    given : path or None
        What ``--features`` names.
    reader : str
        The command that reads them, for messages.

    Raises
    ------
    LineageError
        They are not where they were; the message names ``--features``.
    StoreKindError
        What is given is no features store.
    """
    if given is None:
        return find_input(clusters, "features", "--features")
    return open_input(given, "features", f"{reader} --features")


def check_patterns(features: Store) -> None:
    """Raise StoreCorruptError if the features do not say which class fired where."""
    if "pattern_class" not in features:
        raise StoreCorruptError(
            f"{features.path.name}: has no pattern_class, so it does not say which images show "
            "patterns of a class. Run extract-features on maps, not on images."
        )


def sampled_rows(features: Store, samples: int, seed: int) -> dict[int, list[int]]:
    """Draw images for every class among those that hold patterns of it.

    Every pair of a class and an image has a number that depends on the seed and the two alone;
    the smallest are drawn. So the draw is the same however the store is read, a larger number
    of samples begins with the smaller one's, and memory holds `samples` rows a class.

    Parameters
    ----------
    features : Store
        A ``features`` store with ``pattern_cell`` and ``pattern_class``.
    samples : int
        At most how many images a class.
    seed : int
        Of the draw.

    Returns
    -------
    dict
        Class number to rows of images, each once, in the order of the draw. A class without
        patterns is not there.

    Raises
    ------
    StoreCorruptError
        The store does not say which class fired where.
    """
    check_patterns(features)
    class_M, row_M = np.empty(0, np.int64), np.empty(0, np.int64)
    for start in range(0, len(features), _READ_ROWS):
        new = _pairs(features, start, min(start + _READ_ROWS, len(features)))
        class_M, row_M = (np.concatenate(pair) for pair in zip((class_M, row_M), new, strict=True))
        class_M, row_M = _smallest(class_M, row_M, samples, seed)
    edges = np.flatnonzero(np.diff(class_M, prepend=-1))
    pieces = np.split(row_M, edges[1:])
    return {int(class_M[edge]): piece.tolist() for edge, piece in zip(edges, pieces, strict=False)}


def _pairs(features: Store, start: int, stop: int) -> tuple[Array, Array]:
    """Return class and row of every image of ``start:stop`` that holds patterns of the class."""
    where = features.pattern_rows(start, stop)
    edge = features.rows("cell_start", start, stop + 1)
    cell_P = features.rows("pattern_cell", where.start, where.stop)
    class_P = features.rows("pattern_class", where.start, where.stop).astype(np.int64)
    row_P = start + np.searchsorted(edge, cell_P, side="right") - 1
    pair_M = np.unique(class_P * len(features) + row_P)
    return pair_M // len(features), pair_M % len(features)


def _smallest(class_M: Array, row_M: Array, num: int, seed: int) -> tuple[Array, Array]:
    """Return the `num` pairs of every class with the smallest numbers, by class and number."""
    seeds = np.full(1, seed, np.uint64)
    number_M = _mixed(_mixed(_mixed(seeds) ^ class_M.astype(np.uint64)) ^ row_M.astype(np.uint64))
    order = np.lexsort((row_M, number_M, class_M))
    sorted_M = class_M[order]
    rank_M = np.arange(len(order)) - np.searchsorted(sorted_M, sorted_M)
    kept = order[rank_M < num]
    return class_M[kept], row_M[kept]


def _mixed(value_M: Array) -> Array:
    """Spread 64-bit numbers evenly, one to one (the finaliser of splitmix64)."""
    value_M = value_M + np.uint64(0x9E3779B97F4A7C15)
    value_M = (value_M ^ (value_M >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value_M = (value_M ^ (value_M >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = value_M ^ (value_M >> np.uint64(31))
    return mixed


def sample_heat(features: Store, row: int, centroid_QC: Array) -> SampleHeat:
    """Return the heat of some clusters in one image (eq. 1), NaN in cells that are not stored.

    Parameters
    ----------
    features : Store
        A ``features`` store.
    row : int
        The image.
    centroid_QC : array of float, (clusters, channels)
        Mean patterns of the clusters.

    Raises
    ------
    BadImageError
        A feature is not finite, or a cell lies outside the grid.
    """
    num_rows, num_cols = (int(side) for side in features.attributes["grid"])
    _, where = features.ragged("cell", row, row + 1)
    cell_P2 = features.rows("cell", where.start, where.stop).astype(np.intp)
    heat_PQ = cluster_heat(features.rows("feature", where.start, where.stop), centroid_QC)
    outside_P = ((cell_P2 < 0) | (cell_P2 >= (num_rows, num_cols))).any(axis=1)
    if outside_P.any():
        cell = cell_P2[int(outside_P.argmax())].tolist()
        raise BadImageError(f"cell {cell} lies outside the grid of {num_rows}x{num_cols} cells.")
    heat_QHW = np.full((len(centroid_QC), num_rows, num_cols), np.nan)
    heat_QHW[:, cell_P2[:, 0], cell_P2[:, 1]] = heat_PQ.T
    x0, y0, x1, y1 = features.rows("map_extent", row, row + 1)[0].tolist()
    width_px, height_px = features.rows("image_size", row, row + 1)[0].tolist()
    return SampleHeat(heat_QHW, (x0, y0, x1, y1), (width_px, height_px))
