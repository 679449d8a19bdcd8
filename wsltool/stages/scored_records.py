"""What ``score`` counts, read from stores: predictions and truth of the same images, in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from wsltool.localize.grid import PixelLattice
from wsltool.metrics.peak_distance import PeakPairs
from wsltool.metrics.point import best_box_points
from wsltool.metrics.protocols import ScoreProtocol
from wsltool.metrics.records import ClassScores, Peaks, Predictions, Truth
from wsltool.metrics.saliency_ap import SaliencyPair, SaliencyPairs
from wsltool.stages.map_rows import MapRow, map_row, row_named
from wsltool.stages.scored import Join
from wsltool.stages.true_masks import true_masks
from wsltool.stores.store import Store

if TYPE_CHECKING:
    from wsltool.metrics.protocols import Predicted

__all__ = ["Source", "box_predictions", "peaks", "ranks", "records", "truths"]

Array = np.ndarray[Any, Any]

_BLOCK_ROWS = 1024
# Heat and masks of an image take megabytes.
_FEW = {"saliency": 1, "label-masks": 1, "heats": 8}


@dataclass(frozen=True)
class Source:
    """Where predictions and truth are read.

    Attributes
    ----------
    store, truth : Store
        Maps or boxes, and images.
    join : Join
        Which rows of them belong together.
    num_slots : int or None
        Only so many slots of an image are read; None for all.
    other : Store or None
        Other maps, and in `other_row_N` the rows of the scored images there, -1 for none
        (as `Join.row_N`).
    """

    store: Store
    truth: Store
    join: Join
    num_slots: int | None = None
    other: Store | None = None
    other_row_N: Array | None = None


def records(
    source: Source, protocol: ScoreProtocol, start: int = 0, stop: int | None = None
) -> Iterator[tuple[Predicted, Truth]]:
    """Yield what `protocol` counts, and the truth of the same images, block by block.

    Of the scored images ``start:stop``, by default all.

    Raises
    ------
    StoreCorruptError
        A map is not finite.
    ProtocolError, BadImageError
        A mask cannot be read, or boxes are not sound.
    """
    read = _reader(protocol)
    few = _FEW.get(protocol.record, _BLOCK_ROWS)
    at = start
    for block in truths(source.truth, source.join, _BLOCK_ROWS, start, stop):
        for first in range(0, len(block), few):
            image_M = np.arange(first, min(first + few, len(block)))
            true = block if len(image_M) == len(block) else block.take(image_M)
            yield read(source, slice(at, at + len(true)), true), true
            at += len(true)


def truths(
    truth: Store,
    join: Join,
    block_rows: int = _BLOCK_ROWS,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Truth]:
    """Yield the truth of the scored images ``start:stop``, block by block."""
    stop = len(join.truth_row_N) if stop is None else stop
    for at in range(start, stop, block_rows):
        yield _truth(truth, join.truth_row_N[at : min(at + block_rows, stop)])


def _truth(truth: Store, row_N: Array) -> Truth:
    names = [n for n in ("image_size", "label", "image_excluded") if n in truth]
    found = truth.gather(row_N, names, ["box"] if "box" in truth else [])
    found.setdefault("box_start", np.zeros(len(row_N), np.int64))
    found.setdefault("box", np.zeros((0, 4)))
    found.setdefault("box_class", np.zeros(0, np.int32))
    return Truth(
        row_N=row_N,
        size_wh_N2=found["image_size"],
        label_NK=found["label"],
        excluded_N=found.get("image_excluded", np.zeros(len(row_N), np.uint8)),
        box_start=_edges(found["box_start"]),
        box_xyxy_B4=found["box"].astype(np.float64),
        box_class_B=found["box_class"],
        box_difficult_B=found.get("box_difficult", np.zeros(len(found["box"]), np.uint8)),
        box_crowd_B=found.get("box_crowd"),
        box_truncated_B=found.get("box_truncated"),
        box_area_B=found.get("box_area"),
    )


def _edges(count_N: Array) -> Array:
    return np.concatenate([[0], np.cumsum(count_N)]).astype(np.int64)


def ranks(store: Store, row_N: Array, num_slots: int | None) -> tuple[Array, Array]:
    """Return the ranked classes and scores of some rows, empty where the row is -1."""
    shape = (len(row_N), store.shape("map_class")[1])
    class_NS = np.full(shape, -1, np.int32)
    score_NS = np.full(shape, -np.inf, np.float32)
    here_N = row_N >= 0
    if here_N.any():
        found = store.gather(row_N[here_N], ["map_class", "map_score"])
        class_NS[here_N], score_NS[here_N] = found["map_class"], found["map_score"]
    return class_NS[:, :num_slots], score_NS[:, :num_slots]


def box_predictions(store: Store, row_N: Array, num_slots: int | None = None) -> Predictions:
    """Return the boxes of some rows (-1: none), of the first `num_slots` slots if that is given."""
    class_NS, score_NS = ranks(store, row_N, num_slots)
    here_N = row_N >= 0
    count_N = np.zeros(len(row_N), np.int64)
    found: dict[str, Array] = {
        "box": np.zeros((0, 4)),
        "box_class": np.zeros(0, np.int32),
        "box_score": np.zeros(0, np.float32),
    }
    if here_N.any():
        found = store.gather(row_N[here_N], [], ["box"])
        count_N[here_N] = found["box_start"]
        if num_slots is not None:
            kept_B = found["box_slot"] < num_slots
            image_B = np.repeat(np.arange(len(row_N)), count_N)
            count_N = np.bincount(image_B[kept_B], minlength=len(row_N))
            found = {name: found[name][kept_B] for name in ("box", "box_class", "box_score")}
    return Predictions(
        has_prediction_N=here_N,
        map_class_NS=class_NS,
        map_score_NS=score_NS,
        box_start=_edges(count_N),
        box_xyxy_B4=found["box"].astype(np.float64),
        box_class_B=found["box_class"],
        box_score_B=found["box_score"],
    )


def _boxes(source: Source, block: slice, _true: Truth) -> Predictions:
    return box_predictions(source.store, source.join.row_N[block], source.num_slots)


def peaks(source: Source, block: slice, true: Truth, point_at: str = "peak") -> Peaks:
    """Return where the maps of some of the scored images peak, or the centres of best boxes.

    With `point_at` "region" a map peaks at the centre of its region of maximal response.
    """
    if source.store.kind == "boxes":
        return best_box_points(_boxes(source, block, true), true)
    point = _hottest_region if point_at == "region" else _hottest_pixel
    return _map_peaks(source.store, source.join.row_N[block], source.num_slots, point)


def _map_peaks(
    store: Store,
    row_N: Array,
    num_slots: int | None,
    point: Callable[[MapRow, int], tuple[float, float, float]],
) -> Peaks:
    class_NS, score_NS = ranks(store, row_N, num_slots)
    peak_xy_NS2 = np.zeros((*class_NS.shape, 2))
    value_NS = np.full(class_NS.shape, -np.inf)
    for n in np.flatnonzero(row_N >= 0):
        row = int(row_N[n])
        maps_of_image = map_row(store, row)
        if maps_of_image is None:
            continue
        with row_named(store, row):
            for slot in np.flatnonzero(class_NS[n] >= 0).tolist():
                x_px, y_px, value_NS[n, slot] = point(maps_of_image, slot)
                peak_xy_NS2[n, slot] = x_px, y_px
    return Peaks(
        has_prediction_N=row_N >= 0,
        map_class_NS=class_NS,
        map_score_NS=score_NS,
        peak_xy_NS2=peak_xy_NS2,
        peak_value_NS=value_NS,
    )


def _hottest_pixel(maps: MapRow, slot: int) -> tuple[float, float, float]:
    x_px, y_px = maps.peak(slot)
    return x_px, y_px, _value_at(maps, slot, x_px, y_px)


def _hottest_region(maps: MapRow, slot: int) -> tuple[float, float, float]:
    region = maps.hottest_region(slot)
    return region.x_px, region.y_px, region.value


def _value_at(maps: MapRow, slot: int, x_px: float, y_px: float) -> float:
    """Return the heat of one pixel, given its centre: that of an image of this pixel alone."""
    corner_xyxy = np.array([x_px, y_px, x_px, y_px]) - 0.5
    pixel = PixelLattice(maps.extent_xyxy - corner_xyxy, (1, 1), maps.map_SHW.shape[1:])
    suppressed_HW = None if maps.suppressed_SHW is None else maps.suppressed_SHW[slot]
    return float(pixel.heat(maps.map_SHW[slot], suppressed_HW)[0, 0])


def _class_scores(source: Source, block: slice, true: Truth) -> ClassScores:
    row_N = source.join.row_N[block]
    here_N = row_N >= 0
    score_NK = np.full(true.label_NK.shape, -np.inf, np.float32)
    if here_N.any():
        score_NK[here_N] = source.store.gather(row_N[here_N], ["class_score"])["class_score"]
    return ClassScores(has_prediction_N=here_N, class_score_NK=score_NK)


def _peak_pairs(source: Source, block: slice, _true: Truth) -> PeakPairs:
    assert source.other is not None
    assert source.other_row_N is not None
    one = _map_peaks(source.store, source.join.row_N[block], None, _hottest_pixel)
    other = _map_peaks(source.other, source.other_row_N[block], None, _hottest_pixel)
    return PeakPairs(one, other)


def _saliency(source: Source, block: slice, true: Truth) -> SaliencyPairs:
    """Return the pairs of the one image of a block."""
    truth_row = int(source.join.truth_row_N[block][0])
    masks = true_masks(source.truth).of_row(truth_row)
    classes = np.flatnonzero(true.label_NK[0] == 1).tolist()
    row = int(source.join.row_N[block][0])
    heats = _heats(source.store, row, classes)
    return SaliencyPairs(
        tuple(
            SaliencyPair(int(true.row_N[0]), index, masks(index), heat_HW)
            for index, heat_HW in zip(classes, heats, strict=True)
        )
    )


def _heats(store: Store, row: int, classes: list[int]) -> list[Array | None]:
    """Return the heat of each class at an image's pixels, None where it has no map."""
    maps_of_image = map_row(store, row) if row >= 0 else None
    if maps_of_image is None:
        return [None] * len(classes)
    slots = [maps_of_image.slot_of(index) for index in classes]
    with row_named(store, row):
        return [None if slot is None else maps_of_image.heat(slot) for slot in slots]


_READERS: dict[str, Callable[[Source, slice, Truth], Predicted]] = {
    "boxes": _boxes,
    "class-scores": _class_scores,
    "peak-pairs": _peak_pairs,
    "saliency": _saliency,
}

# Readers with a module of their own, each with ``read(source, block, true)``.
_MODULES = {"heats": "read_heats", "label-masks": "read_label_masks", "game": "read_game"}


def _reader(protocol: ScoreProtocol) -> Callable[[Source, slice, Truth], Predicted]:
    if protocol.record == "peaks":
        return partial(peaks, point_at=protocol.point_at)
    if protocol.record in _READERS:
        return _READERS[protocol.record]
    module = import_module(f"wsltool.stages.{_MODULES[protocol.record]}")
    read: Any = module.read
    found: Callable[[Source, slice, Truth], Predicted] = (
        partial(read, regions=protocol.regions) if protocol.record == "game" else read
    )
    return found
