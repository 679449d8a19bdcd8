"""Small pictures and stores for the tests of this room, written by hand."""

from __future__ import annotations

import secrets
from pathlib import Path

import numpy as np
from PIL import Image

from wsltool.stages.report import Reporter
from wsltool.stores.lineage import fingerprint_store
from wsltool.stores.open import open_store
from wsltool.stores.schema import RAGGED, string_array
from wsltool.stores.write import StoreWriter


class Ears(Reporter):
    """Keeps what a stage says."""

    def __init__(self):
        self.warnings, self.notes, self.announced, self.num_skipped = [], [], [], 0

    def announce(self, path):
        self.announced.append(path)

    def skipped(self, num):
        self.num_skipped += num

    def warn(self, line):
        self.warnings.append(line)

    def note(self, line):
        self.notes.append(line)


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def put_picture(path, picture, **options):
    """Write an array, or (width, height) of noise, as the picture that the ending says."""
    if isinstance(picture, tuple):
        picture = noise(*picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **options)
    return path


def arrays(path, skip=()):
    """Every array of a store; the values of ragged rows with their offsets."""
    with open_store(Path(path)) as store:
        return {name: store.whole(name) for name in store.names if name not in skip}


def meta(path):
    with open_store(Path(path)) as store:
        return store.meta


def assert_equal_arrays(one, other, skip=()):
    left, right = arrays(one, skip), arrays(other, skip)
    assert list(left) == list(right)
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def write_store(path, kind, values, *, made_from=(), limit=None, **attributes):
    """Write a store array by array; ragged offsets are given as counts."""
    path = Path(path)
    writer = StoreWriter(path, kind)
    offsets = RAGGED[kind].values()
    for name, value in values.items():
        value = string_array(value) if _is_text(value) else np.asarray(value)
        if name in offsets:
            value = np.concatenate([[0], np.cumsum(value)]).astype(np.int64)
        writer.put(name, value)
    inputs = {}
    for source in made_from:
        with open_store(Path(source)) as store:
            inputs[store.kind] = fingerprint_store(store, path.parent)
    about = {"format": 1, "kind": kind, "id": secrets.token_hex(8), "inputs": inputs}
    writer.finish(about | {"limit": limit, "skipped": 0}, attributes)
    return path


def rewritten(path, source, kind, *, made_from=(), classes="all", **changes):
    """Write a store again with some arrays changed; offsets are given as counts."""
    values = {
        name: value.tolist() if value.dtype.kind == "T" else value
        for name, value in arrays(source).items()
    }
    for name in RAGGED[kind].values():
        if name in values:
            values[name] = np.diff(values[name])
    return write_store(path, kind, values | changes, made_from=made_from, root=".", classes=classes)


def _is_text(value):
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


def write_images(path, images, class_name, *, size=(20, 10), boxes=True, limit=None):
    """Write an images store without pictures.

    `images` is a dict: id to a dict with ``labels`` (class to 1 or 255; default: classes of
    its boxes), ``boxes`` (list of (class, x0, y0, x1, y1) and perhaps a sixth, difficult),
    ``size``, ``status`` and ``excluded``.
    """
    label = np.zeros((len(images), len(class_name)), np.uint8)
    all_boxes = [one.get("boxes", []) for one in images.values()]
    for row, one in enumerate(images.values()):
        labels = one.get("labels", {box[0]: 1 for box in one.get("boxes", [])})
        for index, value in labels.items():
            label[row, index] = value
    flat = [box for of_image in all_boxes for box in of_image]
    status = [one.get("status", 0) for one in images.values()]
    values = {
        "image_id": list(images),
        "image_size": np.array([one.get("size", size) for one in images.values()], np.int32),
        "class_name": list(class_name),
        "image_status": np.array(status, np.uint8),
        "image_note": ["left out" if one else "" for one in status],
        "image_path": [f"{name}.png" for name in images],
        "image_num_bytes": np.ones(len(images), np.int64),
        "label": label,
        "class_id": [f"id {name}" for name in class_name],
    }
    if boxes:
        values |= {
            "box_start": [len(of_image) for of_image in all_boxes],
            "box": np.array([box[1:5] for box in flat], np.float64).reshape(-1, 4),
            "box_class": np.array([box[0] for box in flat], np.int32),
            "box_difficult": np.array([(*box, 0)[5] for box in flat], np.uint8),
        }
    if any("excluded" in one for one in images.values()):
        values["image_excluded"] = np.array(
            [one.get("excluded", 0) for one in images.values()], np.uint8
        )
    return write_store(path, "images", values, limit=limit, root=".")


def write_boxes(path, source, images, *, classes="top5", made_from=None, limit=None):
    """Write a boxes store over (some of) the images of the images store `source`.

    `images` is a dict: id to a list of slots (class, score, box, box, …).
    """
    truth = arrays(source)
    row_of = {name: row for row, name in enumerate(truth["image_id"].tolist())}
    num_slots = max(1, *(len(slots) for slots in images.values()))
    map_class = np.full((len(images), num_slots), -1, np.int32)
    map_score = np.full((len(images), num_slots), -np.inf, np.float32)
    rows, counts = [], []
    for row, slots in enumerate(images.values()):
        for slot, (index, score, *boxes) in enumerate(slots):
            map_class[row, slot], map_score[row, slot] = index, score
            rows += [(box, index, score, slot) for box in boxes]
        counts.append(sum(len(slot) - 2 for slot in slots))
    known = [row_of.get(name, 0) for name in images]
    values = {
        "image_id": list(images),
        "image_size": truth["image_size"][known],
        "class_name": truth["class_name"].tolist(),
        "map_class": map_class,
        "map_score": map_score,
        "box_start": counts,
        "box": np.array([row[0] for row in rows], np.float64).reshape(-1, 4),
        "box_class": np.array([row[1] for row in rows], np.int32),
        "box_score": np.array([row[2] for row in rows], np.float32),
        "box_slot": np.array([row[3] for row in rows], np.int32),
    }
    behind = [source] if made_from is None else made_from
    return write_store(
        path,
        "boxes",
        values,
        made_from=behind,
        limit=limit,
        classes=classes,
        box_score_kind="class",
    )


def write_maps(path, source, images, *, classes="all", dtype=np.float32, **more):
    """Write a maps store over the images of the images store `source`, in its order.

    `images` is a dict: id to (extent or None for the whole image, [(class, score, map), …]).
    ``candidates``, in the same way: id to [(slot, level, score, box), …], in that order.
    """
    truth = arrays(source)
    num = len(images)
    num_slots = max(1, *(len(slots) for _, slots in images.values()))
    shapes = [np.shape(one[2]) for _, slots in images.values() for one in slots]
    num_rows, num_cols = max(s[0] for s in shapes), max(s[1] for s in shapes)
    size = truth["image_size"][:num]
    values = {
        "image_id": list(images),
        "image_size": size,
        "class_name": truth["class_name"].tolist(),
        "map": np.zeros((num, num_slots, num_rows, num_cols), dtype),
        "map_class": np.full((num, num_slots), -1, np.int32),
        "map_score": np.full((num, num_slots), -np.inf, np.float32),
        "map_extent": np.concatenate([np.zeros_like(size), size], axis=1).astype(np.float32),
        "class_score": np.zeros((num, len(truth["class_name"])), np.float32),
    }
    for row, (extent, slots) in enumerate(images.values()):
        if extent is not None:
            values["map_extent"][row] = extent
        for slot, (index, score, cells) in enumerate(slots):
            values["map_class"][row, slot], values["map_score"][row, slot] = index, score
            high, wide = np.shape(cells)
            values["map"][row, slot, :high, :wide] = cells
    arrays_more = {name: more.pop(name) for name in ("map_grid", "suppressed") if name in more}
    if "candidates" in more:
        arrays_more |= _candidates(images, more.pop("candidates"))
    return write_store(
        path, "maps", values | arrays_more, made_from=[source], classes=classes, **more
    )


def _candidates(images, candidates):
    rows = [one for name in images for one in candidates.get(name, [])]
    return {
        "candidate_start": [len(candidates.get(name, [])) for name in images],
        "candidate": np.array([one[3] for one in rows], np.float64).reshape(-1, 4),
        "candidate_slot": np.array([one[0] for one in rows], np.int32),
        "candidate_level": np.array([one[1] for one in rows], np.int16),
        "candidate_score": np.array([one[2] for one in rows], np.float32),
    }
