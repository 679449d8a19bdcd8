"""Losses of image-level training, and the labels that they accept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsltool.errors import TrainingError

__all__ = ["ABSENT", "LOSSES", "PRESENT", "UNDECIDED", "check_labels", "logistic", "softmax"]

ABSENT, PRESENT, UNDECIDED = 0, 1, 255

LossFunction = Callable[[Tensor, Tensor], Tensor]


def softmax(logit_NK: Tensor, label_NK: Tensor) -> Tensor:
    """Cross-entropy of one class an image, ``−log softmax(z)_y``, mean over images.

    Parameters
    ----------
    logit_NK
        (num_images, num_classes) float.
    label_NK
        (num_images, num_classes) uint8 with one 1 a row; 255 counts as 0.
    """
    return torch.nn.functional.cross_entropy(logit_NK, (label_NK == PRESENT).long().argmax(1))


def logistic(logit_NK: Tensor, label_NK: Tensor) -> Tensor:
    """Sum over classes of ``log(1 + exp(−y_k z_k))``, y = ±1 (Oquab et al. 2015, eq. 1).

    Mean over images; classes labelled 255 (undecided) are left out of the sum.

    Parameters
    ----------
    logit_NK
        (num_images, num_classes) float.
    label_NK
        (num_images, num_classes) uint8: 0, 1 or 255.
    """
    sign_NK = torch.where(label_NK == PRESENT, 1.0, -1.0)
    loss_NK = torch.nn.functional.softplus(-sign_NK * logit_NK)
    return loss_NK.masked_fill(label_NK == UNDECIDED, 0.0).sum(1).mean()


LOSSES: dict[str, LossFunction] = {"softmax": softmax, "logistic": logistic}


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
        ``softmax`` wants exactly one class an image.
    rows, class_name
        For messages.

    Raises
    ------
    TrainingError
        There is nothing to learn from: no image, no image with a class, an image without
        or with several classes under softmax, another number than these three. A class
        without an image is borne; it is never predicted.
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
