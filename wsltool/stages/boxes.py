"""Stage ``boxes``: maps become boxes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from wsltool.errors import BadImageError, UsageError
from wsltool.localize.boxes import BoxSet, boxes_from_heat
from wsltool.stages.map_rows import map_rows
from wsltool.stages.options import PathLike, RunOptions, Settings, check_range
from wsltool.stages.run import Block, Rows, Tick, open_input, row_job, run
from wsltool.stores.store import Store

__all__ = ["boxes"]

Array = np.ndarray[Any, Any]

_SCORES = ("class", "heat-max", "heat-mean")
_REVISION = 1


def boxes(
    input: PathLike,
    *,
    threshold: float = 0.2,
    threshold_of: Literal["max", "range"] = "max",
    components: Literal["largest", "all"] = "largest",
    connectivity: int = 8,
    empty: Literal["none", "whole"] = "none",
    box_score: Literal["class", "heat-max", "heat-mean"] = "class",
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
    check_range("--threshold", threshold, 0, 1)
    if connectivity not in (4, 8):
        raise UsageError(f"--connectivity must be 4 or 8, got {connectivity}.")
    rule = {
        "threshold": threshold,
        "of": threshold_of,
        "components": components,
        "connectivity": connectivity,
        "empty": empty,
    }
    with open_input(input, "maps", "boxes") as maps:
        job = row_job(
            settings,
            "boxes",
            "boxes",
            maps,
            params={
                "threshold": threshold,
                "threshold_of": threshold_of,
                "components": components,
                "connectivity": connectivity,
                "empty": empty,
                "box_score": box_score,
            },
            revision=_REVISION,
            attributes={
                "box_score_kind": box_score,
                "classes": maps.attributes.get("classes", ""),
                "score_kind": maps.attributes.get("score_kind", ""),
            },
        )

        def compute(blocks: list[Block], tick: Tick) -> Iterator[Rows]:
            for block in blocks:
                yield _box_block(maps, block, settings, rule, box_score)

        return run(job, compute, settings)


def _box_block(
    maps: Store, block: Block, settings: Settings, rule: dict[str, Any], box_score: str
) -> Rows:
    rows = maps.carried(block.start, block.stop)
    rows["map_class"] = maps.rows("map_class", block.start, block.stop).astype(np.int32)
    rows["map_score"] = maps.rows("map_score", block.start, block.stop).astype(np.float32)
    count = np.zeros(block.num_rows, np.int64)
    found: list[tuple[Array, Array, Array, Array]] = []
    notes = rows["image_note"].tolist()
    for n, maps_of_image in enumerate(map_rows(maps, block.start, block.stop)):
        if maps_of_image is None:
            continue
        try:
            sets = [
                (slot, boxes_from_heat(maps_of_image.heat(slot), **rule))
                for slot in maps_of_image.slots()
            ]
        except BadImageError as error:
            name = rows["image_id"][n]
            place = f'{maps.path.name} row {block.start + n} "{name}"'
            notes[n] = settings.bad_row(place, error)
            rows["image_status"][n] = 1
            rows["map_class"][n], rows["map_score"][n] = -1, -np.inf
            continue
        for slot, boxes_of_slot in sets:
            count[n] += len(boxes_of_slot)
            found.append(_scored(slot, boxes_of_slot, rows, n, box_score))
    rows["image_note"] = np.array(notes, dtype=np.dtypes.StringDType())
    rows["box_start"] = count
    return rows | _stacked(found)


def _scored(
    slot: int, found: BoxSet, rows: Rows, n: int, box_score: str
) -> tuple[Array, Array, Array, Array]:
    """Return box, class, score and slot of every box of one map."""
    num = len(found)
    score = {
        "class": np.full(num, rows["map_score"][n, slot]),
        "heat-max": found.max_heat_B,
        "heat-mean": found.mean_heat_B,
    }[box_score]
    class_B = np.full(num, rows["map_class"][n, slot], np.int32)
    return found.box_xyxy_B4, class_B, score.astype(np.float32), np.full(num, slot, np.int32)


def _stacked(found: list[tuple[Array, Array, Array, Array]]) -> Rows:
    empty = (
        np.zeros((0, 4)),
        np.zeros(0, np.int32),
        np.zeros(0, np.float32),
        np.zeros(0, np.int32),
    )
    box, class_B, score, slot = (np.concatenate(parts) for parts in zip(empty, *found, strict=True))
    return {"box": box, "box_class": class_B, "box_score": score, "box_slot": slot}
