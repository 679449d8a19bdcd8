"""Five images with hand-made boxes and peaks, for the tests of ``score``."""

from __future__ import annotations

import numpy as np
from PIL import Image

from wsltool.stages.score import score

from .making import arrays, write_boxes, write_images, write_maps, write_store

CLASSES = ["cat", "dog", "cow", "hen", "pig", "owl"]
WHOLE = (0, 0, 20, 10)
RIGHT = (0, 0, 10, 10)
HALF = (0, 0, 10, 5)  # IoU with RIGHT exactly .5
NEAR = (0, 0, 10, 4.9)
AWAY = (15, 0, 20, 10)
LABELS = (0, 0, 1, 1, 2)
SLOTS = {
    "a": [(0, 1.0, RIGHT)],
    "b": [(0, 1.0, AWAY)],
    "c": [(1, 1.0, RIGHT)],
    "d": [(1, 1.0, RIGHT)],
    "e": [(2, 1.0, AWAY)],
}

PEAKS = {
    "a": [(0, 9)],
    "b": [(0, 10)],  # the first pixel that the box does not hold
    "c": [(0, 3), (1, 0)],
    "d": [(0, 3)],  # no map of the dog that is there
    "e": [(2, 19)],
}

# Cat: a right, value 5; b misses by 9 px, value 3; c absent, value 4.
POINTS = {
    "a": [(0, 1.0, 2, 5.0)],
    "b": [(0, 3.0, 19, 3.0)],
    "c": [(0, 2.0, 2, 4.0), (1, 1.0, 0, 1.0)],
    "d": [(1, 1.0, 9, 1.0)],
    "e": [(2, 1.0, 9, 1.0)],
}


def five_images(folder):
    """Five images of 20 x 10, each with one box of its class on the left half."""
    listed = {name: {"boxes": [(k, *RIGHT)]} for name, k in zip("abcde", LABELS, strict=True)}
    return write_images(folder / "s.zarr", listed, CLASSES)


def others(first, *, score=0.9):
    """Slots for every class but some, below `score`."""
    return [(k, score - k / 100) for k in range(6) if k not in first]


def five_found(images):
    """Class right at rank 1, 1, 2, 5, 6; boxes right, just right, wrong, right, right."""
    slots = {
        "a": [(0, 9.0, RIGHT), *others([0])],
        "b": [(0, 9.0, HALF), *others([0])],
        "c": [(0, 9.0, RIGHT), (1, 8.0, NEAR), *others([0, 1])],
        "d": [(k, 9.0 - k, RIGHT) for k in (0, 2, 3, 4)] + [(1, 1.0, RIGHT), (5, 0.5)],
        "e": [(k, 9.0 - n) for n, k in enumerate((0, 1, 3, 4, 5))] + [(2, 1.0, RIGHT)],
    }
    return write_boxes(images.with_name("b.zarr"), images, slots, classes="all")


def result(path, protocol, **options):
    results = score(path, protocol=protocol, **options)["results"]
    assert len(results) == 1
    return results[0]


def peaked(images, tmp_path, peaks, **options):
    """Maps of 10 x 20 cells; `peaks` says for each image the class and column of its peak."""
    cells = {}
    for name, slots in peaks.items():
        maps = [np.zeros((10, 20)) for _ in slots]
        for one, (_, col) in zip(maps, slots, strict=True):
            one[3, col] = 1
        named = zip(slots, maps, strict=True)
        cells[name] = (None, [(k, float(-k), one) for (k, _), one in named])
    return write_maps(tmp_path / "m.zarr", images, cells, **options)


def write_mask(path, label_HW):
    """Write an indexed PNG whose colours say nothing of the indices."""
    path.parent.mkdir(exist_ok=True)
    picture = Image.fromarray(np.asarray(label_HW, np.uint8)).convert("P")
    picture.putdata(np.asarray(label_HW, np.uint8).ravel().tolist())
    picture.putpalette([255 - index for index in range(256) for _ in "rgb"])
    picture.save(path)


def with_masks(images, masks):
    """Write another images store beside `images`, with masks.

    `masks` is a dict: id to a list of (mask_class, label_HW), which are written, too.
    """
    values = arrays(images)
    values["box_start"] = np.diff(values["box_start"])
    found = [masks.get(name, []) for name in values["image_id"].tolist()]
    names = {}
    for name, files in masks.items():
        names[name] = [f"masks/{name}-{n}.png" for n in range(len(files))]
        for place, (_, label_HW) in zip(names[name], files, strict=True):
            write_mask(images.parent / place, label_HW)
    values["mask_start"] = [len(files) for files in found]
    values["mask_path"] = [
        place for name in values["image_id"].tolist() for place in names.get(name, [])
    ]
    values["mask_class"] = np.array([kind for files in found for kind, _ in files], np.int32)
    return write_store(images.with_name("masked.zarr"), "images", values, root=".")


def mapped(images, slots, *, name="m.zarr", **options):
    """Maps of 10 x 20 cells: for each image (class, class score, column, value of the peak)."""
    cells = {}
    for image, listed in slots.items():
        maps = [np.zeros((10, 20)) for _ in listed]
        for one, (_, _, col, value) in zip(maps, listed, strict=True):
            one[3, col] = value
        named = zip(listed, maps, strict=True)
        cells[image] = (None, [(k, score, one) for (k, score, _, _), one in named])
    return write_maps(images.parent / name, images, cells, **options)


def values(found):
    """Return the value of each class by its name."""
    return {row["class_name"]: row["value"] for row in found["per_class"]}
