"""``wsltool cam``: images and a network become class activation maps."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import (
    ROWS,
    TORCH,
    Cooccurrence,
    Fit,
    Images,
    Input,
    InputSize,
    Model,
    Weights,
    numbers,
)
from wsltool.errors import UsageError


@command(app, "cam", common=TORCH | ROWS)
def cam(
    source: Input = None,
    model: Model = None,
    weights: Weights = None,
    classes: Annotated[
        str, typer.Option(help="present, topK, above:P, all, or several joined by +.")
    ] = "top5",
    scales: Annotated[str, typer.Option(help="Sizes relative to the input, as .5,1,2.")] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")] = False,
    crops: Annotated[
        Literal["one", "ten"], typer.Option(help="ten: merge the maps of ten crops.")
    ] = "one",
    input_size: InputSize = None,
    fit: Fit = None,
    scores: Annotated[
        Literal["logit", "probability"], typer.Option(help="Unit of the class scores.")
    ] = "logit",
    map_dtype: Annotated[
        Literal["float32", "float16"], typer.Option(help="How maps are stored.")
    ] = "float32",
    cooccurrence: Cooccurrence = None,
    images: Images = None,
    **common: Any,
) -> None:
    """Compute class activation maps, raw and at the network's own resolution.

    Example: wsltool cam --model vgg_gap val.zarr --classes top5+present
    """
    from wsltool.stages import cam as stage

    if model is None:
        raise UsageError("--model is missing. Give a model file, a name, or module:function.")
    stage.cam(
        source or "",
        model=model,
        weights=weights,
        classes=classes,
        scales=numbers("--scales", scales),
        flip=flip,
        crops=crops,
        input_size=input_size,
        fit=fit,
        scores=scores,
        map_dtype=map_dtype,
        cooccurrence=cooccurrence,
        images=images,
        **common,
    )
