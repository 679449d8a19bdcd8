"""What a protocol comes to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["ClassRow", "Result", "class_mean", "percent"]

Extra: TypeAlias = float | int | list[float]
Parameter: TypeAlias = float | str | list[str]


@dataclass(frozen=True, slots=True)
class ClassRow:
    """What one class comes to.

    Attributes
    ----------
    class_index : int
        Into the classes of the truth.
    value : float
        In the unit of the result; NaN where the class has nothing to score.
    counts : mapping of str to int
        What the value was made of.
    """

    class_index: int
    value: float
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a protocol, with what it was made of.

    Attributes
    ----------
    protocol : str
        Its name.
    value : float
        The one number, in `unit`; NaN where there was nothing to score.
    unit : str
        ``%``: values lie in [0, 100]; ``px``: pixels of the original image.
    higher_is_better : bool or None
        False for an error, None where neither is better as such.
    parameters : mapping
        What the protocol was asked for (``iou``, ``tolerance``, ``classes``, …).
    per_class : tuple of ClassRow
        One for each class of the truth, in its order.
    extra : mapping
        Further numbers: counts of images, values for other ranks.
    warnings : tuple of str
        What a reader of the number must know.
    """

    protocol: str
    value: float
    unit: str
    higher_is_better: bool | None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    per_class: tuple[ClassRow, ...] = ()
    extra: Mapping[str, Extra] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values fit for JSON; NaN, which JSON lacks, becomes None."""
        return {
            "protocol": self.protocol,
            "value": _jsonable(self.value),
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
            "parameters": dict(self.parameters),
            "extra": {name: _jsonable(value) for name, value in self.extra.items()},
            "warnings": list(self.warnings),
            "per_class": [
                {"class_index": row.class_index, "value": _jsonable(row.value), **row.counts}
                for row in self.per_class
            ],
        }


def percent(part: npt.ArrayLike, whole: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return ``100 * part / whole`` in float64, NaN (and no warning) where `whole` is 0."""
    part_, whole_ = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    share = np.full(part_.shape, np.nan)
    np.divide(100.0 * part_, whole_, out=share, where=whole_ != 0)
    return share


def class_mean(
    value_K: npt.NDArray[np.float64], chosen: list[int] | slice = slice(None)
) -> tuple[float, dict[str, int]]:
    """Return the mean over the chosen classes that have a value, NaN where none has.

    Parameters
    ----------
    value_K : array of float64
        One value a class, NaN for a class that has nothing to score.
    chosen : list of int or slice
        Which classes, as `ScoreProtocol.chosen` says.

    Returns
    -------
    mean : float
    num : dict
        ``num_classes`` in the mean, and ``num_classes_without_positives`` that are left out.
    """
    value_K = value_K[chosen]
    scored_K = ~np.isnan(value_K)
    mean = float(value_K[scored_K].mean()) if scored_K.any() else float("nan")
    num_scored = int(scored_K.sum())
    left_out = len(value_K) - num_scored
    return mean, {"num_classes": num_scored, "num_classes_without_positives": left_out}


def _jsonable(value: Extra) -> Any:
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
