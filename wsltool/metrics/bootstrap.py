"""How sure a difference of two pooled average precisions is: the paired bootstrap over images."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError, UsageError
from wsltool.metrics.pixel_histogram import histogram_ap

__all__ = ["Difference", "bootstrap_difference"]


class Difference(NamedTuple):
    """A difference of two values in per cent, with the ends of its 95 % interval."""

    difference: float
    low: float
    high: float


def bootstrap_difference(
    counts_a_per_image: npt.NDArray[Any],
    counts_b_per_image: npt.NDArray[Any],
    num_samples: int = 1000,
    seed: int = 0,
) -> Difference:
    """Return the pooled average precision of a minus that of b, with its 95 % interval.

    In each sample N images are drawn with replacement, the same for both, and their pixels
    pooled. The interval is that of the percentiles 2.5 and 97.5 of the samples' differences.

    Parameters
    ----------
    counts_a_per_image, counts_b_per_image : arrays of integers, (N, 2, bins)
        `wsltool.metrics.pixel_histogram.pixel_histogram` of each image, summed over its pairs;
        of the same images in the same order.
    num_samples : int
        At least 1.
    seed : int
        Of the draws.

    Raises
    ------
    ProtocolError
        If the shapes differ or an image has not the same pixels in both, or none of an object.
    UsageError
        If there is no sample to draw.
    """
    a_N2B, b_N2B = np.asarray(counts_a_per_image), np.asarray(counts_b_per_image)
    _check(a_N2B, b_N2B)
    if num_samples < 1:
        raise UsageError(f"num_samples must be at least 1, got {num_samples}.")
    num_images = len(a_N2B)
    generator = np.random.default_rng(seed)
    samples = np.empty(num_samples)
    for sample in range(num_samples):
        drawn_N = generator.integers(0, num_images, num_images)
        samples[sample] = _difference(a_N2B, b_N2B, np.bincount(drawn_N, minlength=num_images))
    low, high = np.quantile(samples, [0.025, 0.975]).tolist()
    return Difference(_difference(a_N2B, b_N2B, np.ones(num_images, np.intp)), low, high)


def _difference(
    a_N2B: npt.NDArray[Any], b_N2B: npt.NDArray[Any], times_N: npt.NDArray[np.intp]
) -> float:
    """Return the difference in per cent, each image taken so many times.

    The products are of whole numbers below 2**53, so float64 is exact.
    """
    pooled = [
        (times_N.astype(np.float64) @ one.reshape(len(one), -1)).reshape(one.shape[1:])
        for one in (a_N2B, b_N2B)
    ]
    return histogram_ap(pooled[0]) - histogram_ap(pooled[1])


def _check(a_N2B: npt.NDArray[Any], b_N2B: npt.NDArray[Any]) -> None:
    shapes = (a_N2B.shape, b_N2B.shape)
    if any(len(one) != 3 or one[1] != 2 or not one[0] for one in shapes) or len(set(shapes)) > 1:
        raise ProtocolError(
            f"counts of images have shapes {shapes[0]} and {shapes[1]}; expected two of "
            "(images, 2, bins), at least one image."
        )
    num_a_N2, num_b_N2 = a_N2B.sum(axis=2), b_N2B.sum(axis=2)
    bad_N = (num_a_N2 != num_b_N2).any(axis=1) | (num_a_N2[:, 0] == 0)
    if bad_N.any():
        image = int(bad_N.argmax())
        raise ProtocolError(
            f"image {image}: {num_a_N2[image].tolist()} and {num_b_N2[image].tolist()} pixels of "
            "objects and of anything else; expected the same in both, some of an object."
        )
