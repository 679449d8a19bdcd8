"""``wsltool rank-boxes``: given boxes, ranked by what the maps hold inside of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import ROWS, Input
from wsltool.errors import UsageError


@command(app, "rank-boxes", common=ROWS)
def rank_boxes(
    source: Input = None,
    boxes: Annotated[
        Path | None, typer.Option(metavar="STORE", help="The boxes to rank; needed.")
    ] = None,
    aggregate: Annotated[
        Literal["sum", "mean", "max", "contrast"],
        typer.Option(help="What a box is worth: of the map inside, or against a ring around."),
    ] = "sum",
    threshold: Annotated[
        float | None,
        typer.Option(help="sum: colder than this share of the maximum counts against [0.1]."),
    ] = None,
    keep: Annotated[int, typer.Option(help="Boxes of a class and image at most.")] = 10,
    nms: Annotated[float, typer.Option(help="IoU above which the worse of two boxes goes.")] = 0.1,
    box_score: Annotated[
        Literal["heat", "class"],
        typer.Option(help="Score of a box: the aggregate, or the class's."),
    ] = "heat",
    same_class: Annotated[
        bool, typer.Option("--same-class", help="Only boxes of the map's own class.")
    ] = False,
    **common: Any,
) -> None:
    """Rank given boxes by what the maps hold inside of them.

    Example: wsltool rank-boxes val.cam.zarr --boxes val.propose.zarr
    """
    from wsltool.stages import rank_boxes as stage

    if boxes is None:
        raise UsageError("--boxes is missing. Give the boxes to rank: wsltool propose IMAGES")
    stage.rank_boxes(
        source or "",
        boxes=boxes,
        aggregate=aggregate,
        threshold=threshold,
        keep=keep,
        nms=nms,
        box_score=box_score,
        same_class=same_class,
        **common,
    )
