"""``wsltool ingest``: other people's files become an images store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import ROWS, Input

ingest = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Read other people's files into a store."
)
app.add_typer(ingest, name="ingest")

Embed = Annotated[bool, typer.Option("--embed", help="Pack the encoded pictures into the store.")]
Classes = Annotated[
    Path | None, typer.Option(help="Class list, a class a line: NAME, or INDEX ID NAME.")
]


@command(ingest, "voc", common=ROWS)
def voc(
    folder: Input = None,
    split: Annotated[
        str, typer.Option(help="Image set: trainval, test, Segmentation/val, ….")
    ] = "trainval",
    classes: Classes = None,
    embed: Embed = False,
    **common: Any,
) -> None:
    """Read PASCAL VOC's layout (2007 or 2012): INPUT is the year's folder.

    Example: wsltool ingest voc VOCdevkit/VOC2012 --split val -o val.zarr
    """
    from wsltool.stages.ingest import ingest_voc

    ingest_voc(folder or "", split=split, classes=classes, embed=embed, **common)


@command(ingest, "folder", common=ROWS)
def folder(
    folder: Input = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV image,label or image,CLASS,CLASS,… with 1, 0, 255.")
    ] = None,
    boxes: Annotated[
        Path | None, typer.Option(help="CSV image,x0,y0,x1,y1[,label], half-open pixels.")
    ] = None,
    classes: Classes = None,
    embed: Embed = False,
    **common: Any,
) -> None:
    """Read a folder of pictures: a folder a class, or labels from a CSV.

    Example: wsltool ingest folder birds/ --boxes birds.csv -o birds.zarr
    """
    from wsltool.stages.ingest import ingest_folder

    ingest_folder(folder or "", labels=labels, boxes=boxes, classes=classes, embed=embed, **common)
