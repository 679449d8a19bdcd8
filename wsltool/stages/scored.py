"""What ``score`` reads: predictions and truth of the same images, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsltool.errors import ProtocolError
from wsltool.metrics.protocols import ScoreProtocol
from wsltool.metrics.records import Peaks, Predictions, Truth
from wsltool.stages.map_rows import map_rows
from wsltool.stores.store import Store

__all__ = ["Join", "check_classes", "join_images", "predictions", "truths"]

Array = np.ndarray[Any, Any]

_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Join:
    """Which row of the predictions belongs to which row of the truth.

    Attributes
    ----------
    truth_row_N : int64 ndarray of shape (N,)
        The scored images, rows of the truth.
    row_N : int64 ndarray of shape (N,)
        Their rows among the predictions, -1 where the store lacks the image or skipped it.
    num_missing, num_skipped, num_unknown, num_without_truth : int
        Images that the store lacks; that it skipped; that the truth lacks; whose own truth
        could not be read when it was ingested.
    """

    truth_row_N: Array
    row_N: Array
    num_missing: int
    num_skipped: int
    num_unknown: int
    num_without_truth: int


def join_images(store: Store, truth: Store, *, without_skipped: bool) -> Join:
    """Join predictions and truth by ``image_id``.

    An image of the truth that the store lacks counts as missed, unless the store says that
    it holds only some rows (``--limit``, ``select``).

    Raises
    ------
    ProtocolError
        An id stands twice, the classes differ, or no image is left.
    """
    if store.class_names() != truth.class_names():
        raise ProtocolError(
            f"{store.path.name} and {truth.path.name} have different classes "
            f"({_few(store)} and {_few(truth)}). Give the truth that it was made from."
        )
    row_of = _rows_by_id(store)
    ids = truth.whole("image_id").tolist()
    row_N = np.array([row_of.get(name, -1) for name in ids], np.int64)
    num_unknown = len(row_of) - int((row_N >= 0).sum())
    _rows_by_id(truth)
    kept_N = np.ones(len(ids), bool)
    if store.meta.get("limit") is not None:
        kept_N &= row_N >= 0
    unread_N = _unread(truth)
    kept_N &= ~unread_N
    skipped_N = np.zeros(len(ids), bool)
    if "image_status" in store:
        status = store.whole("image_status")
        skipped_N = (row_N >= 0) & (status[row_N] != 0)
    if without_skipped:
        kept_N &= ~skipped_N
    if not kept_N.any():
        raise ProtocolError(
            f"{store.path.name} and {truth.path.name} have no image in common. "
            "Give the truth that it was made from."
        )
    return Join(
        truth_row_N=np.flatnonzero(kept_N),
        row_N=np.where(skipped_N, -1, row_N)[kept_N],
        num_missing=int((row_N[kept_N] < 0).sum()),
        num_skipped=int(skipped_N.sum()),
        num_unknown=num_unknown,
        num_without_truth=int(unread_N.sum()),
    )


def _few(store: Store) -> str:
    names = store.class_names()
    return f"{len(names)}: {', '.join(names[:3])}, …"


def _rows_by_id(store: Store) -> dict[str, int]:
    ids = store.whole("image_id").tolist()
    rows = {name: row for row, name in enumerate(ids)}
    if len(rows) < len(ids):
        twice = next(name for row, name in enumerate(ids) if rows[name] != row)
        raise ProtocolError(f'{store.path.name}: image "{twice}" stands there twice.')
    return rows


def _unread(truth: Store) -> Array:
    """Return which images have no truth: skipped by `ingest` with every label undecided."""
    unread = np.zeros(len(truth), bool)
    if "image_status" in truth:
        for row in np.flatnonzero(truth.whole("image_status") != 0):
            unread[row] = (truth.rows("label", int(row), int(row) + 1) == 255).all()
    return unread


def check_classes(store: Store, protocol: ScoreProtocol) -> None:
    """Refuse maps or boxes whose classes do not suit the protocol.

    Raises
    ------
    ProtocolError
        It ranks classes and the truth chose them, or there are too few, or it needs the
        classes present and they may lack.
    """
    chosen = str(store.attributes.get("classes", ""))
    parts = chosen.split("+") if chosen else []
    num_classes = store.shape("class_name")[0]
    tops = [int(p[3:]) for p in parts if p.startswith("top") and p[3:].isdigit()]
    depth = num_classes if "all" in parts or not parts else max(tops, default=0)
    above = any(part.startswith("above:") for part in parts)
    if protocol.ranks_classes:
        if parts == ["present"]:
            raise ProtocolError(
                f"{store.path.name}: was made only for the classes present, so the truth chose "
                f"them; {protocol.name} ranks classes. Make it again with cam --classes top5 "
                "or all."
            )
        need = min(protocol.rank_depth, num_classes)
        if depth < need and not above:
            raise ProtocolError(
                f"{store.path.name}: holds the classes {chosen}, {protocol.name} needs the best "
                f"{need}. Make it again with cam --classes top{need}."
            )
    elif "present" not in parts and depth < num_classes:
        raise ProtocolError(
            f"{store.path.name}: holds the classes {chosen}, {protocol.name} needs those present "
            f"in every image. Make it again with cam --classes {chosen}+present."
        )


def truths(truth: Store, join: Join) -> Iterator[Truth]:
    """Yield the truth of the scored images, block by block."""
    if "box" not in truth:
        raise ProtocolError(
            f"{truth.path.name}: has no true boxes, so nothing can be scored. Ingest them "
            "(ingest folder --boxes …) or pass --truth."
        )
    for at in range(0, len(join.truth_row_N), _BLOCK_ROWS):
        rows = join.truth_row_N[at : at + _BLOCK_ROWS]
        optional = [name for name in ("image_excluded",) if name in truth]
        found = truth.gather(rows, ["image_size", "label", *optional], ["box"])
        num_boxes = len(found["box"])
        yield Truth(
            row_N=rows,
            size_wh_N2=found["image_size"],
            label_NK=found["label"],
            excluded_N=found.get("image_excluded", np.zeros(len(rows), np.uint8)),
            box_start=_edges(found["box_start"]),
            box_xyxy_B4=found["box"].astype(np.float64),
            box_class_B=found["box_class"],
            box_difficult_B=found.get("box_difficult", np.zeros(num_boxes, np.uint8)),
        )


def _edges(count_N: Array) -> Array:
    return np.concatenate([[0], np.cumsum(count_N)]).astype(np.int64)


def predictions(store: Store, join: Join, reads: str) -> Iterator[Predictions | Peaks]:
    """Yield boxes, or peaks of maps, of the scored images, block by block."""
    for at in range(0, len(join.row_N), _BLOCK_ROWS):
        rows = join.row_N[at : at + _BLOCK_ROWS]
        yield _boxes(store, rows) if reads == "boxes" else _peaks(store, rows)


def _ranks(store: Store, row_N: Array) -> tuple[Array, Array]:
    """Return the ranked classes and scores of some rows, empty where the row is -1."""
    num_slots = store.shape("map_class")[1]
    class_NS = np.full((len(row_N), num_slots), -1, np.int32)
    score_NS = np.full((len(row_N), num_slots), -np.inf, np.float32)
    here_N = row_N >= 0
    if here_N.any():
        found = store.gather(row_N[here_N], ["map_class", "map_score"])
        class_NS[here_N], score_NS[here_N] = found["map_class"], found["map_score"]
    return class_NS, score_NS


def _boxes(store: Store, row_N: Array) -> Predictions:
    class_NS, score_NS = _ranks(store, row_N)
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
    return Predictions(
        has_prediction_N=here_N,
        map_class_NS=class_NS,
        map_score_NS=score_NS,
        box_start=_edges(count_N),
        box_xyxy_B4=found["box"].astype(np.float64),
        box_class_B=found["box_class"],
        box_score_B=found["box_score"],
    )


def _peaks(store: Store, row_N: Array) -> Peaks:
    class_NS, score_NS = _ranks(store, row_N)
    peak_xy_NS2 = np.zeros((*class_NS.shape, 2))
    for n, row in enumerate(row_N):
        if row < 0:
            continue
        for maps_of_image in map_rows(store, int(row), int(row) + 1):
            if maps_of_image is not None:
                for slot in maps_of_image.slots():
                    peak_xy_NS2[n, slot] = maps_of_image.peak(slot)
    return Peaks(
        has_prediction_N=row_N >= 0,
        map_class_NS=class_NS,
        map_score_NS=score_NS,
        peak_xy_NS2=peak_xy_NS2,
    )
