"""Stage ``rank-boxes``: given boxes, ranked by what the maps hold inside of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from wsltool.errors import BadImageError, ProtocolError, UsageError
from wsltool.localize.box_ranking import Aggregate, aggregate_in_boxes, suppress_overlaps
from wsltool.stages.cooccurrence import inherited_weight
from wsltool.stages.map_rows import MapRow, map_rows
from wsltool.stages.options import PathLike, RunOptions, Settings, check_choice, check_range
from wsltool.stages.pictures_behind import rows_behind
from wsltool.stages.plan import Job, output_for
from wsltool.stages.run import (
    Block,
    Rows,
    Tick,
    leave_out,
    limited,
    open_input,
    row_job,
    run,
)
from wsltool.stores.lineage import fingerprint_store
from wsltool.stores.store import Store

__all__ = ["rank_boxes"]

Array = np.ndarray[Any, Any]
RankScore = Literal["heat", "class"]

_REVISION = 1
_THRESHOLD = 0.1
_MOST_KEPT = 1 << 20


def rank_boxes(
    input: PathLike,
    *,
    boxes: PathLike,
    aggregate: Aggregate = "sum",
    threshold: float | None = None,
    keep: int = 10,
    nms: float = 0.1,
    box_score: RankScore = "heat",
    same_class: bool = False,
    **options: Unpack[RunOptions],
) -> Path:
    """Rank given boxes by the maps: the best of each class, apart from each other.

    Parameters
    ----------
    input : path
        A ``maps`` store.
    boxes : path
        A ``boxes`` store that holds every image of the maps, by ``image_id``: proposals, another
        detector's (`ingest_boxes`), or ours. Its scores are not read.
    aggregate : {"sum", "mean", "max", "contrast"}
        What a box is worth to a map (`wsltool.localize.box_ranking.aggregate_in_boxes`).
    threshold : float, optional
        Of ``sum``: heat above this fraction of the map's maximum, in [0, 1), counts for a box and
        heat below it against; .1 if not given.
    keep : int
        Boxes of a class and image that are kept at most.
    nms : float
        Non-maximum suppression: of two boxes of a class whose IoU is above it, in [0, 1], the
        better one stays.
    box_score : {"heat", "class"}
        Score of a box: the aggregate, or the image's score of the class. The better box stands
        first either way.
    same_class : bool
        Only the boxes that are of the map's class (by name), not all boxes for each class.
    **options
        See `wsltool.stages.options.RunOptions`.

    Returns
    -------
    Path
        The ``boxes`` store, with the classes and scores of the maps. An image that `boxes`
        skipped is skipped.

    Raises
    ------
    UsageError
        An option is out of its range.
    LineageError
        `boxes` lacks an image of the maps.
    ProtocolError
        An image has another size there, or none of its classes is one of the maps'.
    BadImageError
        A map or a box is not finite and ``on_bad`` is ``"stop"``.
    """
    settings = Settings.of(options)
    check_choice("--aggregate", aggregate, Aggregate)
    if threshold is not None:
        check_range("--threshold", threshold, 0, 1)
        if aggregate != "sum":
            raise UsageError(
                f"--threshold {threshold:g} is only read with --aggregate sum. Leave it out."
            )
    check_range("--keep", keep, 1, _MOST_KEPT, open_high=False, whole=True)
    check_range("--nms", nms, 0, 1, open_high=False)
    check_choice("--box-score", box_score, RankScore)
    params = {
        "aggregate": aggregate,
        "threshold": _THRESHOLD if aggregate == "sum" and threshold is None else threshold,
        "keep": keep,
        "nms": nms,
        "box_score": box_score,
        "same_class": same_class,
    }
    with ExitStack() as stack:
        maps = stack.enter_context(open_input(input, "maps", "rank-boxes"))
        given = stack.enter_context(open_input(boxes, "boxes", "rank-boxes --boxes"))
        class_G = _classes_of(given, maps) if same_class else None
        num_rows, _ = limited(maps, settings.limit)
        row_N = rows_behind(given, maps, "Give boxes of the same images with --boxes.", num_rows)
        ranker = _Ranker(maps, given, row_N, class_G, params, settings)
        return run(ranker.job(), ranker.compute, settings)


def _classes_of(given: Store, maps: Store) -> Array:
    """Return which class of the maps each class of the boxes is, -1 for none, int64 (G,)."""
    names = given.class_names()
    if names == maps.class_names():  # names may repeat
        return np.arange(len(names))
    index_of = {name: index for index, name in enumerate(maps.class_names())}
    class_G = np.array([index_of.get(name, -1) for name in names], np.int64)
    if (class_G < 0).all():
        raise ProtocolError(
            f'{given.path.name}: none of its classes ("{names[0]}", …) is one of {maps.path.name}; '
            "expected the same names. Leave --same-class out."
        )
    return class_G


@dataclass(frozen=True)
class _Ranked:
    """The kept boxes of one image, slot after slot, the best of each first."""

    box_B4: Array
    slot_B: Array
    score_B: Array


@dataclass(frozen=True)
class _Ranker:
    """What all blocks of one run share.

    `row_N` are the rows of the images among the given boxes, None where they are the same;
    `class_G` the classes of the given boxes among those of the maps, None for any class.
    """

    maps: Store
    given: Store
    row_N: Array | None
    class_G: Array | None
    params: dict[str, Any]
    settings: Settings

    def job(self) -> Job:
        """Return the job; a block must hold its rows of both inputs."""
        output = self.settings.output or output_for(self.maps.path, "rank-boxes")
        held = self.maps.attributes
        about = {name: held.get(name, "") for name in ("classes", "score_kind")}
        about |= inherited_weight(self.maps, output.parent)
        return row_job(
            self.settings,
            "rank-boxes",
            "boxes",
            self.maps,
            params=self.params,
            inputs={"boxes": fingerprint_store(self.given, output.parent)},
            revision=_REVISION,
            row_bytes=self.maps.row_bytes + self.given.row_bytes,
            attributes=about | {"box_score_kind": self.params["box_score"]},
        )

    def compute(self, blocks: list[Block], tick: Tick) -> Iterator[Rows]:
        """Yield the rows of each block."""
        for block in blocks:
            yield self._block(block, tick)

    def _block(self, block: Block, tick: Tick) -> Rows:
        """Return the rows of a block; an image with a bad map or box is left out, or stops."""
        rows = self.maps.carried(block.start, block.stop)
        score_NS = self.maps.rows("map_score", block.start, block.stop).astype(np.float32)
        class_NS = self.maps.rows("map_class", block.start, block.stop).astype(np.int32)
        boxes_N = self._given_boxes(block, rows)
        nothing = _Ranked(np.zeros((0, 4)), np.zeros(0, np.int32), np.zeros(0, np.float32))
        ranked = [nothing] * block.num_rows
        for n, maps in enumerate(map_rows(self.maps, block.start, block.stop)):
            if maps is not None and rows["image_status"][n] == 0:
                try:
                    ranked[n] = self._rank(maps, *boxes_N[n], score_NS[n])
                except BadImageError as error:
                    leave_out(self.maps, self.settings, rows, block.start + n, n, error)
            tick(1)
        gone_N = rows["image_status"] != 0
        class_NS[gone_N], score_NS[gone_N] = -1, -np.inf
        image_B = np.repeat(np.arange(block.num_rows), [len(one.slot_B) for one in ranked])
        slot_B = np.concatenate([one.slot_B for one in ranked])
        return rows | {
            "map_class": class_NS,
            "map_score": score_NS,
            "box_start": np.bincount(image_B, minlength=block.num_rows).astype(np.int64),
            "box": np.concatenate([one.box_B4 for one in ranked]),
            "box_class": class_NS[image_B, slot_B],
            "box_score": np.concatenate([one.score_B for one in ranked]),
            "box_slot": slot_B,
        }

    def _given_boxes(self, block: Block, rows: Rows) -> list[tuple[Array, Array]]:
        """Return the given boxes and their classes, image by image.

        What the store of boxes skipped is marked in `rows`; another size of a picture is refused.
        """
        row_N = np.arange(block.start, block.stop)
        row_N = row_N if self.row_N is None else self.row_N[row_N]
        found = self.given.gather(row_N, ["image_size"], ["box"])
        seen = self.given.carried_rows(row_N)
        good_N = (rows["image_status"] == 0) & (seen["image_status"] == 0)
        differ_N = good_N & (found["image_size"] != rows["image_size"]).any(axis=1)
        if differ_N.any():
            n = int(differ_N.argmax())
            ours, theirs = ("x".join(map(str, one["image_size"][n])) for one in (rows, found))
            raise ProtocolError(
                f'{self.given.path.name}: row {int(row_N[n])} "{rows["image_id"][n]}" is {theirs} '
                f"px, {ours} px in {self.maps.path.name}; expected the same pictures."
            )
        here_N = (rows["image_status"] == 0) & (seen["image_status"] != 0)
        for name in ("image_status", "image_note"):
            rows[name][here_N] = seen[name][here_N]
        edge_N = np.cumsum(found["box_start"])[:-1]
        return list(
            zip(np.split(found["box"], edge_N), np.split(found["box_class"], edge_N), strict=True)
        )

    def _rank(self, maps: MapRow, box_B4: Array, given_class_B: Array, score_S: Array) -> _Ranked:
        """Return the best boxes of every slot of one image."""
        slots = list(maps.slots())
        gone_SHW = None if maps.suppressed_SHW is None else maps.suppressed_SHW[slots]
        value_SB = _as_float32(
            aggregate_in_boxes(
                maps.map_SHW[slots],
                maps.extent_xyxy,
                maps.size_wh,
                box_B4,
                self.params["aggregate"],
                gone_SHW,
                threshold=self.params["threshold"] or 0,
            )
        )
        kept, slot_B, score_B = [], [], []
        for slot, value_B in zip(slots, value_SB, strict=True):
            place_M = self._usable(value_B, given_class_B, int(maps.class_S[slot]))
            best_K = suppress_overlaps(
                box_B4[place_M], value_B[place_M], iou=self.params["nms"], most=self.params["keep"]
            )
            kept.append(place_M[best_K])
            slot_B.append(np.full(len(best_K), slot, np.int32))
            is_heat = self.params["box_score"] == "heat"
            score_B.append(value_B[kept[-1]] if is_heat else np.full(len(best_K), score_S[slot]))
        return _Ranked(
            box_B4[np.concatenate(kept)].astype(np.float64),
            np.concatenate(slot_B),
            np.concatenate(score_B).astype(np.float32),
        )

    def _usable(self, value_B: Array, given_class_B: Array, class_index: int) -> Array:
        """Return the places of the boxes that lie on the map and are of a class that counts."""
        usable_B = ~np.isnan(value_B)
        if self.class_G is not None:
            usable_B &= self.class_G[given_class_B] == class_index
        places: Array = np.flatnonzero(usable_B)
        return places


def _as_float32(value_SB: Array) -> Array:
    """Return the values as they are stored, and ranked: what differs by rounding alone is equal."""
    with np.errstate(over="ignore"):
        stored_SB: Array = value_SB.astype(np.float32)
    large = np.isinf(stored_SB)
    if large.any():
        raise BadImageError(f"a box is worth {value_SB[large][0]:g}, which float32 cannot hold.")
    return stored_SB
