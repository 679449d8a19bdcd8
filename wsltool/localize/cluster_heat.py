"""How much a cell looks like each cluster of patterns (Kolesnikov and Lampert 2016, eq. 1).

``H_u(X | C) = 1/|C| sum_{a in C} <phi_u(X), a> = <phi_u(X), mean(C)>``, with phi the pattern of
cell u, L2-normalised, and the mean pattern as it is: a tight cluster has a longer mean and wins
ties.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from wsltool.errors import BadImageError

__all__ = ["best_cluster", "cluster_heat", "unit_patterns"]

FloatArray = npt.NDArray[np.float64]
RealArray = npt.NDArray[np.floating[Any]]


def unit_patterns(feature_PC: RealArray) -> FloatArray:
    """Return patterns of unit length; a pattern of zeros stays one.

    Parameters
    ----------
    feature_PC : array of float, (patterns, channels)
        Raw activations.

    Returns
    -------
    pattern_PC : array of float64, (patterns, channels)

    Raises
    ------
    BadImageError
        A value is not finite.
    """
    feature_PC = np.asarray(feature_PC, np.float64)
    length_P1 = np.linalg.norm(feature_PC, axis=1, keepdims=True)
    bad_P = ~np.isfinite(length_P1[:, 0])
    if bad_P.any():
        raise BadImageError(
            f"features of {int(bad_P.sum())} cells are not finite, first cell "
            f"{int(bad_P.argmax())}; expected finite activations."
        )
    made: FloatArray = feature_PC / np.where(length_P1 > 0, length_P1, 1)
    return made


def cluster_heat(feature_PC: RealArray, centroid_QC: RealArray) -> FloatArray:
    """Return eq. 1 for every cell and every cluster, float64 (cells, clusters).

    Parameters
    ----------
    feature_PC : array of float, (cells, channels)
        Raw activations; they are normalised here.
    centroid_QC : array of float, (clusters, channels)
        Mean patterns, taken as they are.

    Raises
    ------
    BadImageError
        A value is not finite.
    """
    heat: FloatArray = unit_patterns(feature_PC) @ np.asarray(centroid_QC, np.float64).T
    return heat


def best_cluster(heat_PQ: FloatArray) -> npt.NDArray[np.intp]:
    """Return the cluster with the highest heat of every cell, intp (cells,).

    The first among equals. The paper writes a minimum where it means the maximum (see
    ``docs/decisions/contradictions.md``).
    """
    best: npt.NDArray[np.intp] = heat_PQ.argmax(axis=1)
    return best
