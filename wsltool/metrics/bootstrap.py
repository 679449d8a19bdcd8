"""How sure a value is: the bootstrap over images, and the spread over runs.

A sample draws as many images as are scored, with replacement, and takes the value of what was
drawn. Images, not boxes or pixels: those of one image are not independent. Excluded images are
not drawn. The interval is that of the percentiles 2.5 and 97.5 of the samples' values; a sample
without anything to score (no object was drawn) has none, and the interval says how many such
there are.

An image that is drawn twice stands twice in a ranking, one copy behind the other. Near chance level
that raises an average precision a little, so there the interval may lie above the value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError, UsageError
from wsltool.metrics.tally import Tally

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol
    from wsltool.metrics.result import Result

__all__ = [
    "Difference",
    "Interval",
    "Runs",
    "bootstrap",
    "bootstrap_difference",
    "bootstrap_of",
    "over_runs",
    "sample_of",
]

Sample = tuple[float, npt.NDArray[np.float64]]
"""What one sample gives: a value, and a value of each class."""

_ENDS = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Interval:
    """The 95 % interval of a value, in its unit.

    Attributes
    ----------
    low, high : float
        NaN where no sample has a value.
    sd : float
        The standard deviation of the samples' values; NaN where fewer than two have one.
    num_samples : int
    num_without_value : int
        Samples that have none and are left out.
    low_K, high_K : tuples of float
        The interval of each class.
    """

    low: float
    high: float
    sd: float
    num_samples: int
    num_without_value: int
    low_K: tuple[float, ...] = ()
    high_K: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two values with its 95 % interval, in their unit.

    Attributes
    ----------
    difference : float
        The first value less the second.
    low, high : float
    num_samples, num_without_value : int
        As in `Interval`.
    """

    difference: float
    low: float
    high: float
    num_samples: int
    num_without_value: int


class Runs(NamedTuple):
    """The mean of several runs' values, their standard deviation (n - 1), their number n."""

    mean: float
    sd: float
    num: int


def bootstrap(
    protocol: ScoreProtocol, tally: Tally, num_samples: int = 1000, seed: int = 0
) -> Interval:
    """Return the interval of a value, and of each class's.

    Parameters
    ----------
    protocol : ScoreProtocol
    tally : Tally
        The joined one of all images; counted with `by_image` where the protocol adds up
        histograms.
    num_samples : int
        At least 1.
    seed : int
        Of the draws, which depend on the number of images and nothing else.

    Raises
    ------
    UsageError
        If there is no sample to draw.
    ProtocolError
        If the tally cannot be drawn from.
    """

    def of_sample(times_N: npt.NDArray[np.int64]) -> Sample:
        return sample_of(protocol.result(tally.drawn(times_N)))

    return bootstrap_of(of_sample, tally, num_samples, seed)


def sample_of(result: Result) -> Sample:
    """Return the value of a result, and of each class, float64 (K,)."""
    return result.value, np.array([row.value for row in result.per_class], np.float64)


def bootstrap_of(
    of_sample: Callable[[npt.NDArray[np.int64]], Sample],
    tally: Tally,
    num_samples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return the interval of what a function makes of samples, such as a difference of values.

    Parameters
    ----------
    of_sample : callable
        Given how often each image is taken: a value, and a value of each class.
    tally : Tally
        Whose images are drawn.
    num_samples, seed : int
        As in `bootstrap`.

    Raises
    ------
    UsageError
        If there is no sample to draw.
    """
    value_S = np.empty(num_samples if num_samples > 0 else 0)
    class_S: list[npt.NDArray[np.float64]] = []
    for sample, times_N in enumerate(_draws(tally, num_samples, seed)):
        value_S[sample], class_K = of_sample(times_N)
        class_S.append(class_K)
    low, high = _ends(value_S)
    ends_K = [_ends(value) for value in np.array(class_S, np.float64).T]
    return Interval(
        low,
        high,
        over_runs(value_S[~np.isnan(value_S)].tolist()).sd,
        num_samples,
        int(np.isnan(value_S).sum()),
        tuple(ends[0] for ends in ends_K),
        tuple(ends[1] for ends in ends_K),
    )


def bootstrap_difference(
    protocol: ScoreProtocol, a: Tally, b: Tally, num_samples: int = 1000, seed: int = 0
) -> Difference:
    """Return the value of a less that of b, with its interval: the same images drawn for both.

    Parameters are those of `bootstrap`; both tallies are of the same images.

    Raises
    ------
    ProtocolError
        If they are not.
    UsageError
        If there is no sample to draw.
    """
    if not np.array_equal(a.row_N, b.row_N) or not np.array_equal(_counted(a), _counted(b)):
        raise ProtocolError(
            f"{int(_counted(a).sum())} and {int(_counted(b).sum())} images are compared, which "
            "are not the same; expected the same images of both. Score them with one truth."
        )

    def of_sample(times_N: npt.NDArray[np.int64]) -> Sample:
        value_a, value_b = (protocol.result(one.drawn(times_N)).value for one in (a, b))
        return value_a - value_b, np.zeros(0)

    found = bootstrap_of(of_sample, a, num_samples, seed)
    return Difference(
        protocol.result(a).value - protocol.result(b).value,
        found.low,
        found.high,
        num_samples,
        found.num_without_value,
    )


def over_runs(values: Sequence[float]) -> Runs:
    """Return the mean and the spread of values of several runs (seeds).

    Both are NaN of none, the spread also of one; a NaN among them makes both NaN.
    """
    num = len(values)
    mean = math.fsum(values) / num if num else float("nan")
    square = math.fsum((value - mean) ** 2 for value in values)
    return Runs(mean, math.sqrt(square / (num - 1)) if num > 1 else float("nan"), num)


def _draws(tally: Tally, num_samples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield how often each image is taken, sample by sample."""
    if num_samples < 1:
        raise UsageError(f"--bootstrap must be at least 1 sample, got {num_samples}.")
    counted = np.flatnonzero(_counted(tally))
    generator = np.random.default_rng(seed)
    for _ in range(num_samples):
        times_N = np.zeros(len(tally.row_N), np.int64)
        if len(counted):
            drawn = generator.integers(0, len(counted), len(counted))
            times_N[counted] = np.bincount(drawn, minlength=len(counted))
        yield times_N


def _counted(tally: Tally) -> npt.NDArray[np.bool_]:
    """Return which images are drawn: all but the excluded ones."""
    image = tally.tables["image"]
    if "excluded" not in image:
        return np.ones(len(tally.row_N), bool)
    counted_N: npt.NDArray[np.bool_] = ~image["excluded"]
    return counted_N


def _ends(value_S: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the percentiles 2.5 and 97.5 of what has a value, NaN of nothing."""
    known = value_S[~np.isnan(value_S)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, _ENDS).tolist()
    return low, high
