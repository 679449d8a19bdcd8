"""``wsltool score``: boxes, maps or masks against the truth."""

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
            help="ilsvrc-top1, ilsvrc-top5, gt-known, maxboxacc, maxboxacc-v2, maxboxacc-v3, pxap, "
            "voc-ap, voc07-ap, coco-ap, corloc, point, pointing-game, peak-in-box, cls-map, "
            "voc-miou, saliency-ap, peak-distance; repeatable."
        ),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Images store with boxes [default: the one it came from].")
    ] = None,
    iou: Annotated[
        str | None,
        typer.Option(help="Another IoU than the protocol's; with commas, a result for each."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="point [18], pointing-game [15]: pixels from an object that are right."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="point: chebyshev or euclidean pixels [chebyshev].")
    ] = None,
    point_at: Annotated[
        str | None, typer.Option(help="point: on the hottest pixel or region: peak, region [peak].")
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
    interval: Annotated[
        float | None, typer.Option(help="maxboxacc, pxap: step between thresholds [0.001].")
    ] = None,
    definition: Annotated[
        str | None, typer.Option(help="corloc: wsod, discovery or discovery-no-hard [wsod].")
    ] = None,
    grid: Annotated[
        str | None, typer.Option(help="voc07-ap: recalls as the devkit's or numpy's [devkit].")
    ] = None,
    regions: Annotated[
        str | None, typer.Option(help="pointing-game: auto, boxes or masks [auto].")
    ] = None,
    other: Annotated[
        Path | None, typer.Option(help="peak-distance: the maps that are measured to.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Take the value over these classes: NAME,NAME,…")
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(help="Store scored alike (paired difference, interval), or a result of -o."),
    ] = None,
    runs: Annotated[
        list[Path] | None, typer.Option(help="The same of another seed: mean, sd; repeatable.")
    ] = None,
    bootstrap: Annotated[
        int | None, typer.Option(help="Samples of the images for a 95 % interval, say 1000.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    without_skipped: Annotated[
        bool, typer.Option("--without-skipped", help="Leave out images skipped on the way.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw curves and a bar a class: FILE.png or .svg.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that count.")] = 1,
    shard: Annotated[
        str | None, typer.Option(help="Count this share, I/N or slurm; needs -o.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write the result here, as JSON.")
    ] = None,
    json: Json = False,
    **common: Any,
) -> None:
    """Score boxes, maps or masks by a protocol, beside baselines that need no method.

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
        point_at=point_at,
        confidence=confidence,
        misses=misses,
        pairs=pairs,
        interval=interval,
        definition=definition,
        grid=grid,
        regions=regions,
        other=other,
        classes=classes,
        compare=compare,
        runs=runs,
        bootstrap=bootstrap,
        seed=seed,
        without_skipped=without_skipped,
        plot=plot,
        workers=workers,
        shard=shard,
        output=output,
        **common,
    )
    (write_json if json else write_scores)(found)
