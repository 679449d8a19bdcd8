"""``wsltool boxes``: maps become boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import ROWS, Input


@command(app, "boxes", common=ROWS)
def boxes(
    source: Input = None,
    rule: Annotated[
        Literal["kl16", "zhou"],
        typer.Option(help="Threshold and component; or Zhou's released code."),
    ] = "kl16",
    threshold: Annotated[
        float | None, typer.Option(help="Foreground is strictly above it [default: 0.2].")
    ] = None,
    threshold_of: Annotated[
        Literal["max", "range"], typer.Option(help="Of the maximum, or of the range.")
    ] = "max",
    components: Annotated[
        Literal["largest", "all"], typer.Option(help="Largest component, or a box for each.")
    ] = "largest",
    connectivity: Annotated[int, typer.Option(help="8 or 4.")] = 8,
    empty: Annotated[
        Literal["none", "whole"], typer.Option(help="What no foreground gives.")
    ] = "none",
    box_score: Annotated[
        Literal["class", "heat-max", "heat-mean", "box-mean"],
        typer.Option(help="Score of a box."),
    ] = "class",
    fit_threshold: Annotated[
        Path | None, typer.Option(metavar="MAPS", help="Choose it on maps of other images.")
    ] = None,
    fit_truth: Annotated[
        Path | None, typer.Option(help="Images with their boxes, if not where MAPS says.")
    ] = None,
    fit_per: Annotated[
        str, typer.Option(help="one, class, or class:N for classes with N pairs.")
    ] = "one",
    fit_objective: Annotated[
        Literal["gt-known", "mean-iou", "voc-ap"],
        typer.Option(help="What is made as high as can be."),
    ] = "gt-known",
    fit_step: Annotated[
        float | None, typer.Option(help="Between the thresholds tried [0.01; voc-ap: 0.05].")
    ] = None,
    **common: Any,
) -> None:
    """Draw boxes around what is hot in maps.

    Example: wsltool boxes val.cam.zarr --threshold 0.3
    """
    from wsltool.stages import boxes as stage

    stage.boxes(
        source or "",
        rule=rule,
        threshold=threshold,
        threshold_of=threshold_of,
        components=components,
        connectivity=connectivity,
        empty=empty,
        box_score=box_score,
        fit_threshold=fit_threshold,
        fit_truth=fit_truth,
        fit_per=fit_per,
        fit_objective=fit_objective,
        fit_step=fit_step,
        **common,
    )
