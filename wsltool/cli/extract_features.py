"""``wsltool extract-features``: activations of one layer, at every cell or where maps fire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import ROWS, TORCH, Fit, Images, Input, InputSize, Model, Weights


@command(app, "extract-features", common=TORCH | ROWS)
def extract_features(
    source: Input = None,
    model: Model = None,
    weights: Weights = None,
    layer: Annotated[
        str | None,
        typer.Option(help="Its name (inspect --layers) [default: the features under the head]."),
    ] = None,
    cells: Annotated[
        Literal["all", "firing"] | None,
        typer.Option(help="Every cell, or where a map fires [default: of maps, firing]."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Fraction of its maximum above which a map fires [0.2].")
    ] = None,
    feature_dtype: Annotated[
        Literal["float16", "float32"], typer.Option(help="How activations are stored.")
    ] = "float16",
    input_size: InputSize = None,
    fit: Fit = None,
    images: Images = None,
    **common: Any,
) -> None:
    """Extract the activations of one layer, at every cell or where the maps fire.

    Example: wsltool extract-features val.cam.zarr --layer conv5_3
    """
    from wsltool.stages import extract_features as stage

    stage.extract_features(
        source or "",
        model=model,
        weights=weights,
        layer=layer,
        cells=cells,
        threshold=threshold,
        feature_dtype=feature_dtype,
        input_size=input_size,
        fit=fit,
        images=images,
        **common,
    )
