"""``wsltool propose``: boxes that may hold an object of any class."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import ROWS, SEED, Images, Input


@command(app, "propose", common=SEED | ROWS)
def propose(
    source: Input = None,
    mode: Annotated[
        Literal["fast", "quality"], typer.Option(help="Selective search as OpenCV has it.")
    ] = "fast",
    max_boxes: Annotated[int, typer.Option(help="Boxes of an image at most.")] = 2000,
    longest_side: Annotated[
        int, typer.Option(help="Pictures are reduced to it first, in pixels.")
    ] = 500,
    images: Images = None,
    **common: Any,
) -> None:
    """Propose boxes that may hold an object of any class, by selective search.

    Example: wsltool propose val.zarr --mode quality
    """
    from wsltool.stages import propose as stage

    stage.propose(
        source or "",
        mode=mode,
        max_boxes=max_boxes,
        longest_side=longest_side,
        images=images,
        **common,
    )
