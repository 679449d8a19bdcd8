"""``wsltool train-cls``: images with image-level labels become a model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import LIMIT, OUTPUT, SEED, TORCH, Fit, Images, Input, InputSize, Model
from wsltool.errors import UsageError


@command(app, "train-cls", common=SEED | TORCH | OUTPUT | LIMIT)
def train_cls(
    source: Input = None,
    model: Model = None,
    init: Annotated[
        str, typer.Option(help="published, none, or a file of weights: what fits is loaded.")
    ] = "published",
    loss: Annotated[
        Literal["softmax", "logistic"], typer.Option(help="One class an image, or any number.")
    ] = "softmax",
    pool: Annotated[
        Literal["gap"], typer.Option(help="How class maps become class scores.")
    ] = "gap",
    freeze: Annotated[
        Literal["none", "features"], typer.Option(help="Train everything, or only the head.")
    ] = "none",
    optimizer: Annotated[Literal["sgd", "adamw"], typer.Option(help="SGD or AdamW.")] = "adamw",
    lr: Annotated[
        float | None, typer.Option(help="Learning rate [default: sgd .01, adamw .001].")
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="Weight decay.")] = 1e-4,
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 10,
    augment: Annotated[
        Literal["none", "mirror", "crop"], typer.Option(help="Mirror; or mirror and crop.")
    ] = "crop",
    input_size: InputSize = None,
    fit: Fit = None,
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
        freeze=freeze,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        epochs=epochs,
        augment=augment,
        input_size=input_size,
        fit=fit,
        images=images,
        **common,
    )
