"""``wsltool export``: a store in the forms that other people's tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import OUTPUT, Input
from wsltool.errors import UsageError


@command(app, "export", common=OUTPUT)
def export(
    source: Input = None,
    form: Annotated[
        Literal["coco", "coco-truth", "voc-xml", "voc-comp", "voc-cls", "csv", "npy", "png"] | None,
        typer.Option(help="What to write (required)."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Images store [default: the one it came from].")
    ] = None,
    split: Annotated[
        str, typer.Option(help="voc-comp, voc-cls: the image set in the files' names.")
    ] = "test",
    **common: Any,
) -> None:
    """Write boxes, maps, masks or truth for other tools: COCO, VOC, CSV, .npy, PNG.

    Example: wsltool export val.cam.boxes.zarr --form coco -o results.json
    """
    if form is None:
        raise UsageError("--form is missing. Say what to write, such as coco or csv.")
    from wsltool.stages import export as stage

    stage.export(source or "", form=form, images=images, split=split, **common)
