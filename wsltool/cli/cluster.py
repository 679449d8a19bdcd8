"""``wsltool cluster``: features become clusters of patterns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import OUTPUT, ROWS, SEED, Input


@command(app, "cluster", common=SEED | OUTPUT | {"shard": ROWS["shard"]})
def cluster(
    source: Input = None,
    eigenvalue_threshold: Annotated[
        float, typer.Option(help="An eigenvalue below it asks for a cluster.")
    ] = 0.7,
    min_clusters: Annotated[int, typer.Option(help="At least so many a class.")] = 2,
    max_clusters: Annotated[int, typer.Option(help="At most so many a class.")] = 4,
    centroid: Annotated[
        Literal["mean", "unit"], typer.Option(help="Plain means, or of unit length.")
    ] = "mean",
    **common: Any,
) -> None:
    """Cluster the patterns of each class: object parts, and what keeps them company.

    Example: wsltool cluster train.cam.extract-features.zarr
    """
    from wsltool.stages import cluster as stage

    stage.cluster(
        source or "",
        eigenvalue_threshold=eigenvalue_threshold,
        min_clusters=min_clusters,
        max_clusters=max_clusters,
        centroid=centroid,
        **common,
    )
