"""How many cells of each cluster lie in the truth: what ``label --oracle`` judges by."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from wsltool.errors import BadImageError, ProtocolError, StoreCorruptError, StoreKindError
from wsltool.localize.cluster_heat import best_cluster, cluster_heat
from wsltool.localize.grid import cell_centers_px
from wsltool.localize.oracle import cells_in_boxes, cells_in_mask
from wsltool.stages.report import Reporter
from wsltool.stages.true_masks import TrueMasks, has_masks, true_masks
from wsltool.stores.labels import clusters_of_class
from wsltool.stores.store import Store

__all__ = ["OracleFrom", "count_shares", "rows_in_truth", "truth_kind"]

Array = np.ndarray[Any, Any]
OracleFrom = Literal["boxes", "masks"]
Inside = Callable[[int, Array, Array], tuple[Array, Array] | None]
"""Given a class and points x and y: which lie in the truth, which count; None without truth."""

_PIECE_BYTES = 32 << 20


def truth_kind(truth: Store, wanted: OracleFrom | None) -> OracleFrom:
    """Return whether boxes or masks are read: what is wanted, or boxes where there are some.

    Raises
    ------
    StoreKindError
        The truth lacks what is wanted, or has neither.
    """
    has = {"boxes": "box" in truth, "masks": has_masks(truth)}
    if wanted is not None and has[wanted]:
        return wanted
    if wanted is None and any(has.values()):
        return "boxes" if has["boxes"] else "masks"
    lacking = f"no true {wanted}" if wanted else "neither true boxes nor true masks"
    raise StoreKindError(
        f"{truth.path.name}: has {lacking}, by which label --oracle judges. Ingest the images "
        "with their annotations."
    )


def rows_in_truth(clusters: Store, features: Store, truth: Store) -> Array:
    """Return the row of every image of the features in the truth, -1 where it lacks it.

    Returns
    -------
    truth_row_N : int64 ndarray of shape (N,)

    Raises
    ------
    ProtocolError
        The stores do not belong together.
    StoreKindError
        The features do not say which class each cell stands for.
    """
    _check_together(clusters, features, truth)
    row_of = {name: row for row, name in enumerate(truth.whole("image_id").tolist())}
    names = features.whole("image_id").tolist()
    row_N = np.array([row_of.get(name, -1) for name in names], np.int64)
    if not (row_N >= 0).any():
        raise ProtocolError(
            f"{truth.path.name}: holds none of the {len(row_N)} images of {features.path.name}. "
            "Give the truth of the images that the clusters were made of."
        )
    return row_N


def count_shares(
    clusters: Store,
    features: Store,
    truth: Store,
    truth_row_N: Array,
    use: OracleFrom,
    report: Reporter,
) -> tuple[Array, Array]:
    """Count the patterns of every class in the truth, by the cluster that fits each best.

    A pattern belongs to the cluster of its class with the highest heat (eq. 1), as in
    `wsltool.refine`. An image counts for a class if it has truth of that class: a box that is
    no crowd's, or a pixel. Points in a crowd's box, or where a mask leaves out, do not count,
    nor do patterns of zeros, which belong to no cluster.

    Parameters
    ----------
    clusters, features, truth : Store
    truth_row_N : int64 ndarray of shape (N,)
        Row of every image of the features in the truth, -1 for none: `rows_in_truth`.
    use : {"boxes", "masks"}
    report : Reporter

    Returns
    -------
    num_inside_Q, num_counted_Q : int64 ndarrays of shape (Q,)
        By row of the clusters: how many patterns lie in the truth, and how many were looked at.

    Raises
    ------
    StoreCorruptError
        A mask, an extent or a feature cannot be used.
    """
    rows_of = clusters_of_class(clusters)
    centroid_QC = clusters.whole("centroid")
    inside_Q = np.zeros(len(centroid_QC), np.int64)
    counted_Q = np.zeros_like(inside_Q)
    with report.progress("label", len(features), "images") as advance:
        for piece in _pieces(features, truth_row_N):
            inside_P, counted_P = _judged(piece, features, truth, use)
            for index in np.unique(piece.class_P[counted_P]).tolist():
                row_q = rows_of.get(index)
                if row_q is None:
                    continue
                pattern_p = np.flatnonzero(counted_P & (piece.class_P == index))
                feature_pc = piece.feature_UC[piece.cell_P[pattern_p]]
                best_p = row_q[best_cluster(cluster_heat(feature_pc, centroid_QC[row_q]))]
                np.add.at(counted_Q, best_p, 1)
                np.add.at(inside_Q, best_p, inside_P[pattern_p])
            advance(len(piece.truth_row_N))
    return inside_Q, counted_Q


def _check_together(clusters: Store, features: Store, truth: Store) -> None:
    if "pattern_cell" not in features:
        raise StoreKindError(
            f"{features.path.name}: does not say which cells stand for which class. Make it from "
            "maps: wsltool extract-features MAPS"
        )
    for other in (features, truth):
        if other.class_names() != clusters.class_names():
            raise ProtocolError(
                f"{other.path.name}: has other classes than {clusters.path.name} "
                f"({_few(other)} and {_few(clusters)}). Give the stores that it was made from."
            )
    own, given = clusters.shape("centroid")[1], features.shape("feature")[1]
    if own != given:
        raise ProtocolError(
            f"{features.path.name}: has {given} channels, the centroids of {clusters.path.name} "
            f"{own}. Give the features that it was made from with --features."
        )


def _few(store: Store) -> str:
    names = store.class_names()
    return f"{len(names)}: {', '.join(names[:3])}" + (", …" if len(names) > 3 else "")


@dataclass(frozen=True)
class _Piece:
    """Some images: U cells of them, and P patterns, each a cell and a class it stands for."""

    start: int
    truth_row_N: Array
    extent_N4: Array
    image_P: Array
    cell_P: Array
    class_P: Array
    cell_U2: Array
    feature_UC: Array


def _pieces(features: Store, truth_row_N: Array) -> Iterator[_Piece]:
    """Yield the images in order, so many at a time that their features take 32 MB."""
    edge = features.whole("cell_start")
    num_cells = max(1, _PIECE_BYTES // (8 * features.shape("feature")[1]))
    start, num_images = 0, len(truth_row_N)
    while start < num_images:
        stop = int(np.searchsorted(edge, edge[start] + num_cells, "right")) - 1
        stop = min(max(stop, start + 1), num_images)
        low, high = int(edge[start]), int(edge[stop])
        feature_UC = features.rows("feature", low, high)
        _check_finite(features, start, edge[start : stop + 1] - low, feature_UC)
        where = features.pattern_rows(start, stop)
        cell_P = features.rows("pattern_cell", where.start, where.stop)
        image_P = np.searchsorted(edge[start : stop + 1], cell_P, "right") - 1
        yield _Piece(
            start=start,
            truth_row_N=truth_row_N[start:stop],
            extent_N4=features.rows("map_extent", start, stop),
            image_P=image_P,
            cell_P=cell_P - low,
            class_P=features.rows("pattern_class", where.start, where.stop),
            cell_U2=features.rows("cell", low, high),
            feature_UC=feature_UC,
        )
        start = stop


def _check_finite(features: Store, start: int, edge: Array, feature_UC: Array) -> None:
    bad_U = ~np.isfinite(feature_UC).all(axis=1)
    if np.any(bad_U):
        row = start + int(np.searchsorted(edge, int(bad_U.argmax()), "right")) - 1
        raise StoreCorruptError(
            f"{features.path.name} row {row}: features of {int(bad_U.sum())} cells from here on "
            "are not finite; expected finite activations. Make it again."
        )


def _judged(piece: _Piece, features: Store, truth: Store, use: OracleFrom) -> tuple[Array, Array]:
    """Return which patterns of a piece lie in the truth of their class, and which count."""
    inside_P = np.zeros(len(piece.class_P), bool)
    counted_P = np.zeros_like(inside_P)
    here_n = np.flatnonzero(piece.truth_row_N >= 0)
    if not len(here_n):
        return inside_P, counted_P
    lit_P = (np.count_nonzero(piece.feature_UC, axis=1) > 0)[piece.cell_P]
    grid_rc = features.attributes["grid"]
    regions = _box_regions if use == "boxes" else _mask_regions
    for n, inside in zip(here_n, regions(truth, piece.truth_row_N[here_n]), strict=True):
        pattern_p = np.flatnonzero((piece.image_P == n) & lit_P)
        if not len(pattern_p):
            continue
        place = f"{features.path.name} row {piece.start + n}"
        with _placed(place):
            x_px_W, y_px_H = cell_centers_px(piece.extent_N4[n], grid_rc)
        row_p, col_p = piece.cell_U2[piece.cell_P[pattern_p]].T
        x_px_p, y_px_p = x_px_W[col_p], y_px_H[row_p]
        class_p = piece.class_P[pattern_p]
        for index in np.unique(class_p).tolist():
            of_class = class_p == index
            found = inside(index, x_px_p[of_class], y_px_p[of_class])
            if found is not None:
                inside_P[pattern_p[of_class]], counted_P[pattern_p[of_class]] = found
    return inside_P, counted_P


def _box_regions(truth: Store, row_N: Array) -> Iterator[Inside]:
    """Yield for every image what tells which points lie in its boxes of a class."""
    found = truth.gather(row_N, [], ["box"])
    edge = np.concatenate([[0], np.cumsum(found["box_start"])])
    crowd_B = found.get("box_crowd", np.zeros(len(found["box"]), np.uint8)) != 0
    for low, high in itertools.pairwise(edge.tolist()):
        of_image = slice(low, high)
        yield _Boxes(found["box"][of_image], found["box_class"][of_image], crowd_B[of_image]).inside


@dataclass(frozen=True)
class _Boxes:
    box_B4: Array
    class_B: Array
    crowd_B: Array

    def inside(self, index: int, x_px_P: Array, y_px_P: Array) -> tuple[Array, Array] | None:
        own_B = self.class_B == index
        if not (own_B & ~self.crowd_B).any():
            return None
        inside_P = cells_in_boxes(x_px_P, y_px_P, self.box_B4[own_B & ~self.crowd_B])
        crowd_P = cells_in_boxes(x_px_P, y_px_P, self.box_B4[own_B & self.crowd_B])
        return inside_P, inside_P | ~crowd_P


def _mask_regions(truth: Store, row_N: Array) -> Iterator[Inside]:
    masks = true_masks(truth)
    for row in row_N.tolist():
        yield _Masks(truth, masks, row).inside


@dataclass
class _Masks:
    truth: Store
    masks: TrueMasks
    row: int
    mask_of: Callable[[int], Array] | None = None

    def inside(self, index: int, x_px_P: Array, y_px_P: Array) -> tuple[Array, Array] | None:
        if not self.masks.annotated(self.row):
            return None
        with _placed(f"{self.truth.path.name} row {self.row}"):
            self.mask_of = self.mask_of or self.masks.of_row(self.row)
            mask_HW = self.mask_of(index)
        return cells_in_mask(x_px_P, y_px_P, mask_HW) if (mask_HW == 1).any() else None


@contextlib.contextmanager
def _placed(place: str) -> Iterator[None]:
    """Say where something lies that cannot be used; there is no ``--on-bad`` here."""
    try:
        yield
    except BadImageError as error:
        raise StoreCorruptError(f"{place}: {error} Make it again.") from error
