"""What ``score`` reads: predictions and truth of the same images, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsltool.errors import ProtocolError
from wsltool.metrics.protocols import ScoreProtocol
from wsltool.metrics.records import Peaks, Predictions, Truth
from wsltool.stages.map_rows import map_rows, row_named
from wsltool.stores.store import Store

__all__ = ["Join", "join_images", "predictions", "truths", "usable_slots"]

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
        Their rows among the predictions, -1 where the store lacks the image or it was
        skipped.
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


def join_images(store: Store, truth: Store, *, given: Store, without_skipped: bool) -> Join:
    """Join predictions and truth by ``image_id``.

    An image of the truth that the store lacks counts as missed, unless the store says that
    it holds only some rows (``--limit``, ``select``).

    Parameters
    ----------
    store, truth : Store
        The maps or boxes that are read, and the images.
    given : Store
        What is scored: `store` itself, or boxes made from these maps. It decides which
        images there are, and what it skipped counts as skipped.
    without_skipped : bool
        Leave out skipped images.

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
    ids = list(_rows_by_id(truth))
    row_N = _rows_of(ids, store)
    given_N = row_N if given is store else _rows_of(ids, given)
    here_N = (row_N >= 0) & (given_N >= 0)
    scope_N = here_N if given.meta.get("limit") is not None else np.ones(len(ids), bool)
    unread_N = _unread(truth) & scope_N
    kept_N = scope_N & ~unread_N
    skipped_N = (_skipped(store, row_N) | _skipped(given, given_N)) & kept_N
    if without_skipped:
        kept_N = kept_N & ~skipped_N
    if not (kept_N & here_N).any():
        raise ProtocolError(
            f"{given.path.name} and {truth.path.name}: no image is left to score, "
            f"{int(here_N.sum())} are in both, {int(skipped_N.sum())} of them were skipped. "
            "Give the truth that it was made from."
        )
    return Join(
        truth_row_N=np.flatnonzero(kept_N),
        row_N=np.where(here_N & ~skipped_N, row_N, -1)[kept_N],
        num_missing=int((kept_N & ~here_N).sum()),
        num_skipped=int(skipped_N.sum()),
        num_unknown=len(given) - int((given_N >= 0).sum()),
        num_without_truth=int(unread_N.sum()),
    )


def _rows_of(ids: list[str], store: Store) -> Array:
    """Return the row of each id, -1 where the store lacks it, int64 (N,)."""
    row_of = _rows_by_id(store)
    return np.array([row_of.get(name, -1) for name in ids], np.int64)


def _skipped(store: Store, row_N: Array) -> Array:
    """Return which of the rows the store skipped; -1 is not skipped."""
    if "image_status" not in store:
        return np.zeros(len(row_N), bool)
    gone_N: Array = (row_N >= 0) & (store.whole("image_status")[row_N] != 0)
    return gone_N


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


def usable_slots(store: Store, protocol: ScoreProtocol) -> int | None:
    """Return how many slots the protocol may read, None for all; refuse unsuitable classes.

    A protocol that ranks classes reads no slot that may owe its place to the truth: of
    ``top5+present`` the first five.

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
    if not protocol.ranks_classes:
        if "present" not in parts and depth < num_classes:
            raise ProtocolError(
                f"{store.path.name}: holds the classes {chosen}, {protocol.name} needs those "
                f"present in every image. Make it again with cam --classes {chosen}+present."
            )
        return None
    if "present" in parts and not depth:
        raise ProtocolError(
            f"{store.path.name}: holds the classes {chosen}, so the truth chose them; "
            f"{protocol.name} ranks classes. Make it again with cam --classes top5 or all."
        )
    need = min(protocol.rank_depth, num_classes)
    if depth < need and ("present" in parts or not any(p.startswith("above:") for p in parts)):
        raise ProtocolError(
            f"{store.path.name}: holds the classes {chosen}, {protocol.name} needs the best "
            f"{need}. Make it again with cam --classes top{need}."
        )
    return depth if "present" in parts else None


def truths(truth: Store, join: Join) -> Iterator[Truth]:
    """Yield the truth of the scored images, block by block."""
    names = [n for n in ("image_size", "label", "image_excluded") if n in truth]
    axes = ["box"] if "box" in truth else []
    for at in range(0, len(join.truth_row_N), _BLOCK_ROWS):
        rows = join.truth_row_N[at : at + _BLOCK_ROWS]
        found = truth.gather(rows, names, axes)
        found.setdefault("box_start", np.zeros(len(rows), np.int64))
        found.setdefault("box", np.zeros((0, 4)))
        found.setdefault("box_class", np.zeros(0, np.int32))
        yield Truth(
            row_N=rows,
            size_wh_N2=found["image_size"],
            label_NK=found["label"],
            excluded_N=found.get("image_excluded", np.zeros(len(rows), np.uint8)),
            box_start=_edges(found["box_start"]),
            box_xyxy_B4=found["box"].astype(np.float64),
            box_class_B=found["box_class"],
            box_difficult_B=found.get("box_difficult", np.zeros(len(found["box"]), np.uint8)),
        )


def _edges(count_N: Array) -> Array:
    return np.concatenate([[0], np.cumsum(count_N)]).astype(np.int64)


def predictions(
    store: Store, row_N: Array, reads: str, num_slots: int | None = None
) -> Iterator[Predictions | Peaks]:
    """Yield boxes, or peaks of maps, of some rows (-1: none), block by block.

    Only of the first `num_slots` slots, where that is given.

    Raises
    ------
    StoreCorruptError
        A map is not finite.
    """
    for at in range(0, len(row_N), _BLOCK_ROWS):
        rows = row_N[at : at + _BLOCK_ROWS]
        yield _boxes(store, rows, num_slots) if reads == "boxes" else _peaks(store, rows)


def _ranks(store: Store, row_N: Array, num_slots: int | None) -> tuple[Array, Array]:
    """Return the ranked classes and scores of some rows, empty where the row is -1."""
    shape = (len(row_N), store.shape("map_class")[1])
    class_NS = np.full(shape, -1, np.int32)
    score_NS = np.full(shape, -np.inf, np.float32)
    here_N = row_N >= 0
    if here_N.any():
        found = store.gather(row_N[here_N], ["map_class", "map_score"])
        class_NS[here_N], score_NS[here_N] = found["map_class"], found["map_score"]
    return class_NS[:, :num_slots], score_NS[:, :num_slots]


def _boxes(store: Store, row_N: Array, num_slots: int | None) -> Predictions:
    class_NS, score_NS = _ranks(store, row_N, num_slots)
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


def _peaks(store: Store, row_N: Array) -> Peaks:
    class_NS, score_NS = _ranks(store, row_N, None)
    peak_xy_NS2 = np.zeros((*class_NS.shape, 2))
    for n in np.flatnonzero(row_N >= 0):
        row = int(row_N[n])
        maps_of_image = next(map_rows(store, row, row + 1))
        if maps_of_image is not None:
            with row_named(store, row):
                for slot in maps_of_image.slots():
                    peak_xy_NS2[n, slot] = maps_of_image.peak(slot)
    return Peaks(
        has_prediction_N=row_N >= 0,
        map_class_NS=class_NS,
        map_score_NS=score_NS,
        peak_xy_NS2=peak_xy_NS2,
    )
