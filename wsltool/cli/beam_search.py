"""``wsltool beam-search``: images and a classifier become heat maps of ranked candidates."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import ROWS, TORCH, Cooccurrence, Images, Input, Model, Weights
from wsltool.errors import UsageError


@command(app, "beam-search", common=TORCH | ROWS)
def beam_search(
    source: Input = None,
    model: Model = None,
    weights: Weights = None,
    classes: Annotated[
        str, typer.Option(help="present, topK, above:P, all, or several joined by +.")
    ] = "top5",
    mode: Annotated[
        Literal["grid", "recrop"],
        typer.Option(help="Sub-grids of one feature map, or crops of the image at each level."),
    ] = "grid",
    beam: Annotated[
        str, typer.Option(metavar="M|all|all:T", help="Candidates kept at each level.")
    ] = "8",
    levels: Annotated[int, typer.Option(help="The most levels of the search.")] = 10,
    children: Annotated[
        int, typer.Option(help="4: one row or column less; 9: of each at once.")
    ] = 4,
    map_size: Annotated[int, typer.Option(help="Rows and columns of the heat maps.")] = 56,
    map_dtype: Annotated[
        Literal["float32", "float16"], typer.Option(help="How maps are stored.")
    ] = "float32",
    keep_candidates: Annotated[
        bool, typer.Option("--keep-candidates", help="Keep boxes, scores and levels too.")
    ] = False,
    cooccurrence: Cooccurrence = None,
    images: Images = None,
    **common: Any,
) -> None:
    """Search for objects on the sub-grids of a classifier's feature map.

    Example: wsltool beam-search --model vgg16_adapted.safetensors val.zarr --classes all
    """
    from wsltool.stages import beam_search as stage

    if model is None:
        raise UsageError("--model is missing. Give a model file, a name, or module:function.")
    stage.beam_search(
        source or "",
        model=model,
        weights=weights,
        classes=classes,
        mode=mode,
        beam=beam,
        levels=levels,
        children=children,  # type: ignore[arg-type]
        map_size=map_size,
        map_dtype=map_dtype,
        keep_candidates=keep_candidates,
        cooccurrence=cooccurrence,
        images=images,
        **common,
    )
