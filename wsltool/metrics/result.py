"""What a protocol comes to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["ClassRow", "Result", "class_mean", "class_rows", "mean_result", "percent", "told"]

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
    mistakes : mapping of str to int
        How many predictions went wrong in which way (`wsltool.metrics.mistakes`), with those
        that are right; empty where the protocol does not tell.
    curve : mapping of str to list of float
        Columns of equal length by name, the first one the x axis; empty where there is none.
    """

    protocol: str
    value: float
    unit: str
    higher_is_better: bool | None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    per_class: tuple[ClassRow, ...] = ()
    extra: Mapping[str, Extra] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    mistakes: Mapping[str, int] = field(default_factory=dict)
    curve: Mapping[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, protocol: ScoreProtocol, value: float, **fields: Any) -> Self:
        """Return a result of `protocol` with its name, unit and options."""
        return cls(
            protocol=protocol.name,
            value=float(value),
            unit=protocol.unit,
            higher_is_better=protocol.higher_is_better,
            parameters=protocol.parameters,
            **fields,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values fit for JSON; NaN, which JSON lacks, becomes None.

        ``mistakes`` and ``curve`` are left out where they are empty.
        """
        plain: dict[str, Any] = {
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
        if self.mistakes:
            plain["mistakes"] = dict(self.mistakes)
        if self.curve:
            plain["curve"] = {name: _jsonable(values) for name, values in self.curve.items()}
        return plain


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


def class_rows(
    value_K: npt.NDArray[np.float64], num_K: Mapping[str, npt.NDArray[np.int64]]
) -> tuple[ClassRow, ...]:
    """Return a row for each class, of its value and what it was made of."""
    names = tuple(num_K)
    table = np.stack([np.asarray(num) for num in num_K.values()], axis=1).tolist()
    return tuple(
        ClassRow(index, value, dict(zip(names, numbers, strict=True)))
        for index, (value, numbers) in enumerate(zip(value_K.tolist(), table, strict=True))
    )


def told(cases: Iterable[tuple[int, str]]) -> tuple[str, ...]:
    """Return a warning for each case that occurs: its number, then the words."""
    return tuple(f"{number} {words}" for number, words in cases if number)


def mean_result(
    protocol: ScoreProtocol,
    value_K: npt.NDArray[np.float64],
    num_K: Mapping[str, npt.NDArray[np.int64]],
    *,
    extra: Mapping[str, Extra],
    cases: Iterable[tuple[int, str]],
    without: str,
    mistakes: Mapping[str, int] | None = None,
    curve: Mapping[str, list[float]] | None = None,
) -> Result:
    """Return a result whose value is the mean over the chosen classes that have one.

    Parameters
    ----------
    protocol : ScoreProtocol
    value_K : array of float64
        One value a class, NaN for a class that has nothing to score.
    num_K : mapping of str to int64 arrays
        What each was made of.
    extra : mapping
        Stands behind the numbers of classes.
    cases : iterable of (int, str)
        Warnings, see `told`.
    without : str
        What classes are that have no value, the last warning.
    mistakes : mapping of str to int, optional
    curve : mapping of str to list of float, optional
    """
    mean, num = class_mean(value_K, protocol.chosen)
    lacking = (num["num_classes_without_positives"], f"{without} and are left out of the mean.")
    return Result.of(
        protocol,
        mean,
        per_class=class_rows(value_K, num_K),
        extra={**num, **extra},
        warnings=told([*cases, lacking]),
        mistakes=mistakes or {},
        curve=curve or {},
    )


def _jsonable(value: Extra) -> Any:
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
