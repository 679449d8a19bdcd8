"""``wsltool baseline``: boxes or maps that look at no picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import ROWS, SEED, Input


@command(app, "baseline", common=SEED | ROWS)
def baseline(
    source: Input = None,
    prior: Annotated[
        Literal["whole", "centred", "gaussian", "random"],
        typer.Option(help="Whole image or centred box; Gaussian or random map."),
    ] = "centred",
    fraction: Annotated[float, typer.Option(help="Side of the centred box.")] = 0.8,
    sigma: Annotated[float, typer.Option(help="Of the Gaussian, as a share of the side.")] = 0.25,
    grid: Annotated[int, typer.Option(help="Rows and columns of maps.")] = 14,
    like: Annotated[
        Path | None, typer.Option(help="Take classes and scores from these maps or boxes.")
    ] = None,
    **common: Any,
) -> None:
    """Make what needs no method, so that every score has a floor to stand on.

    Example: wsltool baseline val.zarr --prior centred | wsltool score --protocol gt-known
    """
    from wsltool.stages import baseline as stage

    stage.baseline(
        source or "",
        prior=prior,
        fraction=fraction,
        sigma=sigma,
        grid=grid,
        like=like,
        **common,
    )
