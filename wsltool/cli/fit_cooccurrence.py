"""``wsltool fit-cooccurrence``: what pairs of labels should weigh."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import Input, Json, numbers


@command(app, "fit-cooccurrence", common={})
def fit_cooccurrence(
    source: Input = None,
    model: Annotated[
        Path | None, typer.Option(help="The model file of the maps [default: where they say].")
    ] = None,
    objective: Annotated[
        Literal["cls-map", "point"], typer.Option(help="What is made as high as can be.")
    ] = "cls-map",
    alphas: Annotated[
        str | None, typer.Option(help="Weights to try, 0 besides [.01 to 1, eleven].")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="point: pixels from an object that are right [18].")
    ] = None,
    point_at: Annotated[
        str | None, typer.Option(help="point: on the hottest pixel or region: peak, region [peak].")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Images store with labels [default: the one it came from].")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write the result here, as JSON.")
    ] = None,
    json: Json = False,
    **common: Any,
) -> None:
    """Choose the weight of cam --cooccurrence on the images of some maps.

    Example: wsltool fit-cooccurrence val.cam.zarr -o weight.json
    """
    from wsltool.cli.tables import write_json
    from wsltool.cli.weight_table import write_weight
    from wsltool.stages import fit_cooccurrence as stage

    found = stage.fit_cooccurrence(
        source or "",
        model=model,
        objective=objective,
        alphas=None if alphas is None else numbers("--alphas", alphas),
        tolerance=tolerance,
        point_at=point_at,
        truth=truth,
        output=output,
        **common,
    )
    (write_json if json else write_weight)(found)
