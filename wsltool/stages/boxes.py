"""Stage ``boxes``: maps become boxes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from wsltool.errors import BadImageError
from wsltool.localize.boxes import BoxSet, boxes_from_heat
from wsltool.stages.map_rows import MapRow, map_rows
from wsltool.stages.options import PathLike, RunOptions, Settings, check_choice, check_range
from wsltool.stages.run import Block, Rows, Tick, open_input, row_job, run
from wsltool.stores.schema import string_array
from wsltool.stores.store import Store

__all__ = ["boxes"]

Array = np.ndarray[Any, Any]

_REVISION = 1

ThresholdOf = Literal["max", "range"]
Which = Literal["largest", "all"]
Empty = Literal["none", "whole"]
BoxScore = Literal["class", "heat-max", "heat-mean"]

_CHOICES: dict[str, Any] = {
    "threshold_of": ThresholdOf,
    "components": Which,
    "connectivity": Literal[4, 8],
    "empty": Empty,
    "box_score": BoxScore,
}


def boxes(
    input: PathLike,
    *,
    threshold: float = 0.2,
    threshold_of: ThresholdOf = "max",
    components: Which = "largest",
    connectivity: int = 8,
    empty: Empty = "none",
    box_score: BoxScore = "class",
    **options: Unpack[RunOptions],
) -> Path:
    """Draw boxes around what is hot in maps (Kolesnikov and Lampert 2016, after Zhou et al.).

    Every map is upsampled bilinearly to its image; foreground is what lies strictly above
    the threshold; boxes are the tightest around its connected components.

    Parameters
    ----------
    input : path
        A ``maps`` store.
    threshold : float
        In [0, 1), a fraction of the map's maximum (or range).
    threshold_of : {"max", "range"}
        ``threshold * max``, or ``min + threshold * (max - min)``.
    components : {"largest", "all"}
        The component with the most pixels, or a box for each.
    connectivity : {8, 4}
        Whether pixels that touch at a corner belong together.
    empty : {"none", "whole"}
        What a map without foreground gives (a maximum of 0 or less): no box, or the image.
    box_score : {"class", "heat-max", "heat-mean"}
        Score of a box: the image's score of the class, or the maximum or mean of the heat
        over the component.
    **options
        See `wsltool.stages.options.RunOptions`.

    Returns
    -------
    Path
        The ``boxes`` store.

    Raises
    ------
    UsageError
        An option is out of its range.
    BadImageError
        A map is not finite and ``on_bad`` is ``"stop"``.
    """
    settings = Settings.of(options)
    params = {
        "threshold": threshold,
        "threshold_of": threshold_of,
        "components": components,
        "connectivity": connectivity,
        "empty": empty,
        "box_score": box_score,
    }
    check_range("--threshold", threshold, 0, 1)
    for name, choices in _CHOICES.items():
        check_choice("--" + name.replace("_", "-"), params[name], choices)
    with open_input(input, "maps", "boxes") as maps:
        attributes = {name: maps.attributes.get(name, "") for name in ("classes", "score_kind")}
        job = row_job(
            settings,
            "boxes",
            "boxes",
            maps,
            params=params,
            revision=_REVISION,
            attributes=attributes | {"box_score_kind": box_score},
        )

        def compute(blocks: list[Block], tick: Tick) -> Iterator[Rows]:
            for block in blocks:
                yield _box_block(maps, block, settings, params)

        return run(job, compute, settings)


def _box_block(maps: Store, block: Block, settings: Settings, params: dict[str, Any]) -> Rows:
    """Return the rows of a block; an image with a bad map is left out, or stops the stage."""
    rows = maps.carried(block.start, block.stop)
    rows["map_class"] = maps.rows("map_class", block.start, block.stop).astype(np.int32)
    rows["map_score"] = maps.rows("map_score", block.start, block.stop).astype(np.float32)
    rows["box_start"] = np.zeros(block.num_rows, np.int64)
    notes = rows["image_note"].tolist()
    found: list[_Found] = []
    for n, maps_of_image in enumerate(map_rows(maps, block.start, block.stop)):
        if maps_of_image is None:
            continue
        try:
            drawn = _draw(maps_of_image, rows["map_score"][n], params)
        except BadImageError as error:
            place = f'{maps.path.name} row {block.start + n} "{rows["image_id"][n]}"'
            notes[n] = settings.bad_row(place, error)
            rows["image_status"][n] = 1
            rows["map_class"][n], rows["map_score"][n] = -1, -np.inf
            continue
        found += drawn
        rows["box_start"][n] = sum(len(boxes_of_slot[0]) for boxes_of_slot in drawn)
    rows["image_note"] = string_array(notes)
    return rows | _stacked(found)


_Found = tuple[Array, Array, Array, Array]
"""Box, class, score and slot of every box of one map."""


def _draw(maps_of_image: MapRow, score_S: Array, params: dict[str, Any]) -> list[_Found]:
    """Return the boxes of every map of one image, slot by slot."""
    return [
        _scored(
            slot,
            int(maps_of_image.class_S[slot]),
            float(score_S[slot]),
            boxes_from_heat(
                maps_of_image.heat(slot),
                threshold=params["threshold"],
                of=params["threshold_of"],
                components=params["components"],
                connectivity=params["connectivity"],
                empty=params["empty"],
            ),
            params["box_score"],
        )
        for slot in maps_of_image.slots()
    ]


def _scored(slot: int, class_: int, class_score: float, found: BoxSet, box_score: str) -> _Found:
    num = len(found)
    score = {
        "class": np.full(num, class_score),
        "heat-max": found.max_heat_B,
        "heat-mean": found.mean_heat_B,
    }[box_score]
    class_B, slot_B = np.full(num, class_, np.int32), np.full(num, slot, np.int32)
    return found.box_xyxy_B4, class_B, score.astype(np.float32), slot_B


def _stacked(found: list[_Found]) -> Rows:
    empty = (
        np.zeros((0, 4)),
        np.zeros(0, np.int32),
        np.zeros(0, np.float32),
        np.zeros(0, np.int32),
    )
    box, class_B, score, slot = (np.concatenate(parts) for parts in zip(empty, *found, strict=True))
    return {"box": box, "box_class": class_B, "box_score": score, "box_slot": slot}
