"""Spectral clustering of patterns, exactly and in bounded memory (Kolesnikov & Lampert 2016).

Algorithm 1 of the paper asks for the smallest eigenvalues of ``D^-1 L``, ``L = D - W``, of the
similarities ``W = A A^T`` between P patterns, the rows of A. With ``B = D^-1/2 A`` they are one
minus the eigenvalues of ``B B^T`` (P x P), which are those of ``B^T B = sum_a a a^T / d_a``
(C x C), and exactly 1 beyond them. So nothing grows with P x P, nothing iterates, and four
passes over the patterns do: their sum, the Gram matrix, the embedding, the centroids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.linalg
from threadpoolctl import threadpool_limits

from wsltool.errors import StoreError, UsageError
from wsltool.localize.kmeans import kmeans
from wsltool.localize.pattern_pieces import in_order, tiles

__all__ = ["PIECE_ROWS", "Patterns", "SpectralClusters", "find_unusable", "spectral_clusters"]

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float64]
Patterns = Callable[[], Iterable[Array]]
"""Yields the patterns in pieces (n, C), in the same order and sizes whenever it is called."""

PIECE_ROWS = 4096
"""Most patterns of a piece: so many are summed before their sum is added to the others'."""

_SPARE = 4  # more directions than are asked for, which only help these to be exact
_ZERO = 1e-12  # of the largest eigenvalue, 1: below it is rounding
_DECIMALS = 9  # of the embedding's largest value: beyond are the last bits of the BLAS


@dataclass(frozen=True)
class SpectralClusters:
    """The clusters of one class.

    Attributes
    ----------
    eigenvalue_M : float64 ndarray of shape (M,)
        The smallest eigenvalues of ``D^-1 L``, rising, in [0, 1]; NaN where there are fewer
        patterns than that, or where nothing was clustered.
    centroid_QC : float32 ndarray of shape (Q, C)
        The mean of each cluster's normalised patterns, or that mean at unit length.
    size_Q : int64 ndarray of shape (Q,)
        Patterns of each cluster, falling; of equals the one that holds the first pattern.
    label_P : int32 ndarray of shape (P,)
        The cluster of each pattern, -1 for those of zeros and where nothing was clustered.
    num_zero : int
        Patterns of zeros, which are similar to nothing and left out.
    note : str
        Empty, or why there are no clusters.
    """

    eigenvalue_M: Float
    centroid_QC: npt.NDArray[np.float32]
    size_Q: npt.NDArray[np.int64]
    label_P: npt.NDArray[np.int32]
    num_zero: int
    note: str = ""

    @property
    def num_patterns(self) -> int:
        """Number of patterns that were clustered."""
        return int(self.size_Q.sum())


def spectral_clusters(
    patterns: Patterns,
    *,
    threshold: float = 0.7,
    least: int = 2,
    most: int = 4,
    seed: int = 0,
    centroid: Literal["mean", "unit"] = "mean",
) -> SpectralClusters:
    """Cluster patterns by Algorithm 1 of Kolesnikov & Lampert (2016).

    The number of clusters is ``clip(#{i : eigenvalue_i < threshold}, least, most)`` among the
    `most` smallest eigenvalues of ``L v = lambda D v``, of which the first is always 0; then
    k-means on the rows of ``[v_1 | ... | v_k]``, with ``v^T D v = 1``. There are fewer clusters
    where there are fewer different rows: patterns that are all equal are one cluster.

    Eigenvalues agree with a dense solver on the values given to 1e-6 (in practice 1e-10): the
    leading subspace is found from products in float32, summed in float64, and the eigenvalues in
    it from float64 alone. ``v_1`` is constant and known, so it is left out.

    Pieces are computed at the same time, in a thread a core and at most 8, and their sums added in
    order; BLAS has one thread in each. So the number of threads changes no bit. Memory grows with
    the number of patterns by their `most` + 3 coordinates in that subspace, lengths and labels.

    Parameters
    ----------
    patterns : callable
        Yields raw, nonnegative patterns, not normalised, in pieces of float (n, C), n at most
        4096; called four times, and has to give the same each time. A piece must not be written
        to once it was given.
    threshold : float
        Eigenvalues strictly below it ask for a cluster; in [0, 1].
    least, most : int
        Bounds of the number of clusters, 1 <= least <= most. With fewer patterns than `least`
        nothing is clustered, and the note says so.
    seed : int
        Of the starts of k-means.
    centroid : {"mean", "unit"}
        Plain means of the normalised patterns, which score tight clusters higher (eq. 1), or
        these brought to unit length.

    Returns
    -------
    SpectralClusters

    Raises
    ------
    StoreError
        A pattern holds NaN, infinity or a negative number.
    UsageError
        An option is out of its range.
    """
    _check(threshold, least, most, centroid)
    with threadpool_limits(1, user_api="blas"):
        total = _sum(patterns)
        if total.num_good < least:
            return _nothing(total, least, most)
        eigenvalue_M, seen = _eigen(patterns, total, most)
        num_clusters = int(np.clip((eigenvalue_M < threshold).sum(), least, most))
        num_axes = min(num_clusters, total.num_good) - 1  # beyond are none but for rounding
        row_PR = seen.embedding(min(num_axes, len(seen.mu_R)))
        label_P = np.full(total.num_patterns, -1, np.int32)
        label_P[total.good_P] = _by_size(kmeans(_rounded(row_PR), num_clusters, seed=seed))
        size_Q = np.bincount(label_P[total.good_P])
        centre_QC = _cluster_sums(patterns, total, label_P) / size_Q[:, None]
    if centroid == "unit":
        centre_QC /= np.linalg.norm(centre_QC, axis=1, keepdims=True)
    return SpectralClusters(
        eigenvalue_M, centre_QC.astype(np.float32), size_Q, label_P, total.num_zero
    )


def find_unusable(pattern_PC: Array) -> tuple[int, str] | None:
    """Return the first pattern that cannot be clustered and why, or None."""
    bad_PC = ~((pattern_PC >= 0) & (pattern_PC < np.inf))
    if not bad_PC.any():
        return None
    row, channel = (int(index) for index in np.argwhere(bad_PC)[0])
    value = float(pattern_PC[row, channel])
    if not np.isfinite(value):
        return row, f"channel {channel} is {value:g}, expected a finite number."
    return row, (
        f"channel {channel} is {value:g}, expected 0 or more: similarities of patterns must not "
        "be negative. Take the features of a layer after a ReLU: wsltool inspect --layers MODEL "
        "lists them."
    )


def _check(threshold: float, least: int, most: int, centroid: str) -> None:
    if not 0 <= threshold <= 1:
        raise UsageError(f"threshold must be in [0, 1], got {threshold}.")
    if not 1 <= least <= most:
        raise UsageError(f"least and most must be 1 <= least <= most, got {least} and {most}.")
    if centroid not in ("mean", "unit"):
        raise UsageError(f'centroid must be "mean" or "unit", got {centroid!r}.')


def _nothing(total: _Sum, least: int, most: int) -> SpectralClusters:
    num, zeros = total.num_good, f", {total.num_zero} of zeros left out" if total.num_zero else ""
    found = f"{num} pattern{'s' * (num != 1)}" if num else "no patterns"
    return SpectralClusters(
        eigenvalue_M=np.full(most, np.nan),
        centroid_QC=np.zeros((0, len(total.sum_C)), np.float32),
        size_Q=np.zeros(0, np.int64),
        label_P=np.full(total.num_patterns, -1, np.int32),
        num_zero=total.num_zero,
        note=f"{found}{zeros}; {least} clusters need {least} or more",
    )


@dataclass(frozen=True)
class _Sum:
    """The sum of the normalised patterns, and one over the length of each, 0 of one of zeros."""

    sum_C: Float
    scale_P: Float

    @property
    def num_patterns(self) -> int:
        return len(self.scale_P)

    @property
    def good_P(self) -> npt.NDArray[np.bool_]:
        return self.scale_P > 0

    @property
    def num_zero(self) -> int:
        return self.num_patterns - int(np.count_nonzero(self.scale_P))

    @property
    def num_good(self) -> int:
        return self.num_patterns - self.num_zero


def _sum(patterns: Patterns) -> _Sum:
    """First pass: the sum, and the lengths; refuses what cannot be clustered."""

    def of_piece(at: int, piece: Array) -> tuple[Float, Float]:
        sum_C, scale_P = np.zeros(piece.shape[1]), np.zeros(len(piece))
        for here, tile_PC in tiles(piece):
            if tile_PC.size and not 0 <= tile_PC.min() <= tile_PC.max() < np.inf:
                found = find_unusable(tile_PC)
                assert found is not None
                raise StoreError(f"pattern {at + here.start + found[0]}: {found[1]}")
            length_P = np.sqrt(np.vecdot(tile_PC, tile_PC))
            np.divide(1, length_P, out=scale_P[here], where=length_P > 0)
            sum_C += scale_P[here] @ tile_PC
        return sum_C, scale_P

    sum_C, scales = np.zeros(0), [np.zeros(0)]
    for piece_C, scale_P in in_order(patterns(), of_piece):
        sum_C = sum_C + piece_C if len(sum_C) else piece_C
        scales.append(scale_P)
    return _Sum(sum_C, np.concatenate(scales))


def _inverse_degree(product_P: Float, scale_P: Float) -> Float:
    """Return 1 / d of patterns from their products with the sum; 0 for a pattern of zeros."""
    degree_P = product_P * scale_P
    return np.divide(1, degree_P, out=np.zeros_like(degree_P), where=degree_P > 0)


def _gram(patterns: Patterns, total: _Sum) -> Float:
    """Second pass: ``sum_a a a^T / d_a``, float64 (C, C), of products in float32."""

    def of_piece(at: int, piece: Array) -> npt.NDArray[np.float32]:
        b_PC = np.empty(piece.shape, np.float32)
        for here, tile_PC in tiles(piece):
            scale_P = total.scale_P[at:][here]
            scale_P = scale_P * np.sqrt(_inverse_degree(tile_PC @ total.sum_C, scale_P))
            tile_PC *= scale_P[:, None]
            b_PC[here] = tile_PC
        return b_PC.T @ b_PC

    gram_CC = np.zeros((len(total.sum_C), len(total.sum_C)))
    for piece_CC in in_order(patterns(), of_piece):
        gram_CC += piece_CC
    return gram_CC


def _eigen(patterns: Patterns, total: _Sum, most: int) -> tuple[Float, _Seen]:
    """Return the `most` smallest eigenvalues, and the patterns from which to embed."""
    num_values = min(most, total.num_good)
    basis_CR = _subspace(_gram(patterns, total), total.sum_C, num_values - 1)
    seen = _seen(patterns, total, basis_CR)
    eigenvalue_M = np.full(most, np.nan)
    eigenvalue_M[:num_values] = 1
    eigenvalue_M[0] = 0
    mu_R = seen.mu_R[: num_values - 1]
    eigenvalue_M[1 : 1 + len(mu_R)] = 1 - mu_R
    return eigenvalue_M, seen


def _subspace(gram_CC: Float, s_C: Float, num: int) -> Float:
    """Return orthonormal vectors (C, R) that span the leading eigenvectors beside s, and a few.

    s is an eigenvector of the largest eigenvalue, 1, since ``sum_a a (a . s) / d_a = s``. It is
    put last, so that the others are found beside it also where 1 is there several times (groups
    of patterns that have nothing in common).
    """
    num = min(num + _SPARE, len(s_C) - 1) if num else 0
    if not num:
        return np.zeros((len(s_C), 0))
    first_C = s_C / np.linalg.norm(s_C)
    last = len(s_C) - 1
    rest_CC = gram_CC - 2 * np.outer(first_C, first_C)
    _, basis_CR = scipy.linalg.eigh(rest_CC, subset_by_index=(last - num + 1, last))
    basis_CR -= np.outer(first_C, first_C @ basis_CR)
    return np.linalg.qr(basis_CR)[0]


@dataclass(frozen=True)
class _Seen:
    """The patterns as seen from a subspace: its eigenvalues, and ``D^-1 A`` times its basis."""

    mu_R: Float
    turn_RR: Float
    row_PR: Float

    def embedding(self, num: int) -> Float:
        """Return the rows of ``[v_2 | v_3 | ...]``, `num` columns, ``v = D^-1 A u / sqrt(mu)``."""
        embedding: Float = self.row_PR @ (self.turn_RR[:, :num] / np.sqrt(self.mu_R[:num]))
        return embedding


def _seen(patterns: Patterns, total: _Sum, basis_CR: Float) -> _Seen:
    """Third pass: the patterns but those of zeros, as seen from the subspace.

    Eigenvalues and eigenvectors are those of ``B^T B`` within the subspace (Rayleigh and Ritz),
    in float64. What float32 left in the basis enters an eigenvalue with its square. Those that are
    0 but for rounding are left out.
    """
    num_axes = basis_CR.shape[1]
    axis_CS = np.column_stack([basis_CR, total.sum_C])
    row_PR = np.empty((total.num_patterns, num_axes))

    def of_piece(at: int, piece: Array) -> Float:
        gram_RR = np.zeros((num_axes, num_axes))
        for here, tile_PC in tiles(piece):
            scale_P = total.scale_P[at:][here]
            product_PS = tile_PC @ axis_CS
            root_P = np.sqrt(_inverse_degree(product_PS[:, -1], scale_P))
            b_PR = product_PS[:, :-1] * (scale_P * root_P)[:, None]
            gram_RR += b_PR.T @ b_PR
            np.multiply(b_PR, root_P[:, None], out=row_PR[at:][here])
        return gram_RR

    gram_RR = np.zeros((num_axes, num_axes))
    for piece_RR in in_order(patterns(), of_piece):
        gram_RR += piece_RR
    mu_R, turn_RR = np.linalg.eigh(gram_RR)
    mu_R, turn_RR = mu_R[::-1], turn_RR[:, ::-1]
    kept = mu_R > _ZERO
    if total.num_zero:
        row_PR = row_PR[total.good_P]
    return _Seen(np.minimum(mu_R[kept], 1), turn_RR[:, kept], row_PR)


def _rounded(row_PR: Float) -> Float:
    """Return the embedding without the digits that are rounding, so that equals are equal."""
    largest = np.abs(row_PR).max(initial=0)
    return np.round(row_PR / largest, _DECIMALS) + 0.0 if largest > 0 else row_PR


def _by_size(label_P: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return clusters numbered by falling size; of equals the one of the first pattern first."""
    _, first_Q, size_Q = np.unique(label_P, return_index=True, return_counts=True)
    rank_Q = np.empty(len(size_Q), np.int32)
    rank_Q[np.lexsort((first_Q, -size_Q))] = np.arange(len(size_Q))
    return rank_Q[label_P]


def _cluster_sums(patterns: Patterns, total: _Sum, label_P: npt.NDArray[np.int32]) -> Float:
    """Fourth pass: the sum of each cluster's normalised patterns."""
    cluster_Q1 = np.arange(label_P.max() + 1)[:, None]

    def of_piece(at: int, piece: Array) -> Float:
        sum_QC = np.zeros((len(cluster_Q1), piece.shape[1]))
        for here, tile_PC in tiles(piece):
            member_QP = cluster_Q1 == label_P[at:][here]
            sum_QC += (member_QP * total.scale_P[at:][here]) @ tile_PC
        return sum_QC

    sum_QC = np.zeros((len(cluster_Q1), len(total.sum_C)))
    for piece_QC in in_order(patterns(), of_piece):
        sum_QC += piece_QC
    return sum_QC
