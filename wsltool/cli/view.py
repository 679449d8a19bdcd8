"""``wsltool view``: a gallery to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import OUTPUT, Images, Input


@command(app, "view", common=OUTPUT)
def view(
    source: Input = None,
    over: Annotated[
        list[Path] | None,
        typer.Option(help="Maps to show beside INPUT's, in this order. May be repeated."),
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Maps whose maxima are shown with INPUT's.")
    ] = None,
    before: Annotated[
        Path | None, typer.Option(help="Boxes or maps from before: what was mended, or spoilt.")
    ] = None,
    search: Annotated[
        bool, typer.Option("--search", help="How beam-search came to its maps, level by level.")
    ] = False,
    labels: Annotated[
        Path | None, typer.Option(help="Of clusters: the labels.json to show with them.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="Of clusters: the features behind them [default: found].")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Images store with boxes [default: the one it came from].")
    ] = None,
    images: Images = None,
    num: Annotated[
        int | None,
        typer.Option(
            help="Cases among the worst, and the best [12; --search 4]; of clusters: classes [40]."
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(help="Cases of each class, or of each cluster [4; --search 1]."),
    ] = None,
    **common: Any,
) -> None:
    """Write a gallery of maps, predicted and true boxes, or of clusters: worst, best, per class.

    Example: wsltool view val.cam.boxes.zarr
    """
    from wsltool.stages import view as stage

    stage.view(
        source or "",
        over=over or [],
        compare=compare,
        before=before,
        search=search,
        labels=labels,
        features=features,
        truth=truth,
        images=images,
        num=num,
        samples=samples,
        **common,
    )
