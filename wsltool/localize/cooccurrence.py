"""Re-scoring classes by the labels that occur together (Bency et al. 2016, §3.2).

With c[i, j] the number of training images that show the classes i and j both, so that c[j, j]
counts those that show j, and s the score of each class in an image, eqs. 2 to 4 are

    p(i | j)  = c[i, j] / c[j, j]                        (4)
    s(i | j)  = p(i | j) · s(j)                          (3)
    s_comb(i) = s(i) + α · Σ over j ≠ i of s(i | j)      (2)

Scores are probabilities: of logits, a class that is surely absent would take from the others.
A combined score may be above 1.

Legend: N images, K classes.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from wsltool.errors import ModelError, UsageError

__all__ = [
    "check_pair_count",
    "combined_scores",
    "label_pair_count",
    "pair_probability",
    "pair_scores",
]

FloatArray: TypeAlias = npt.NDArray[np.float64]
Counts: TypeAlias = npt.NDArray[np.int64]

_PRESENT = 1
_BLOCK_IMAGES = 4096


def label_pair_count(label_NK: npt.NDArray[Any]) -> Counts:
    """Count in how many images two classes are both present.

    Parameters
    ----------
    label_NK : array of integers, (images, classes)
        1 present; whatever else (0 absent, 255 undecided) is not counted.

    Returns
    -------
    count_KK : array of int64, (classes, classes)
        Symmetric; on the diagonal, in how many images a class is present. Zeros without images.

    Raises
    ------
    UsageError
        The array has not two axes.
    """
    label_NK = np.asarray(label_NK)
    if label_NK.ndim != 2:
        raise UsageError(f"labels have shape {label_NK.shape}; expected (images, classes).")
    count_KK = np.zeros((label_NK.shape[1],) * 2, np.int64)
    for start in range(0, len(label_NK), _BLOCK_IMAGES):
        present_NK = csr_array(label_NK[start : start + _BLOCK_IMAGES] == _PRESENT, dtype=np.int64)
        count_KK += (present_NK.T @ present_NK).toarray()
    return count_KK


def check_pair_count(count_KK: npt.NDArray[Any]) -> Counts:
    """Return the counts as int64, checked to be counts of label pairs.

    Raises
    ------
    ModelError
        Not square, not of integers, negative, not symmetric, or a pair is more frequent than
        one of its classes.
    """
    count_KK = np.asarray(count_KK)
    num_K = np.diagonal(count_KK) if count_KK.ndim == 2 else np.zeros(0, np.int64)
    sound = (
        count_KK.ndim == 2
        and count_KK.shape[0] == count_KK.shape[1]
        and np.issubdtype(count_KK.dtype, np.integer)
        and bool((count_KK >= 0).all() and (count_KK == count_KK.T).all())
        and bool((count_KK <= num_K[:, None]).all())
    )
    if not sound:
        raise ModelError(
            f"label pairs are {count_KK.dtype} of shape {count_KK.shape}; expected a symmetric "
            "matrix of whole numbers, none above its place on the diagonal."
        )
    return count_KK.astype(np.int64)


def pair_probability(count_KK: npt.NDArray[Any]) -> FloatArray:
    """Return how often class i is present where class j is (eq. 4).

    Parameters
    ----------
    count_KK : array of integers, (classes, classes)
        As `label_pair_count` returns it.

    Returns
    -------
    p_KK : array of float64, (classes, classes)
        ``p[i, j] = count[i, j] / count[j, j]``, in [0, 1]; 0 where ``count[j, j]`` is 0, and 0 on
        the diagonal, since eq. 2 sums over j ≠ i.

    Raises
    ------
    ModelError
        As `check_pair_count`.
    """
    count_KK = check_pair_count(count_KK)
    p_KK = count_KK / np.maximum(np.diagonal(count_KK), 1)[None, :]
    np.fill_diagonal(p_KK, 0.0)
    return p_KK


def pair_scores(score_NK: npt.NDArray[Any], p_KK: npt.NDArray[Any]) -> FloatArray:
    """Return what all other classes say of each class, ``s @ p.T`` (eq. 3, summed).

    Parameters
    ----------
    score_NK : array of float, (images, classes)
        Probabilities, in [0, 1].
    p_KK : array of float, (classes, classes)
        As `pair_probability` returns it.

    Returns
    -------
    pair_NK : array of float64, (images, classes)
        Not below 0. An image's numbers do not depend on the others, to the last digit.

    Raises
    ------
    UsageError
        The shapes do not fit, or a score is outside [0, 1] or NaN.
    """
    score_NK, p_KK = np.asarray(score_NK, np.float64), np.asarray(p_KK, np.float64)
    if score_NK.ndim != 2 or p_KK.shape != (score_NK.shape[1],) * 2:
        raise UsageError(
            f"scores have shape {score_NK.shape}, pair probabilities {p_KK.shape}; expected "
            "(images, classes) and (classes, classes)."
        )
    odd_NK = ~((score_NK >= 0) & (score_NK <= 1))
    if odd_NK.any():
        image, index = (int(axis[0]) for axis in np.nonzero(odd_NK))
        raise UsageError(
            f"the score of image {image}, class {index} is {score_NK[image, index]}; expected a "
            "probability in [0, 1]."
        )
    pair_NK: FloatArray = np.matmul(score_NK[:, None], p_KK.T)[:, 0]  # a product for each image
    return pair_NK


def combined_scores(score_NK: npt.NDArray[Any], p_KK: npt.NDArray[Any], alpha: float) -> FloatArray:
    """Return ``s + alpha * s @ p.T``, the combined score of each class (eqs. 2 and 3).

    Parameters
    ----------
    score_NK, p_KK : array of float
        As in `pair_scores`.
    alpha : float
        What pairs weigh; finite and not below 0. At 0 the scores come back as they are.

    Returns
    -------
    combined_NK : array of float64, (images, classes)
        Never below `score_NK`; above 1 perhaps.

    Raises
    ------
    UsageError
        `alpha` is out of its range, or as `pair_scores`.
    """
    if not (math.isfinite(alpha) and alpha >= 0):
        raise UsageError(f"alpha must be in [0, inf), got {alpha}.")
    combined_NK: FloatArray = score_NK + alpha * pair_scores(score_NK, p_KK)
    return combined_NK
