"""Losses of image-level training, and the labels that they accept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsltool.errors import TrainingError

__all__ = [
    "ABSENT",
    "LOSSES",
    "PRESENT",
    "UNDECIDED",
    "LossFunction",
    "check_labels",
    "logistic",
    "softmax",
    "softmax_bce",
]

ABSENT, PRESENT, UNDECIDED = 0, 1, 255

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Takes scores (num_images, num_classes) float and labels (num_images, num_classes) uint8,
returns the loss of each image (num_images,)."""


def softmax(logit_NK: Tensor, label_NK: Tensor) -> Tensor:
    """Cross-entropy of one class an image, ``−log softmax(z)_y``.

    Parameters
    ----------
    logit_NK
        (num_images, num_classes) float.
    label_NK
        (num_images, num_classes) uint8 with one 1 a row; 255 counts as 0.

    Returns
    -------
    Tensor
        (num_images,), the loss of each image; NaN where a score is NaN.
    """
    class_N = (label_NK == PRESENT).long().argmax(1)
    return torch.nn.functional.cross_entropy(logit_NK, class_N, reduction="none")


def logistic(logit_NK: Tensor, label_NK: Tensor) -> Tensor:
    """Sum over classes of ``log(1 + exp(−y_k z_k))``, y = ±1 (Oquab et al. 2015, eq. 1).

    Classes labelled 255 (undecided) are left out of the sum.

    Parameters
    ----------
    logit_NK
        (num_images, num_classes) float.
    label_NK
        (num_images, num_classes) uint8: 0, 1 or 255.

    Returns
    -------
    Tensor
        (num_images,), the loss of each image; 0 where every class is undecided.
    """
    sign_NK = torch.where(label_NK == PRESENT, 1.0, -1.0)
    loss_NK = torch.nn.functional.softplus(-sign_NK * logit_NK)
    return loss_NK.masked_fill(label_NK == UNDECIDED, 0.0).sum(1)


def softmax_bce(logit_NK: Tensor, label_NK: Tensor) -> Tensor:
    """Binary cross-entropy on class probabilities (Bency et al. 2016, eq. 1).

    ``−(1/K) Σ_k [p_k log q_k + (1 − p_k) log(1 − q_k)]`` with ``q = softmax(z)`` and p the
    labels as they are, 0 or 1, so several may be 1. Classes labelled 255 (undecided) are left
    out of the mean; they keep their place in the softmax. Exact also where q is next to 0 or
    1: ``log(1 − q_k)`` of the likeliest class comes from the scores of the others.

    Parameters
    ----------
    logit_NK
        (num_images, num_classes) float; with one class alone q is 1.
    label_NK
        (num_images, num_classes) uint8: 0, 1 or 255.

    Returns
    -------
    Tensor
        (num_images,), the loss of each image; 0 where every class is undecided.
    """
    log_q_NK = logit_NK.log_softmax(1)
    top_N1 = logit_NK.detach().argmax(1, keepdim=True)
    others_N1 = log_q_NK.scatter(1, top_N1, -torch.inf).logsumexp(1, keepdim=True)
    log_rest_NK = torch.log1p(-log_q_NK.exp().scatter(1, top_N1, 0.0))  # of the others q ≤ 1/2
    log_rest_NK = log_rest_NK.scatter(1, top_N1, others_N1)
    decided_NK = label_NK != UNDECIDED
    loss_NK = -torch.where(label_NK == PRESENT, log_q_NK, log_rest_NK)
    total_N = loss_NK.masked_fill(~decided_NK, 0.0).sum(1)
    return total_N / decided_NK.sum(1).clamp(min=1)


LOSSES: dict[str, LossFunction] = {
    "softmax": softmax,
    "logistic": logistic,
    "softmax-bce": softmax_bce,
}


def check_labels(
    label_NK: NDArray[np.uint8],
    loss: str,
    *,
    rows: Sequence[int],
    class_name: Sequence[str],
) -> None:
    """Check that labels can be learnt from.

    Parameters
    ----------
    label_NK
        (num_images, num_classes) uint8: 0 absent, 1 present, 255 undecided.
    loss
        ``softmax`` wants exactly one class an image, ``softmax-bce`` two classes or more.
    rows, class_name
        For messages.

    Raises
    ------
    TrainingError
        There is nothing to learn from: no image, no image with a class, an image without
        or with several classes under softmax, one class alone under softmax-bce, another
        number than these three. A class without an image is borne; it is never predicted.
    """
    if label_NK.shape != (len(rows), len(class_name)) or label_NK.size == 0:
        raise TrainingError(
            f"labels are {label_NK.shape}, expected ({len(rows)}, {len(class_name)}) with at "
            "least one image and one class."
        )
    strange = np.setdiff1d(label_NK, [ABSENT, PRESENT, UNDECIDED])
    if strange.size:
        raise TrainingError(f"labels must be 0, 1 or 255, got {strange[0]}.")
    if not (label_NK == PRESENT).any():
        raise TrainingError(
            f"none of the {len(rows)} images has a class; training needs at least one that has."
        )
    if loss == "softmax-bce" and label_NK.shape[1] == 1:
        raise TrainingError(
            f'softmax-bce needs at least two classes, got one ("{class_name[0]}"). Pass --loss '
            "logistic."
        )
    if loss == "softmax":
        _check_one_class(label_NK, rows, class_name)


def _check_one_class(
    label_NK: NDArray[np.uint8], rows: Sequence[int], class_name: Sequence[str]
) -> None:
    num_classes_N = (label_NK == PRESENT).sum(1)
    wrong = np.flatnonzero(num_classes_N != 1)
    if wrong.size:
        place = int(wrong[0])
        names = [class_name[k] for k in np.flatnonzero(label_NK[place] == PRESENT).tolist()]
        raise TrainingError(
            f"row {rows[place]}: has {len(names)} classes ({', '.join(names) or 'none'}); softmax "
            f"needs exactly one, and {wrong.size} images have not. Pass --loss logistic."
        )
