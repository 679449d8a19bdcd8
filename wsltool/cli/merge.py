"""``wsltool merge``: the maps of several networks become one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import ROWS
from wsltool.cli.pipe import read_input
from wsltool.errors import UsageError


@command(app, "merge", common=ROWS, reads_input=False)
def merge(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT INPUT...",
            show_default=False,
            help="Maps stores, two or more; - is read from stdin.",
        ),
    ] = None,
    how: Annotated[
        Literal["weighted-max", "mean", "max"],
        typer.Option(help="Maximum of probability times map (two-phase), mean, or maximum."),
    ] = "weighted-max",
    probability: Annotated[
        Literal["recorded", "sigmoid", "softmax"],
        typer.Option(help="What makes probabilities of logits [weighted-max]."),
    ] = "recorded",
    **common: Any,
) -> None:
    """Merge maps of the same images, class by class.

    Example: wsltool merge first.cam.zarr second.cam.zarr --how weighted-max
    """
    from wsltool.stages import merge as stage

    sources = sources or []
    if sources.count("-") > 1:
        raise UsageError(
            f"- is given {sources.count('-')} times; only one path can come through the pipe."
        )
    inputs = [read_input(source) for source in sources]
    stage.merge(*inputs, how=how, probability=probability, **common)
