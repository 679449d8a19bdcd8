"""``wsltool ingest``: other people's files become an images store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

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
ImageFolder = Annotated[Path | None, typer.Option("--images", help="Folder of the pictures.")]
MaskFolder = Annotated[Path | None, typer.Option("--masks", help="Folder of the masks.")]
NoImages = Annotated[
    bool, typer.Option("--no-images", help="The annotations alone; there are no pictures.")
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


@command(ingest, "coco", common=ROWS)
def coco(
    annotations: Input = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures [default: looked for].")
    ] = None,
    no_images: NoImages = False,
    no_masks: Annotated[
        bool, typer.Option("--no-masks", help="Leave the segmentations out.")
    ] = False,
    embed: Embed = False,
    **common: Any,
) -> None:
    """Read COCO's instances: INPUT is the JSON.

    Example: wsltool ingest coco annotations/instances_val2017.json -o val.zarr
    """
    from wsltool.stages.ingest import ingest_coco

    ingest_coco(
        annotations or "",
        images=images,
        no_images=no_images,
        no_masks=no_masks,
        embed=embed,
        **common,
    )


@command(ingest, "ilsvrc", common=ROWS)
def ilsvrc(
    folder: Input = None,
    split: Annotated[Literal["val", "train"], typer.Option(help="Which images.")] = "val",
    classes: Annotated[
        Path | None, typer.Option(help="LOC_synset_mapping.txt or the like [default: looked for].")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="The devkit's validation ground truth.")
    ] = None,
    blacklist: Annotated[
        Path | None, typer.Option(help="The devkit's validation blacklist.")
    ] = None,
    embed: Embed = False,
    **common: Any,
) -> None:
    """Read ILSVRC's CLS-LOC data: INPUT is ILSVRC, or where the archives were unpacked.

    Example: wsltool ingest ilsvrc ILSVRC --blacklist blacklist.txt -o val.zarr
    """
    from wsltool.stages.ingest import ingest_ilsvrc

    ingest_ilsvrc(
        folder or "",
        split=split,
        classes=classes,
        labels=labels,
        blacklist=blacklist,
        embed=embed,
        **common,
    )


@command(ingest, "cub", common=ROWS)
def cub(
    folder: Input = None,
    split: Annotated[Literal["test", "train"], typer.Option(help="Which images.")] = "test",
    embed: Embed = False,
    **common: Any,
) -> None:
    """Read Caltech-UCSD Birds: INPUT is CUB_200_2011.

    Example: wsltool ingest cub CUB_200_2011 --split test -o birds.zarr
    """
    from wsltool.stages.ingest import ingest_cub

    ingest_cub(folder or "", split=split, embed=embed, **common)


@command(ingest, "wsol", common=ROWS)
def wsol(
    folder: Input = None,
    images: ImageFolder = None,
    no_images: NoImages = False,
    masks: MaskFolder = None,
    classes: Classes = None,
    embed: Embed = False,
    **common: Any,
) -> None:
    """Read wsolevaluation's metadata lists: INPUT is the folder of one split.

    Example: wsltool ingest wsol metadata/CUB/test --images CUB_200_2011/images -o test.zarr
    """
    from wsltool.stages.ingest import ingest_wsol

    ingest_wsol(
        folder or "",
        images=images,
        no_images=no_images,
        masks=masks,
        classes=classes,
        embed=embed,
        **common,
    )


@command(ingest, "openimages", common=ROWS)
def openimages(
    folder: Input = None,
    masks: Annotated[
        Path | None, typer.Option("--masks", help="Folder of the masks (required).")
    ] = None,
    images: ImageFolder = None,
    no_images: NoImages = False,
    classes: Classes = None,
    embed: Embed = False,
    **common: Any,
) -> None:
    """Read OpenImages from wsolevaluation's metadata lists: INPUT is the folder of one split.

    Example: wsltool ingest openimages metadata/OpenImages/val --masks masks --images pictures
    """
    from wsltool.stages.ingest import ingest_openimages

    ingest_openimages(
        folder or "",
        masks=masks,
        images=images,
        no_images=no_images,
        classes=classes,
        embed=embed,
        **common,
    )
