"""Does a store keep the schema? Every rule of ``docs/stores/v1.md`` that can be checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from wsltool.errors import StoreCorruptError
from wsltool.stores.schema import KINDS, RAGGED, ArraySpec
from wsltool.stores.store import ArrayDigest, Store

__all__ = ["verify_store"]

_STEP = 1024
_PATTERN_STEP = 1 << 20
_CANDIDATE_STEP = 1 << 18
_LABELS = (0, 1, 255)

# Optional arrays of which all are there, or none.
_TOGETHER: dict[str, tuple[tuple[str, ...], ...]] = {
    "images": (
        ("box_start", "box", "box_class"),
        ("mask_start", "mask_path", "mask_class"),
        ("byte_start", "byte"),
    ),
    "maps": (tuple(name for name in KINDS["maps"] if name.startswith("candidate")),),
    "features": (("pattern_cell", "pattern_class"),),
}


def verify_store(store: Store) -> list[str]:
    """Return what is wrong with a store, a line each; empty if nothing is.

    Every chunk is read, so a missing or flipped one is found; the digest is compared with
    the recorded one, where there is one.
    """
    problems = list(_layout(store))
    digest = ArrayDigest()
    unreadable = list(_unreadable(store, digest))
    if unreadable:
        return problems + unreadable
    if not problems:
        problems += _offsets(store)
    if not problems:
        problems += _values(store)
    if store.meta.get("digest") not in (None, digest.result()):
        problems.append(f"digest is {digest.result()}, recorded {store.meta['digest']}")
    return problems


def _unreadable(store: Store, digest: ArrayDigest) -> Iterator[str]:
    """Read every array into the digest; yield what cannot be read."""
    for name in store.names:
        digest.begin(name, store.shape(name), store.dtype(name))
        try:
            for values in store.blocks(name):
                digest.add(name, values)
        except StoreCorruptError as error:
            yield str(error)


def _layout(store: Store) -> Iterator[str]:
    """Check that the arrays are there, with the right axes, dtypes and sizes."""
    sizes: dict[str, int] = {"xyxy": 4, "wh": 2, "rowcol": 2}
    if "image_id" in store:
        sizes |= {"image": len(store), "image_edge": len(store) + 1}
    for name, spec in KINDS[store.kind].items():
        if name not in store:
            if spec.required:
                yield f'array "{name}" is missing'
            continue
        yield from _array(store, name, spec, sizes)
    for axis, offsets in RAGGED[store.kind].items():
        on_axis = [n for n, s in KINDS[store.kind].items() if s.dims[0] == axis and n in store]
        if on_axis and offsets not in store and not KINDS[store.kind][offsets].required:
            yield f'array "{on_axis[0]}" has no offsets "{offsets}"'
    for names in _TOGETHER.get(store.kind, ()):
        held = [name for name in names if name in store]
        lacking = [n for n in names if n not in store and n not in RAGGED[store.kind].values()]
        if held and lacking:
            yield f'array "{lacking[0]}" is missing, but "{held[0]}" is there'


def _array(store: Store, name: str, spec: ArraySpec, sizes: dict[str, int]) -> Iterator[str]:
    if store.dtype(name) not in spec.dtypes:
        yield f'array "{name}" is {store.dtype(name)}, expected {" or ".join(spec.dtypes)}'
    shape, dims = store.shape(name), store.dims(name)
    if len(shape) != len(spec.dims):
        yield f'array "{name}" has shape {shape}, expected axes {spec.dims}'
        return
    if dims and dims != spec.dims:
        yield f'array "{name}" names its axes {dims}, expected {spec.dims}'
    for axis, size in zip(spec.dims, shape, strict=True):
        if sizes.setdefault(axis, size) != size:
            yield f'array "{name}" has {size} along {axis}, others {sizes[axis]}'


def _offsets(store: Store) -> Iterator[str]:
    for axis, name in RAGGED[store.kind].items():
        if name not in store:
            continue
        offsets = store.whole(name)
        rows = [
            store.shape(n)[0]
            for n, s in KINDS[store.kind].items()
            if s.dims[0] == axis and n in store
        ]
        if offsets[0] != 0 or (np.diff(offsets) < 0).any():
            yield f'"{name}" must start at 0 and never fall'
        elif rows and offsets[-1] != rows[0]:
            yield f'"{name}" ends at {offsets[-1]}, the axis {axis} has {rows[0]} rows'


def _values(store: Store) -> Iterator[str]:
    """Check values that the schema bounds."""
    num_classes = store.shape("class_name")[0]
    for name, low, high in (
        ("box_class", 0, num_classes - 1),
        ("map_class", -1, num_classes - 1),
        ("image_size", 0, np.iinfo(np.int32).max),
        ("image_status", 0, 2),
        ("suppressed", 0, 1),
        ("cell", 0, np.iinfo(np.int16).max),
        ("pattern_class", 0, num_classes - 1),
        ("cluster_class", 0, num_classes - 1),
        ("cluster_size", 1, np.iinfo(np.int64).max),
        ("candidate_level", 1, np.iinfo(np.int16).max),
    ):
        if name in store:
            yield from _bounds(store, name, low, high)
    for name, check in _CHECKS.items():
        if name in store:
            yield from check(store)


def _bounds(store: Store, name: str, low: int, high: int) -> Iterator[str]:
    for values in store.blocks(name):
        if values.size and (values.min() < low or values.max() > high):
            worst = values.min() if values.min() < low else values.max()
            yield f'"{name}" holds {worst}, expected {low} to {high}'
            return


def _labels(store: Store) -> Iterator[str]:
    for label in store.blocks("label"):
        odd = label[~np.isin(label, _LABELS)]
        if odd.size:
            yield f'"label" holds {odd[0]}, expected 0, 1 or 255'
            return


def _ids(store: Store) -> Iterator[str]:
    seen: set[str] = set()
    for block in store.blocks("image_id"):
        for name in block.tolist():
            if name in seen:
                yield f'"image_id" holds "{name}" twice'
                return
            seen.add(name)


def _boxes(store: Store) -> Iterator[str]:
    for box in store.blocks("box"):
        good = np.isfinite(box).all(axis=1) & (box[:, 2:] >= box[:, :2]).all(axis=1)
        if not good.all():
            yield f'"box" holds {box[~good][0].tolist()}, expected x0 <= x1 and y0 <= y1'
            return


def _finite(store: Store) -> Iterator[str]:
    name = "feature" if store.kind == "features" else "centroid"
    at = 0
    for values in store.blocks(name):
        good = np.isfinite(values).all(axis=1)
        if not good.all():
            yield f'"{name}" holds NaN or infinity in row {at + int(good.argmin())}'
            return
        at += len(values)


def _patterns(store: Store) -> Iterator[str]:
    """Check that patterns name cells, cell by cell, each with rising classes."""
    num_cells, last_cell, last_class = store.shape("cell")[0], 0, -1
    total = store.shape("pattern_cell")[0]
    for at in range(0, total, _PATTERN_STEP):
        stop = min(total, at + _PATTERN_STEP)
        cell, class_index = (store.rows(f"pattern_{n}", at, stop) for n in ("cell", "class"))
        rise_cell = np.diff(cell, prepend=last_cell)
        rise_class = np.diff(class_index, prepend=last_class)
        if cell.min() < 0 or cell.max() >= num_cells:
            yield f'"pattern_cell" must name one of the {num_cells} cells, it holds {cell.max()}'
            return
        if (rise_cell < 0).any() or ((rise_cell == 0) & (rise_class <= 0)).any():
            yield '"pattern_cell" must rise, and "pattern_class" within a cell'
            return
        last_cell, last_class = int(cell[-1]), int(class_index[-1])


def _clusters(store: Store) -> Iterator[str]:
    if (np.diff(store.whole("cluster_class")) < 0).any():
        yield '"cluster_class" falls, it must rise: the clusters of a class are neighbours'


def _maps(store: Store) -> Iterator[str]:
    total = len(store)
    for at in range(0, total, _STEP):
        stop = min(total, at + _STEP)
        used: Any = store.rows("map_class", at, stop) >= 0
        score = store.rows("map_score", at, stop)
        if (score[:, 1:] > score[:, :-1]).any():
            yield f'"map_score" rises along the slots in rows {at} to {stop}, it must fall'
            return
        if (np.isneginf(score) == used).any() or np.isnan(score).any():
            yield f'"map_score" must be -inf in empty slots and a number in others, rows {at}…'
            return
        for row in range(at, stop):
            if not np.isfinite(store.rows("map", row, row + 1)[0][used[row - at]]).all():
                yield f'"map" holds NaN or infinity in row {row}'
                return


def _candidates(store: Store) -> Iterator[str]:
    """Check boxes, slots, scores and order of the candidates of a search, in bounded memory."""
    start_N, total = store.whole("candidate_start"), store.shape("candidate")[0]
    before = np.array([[-1, 0, 0, 0]])  # image, slot, level and falling score of the last one
    for at in range(0, total, _CANDIDATE_STEP):
        stop = min(total, at + _CANDIDATE_STEP)
        box, slot, level, score = (
            store.rows(name, at, stop)
            for name in ("candidate", "candidate_slot", "candidate_level", "candidate_score")
        )
        image = np.searchsorted(start_N, np.arange(at, stop), side="right") - 1
        place = np.vstack([before, np.column_stack([image, slot, level, -score])])
        first = int(image[0])
        held = store.rows("map_class", first, int(image[-1]) + 1) >= 0
        good = np.isfinite(box).all(axis=1) & (box[:, 2:] > box[:, :2]).all(axis=1)
        is_slot = (slot >= 0) & (slot < held.shape[1])
        is_slot &= held[image - first, np.where(is_slot, slot, 0)]
        for bad, line in (
            (~good, '"candidate" is {box}, expected finite x0 < x1 and y0 < y1'),
            (~((score >= 0) & (score <= 1)), '"candidate_score" is {score}, expected 0 to 1'),
            (~is_slot, '"candidate_slot" is {slot}, expected a slot that holds a map'),
            (_falls(place), '"candidate" must stand by slot, then level, then falling score'),
        ):
            if bad.any():
                n = int(bad.argmax())
                told = line.format(box=box[n].tolist(), score=score[n], slot=slot[n])
                yield f"{told}, image {image[n]}"
                return
        before = place[-1:]


def _falls(value_MD: Any) -> Any:
    """Return which rows but the first stand, column by column, before the one above them."""
    step = np.diff(value_MD, axis=0)
    first = (step != 0).argmax(axis=1)  # the column that decides; 0 among equals
    return step[np.arange(len(step)), first] < 0


_CHECKS: dict[str, Callable[[Store], Iterator[str]]] = {
    "label": _labels,
    "image_id": _ids,
    "box": _boxes,
    "map": _maps,
    "candidate": _candidates,
    "feature": _finite,
    "pattern_cell": _patterns,
    "centroid": _finite,
    "cluster_class": _clusters,
}
