"""The learning rate over the iterations of a training."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from wsltool.errors import TrainingError

__all__ = ["Schedule"]

_FACTOR = 0.1
_ALLOWED = (
    "constant, step=N, step=N:FACTOR, milestones=A/B/C, milestones=A/B/C:FACTOR or cosine, "
    "and after it, if wanted, ,warmup=N"
)


@dataclass(frozen=True)
class Schedule:
    """By which factor the learning rate is multiplied at each iteration.

    Attributes
    ----------
    kind
        ``constant``: 1. ``step``: `drop` to the power of the number of whole `at[0]`
        iterations that lie behind. ``milestones``: `drop` to the power of the number of
        milestones reached, an iteration m counted from 0 having reached the milestones up to
        m. ``cosine``: ``(1 + cos(π iteration / num_iterations)) / 2``.
    at
        Iterations: none, one (``step``), or rising ones (``milestones``), from 1 on.
    drop
        In (0, 1].
    warmup
        So many iterations at the start have the factor multiplied by
        ``(iteration + 1) / warmup``.

    Raises
    ------
    TrainingError
        A value is out of range.
    """

    kind: Literal["constant", "step", "milestones", "cosine"] = "constant"
    at: tuple[int, ...] = ()
    drop: float = _FACTOR
    warmup: int = 0

    def __post_init__(self) -> None:
        needs = {"constant": self.at == (), "cosine": self.at == (), "step": len(self.at) == 1}
        if not needs.get(self.kind, bool(self.at)) or any(one < 1 for one in self.at):
            raise TrainingError(
                f"{self.kind} takes whole numbers of iterations from 1 on, got {_list(self.at)}."
            )
        if any(a >= b for a, b in pairwise(self.at)):
            raise TrainingError(f"milestones must rise, got {_list(self.at)}.")
        if not 0 < self.drop <= 1:
            raise TrainingError(f"the factor of {self.kind} must be in (0, 1], got {self.drop:g}.")
        if self.warmup < 0:
            raise TrainingError(f"warmup must be at least 0 iterations, got {self.warmup}.")

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Read what ``--schedule`` takes.

        Parameters
        ----------
        text
            ``constant``, ``step=N`` (a tenth after every N iterations), ``step=N:FACTOR``,
            ``milestones=A/B/C`` (a tenth at each of these), ``milestones=A/B/C:FACTOR``, or
            ``cosine`` (half a cosine, to 0 at the end of the run); behind each of them
            ``,warmup=N`` may follow.

        Raises
        ------
        TrainingError
            It is none of these, or a value is impossible; the message says which.
        """
        try:
            return _parsed(text)
        except TrainingError as error:
            raise TrainingError(f"--schedule {text}: {error}") from error
        except ValueError as error:
            raise TrainingError(
                f"--schedule {text} is not understood; expected {_ALLOWED}."
            ) from error

    @property
    def text(self) -> str:
        """Every value written out; `parse` reads it back as the same."""
        at = f"={_list(self.at)}:{self.drop!r}" if self.at else ""
        return f"{self.kind}{at}" + (f",warmup={self.warmup}" if self.warmup else "")

    def factor(self, iteration: int, num_iterations: int) -> float:
        """Return the factor of one iteration.

        Parameters
        ----------
        iteration
            From 0.
        num_iterations
            Of the whole run.

        Raises
        ------
        TrainingError
            The run has no such iteration.
        """
        if not 0 <= iteration < num_iterations:
            raise TrainingError(
                f"iteration must be in [0, {num_iterations}), the run's, got {iteration}."
            )
        warm = min(1.0, (iteration + 1) / self.warmup) if self.warmup else 1.0
        if self.kind == "cosine":
            return warm * (1 + math.cos(math.pi * iteration / num_iterations)) / 2
        drops = iteration // self.at[0] if self.kind == "step" else bisect_right(self.at, iteration)
        return warm * float(self.drop**drops)


def _parsed(text: str) -> Schedule:
    """Read a schedule; ValueError where it is none."""
    main, comma, more = (part.strip() for part in text.partition(","))
    word, _, given = more.partition("=")
    if comma and word != "warmup":
        raise ValueError(more)
    warmup = int(given) if comma else 0
    kind, equals, given = main.partition("=")
    if kind == "constant" and not equals:
        return Schedule("constant", warmup=warmup)
    if kind == "cosine" and not equals:
        return Schedule("cosine", warmup=warmup)
    at, colon, factor = given.partition(":")
    drop = float(factor) if colon else _FACTOR
    if kind == "step":
        return Schedule("step", (int(at),), drop, warmup)
    if kind == "milestones":
        return Schedule("milestones", tuple(int(one) for one in at.split("/")), drop, warmup)
    raise ValueError(kind)


def _list(at: tuple[int, ...]) -> str:
    return "/".join(map(str, at))
