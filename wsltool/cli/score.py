"""``wsltool score``: boxes or maps against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import Input, Json


@command(app, "score", common={})
def score(
    source: Input = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="ilsvrc-top1, ilsvrc-top5, gt-known, voc-ap, voc07-ap, peak-in-box, cls-map, "
            "point, saliency-ap, peak-distance; repeatable."
        ),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Images store with boxes [default: the one it came from].")
    ] = None,
    iou: Annotated[float | None, typer.Option(help="Another IoU than the protocol's.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="point: pixels from a true box that are right [18].")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="point: chebyshev or euclidean pixels [chebyshev].")
    ] = None,
    confidence: Annotated[
        str | None, typer.Option(help="point: ranked by the map's value or class score: map, cls.")
    ] = None,
    misses: Annotated[
        str | None, typer.Option(help="point: a miss is also a false positive, fp, or not, fn.")
    ] = None,
    pairs: Annotated[
        str | None, typer.Option(help="saliency-ap: one curve of all pixels, pooled, or per-pair.")
    ] = None,
    other: Annotated[
        Path | None, typer.Option(help="Other maps: for peak-distance; saliency-ap's difference.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Take the value over these classes: NAME,NAME,…")
    ] = None,
    without_skipped: Annotated[
        bool, typer.Option("--without-skipped", help="Leave out images skipped on the way.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write the result here, as JSON.")
    ] = None,
    json: Json = False,
    **common: Any,
) -> None:
    """Score boxes or maps by a protocol, beside the baselines that need no method.

    Example: wsltool score val.cam.boxes.zarr --protocol ilsvrc-top5
    """
    from wsltool.cli.tables import write_json, write_scores
    from wsltool.stages import score as stage

    found = stage.score(
        source or "",
        protocol=protocol or [],
        truth=truth,
        iou=iou,
        tolerance=tolerance,
        metric=metric,
        confidence=confidence,
        misses=misses,
        pairs=pairs,
        other=other,
        classes=classes,
        without_skipped=without_skipped,
        output=output,
        **common,
    )
    (write_json if json else write_scores)(found)
