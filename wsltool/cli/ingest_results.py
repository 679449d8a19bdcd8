"""``wsltool ingest maps|boxes|masks``: what other tools made of the images of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wsltool.cli.app import command
from wsltool.cli.ingest import ingest
from wsltool.cli.options import ROWS, Input
from wsltool.errors import UsageError

AboutImages = Annotated[
    Path | None,
    typer.Option("--images", help="The images store that the results are about (required)."),
]


@command(ingest, "maps", common=ROWS)
def maps(
    folder: Input = None,
    images: AboutImages = None,
    classes: Annotated[
        str, typer.Option(help="What maps are of: present, all, a class, or a listing (.json).")
    ] = "present",
    class_score: Annotated[
        Path | None, typer.Option(help="Scores of all classes: .npy (N, K), or CSV image,CLASS,….")
    ] = None,
    score_kind: Annotated[
        Literal["unknown", "logit", "probability"], typer.Option(help="What these scores are.")
    ] = "unknown",
    map_dtype: Annotated[
        Literal["auto", "float16", "float32", "float64"], typer.Option(help="How maps are stored.")
    ] = "auto",
    **common: Any,
) -> None:
    """Read a folder of maps of another tool, one .npy file an image.

    Example: wsltool ingest maps scoremaps/ --images val.zarr -o theirs.zarr
    """
    from wsltool.stages.ingest_maps import ingest_maps

    ingest_maps(
        folder or "",
        images=_given(images),
        classes=classes,
        class_score=class_score,
        score_kind=score_kind,
        map_dtype=map_dtype,
        **common,
    )


@command(ingest, "boxes", common=ROWS)
def boxes(
    results: Input = None,
    images: AboutImages = None,
    form: Annotated[
        Literal["coco", "voc"], typer.Option(help="COCO's JSON, or VOC's file a class.")
    ] = "coco",
    classes: Annotated[
        Path | None, typer.Option(help="coco: JSON with categories, where ids differ.")
    ] = None,
    **common: Any,
) -> None:
    """Read detections of another detector, COCO's results JSON or VOC's text files.

    Example: wsltool ingest boxes results.json --images val.zarr -o theirs.zarr
    """
    from wsltool.stages.ingest_boxes import ingest_boxes

    ingest_boxes(results or "", images=_given(images), form=form, classes=classes, **common)


@command(ingest, "masks", common=ROWS)
def masks(folder: Input = None, images: AboutImages = None, **common: Any) -> None:
    """Read label images of another segmenter, one indexed PNG an image.

    Example: wsltool ingest masks segmented/ --images val.zarr -o theirs.zarr
    """
    from wsltool.stages.ingest_masks import ingest_masks

    ingest_masks(folder or "", images=_given(images), **common)


def _given(images: Path | None) -> Path:
    if images is None:
        raise UsageError("--images is missing. Give the images store that the results are about.")
    return images
