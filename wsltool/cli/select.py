"""``wsltool select``: some rows of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import ROWS, SEED, Input


@command(app, "select", common=SEED | ROWS)
def select(
    source: Input = None,
    fraction: Annotated[
        float | None, typer.Option(help="Share of every class, drawn with --seed.")
    ] = None,
    ids: Annotated[Path | None, typer.Option(help="File with an image id a line.")] = None,
    class_: Annotated[
        str | None, typer.Option("--class", help="Images labelled with this class.")
    ] = None,
    not_in: Annotated[Path | None, typer.Option(help="Drop images that this store holds.")] = None,
    **common: Any,
) -> None:
    """Keep some rows of a store of any kind; conditions add up.

    Example: wsltool select val.zarr --fraction 0.1 -o val-fit.zarr
    """
    from wsltool.stages import select as stage

    stage.select(source or "", fraction=fraction, ids=ids, class_=class_, not_in=not_in, **common)
