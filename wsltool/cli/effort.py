"""``wsltool effort``: what annotating clusters gained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import SEED, Input, Json


@command(app, "effort", common=SEED)
def effort(
    source: Input = None,
    *,
    before: Annotated[Path, typer.Option(help="The same store without annotation.")],
    clusters: Annotated[Path, typer.Option(help="The clusters, whose eigenvalues give the order.")],
    labels: Annotated[
        Path | None, typer.Option(help="labels.json: only what it labels is in the order.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Images store with boxes [default: the one it came from].")
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="gt-known, ilsvrc-top1, corloc, voc-ap, … as in score.")
    ] = "gt-known",
    iou: Annotated[float | None, typer.Option(help="Another IoU than the protocol's.")] = None,
    classes: Annotated[str | None, typer.Option(help="Only these classes: NAME,NAME,…")] = None,
    min_change: Annotated[
        float, typer.Option(help="Points from which on a class has changed.")
    ] = 5.0,
    bootstrap: Annotated[int, typer.Option(help="Samples behind the 95 % intervals.")] = 1000,
    plot: Annotated[
        Path | None, typer.Option(help="Draw bars and the curve: FILE.png or .svg.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write the result here, as JSON.")
    ] = None,
    json: Json = False,
    **common: Any,
) -> None:
    """Say what annotating clusters gained: class by class, and in which order of annotation.

    Example: wsltool effort new.boxes.zarr --before old.boxes.zarr --clusters c.zarr
    """
    from wsltool.cli.effort_table import write_effort
    from wsltool.cli.tables import write_json
    from wsltool.stages import effort as stage

    found = stage.effort(
        source or "",
        before=before,
        clusters=clusters,
        labels=labels,
        truth=truth,
        protocol=protocol,
        iou=iou,
        classes=classes,
        min_change=min_change,
        bootstrap=bootstrap,
        plot=plot,
        output=output,
        **common,
    )
    (write_json if json else write_effort)(found)
