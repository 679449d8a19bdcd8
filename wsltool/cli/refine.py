"""``wsltool refine``: maps without the cells of distractors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import ROWS, TORCH, Images, Input, Model, Weights
from wsltool.errors import UsageError


@command(app, "refine", common=TORCH | ROWS)
def refine(
    source: Input = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="JSON", help="What was said of the clusters.")
    ] = None,
    clusters: Annotated[
        Path | None, typer.Option(help="The clusters, if not where the labels say.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="Features of every cell, instead of the model.")
    ] = None,
    model: Model = None,
    weights: Weights = None,
    unsure: Annotated[
        Literal["keep", "suppress"], typer.Option(help="What becomes of unsure clusters.")
    ] = "keep",
    fill: Annotated[
        Literal["masked", "floor", "zero"], typer.Option(help="What suppressed cells hold.")
    ] = "masked",
    images: Images = None,
    **common: Any,
) -> None:
    """Suppress the cells of maps that look most like a distractor.

    Example: wsltool refine val.cam.zarr --labels train.labels.json
    """
    from wsltool.stages import refine as stage

    if labels is None:
        raise UsageError("--labels is missing. Give the labels.json that wsltool label wrote.")
    stage.refine(
        source or "",
        labels=labels,
        clusters=clusters,
        features=features,
        model=model,
        weights=weights,
        unsure=unsure,
        fill=fill,
        images=images,
        **common,
    )
