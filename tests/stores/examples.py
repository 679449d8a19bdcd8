"""Stores with every array of the schema, for the tests of this room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wsltool.stores.schema import KINDS, RAGGED, string_array
from wsltool.stores.write import StoreWriter

Array = np.ndarray[Any, Any]

TEXTS = ["", "plain", "Übergröße", "日本語 🚂", "line\nbreak\ttab", "long " * 3000, " edge "]
_SMALL = ("image_status", "suppressed", "map_class", "box_class", "label", "pattern_class")
SIZES = {"wh": 2, "xyxy": 4, "rowcol": 2, "class": 3, "slot": 2, "row": 4, "col": 5}
SIZES |= {"channel": 6, "m": 4}


def example_arrays(kind: str, num_images: int, per_image: int = 2) -> dict[str, Array]:
    """Return every array of a kind; ragged axes have about `per_image` rows an image."""
    rng = np.random.default_rng([num_images, per_image, len(kind)])
    sizes = SIZES | {"image": num_images, "image_edge": num_images + 1}
    counts = {axis: rng.integers(0, 2 * per_image + 1, num_images) for axis in RAGGED[kind]}
    sizes |= {axis: int(count.sum()) for axis, count in counts.items()}
    if kind == "clusters":
        sizes["class"] = num_images
    sizes["cluster"] = per_image * num_images
    sizes["pattern"] = sizes.get("cell", 0) // 2
    offsets = {start: axis for axis, start in RAGGED[kind].items()}
    found = {}
    for name, spec in KINDS[kind].items():
        shape = tuple(sizes[axis] for axis in spec.dims)
        if name in offsets:
            found[name] = np.concatenate([[0], np.cumsum(counts[offsets[name]])]).astype(np.int64)
        else:
            found[name] = _values(name, shape, spec.dtypes[0], rng)
    return found


def _values(name: str, shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> Array:
    """Return values that `verify` accepts."""
    if dtype == "string":
        texts = [TEXTS[n % len(TEXTS)] + (str(n) if n >= len(TEXTS) else "") for n in range(*shape)]
        return string_array(texts)
    if name in ("box", "candidate"):
        low = rng.uniform(0, 50, (shape[0], 2))
        return np.concatenate([low, low + rng.uniform(1, 50, (shape[0], 2))], axis=1)
    if name == "candidate_slot":
        return np.zeros(shape, dtype)
    if name == "candidate_level":
        return (1 + np.arange(*shape) // 3).astype(dtype)
    if name == "candidate_score":
        return (1 / np.arange(1, 1 + shape[0])).astype(dtype)
    if name == "map_score":
        return -np.sort(-rng.normal(size=shape).astype(dtype), axis=1)
    if name == "pattern_cell":
        return np.arange(shape[0], dtype=dtype) * 2
    if name == "cluster_class":
        return np.repeat(np.arange(shape[0] // 2, dtype=dtype), 2)
    top = 2 if name in _SMALL else 100
    if dtype.startswith("float"):
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(name == "cluster_size", top, shape).astype(dtype)


def write_store(
    path: Path,
    kind: str,
    arrays: dict[str, Array],
    meta: dict[str, Any] | None = None,
    pieces: int = 1,
    **attributes: Any,
) -> Path:
    """Write a store, every array handed over in so many pieces."""
    writer = StoreWriter(path, kind)
    for name, values in arrays.items():
        dtype = "string" if values.dtype.kind == "T" else values.dtype.name
        writer.create(name, values.shape, dtype)
        for piece in np.array_split(values, pieces) if len(values) else []:
            writer.append(name, piece)
    writer.finish({"format": 1, "kind": kind} | (meta or {}), attributes)
    return path


def same(one: Array, other: Array) -> bool:
    """Return whether two arrays have the same dtype, shape and bytes."""
    if one.dtype.kind == "T" or other.dtype.kind == "T":
        return one.dtype.kind == other.dtype.kind and one.tolist() == other.tolist()
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
