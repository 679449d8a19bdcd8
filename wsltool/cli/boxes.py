"""``wsltool boxes``: maps become boxes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import ROWS, Input


@command(app, "boxes", common=ROWS)
def boxes(
    source: Input = None,
    threshold: Annotated[float, typer.Option(help="Foreground is strictly above it.")] = 0.2,
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
        Literal["class", "heat-max", "heat-mean"], typer.Option(help="Score of a box.")
    ] = "class",
    **common: Any,
) -> None:
    """Draw boxes around what is hot in maps.

    Example: wsltool boxes val.cam.zarr --threshold 0.3
    """
    from wsltool.stages import boxes as stage

    stage.boxes(
        source or "",
        threshold=threshold,
        threshold_of=threshold_of,
        components=components,
        connectivity=connectivity,
        empty=empty,
        box_score=box_score,
        **common,
    )
