"""Every protocol that ``score`` knows, by name.

Cheap to import: neither numpy nor a protocol's own module is loaded until it counts.

A protocol reads predictions of one kind and the truth of the same images, block by block, and
makes counts of them; counts of two blocks add up with ``+``, in any order and any division,
and ratios are made once, of the sum::

    protocol = PROTOCOLS["voc-ap"]
    counts = sum_counts(protocol.count(predicted, truth) for predicted, truth in blocks)
    result = protocol.result(counts)

A module of protocols has ``count(protocol, predicted, truth)`` and
``result(protocol, counts)``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, cast

from wsltool.errors import ProtocolError, UsageError

if TYPE_CHECKING:
    from wsltool.metrics.records import Peaks, Predictions, Truth
    from wsltool.metrics.result import Result

__all__ = ["PROTOCOLS", "Counts", "ScoreProtocol", "find_protocol", "sum_counts"]


class Counts(Protocol):
    """What a protocol counts of some images; it adds up."""

    def __add__(self, other: Any, /) -> Self:
        """Return the counts of both sets of images together."""
        ...


@dataclass(frozen=True, slots=True)
class ScoreProtocol:
    """One way to score predictions.

    Attributes
    ----------
    name, summary : str
        Its name on the command line, and one line about it.
    reads : "boxes" or "maps"
        Whether it counts `Predictions` (of a boxes store) or `Peaks` (of a maps store).
    ranks_classes : bool
        Whether it compares classes with each other. Such a protocol must refuse what was made
        only for the classes present, since the truth would have chosen them.
    rank_depth : int
        How many ranked classes an image must have, as far as there are classes; 0: any.
    higher_is_better : bool
        False for an error.
    unit : str
        Of the value.
    compares_boxes : bool
        Whether `iou` has a meaning.
    iou : float
        The intersection over union from which a box is right (``>=``).
    module : str
        Of this package, with ``count`` and ``result``.
    """

    name: str
    summary: str
    reads: Literal["boxes", "maps"]
    module: str
    ranks_classes: bool = False
    rank_depth: int = 0
    higher_is_better: bool = True
    unit: str = "%"
    compares_boxes: bool = True
    iou: float = 0.5

    def with_iou(self, iou: float) -> ScoreProtocol:
        """Return the same protocol with another IoU threshold.

        Raises
        ------
        UsageError
            If `iou` is not in (0, 1], or the protocol compares no boxes.
        """
        if not self.compares_boxes:
            raise UsageError(f"--iou {iou:g} has no meaning for {self.name}. Leave it out.")
        if not 0 < iou <= 1:
            raise UsageError(f"--iou must be in (0, 1], got {iou:g}.")
        return replace(self, iou=iou)

    def count(self, predicted: Predictions | Peaks, truth: Truth) -> Counts:
        """Return the counts of a block of images.

        Raises
        ------
        ProtocolError
            If the two do not fit each other or the protocol.
        """
        return cast("Counts", self._module().count(self, predicted, truth))

    def result(self, counts: Counts) -> Result:
        """Return what the counts of all images come to."""
        return cast("Result", self._module().result(self, counts))

    def _module(self) -> Any:
        return import_module(f"wsltool.metrics.{self.module}")


def _ilsvrc(k: int) -> ScoreProtocol:
    return ScoreProtocol(
        name=f"ilsvrc-top{k}",
        summary=f"ILSVRC top-{k} localization error (devkit eval_clsloc.m)",
        reads="boxes",
        module="clsloc",
        ranks_classes=True,
        rank_depth=k,
        higher_is_better=False,
    )


PROTOCOLS: dict[str, ScoreProtocol] = {
    protocol.name: protocol
    for protocol in (
        _ilsvrc(1),
        _ilsvrc(5),
        ScoreProtocol(
            name="gt-known",
            summary="GT-known localization: the class is given, is its first box right?",
            reads="boxes",
            module="gt_known",
        ),
        ScoreProtocol(
            name="voc-ap",
            summary="PASCAL VOC detection, mean AP, area under the curve (devkit 2010 and later)",
            reads="boxes",
            module="voc_ap",
            ranks_classes=True,
        ),
        ScoreProtocol(
            name="voc07-ap",
            summary="PASCAL VOC detection, mean AP at eleven recalls (devkit 2007 to 2009)",
            reads="boxes",
            module="voc07_ap",
            ranks_classes=True,
        ),
        ScoreProtocol(
            name="peak-in-box",
            summary="share of maps of present classes that peak inside a true box of the class",
            reads="maps",
            module="peak_in_box",
            compares_boxes=False,
        ),
    )
}


def find_protocol(name: str) -> ScoreProtocol:
    """Return the protocol of that name.

    Raises
    ------
    UsageError
        If there is none; the message lists all names and the closest one.
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    close = difflib.get_close_matches(name, PROTOCOLS, n=1)
    hint = f' Did you mean "{close[0]}"?' if close else ""
    raise UsageError(
        f'--protocol "{name}" is not known; expected one of {", ".join(PROTOCOLS)}.{hint}'
    )


def sum_counts(counts: Iterable[Counts]) -> Counts:
    """Return the sum of the counts of one or more blocks.

    Raises
    ------
    ProtocolError
        If there is no block.
    """
    blocks = iter(counts)
    total = next(blocks, None)
    if total is None:
        raise ProtocolError("0 blocks of images were counted; expected at least one.")
    for block in blocks:
        total = total + block
    return total
