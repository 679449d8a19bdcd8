"""``wsltool train-cls``: images with image-level labels become a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import (
    LIMIT,
    OUTPUT,
    SEED,
    TORCH,
    Fit,
    Images,
    Input,
    InputSize,
    Model,
    whole_numbers,
)
from wsltool.errors import UsageError


@command(app, "train-cls", common=SEED | TORCH | OUTPUT | LIMIT)
def train_cls(
    source: Input = None,
    model: Model = None,
    init: Annotated[
        str, typer.Option(help="published, none, or a file of weights: what fits is loaded.")
    ] = "published",
    loss: Annotated[
        Literal["softmax", "logistic", "softmax-bce"],
        typer.Option(help="One class an image, any number, or Bency's."),
    ] = "softmax",
    pool: Annotated[
        str, typer.Option(help="From class maps to scores: gap, gmp, lse:R or gwrp:Q.")
    ] = "gap",
    count_padding: Annotated[
        bool, typer.Option("--count-padding", help="Let padded cells take part in pooling.")
    ] = False,
    masked_pooling: Annotated[
        Literal["none", "inside", "inside-outside"],
        typer.Option(help="Pool present classes inside their true boxes."),
    ] = "none",
    freeze: Annotated[
        str, typer.Option(help="none, features, or the last module that does not learn.")
    ] = "none",
    optimizer: Annotated[Literal["sgd", "adamw"], typer.Option(help="SGD or AdamW.")] = "adamw",
    lr: Annotated[
        float | None, typer.Option(help="Learning rate [default: sgd .01, adamw .001].")
    ] = None,
    lr_multiplier: Annotated[
        str, typer.Option(metavar="NAME=F,…", help="Of parts, as head=10,bias=2.")
    ] = "",
    schedule: Annotated[
        str, typer.Option(help="constant, step=N:F, milestones=A/B:F or cosine; ,warmup=N.")
    ] = "constant",
    weight_decay: Annotated[float, typer.Option(help="Weight decay.")] = 1e-4,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the images [default: 10].")
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Steps, instead of --epochs.")] = None,
    accumulate: Annotated[int, typer.Option(help="Pieces of a batch, to save memory.")] = 1,
    augment: Annotated[
        str | None,
        typer.Option(
            help="none, mirror, crop, scale=A:B, rotate=DEG, noise=STD, balance "
            "[default: crop; with --freeze mirror]."
        ),
    ] = None,
    input_size: InputSize = None,
    fit: Fit = None,
    suppress: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="Of an earlier phase; repeatable.")
    ] = None,
    suppress_threshold: Annotated[
        list[float] | None, typer.Option(help="Of each such model [default: .6, then .4].")
    ] = None,
    suppress_layer: Annotated[
        str | None, typer.Option(help="What is suppressed [default: the last features].")
    ] = None,
    validate: Annotated[
        Path | None, typer.Option(metavar="IMAGES", help="Measure on these on the way.")
    ] = None,
    validate_every: Annotated[
        int | None, typer.Option(help="Iterations between [default: an epoch].")
    ] = None,
    keep_at: Annotated[
        str, typer.Option(metavar="N,…", help="Keep the model after these iterations too.")
    ] = "",
    cache: Annotated[
        Path | None, typer.Option(help="Folder to share what frozen layers give.")
    ] = None,
    checkpoint_minutes: Annotated[float, typer.Option(help="Between checkpoints.")] = 10.0,
    images: Images = None,
    **common: Any,
) -> None:
    """Train a network on image-level labels; prints the model file's name.

    Example: wsltool train-cls train.zarr --model resnet18 --loss logistic --freeze features
    """
    from wsltool.stages import train_cls as stage

    if model is None:
        raise UsageError("--model is missing. Give an architecture, such as vgg_gap or resnet18.")
    stage.train_cls(
        source or "",
        model=model,
        init=init,
        loss=loss,
        pool=pool,
        count_padding=count_padding,
        masked_pooling=masked_pooling,
        freeze=freeze,
        optimizer=optimizer,
        lr=lr,
        lr_multiplier=lr_multiplier,
        schedule=schedule,
        weight_decay=weight_decay,
        epochs=epochs,
        iterations=iterations,
        accumulate=accumulate,
        augment=augment,
        input_size=input_size,
        fit=fit,
        suppress=suppress or [],
        suppress_threshold=suppress_threshold or [],
        suppress_layer=suppress_layer,
        validate=validate,
        validate_every=validate_every,
        keep_at=whole_numbers("--keep-at", keep_at),
        cache=cache,
        checkpoint_minutes=checkpoint_minutes,
        images=images,
        **common,
    )
