"""``wsltool label``: an annotator says which clusters are distractors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import OUTPUT, SEED, Images, Input


@command(app, "label", common=SEED | OUTPUT)
def label(
    source: Input = None,
    answers: Annotated[
        Path | None, typer.Option(metavar="LABELS", help="Take the answers of this labels.json.")
    ] = None,
    oracle: Annotated[
        str | None, typer.Option(metavar="TRUTH|random", help="Judge by true boxes or masks.")
    ] = None,
    oracle_from: Annotated[
        Literal["boxes", "masks"] | None,
        typer.Option(help="What the oracle looks at [default: boxes, if there are some]."),
    ] = None,
    oracle_rule: Annotated[
        Literal["mean", "half"],
        typer.Option(help="A distractor's share: under half of its class's mean, or under half."),
    ] = "mean",
    like: Annotated[
        Path | None, typer.Option(metavar="LABELS", help="What --oracle random shuffles.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="The features, if not where the clusters say.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Images of a class on the page.")] = 12,
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the page as files, for elsewhere.")
    ] = None,
    port: Annotated[int, typer.Option(help="Of the page; 0 takes a free one.")] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only print the address of the page.")
    ] = False,
    images: Images = None,
    **common: Any,
) -> None:
    """Mark clusters as object, distractor or unsure: by a local web page, a file or an oracle.

    Example: wsltool label train.cam.extract-features.cluster.zarr
    """
    from wsltool.stages import label as stage

    stage.label(
        source or "",
        answers=answers,
        oracle=oracle,
        oracle_from=oracle_from,
        oracle_rule=oracle_rule,
        like=like,
        features=features,
        samples=samples,
        export=export,
        port=port,
        browser=not no_browser,
        images=images,
        **common,
    )
