"""Every protocol that ``score`` knows, by name.

Cheap to import: neither numpy nor a protocol's own module is loaded until it counts.

A protocol reads predictions of one kind and the truth of the same images, block by block, and
makes a `Tally` of them; the tallies of all blocks are joined, in any order and any division,
and ratios are made once, of the joined one::

    protocol = PROTOCOLS["voc-ap"]
    tally = Tally.joined(protocol.count(predicted, truth) for predicted, truth in blocks)
    result = protocol.result(tally)

A module of protocols has ``count(protocol, predicted, truth)`` and ``result(protocol, tally)``.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from wsltool.errors import UsageError

if TYPE_CHECKING:
    from wsltool.metrics.grid_heats import GridHeats
    from wsltool.metrics.peak_distance import PeakPairs
    from wsltool.metrics.pointing_game import GamePoints
    from wsltool.metrics.records import ClassScores, Peaks, Predictions, Truth
    from wsltool.metrics.result import Result
    from wsltool.metrics.saliency_ap import SaliencyPairs
    from wsltool.metrics.tally import Tally
    from wsltool.metrics.voc_miou import LabelMasks

    Predicted: TypeAlias = (
        Predictions
        | Peaks
        | ClassScores
        | SaliencyPairs
        | PeakPairs
        | GridHeats
        | LabelMasks
        | GamePoints
    )

Record = Literal[
    "boxes", "peaks", "class-scores", "saliency", "peak-pairs", "heats", "label-masks", "game"
]

__all__ = ["PROTOCOLS", "ScoreProtocol", "find_protocol"]


@dataclass(frozen=True, slots=True)
class ScoreProtocol:
    """One way to score predictions.

    Attributes
    ----------
    name, summary : str
        Its name on the command line, and one line about it.
    module : str
        Of this package, with ``count`` and ``result``.
    reads : tuple of "boxes", "maps" and "masks"
        The kinds of stores that it reads, the usual one first.
    record : str
        What it counts: ``boxes`` (`Predictions`), ``peaks`` (`Peaks`), ``class-scores``
        (`ClassScores`), ``saliency`` (`SaliencyPairs`), ``peak-pairs`` (`PeakPairs`),
        ``heats`` (`GridHeats`), ``label-masks`` (`LabelMasks`) or ``game`` (`GamePoints`).
    truth : "box", "label" or "mask"
        What the truth must have.
    ranks_classes : bool
        Whether it compares classes with each other. Such a protocol must refuse what was made
        only for the classes present, since the truth would have chosen them.
    any_classes : bool
        Whether it does not matter which classes have maps.
    rank_depth : int
        How many ranked classes an image must have, as far as there are classes; 0: any.
    higher_is_better : bool or None
        False for an error, None where neither is better as such.
    unit : str
        Of the value.
    options : tuple of str
        Which of the following it reads.
    iou : float
        The intersection over union from which a box is right (``>=``).
    tolerance : float
        How many pixels a point may lie from a true box and still be right (``<=``).
    metric : "chebyshev" or "euclidean"
        How that distance is taken.
    point_at : "peak" or "region"
        Where a map's point lies: its hottest pixel, or the centre of its hottest region.
    confidence : "map" or "cls"
        What ranks predictions: the map's value at the point, or the class score.
    misses : "fp" or "fn"
        Whether a point that misses a class that is present is a false positive.
    pairs : "pooled" or "per-pair"
        Whether pixels of all pairs make one curve, or each pair its own.
    other : str
        The store that is compared with; empty for none.
    classes : tuple of str
        Names (or ids) of the classes that the value is taken over; empty for all.
    class_index : tuple of int
        The same as indices, see `with_classes`.
    interval : float
        The step between the thresholds that are tried, of a map normalised to [0, 1].
    definition : "wsod", "discovery" or "discovery-no-hard"
        Which of the CorLocs.
    grid : "devkit" or "numpy"
        How the eleven recalls of 2007 are computed.
    regions : "auto", "boxes" or "masks"
        What the pointing game is played on; "auto": masks where boxes have them (COCO) or there
        are no boxes, else boxes.
    by_image : bool
        Whether what is large (histograms) is kept for each image, to be resampled, not added up.
    """

    name: str
    summary: str
    module: str
    reads: tuple[Literal["boxes", "maps", "masks"], ...] = ("boxes",)
    record: Record = "boxes"
    truth: Literal["box", "label", "mask"] = "box"
    ranks_classes: bool = False
    any_classes: bool = False
    rank_depth: int = 0
    higher_is_better: bool | None = True
    unit: str = "%"
    options: tuple[str, ...] = ("iou",)
    iou: float = 0.5
    tolerance: float = 18.0
    metric: str = "chebyshev"
    point_at: str = "peak"
    confidence: str = "map"
    misses: str = "fp"
    pairs: str = "pooled"
    other: str = ""
    classes: tuple[str, ...] = ()
    class_index: tuple[int, ...] = ()
    interval: float = 0.001
    definition: str = "wsod"
    grid: str = "devkit"
    regions: str = "auto"
    by_image: bool = False

    def with_options(self, **given: Any) -> ScoreProtocol:
        """Return the same protocol with other options; None leaves one as it is.

        Raises
        ------
        UsageError
            If the protocol does not read an option, or its value is not one of the option's.
        """
        given = {name: value for name, value in given.items() if value is not None}
        for name, value in given.items():
            if name not in self.options:
                said = ",".join(value) if isinstance(value, tuple) else value
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} {said} has no meaning for {self.name}. Leave it out.")
            _check_option(name, value)
        return replace(self, **given)

    def with_classes(self, class_name: Sequence[str], class_id: Sequence[str]) -> ScoreProtocol:
        """Return the same protocol, its `classes` looked up among the truth's.

        Raises
        ------
        UsageError
            If one is neither a name nor an id there; the message lists the closest one.
        """
        place = {one: index for index, one in enumerate(class_id)}
        place |= {one: index for index, one in enumerate(class_name)}
        for one in self.classes:
            if one not in place:
                close = difflib.get_close_matches(one, place, n=1)
                hint = f' Did you mean "{close[0]}"?' if close else ""
                few = ", ".join(list(class_name)[:5])
                raise UsageError(
                    f'--classes: "{one}" is none of the {len(class_name)} classes '
                    f"({few}, …).{hint} Give names or ids with commas between."
                )
        return replace(self, class_index=tuple(dict.fromkeys(place[one] for one in self.classes)))

    @property
    def chosen(self) -> list[int] | slice:
        """The classes that the value is taken over, as an index of arrays with a class axis."""
        return list(self.class_index) if self.class_index else slice(None)

    @property
    def parameters(self) -> dict[str, float | str | list[str]]:
        """The options that it reads, with their values; none for those not given."""
        values = {name: getattr(self, name) for name in self.options}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value not in ("", ())
        }

    def count(self, predicted: Predicted, truth: Truth) -> Tally:
        """Return the counts of a block of images.

        Raises
        ------
        ProtocolError
            If the two do not fit each other or the protocol.
        """
        return cast("Tally", self._module().count(self, predicted, truth))

    def result(self, tally: Tally) -> Result:
        """Return what the joined tally of all images comes to."""
        return cast("Result", self._module().result(self, tally))

    def _module(self) -> Any:
        return import_module(f"wsltool.metrics.{self.module}")


_WORDS = {
    "metric": ("chebyshev", "euclidean"),
    "point_at": ("peak", "region"),
    "confidence": ("map", "cls"),
    "misses": ("fp", "fn"),
    "pairs": ("pooled", "per-pair"),
    "definition": ("wsod", "discovery", "discovery-no-hard"),
    "grid": ("devkit", "numpy"),
    "regions": ("auto", "boxes", "masks"),
}


def _check_option(name: str, value: Any) -> None:
    """Refuse a value that is none of the option's."""
    if name == "iou" and not 0 < value <= 1:
        raise UsageError(f"--iou must be in (0, 1], got {value:g}.")
    if name == "interval" and not 1e-5 <= value <= 0.5:
        raise UsageError(f"--interval must be in [0.00001, 0.5], got {value:g}.")
    if name == "tolerance" and not 0 <= value < float("inf"):
        raise UsageError(f"--tolerance must be at least 0 pixels, got {value:g}.")
    if name in _WORDS and value not in _WORDS[name]:
        flag = name.replace("_", "-")
        raise UsageError(f'--{flag} must be {" or ".join(_WORDS[name])}, got "{value}".')
    if name == "classes" and not (value and all(value)):
        raise UsageError(f'--classes must be names with commas between, got "{",".join(value)}".')


def _ilsvrc(k: int) -> ScoreProtocol:
    return ScoreProtocol(
        name=f"ilsvrc-top{k}",
        summary=f"ILSVRC top-{k} localization error (devkit eval_clsloc.m)",
        module="clsloc",
        ranks_classes=True,
        rank_depth=k,
        higher_is_better=False,
    )


def _maxboxacc(version: str, words: str, *options: str) -> ScoreProtocol:
    return ScoreProtocol(
        name=f"maxboxacc{version}",
        summary=f"MaxBoxAcc{version.removeprefix('-').upper()}: {words}",
        module="maxboxacc",
        reads=("maps",),
        record="heats",
        options=(*options, "interval"),
    )


PROTOCOLS: dict[str, ScoreProtocol] = {
    protocol.name: protocol
    for protocol in (
        _ilsvrc(1),
        _ilsvrc(5),
        ScoreProtocol(
            name="gt-known",
            summary="GT-known localization: the class is given, is its first box right?",
            module="gt_known",
        ),
        ScoreProtocol(
            name="voc-ap",
            summary="PASCAL VOC detection, mean AP, area under the curve (devkit 2010 and later)",
            module="voc_ap",
            ranks_classes=True,
            options=("iou", "classes"),
        ),
        ScoreProtocol(
            name="voc07-ap",
            summary="PASCAL VOC detection, mean AP at eleven recalls (devkit 2007 to 2009)",
            module="voc07_ap",
            ranks_classes=True,
            options=("iou", "grid", "classes"),
        ),
        ScoreProtocol(
            name="coco-ap",
            summary="COCO detection, mean AP over IoU .50 to .95 and classes (pycocotools)",
            module="coco_ap",
            ranks_classes=True,
            options=("classes",),
        ),
        ScoreProtocol(
            name="corloc",
            summary="share of images whose one box is right (CorLoc, two definitions)",
            module="corloc",
            options=("iou", "definition", "classes"),
        ),
        _maxboxacc("", "GT-known, largest contour at the best threshold (wsolevaluation)", "iou"),
        _maxboxacc("-v2", "every contour, mean over IoU .3 .5 .7 (wsolevaluation)"),
        _maxboxacc("-v3", "boxes one to one, of true boxes (a fork, unpublished)"),
        ScoreProtocol(
            name="pxap",
            summary="PxAP: pooled pixels of maps against masks (wsolevaluation)",
            module="pxap",
            reads=("maps",),
            record="heats",
            truth="mask",
            options=("interval",),
        ),
        ScoreProtocol(
            name="voc-miou",
            summary="PASCAL VOC segmentation, mean IoU of label images",
            module="voc_miou",
            reads=("masks",),
            record="label-masks",
            truth="mask",
            any_classes=True,
            options=("classes",),
        ),
        ScoreProtocol(
            name="pointing-game",
            summary="pointing game, share of points within 15 px of an object (TorchRay)",
            module="pointing_game",
            reads=("maps", "boxes"),
            record="game",
            options=("tolerance", "regions", "classes"),
            tolerance=15.0,
        ),
        ScoreProtocol(
            name="peak-in-box",
            summary="share of maps of present classes that peak inside a true box of the class",
            module="peak_in_box",
            reads=("maps",),
            record="peaks",
            options=("classes",),
        ),
        ScoreProtocol(
            name="cls-map",
            summary="PASCAL VOC classification, mean AP of the class scores",
            module="cls_map",
            reads=("maps",),
            record="class-scores",
            truth="label",
            any_classes=True,
            options=("classes",),
        ),
        ScoreProtocol(
            name="point",
            summary="point localization, mean AP of one point a class and image (18 px)",
            module="point",
            reads=("maps", "boxes"),
            record="peaks",
            ranks_classes=True,
            options=("tolerance", "metric", "point_at", "confidence", "misses", "classes"),
        ),
        ScoreProtocol(
            name="saliency-ap",
            summary="AP of pixels of maps of present classes against their masks",
            module="saliency_ap",
            reads=("maps",),
            record="saliency",
            truth="mask",
            options=("pairs", "classes"),
        ),
        ScoreProtocol(
            name="peak-distance",
            summary="pixels between the peaks of two stores' maps of present classes",
            module="peak_distance",
            reads=("maps",),
            record="peak-pairs",
            truth="label",
            any_classes=True,
            higher_is_better=None,
            unit="px",
            options=("other", "classes"),
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
