"""Which classes of an image get a map: ``present``, ``topK``, ``above:P``, ``all``, or several."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from wsltool.errors import UsageError
from wsltool.stages.options import check_range
from wsltool.stores.store import Store

__all__ = ["ClassChoice", "parse_choice"]

_ALL = np.iinfo(np.int32).max


@dataclass(frozen=True)
class ClassChoice:
    """The union of some rules.

    Attributes
    ----------
    text : str
        As it is recorded: rules joined by ``+``.
    top : int
        The best so many classes; 0 none, a very large number all.
    present : bool
        The classes labelled present.
    above : float or None
        Classes whose probability is above this.
    """

    text: str
    top: int = 0
    present: bool = False
    above: float | None = None

    def most_slots(self, images: Store, num_classes: int) -> int:
        """Return how many maps an image has at most."""
        if self.above is not None or self.top >= num_classes:
            return num_classes
        most = self.top
        if self.present:
            counts = [int((label == 1).sum(axis=1).max()) for label in images.blocks("label")]
            most += max(counts, default=0)
        return max(1, min(num_classes, most))


def parse_choice(text: str) -> ClassChoice:
    """Read ``present``, ``topK``, ``above:P``, ``all`` or several of them joined by ``+``.

    Raises
    ------
    UsageError
        Something else, K < 1, or P outside [0, 1).
    """
    top, present, above = 0, False, None
    parts = list(dict.fromkeys(part.strip() for part in re.split(r"[+,]", text)))
    for part in parts:
        number = re.fullmatch(r"top(\d+)", part)
        if part == "all":
            top = _ALL
        elif part == "present":
            present = True
        elif number and int(number[1]) >= 1:
            top = max(top, int(number[1]))
        elif part.startswith("above:"):
            above = _probability(part.removeprefix("above:"))
        else:
            raise UsageError(
                "--classes must be present, topK, above:P, all, or several joined by +, "
                f'got "{text}".'
            )
    return ClassChoice("+".join(parts), top, present, above)


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f'--classes above:P needs a probability, got "{text}".') from None
    check_range("--classes above:P", value, 0, 1)
    return value
