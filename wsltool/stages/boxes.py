"""Stage ``boxes``: maps become boxes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from wsltool.errors import BadImageError, UsageError
from wsltool.localize.zhou_boxes import ZHOU_LEVELS
from wsltool.metrics.protocols import find_protocol
from wsltool.stages.box_rules import (
    BoxRule,
    BoxScore,
    Drawn,
    Kl16Rule,
    ZhouRule,
    guessed_classes,
)
from wsltool.stages.cooccurrence import inherited_weight
from wsltool.stages.fit_threshold import (
    FitObjective,
    FitWish,
    ThresholdFit,
    open_truth,
    warn_of_misfit,
)
from wsltool.stages.map_rows import map_rows
from wsltool.stages.options import PathLike, RunOptions, Settings, check_choice, check_range
from wsltool.stages.plan import Job, output_for
from wsltool.stages.run import Block, Rows, Tick, leave_out, limited, open_input, row_job, run
from wsltool.stages.scored import usable_slots
from wsltool.stores.lineage import fingerprint_store
from wsltool.stores.store import Store

__all__ = ["boxes"]

Array = np.ndarray[Any, Any]

_REVISION = 1
_THRESHOLD = 0.2

Rule = Literal["kl16", "zhou"]
ThresholdOf = Literal["max", "range"]
Which = Literal["largest", "all"]
Empty = Literal["none", "whole"]

_CHOICES: dict[str, Any] = {
    "threshold_of": ThresholdOf,
    "components": Which,
    "connectivity": Literal[4, 8],
    "empty": Empty,
    "box_score": BoxScore,
}
_KL16_DEFAULTS: dict[str, Any] = {
    "threshold": None,
    "threshold_of": "max",
    "components": "largest",
    "connectivity": 8,
    "empty": "none",
    "box_score": "class",
}
_FIT_DEFAULTS: dict[str, Any] = {
    "fit_truth": None,
    "fit_per": "one",
    "fit_objective": "gt-known",
    "fit_step": None,
}


def boxes(
    input: PathLike,
    *,
    rule: Rule = "kl16",
    threshold: float | None = None,
    threshold_of: ThresholdOf = "max",
    components: Which = "largest",
    connectivity: int = 8,
    empty: Empty = "none",
    box_score: BoxScore = "class",
    fit_threshold: PathLike | None = None,
    fit_truth: PathLike | None = None,
    fit_per: str = "one",
    fit_objective: FitObjective = "gt-known",
    fit_step: float | None = None,
    **options: Unpack[RunOptions],
) -> Path:
    """Draw boxes around what is hot in maps (Kolesnikov and Lampert 2016, after Zhou et al.).

    Every map is upsampled bilinearly to its image; foreground is what lies strictly above
    the threshold; boxes are the tightest around its connected components.

    Parameters
    ----------
    input : path
        A ``maps`` store.
    rule : {"kl16", "zhou"}
        The rule above, or that of the released code of Zhou et al., which has thresholds of
        its own and reads none of the other options (`wsltool.localize.zhou_boxes`). Of maps of
        the best three classes or more it makes five guesses: two boxes of the first class, two
        of the second, one of the third.
    threshold : float, optional
        In [0, 1), a fraction of the map's maximum (or range); .2 if not given.
    threshold_of : {"max", "range"}
        ``threshold * max``, or ``min + threshold * (max - min)``.
    components : {"largest", "all"}
        The component with the most pixels, or a box for each.
    connectivity : {8, 4}
        Whether pixels that touch at a corner belong together.
    empty : {"none", "whole"}
        What a map without foreground gives (a maximum of 0 or less): no box, or the image.
    box_score : {"class", "heat-max", "heat-mean", "box-mean"}
        Score of a box: the image's score of the class, the maximum or mean of the heat over the
        component, or the mean over all of the box (Bency et al. 2016).
    fit_threshold : path, optional
        A ``maps`` store of other images, on which the threshold is chosen instead.
    fit_truth : path, optional
        The ``images`` store with their true boxes, if it is not where the maps say.
    fit_per : str
        ``one`` threshold for all, one a ``class``, or ``class:N``: a class with fewer than N
        pairs of image and class (10 if not given) takes the common one.
    fit_objective : {"gt-known", "mean-iou", "voc-ap"}
        What the threshold makes as high as can be on those images: the share of pairs of an
        image and a class present whose box has an IoU of at least .5, the mean IoU, or VOC's
        average precision at IoU .5 of all boxes, drawn and scored as here.
    fit_step : float, optional
        Between the thresholds that are tried, from 0 to .95; in [.001, .5]. If not given .01,
        with ``voc-ap`` .05.
    **options
        See `wsltool.stages.options.RunOptions`.

    Returns
    -------
    Path
        The ``boxes`` store. Its attribute ``thresholds`` says where they come from.

    Raises
    ------
    UsageError
        An option is out of its range, or not read by the rule.
    BadImageError
        A map is not finite and ``on_bad`` is ``"stop"``.
    ProtocolError
        No threshold can be chosen on what is given for it.
    """
    settings = Settings.of(options)
    given = {
        "threshold": threshold,
        "threshold_of": threshold_of,
        "components": components,
        "connectivity": connectivity,
        "empty": empty,
        "box_score": box_score,
    }
    fit = {
        "fit_truth": fit_truth,
        "fit_per": fit_per,
        "fit_objective": fit_objective,
        "fit_step": fit_step,
    }
    _check_options(rule, given, fit_threshold, fit)
    with contextlib.ExitStack() as stack:
        maps = stack.enter_context(open_input(input, "maps", "boxes"))
        if rule == "zhou":
            drawing = _zhou(maps)
        elif fit_threshold is None:
            drawing = _fixed(maps, given)
        else:
            chosen = stack.enter_context(open_input(fit_threshold, "maps", "boxes --fit-threshold"))
            truth = stack.enter_context(open_truth(chosen, fit_truth))
            wish = FitWish.of(fit_per, fit_objective, fit_step)
            drawing = _fitted(maps, given, chosen, truth, wish, settings)
        return _run(maps, drawing, settings)


def _check_options(
    rule: str, given: dict[str, Any], fit_threshold: PathLike | None, fit: dict[str, Any]
) -> None:
    check_choice("--rule", rule, Rule)
    if given["threshold"] is not None:
        check_range("--threshold", given["threshold"], 0, 1)
    for name, choices in _CHOICES.items():
        check_choice(_option(name), given[name], choices)
    FitWish.of(fit["fit_per"], fit["fit_objective"], fit["fit_step"])
    if rule == "zhou":
        unread = _first_given(given, _KL16_DEFAULTS)
        unread = unread or ("fit_threshold" if fit_threshold is not None else None)
        if unread:
            raise UsageError(
                f"{_option(unread)} is not read by --rule zhou, which has thresholds of its own. "
                "Leave it out, or take --rule kl16."
            )
    if fit_threshold is None:
        unread = _first_given(fit, _FIT_DEFAULTS)
        if unread:
            raise UsageError(
                f"{_option(unread)} is only read with --fit-threshold. Give the maps on which "
                "the threshold is to be chosen."
            )
    elif given["threshold"] is not None:
        raise UsageError(
            f"--threshold {given['threshold']:g} and --fit-threshold exclude each other. Leave "
            "one out."
        )


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _first_given(values: dict[str, Any], defaults: dict[str, Any]) -> str | None:
    """Return the first option that is not at its default."""
    return next((name for name, value in values.items() if value != defaults[name]), None)


@dataclass(frozen=True)
class _Drawing:
    """What the run records of its rule, and the rule, which may take long to find."""

    params: dict[str, Any]
    rule: Callable[[], BoxRule]
    classes: str
    box_score: str
    inputs: dict[str, Any]
    thresholds: Callable[[], dict[str, Any]]


def _classes(maps: Store) -> str:
    return str(maps.attributes.get("classes", ""))


def _zhou(maps: Store) -> _Drawing:
    guessed = guessed_classes(_classes(maps))
    thresholds = {"chosen_on": None, "source": "rule", "value": list(ZHOU_LEVELS), "of": 255}
    return _Drawing(
        params={"rule": "zhou"},
        rule=lambda: ZhouRule(guesses=guessed is not None),
        classes=guessed or _classes(maps),
        box_score="class",
        inputs={},
        thresholds=lambda: thresholds,
    )


def _fixed(maps: Store, given: dict[str, Any]) -> _Drawing:
    params = given | {"threshold": _THRESHOLD if given["threshold"] is None else given["threshold"]}
    threshold_K = np.full(maps.shape("class_name"), params["threshold"], np.float64)
    thresholds = {"chosen_on": None, "source": "given", "value": params["threshold"]}
    return _Drawing(
        params={"rule": "kl16", **params},
        rule=lambda: Kl16Rule(threshold_K, **_drawing(params)),
        classes=_classes(maps),
        box_score=params["box_score"],
        inputs={},
        thresholds=lambda: thresholds,
    )


def _fitted(
    maps: Store,
    given: dict[str, Any],
    chosen: Store,
    truth: Store,
    wish: FitWish,
    settings: Settings,
) -> _Drawing:
    """Return the drawing by thresholds that are chosen once the output is claimed."""
    num_rows, _ = limited(maps, settings.limit)
    overlap = warn_of_misfit(maps, num_rows, chosen, settings.report)
    if wish.objective == "voc-ap":
        usable_slots(chosen, find_protocol("voc-ap"))
    output = settings.output or output_for(maps.path, "boxes")
    params = {name: value for name, value in given.items() if name != "threshold"}
    drawing = _drawing(params)
    fit = ThresholdFit(chosen, truth, wish, drawing, output, overlap, settings.report)
    return _Drawing(
        params={"rule": "kl16", **params, **wish.params()},
        rule=lambda: Kl16Rule(fit.threshold_K(), **drawing),
        classes=_classes(maps),
        box_score=params["box_score"],
        inputs={
            "fit": fingerprint_store(chosen, output.parent),
            "fit_truth": fingerprint_store(truth, output.parent),
        },
        thresholds=lambda: fit.record,
    )


def _drawing(params: dict[str, Any]) -> dict[str, Any]:
    """Return the options of `Kl16Rule`, all but its thresholds."""
    names = "components", "connectivity", "empty", "box_score"
    return {"of": params["threshold_of"]} | {name: params[name] for name in names}


def _run(maps: Store, drawing: _Drawing, settings: Settings) -> Path:
    output = settings.output or output_for(maps.path, "boxes")
    job: Job = row_job(
        settings,
        "boxes",
        "boxes",
        maps,
        params=drawing.params,
        inputs=drawing.inputs,
        revision=_REVISION,
        attributes={
            "classes": drawing.classes,
            "score_kind": maps.attributes.get("score_kind", ""),
            "box_score_kind": drawing.box_score,
        }
        | inherited_weight(maps, output.parent),
        late_attributes=lambda _work: {"thresholds": drawing.thresholds()},
    )

    def compute(blocks: list[Block], tick: Tick) -> Iterator[Rows]:
        rule = drawing.rule()
        for block in blocks:
            yield _box_block(maps, block, settings, rule)

    return run(job, compute, settings)


def _box_block(maps: Store, block: Block, settings: Settings, rule: BoxRule) -> Rows:
    """Return the rows of a block; an image with a bad map is left out, or stops the stage."""
    rows = maps.carried(block.start, block.stop)
    score_NS = maps.rows("map_score", block.start, block.stop).astype(np.float32)
    drawn: list[Drawn | None] = [None] * block.num_rows
    for n, maps_of_image in enumerate(map_rows(maps, block.start, block.stop)):
        if maps_of_image is None:
            continue
        try:
            drawn[n] = rule(maps_of_image, score_NS[n])
        except BadImageError as error:
            leave_out(maps, settings, rows, block.start + n, n, error)
    return rows | _stacked(drawn, score_NS.shape[1])


def _stacked(drawn: list[Drawn | None], num_slots: int) -> Rows:
    """Return the arrays of a block; an image without boxes has empty slots."""
    found = [one for one in drawn if one is not None]
    num_slots = max([num_slots, *(len(one.class_S) for one in found)])
    class_NS = np.full((len(drawn), num_slots), -1, np.int32)
    score_NS = np.full((len(drawn), num_slots), -np.inf, np.float32)
    count_N = np.zeros(len(drawn), np.int64)
    for n, one in enumerate(drawn):
        if one is not None:
            class_NS[n, : len(one.class_S)] = one.class_S
            score_NS[n, : len(one.score_S)] = one.score_S
            count_N[n] = len(one.box_B4)
    return {
        "map_class": class_NS,
        "map_score": score_NS,
        "box_start": count_N,
        "box": np.concatenate([np.zeros((0, 4)), *(one.box_B4 for one in found)]),
        "box_class": np.concatenate([np.zeros(0, np.int32), *(one.class_B for one in found)]),
        "box_score": np.concatenate([np.zeros(0, np.float32), *(one.score_B for one in found)]),
        "box_slot": np.concatenate([np.zeros(0, np.int32), *(one.slot_B for one in found)]),
    }
