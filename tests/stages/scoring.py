"""Five images with hand-made boxes and peaks, for the tests of ``score``."""

from __future__ import annotations

import numpy as np

from wsltool.stages.score import score

from .making import write_boxes, write_images, write_maps

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
