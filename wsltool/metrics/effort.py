"""What annotating classes in a given order is worth (Kolesnikov and Lampert 2016, figure 6).

The gain of a class is what its value rises by, or an error falls by; times the class's weight in
the protocol's value it is the class's part of the overall gain. Figure 6b adds these parts up
in the order of annotation: after how many of the classes is how much of the gain there?

Legend: K classes, Q classes in the order of annotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError
from wsltool.metrics.bootstrap import Interval, bootstrap_of, sample_of
from wsltool.metrics.result import Result

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol
    from wsltool.metrics.tally import Tally

__all__ = [
    "EffortCurve",
    "class_parts",
    "class_weights",
    "effort_curve",
    "gain_of",
    "has_changed",
    "paired_gain",
]

FloatArray = npt.NDArray[np.float64]
Value = TypeVar("Value", float, FloatArray)

# What a class counts with in the value of a protocol that pools its images, pairs or boxes; in
# that of every other protocol, a mean over classes, each counts alike.
_POOLED = {
    "gt-known": "num_images",
    "ilsvrc-top1": "num_images",
    "ilsvrc-top5": "num_images",
    "maxboxacc": "num_images",
    "maxboxacc-v2": "num_images",
    "maxboxacc-v3": "num_true_boxes",
    "peak-in-box": "num_pairs",
}

# Points below which a difference is rounding: values are in per cent, of float64.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class EffortCurve:
    """How the gain grows with the classes that are annotated, Q of them.

    Attributes
    ----------
    fraction : tuple of float
        Share of the classes that are annotated, from 0 to 1, ``Q + 1`` points.
    gain : tuple of float
        What they gain together, in points; it may fall where a class loses.
    """

    fraction: tuple[float, ...]
    gain: tuple[float, ...]

    @property
    def total(self) -> float:
        """The gain of all classes, in points."""
        return self.gain[-1]

    @property
    def has_shares(self) -> bool:
        """Whether there is a gain to take shares of: the total is above 0."""
        return self.total > _ROUNDING

    @property
    def share(self) -> tuple[float, ...] | None:
        """The gain as a share of the total; None where the total is not above 0.

        It may leave [0, 1] on the way, where classes lose.
        """
        return tuple(gain / self.total for gain in self.gain) if self.has_shares else None

    @property
    def area(self) -> float | None:
        """The area under `share`, its points joined by straight lines; None without shares.

        So a random order has an expected area of exactly 1/2, however many classes there are.
        """
        share = self.share
        return None if share is None else float(np.trapezoid(share, self.fraction))

    def fraction_for(self, share_frac: float) -> float | None:
        """Return the smallest share of classes that gives this share of the gain, or None."""
        for fraction, share in zip(self.fraction, self.share or (), strict=False):
            if share >= share_frac - _ROUNDING:
                return fraction
        return None


def effort_curve(part_Q: npt.ArrayLike) -> EffortCurve:
    """Return the curve of figure 6b.

    Parameters
    ----------
    part_Q : array of float
        Each class's part of the overall gain, in points, in the order of annotation; at least
        one.

    Raises
    ------
    ProtocolError
        There is no class, or a part is not finite.
    """
    part_Q = np.asarray(part_Q, np.float64)
    if not len(part_Q) or not np.isfinite(part_Q).all():
        raise ProtocolError(
            f"{len(part_Q)} classes in the order of annotation, "
            f"{int((~np.isfinite(part_Q)).sum())} of them without a finite gain; expected at "
            "least one class, and a number for each."
        )
    gain = np.concatenate([[0.0], np.cumsum(part_Q)])
    return EffortCurve(tuple((np.arange(len(gain)) / len(part_Q)).tolist()), tuple(gain.tolist()))


def class_weights(result: Result) -> FloatArray:
    """Return how much each class counts in the value of a result, float64 (K,), at least 0.

    The number of images (pairs, true boxes) that count, where the protocol pools them; else 1.
    """
    name = _POOLED.get(result.protocol)
    if name is None:
        return np.ones(len(result.per_class))
    counts = [row.counts[name] - row.counts.get("num_excluded", 0) for row in result.per_class]
    return np.array(counts, np.float64)


def class_parts(gain_K: FloatArray, weight_K: FloatArray) -> FloatArray:
    """Return each class's part of the overall gain, float64 (K,).

    Parameters
    ----------
    gain_K : array of float
        What each class gains, in points; NaN for a class that has nothing to score.
    weight_K : array of float
        How much it counts in the overall value (images, or 1), at least 0.

    Returns
    -------
    part_K : array of float64
        ``gain * weight / sum of weights``, over classes that have a gain; 0 for the others.
    """
    known_K = ~np.isnan(gain_K)
    weight_K = np.where(known_K, weight_K, 0.0)
    part_K: FloatArray = np.where(known_K, gain_K, 0.0) * weight_K / max(weight_K.sum(), 1e-300)
    return part_K


def gain_of(protocol: ScoreProtocol, after: Value, before: Value) -> Value:
    """Return what a value rose by, or an error fell by: a float or an array, never -0."""
    return before - after if protocol.higher_is_better is False else after - before


def has_changed(gain_K: FloatArray, min_change: float) -> npt.NDArray[np.bool_]:
    """Return which classes changed by at least so many points, up or down; NaN did not."""
    changed_K: npt.NDArray[np.bool_] = np.abs(np.nan_to_num(gain_K)) >= min_change - _ROUNDING
    return changed_K


def paired_gain(
    protocol: ScoreProtocol, after: Tally, before: Tally, num_samples: int = 1000, seed: int = 0
) -> Interval:
    """Return the 95 % interval of the gain and of each class's, the same images drawn for both.

    The gain is ``after - before``, of an error ``before - after``. Draws are those of
    `wsltool.metrics.bootstrap.bootstrap`.

    Raises
    ------
    ProtocolError
        The two tallies are not of the same images.
    UsageError
        There is no sample to draw.
    """
    if not np.array_equal(after.row_N, before.row_N):
        raise ProtocolError(
            f"{len(after.row_N)} and {len(before.row_N)} images are compared, which are not the "
            "same; expected the same images before and after. Score them with one truth."
        )

    def of_sample(times_N: npt.NDArray[np.int64]) -> tuple[float, FloatArray]:
        (a, a_K), (b, b_K) = (
            sample_of(protocol.result(one.drawn(times_N))) for one in (after, before)
        )
        return gain_of(protocol, a, b), gain_of(protocol, a_K, b_K)

    return bootstrap_of(of_sample, after, num_samples, seed)
