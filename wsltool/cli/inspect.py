"""``wsltool inspect``: what is in a store and where it came from, or a model's layers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import Input, Json, Weights
from wsltool.cli.pipe import read_input
from wsltool.errors import UsageError


@command(app, "inspect", common={}, reads_input=False)
def inspect(
    source: Input = None,
    layers: Annotated[
        str | None, typer.Option(metavar="MODEL", help="List the layers of a model instead.")
    ] = None,
    weights: Weights = None,
    json: Json = False,
    **common: Any,
) -> None:
    """Show what is in a store and where it came from, or which layers a model has.

    Example: wsltool inspect val.cam.zarr
    """
    from wsltool.cli.tables import write_json, write_layers, write_store
    from wsltool.stages import inspect as stage

    if layers is not None and source is not None:
        raise UsageError(f'--layers lists a model and reads no store, got INPUT "{source}".')
    if layers is not None:
        found, write = stage.inspect_layers(layers, weights=weights), write_layers
    elif weights is None:
        found, write = stage.inspect(read_input(source)), write_store
    else:
        raise UsageError(f"--weights {weights} is only read with --layers MODEL.")
    (write_json if json else write)(found)
