"""Which images ``score`` compares, and whether the classes of a store suit a protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wsltool.errors import ProtocolError
from wsltool.metrics.protocols import ScoreProtocol
from wsltool.stores.store import Store

__all__ = ["Join", "join_images", "rows_in", "usable_slots"]

Array = np.ndarray[Any, Any]


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
    num_missing, num_skipped, num_unknown, num_without_truth, num_without_mask : int
        Images that the store lacks; that it skipped; that the truth lacks; whose own truth
        could not be read when it was ingested; that have no mask, where masks are needed.
    without_skipped : bool
        Whether skipped images are left out.
    """

    truth_row_N: Array
    row_N: Array
    num_missing: int
    num_skipped: int
    num_unknown: int
    num_without_truth: int
    num_without_mask: int
    without_skipped: bool


def join_images(
    store: Store, truth: Store, *, given: Store, without_skipped: bool, only_masked: bool = False
) -> Join:
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
    only_masked : bool
        Leave out images without a mask.

    Raises
    ------
    ProtocolError
        An id stands twice, the classes differ, or no image is left.
    """
    _check_classes(store, truth)
    ids = list(_rows_by_id(truth))
    row_N = _rows_of(ids, store)
    given_N = row_N if given is store else _rows_of(ids, given)
    here_N = (row_N >= 0) & (given_N >= 0)
    scope_N = here_N if given.meta.get("limit") is not None else np.ones(len(ids), bool)
    unmasked_N = scope_N & ~_masked(truth) if only_masked else np.zeros(len(ids), bool)
    scope_N = scope_N & ~unmasked_N
    unread_N = _unread(truth) & scope_N
    kept_N = scope_N & ~unread_N
    skipped_N = (_skipped(store, row_N) | _skipped(given, given_N)) & kept_N
    if without_skipped:
        kept_N = kept_N & ~skipped_N
    if unmasked_N.any() and not (scope_N & here_N).any():
        raise ProtocolError(
            f"{truth.path.name}: none of the {int((here_N & unmasked_N).sum())} images that "
            f"{given.path.name} holds has a true mask, so nothing can be scored. Ingest an image "
            "set that has masks (ingest voc --split Segmentation/val) or pass --truth."
        )
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
        num_without_mask=int(unmasked_N.sum()),
        without_skipped=without_skipped,
    )


def rows_in(store: Store, truth: Store, join: Join, option: str) -> Array:
    """Return the rows of the scored images in another store, int64 (N,).

    They are -1 where the store lacks the image or skipped it.

    Raises
    ------
    ProtocolError
        An id stands twice, the classes differ, or none of the images is there.
    """
    _check_classes(store, truth)
    ids = truth.whole("image_id")[join.truth_row_N].tolist()
    row_N = _rows_of(ids, store)
    if (row_N < 0).all():
        raise ProtocolError(
            f"{store.path.name}: holds none of the {len(ids)} scored images. Give one of the "
            f"same images with {option}."
        )
    return np.where(_skipped(store, row_N), -1, row_N)


def _check_classes(store: Store, truth: Store) -> None:
    if store.class_names() != truth.class_names():
        raise ProtocolError(
            f"{store.path.name} and {truth.path.name} have different classes "
            f"({_few(store)} and {_few(truth)}). Give the truth that it was made from."
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


def _masked(truth: Store) -> Array:
    """Return which images have a mask; where boxes carry them, all that were annotated."""
    if "mask_start" not in truth:
        return np.ones(len(truth), bool)
    masked_N: Array = np.diff(truth.whole("mask_start")) > 0
    return masked_N


def usable_slots(store: Store, protocol: ScoreProtocol) -> int | None:
    """Return how many slots the protocol may read, None for all; refuse unsuitable classes.

    It refuses nothing where the protocol reads whatever classes there are.
    A protocol that ranks classes reads no slot that may owe its place to the truth: of
    ``top5+present`` the first five.

    Raises
    ------
    ProtocolError
        It ranks classes and the truth chose them, or there are too few, or it needs the
        classes present and they may lack.
    """
    if protocol.any_classes:
        return None
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
