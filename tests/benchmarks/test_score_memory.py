"""``score`` at the size of ILSVRC's validation: a million boxes, maps of the top five classes.

50 000 images of 1000 classes; each has one true box, five ranked classes with four boxes each,
and five maps of 14 x 14 cells. Every command runs as a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stages.making import write_store

pytestmark = pytest.mark.benchmark

NUM_IMAGES, NUM_CLASSES, NUM_SLOTS, BOXES_A_SLOT = 50_000, 1000, 5, 4
SIDE = 224
LIMIT_BYTES = 4 << 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("million"), np.random.default_rng(0)
    label_N = rng.integers(0, NUM_CLASSES, NUM_IMAGES)
    label_NK = np.zeros((NUM_IMAGES, NUM_CLASSES), np.uint8)
    label_NK[np.arange(NUM_IMAGES), label_N] = 1
    box_N4 = _boxes(rng, NUM_IMAGES)
    shared: dict[str, Any] = {
        "image_id": [f"ILSVRC2012_val_{n:08}" for n in range(NUM_IMAGES)],
        "image_size": np.full((NUM_IMAGES, 2), SIDE, np.int32),
        "class_name": [f"class {k}" for k in range(NUM_CLASSES)],
    }
    images = write_store(
        folder / "val.zarr",
        "images",
        shared
        | {
            "image_path": shared["image_id"],
            "image_num_bytes": np.ones(NUM_IMAGES, np.int64),
            "label": label_NK,
            "class_id": [f"n{k:08}" for k in range(NUM_CLASSES)],
            "box_start": np.ones(NUM_IMAGES, np.int64),
            "box": box_N4,
            "box_class": label_N.astype(np.int32),
        },
    )
    map_class_NS = _ranked_classes(rng, label_N)
    map_score_NS = -np.sort(-rng.random((NUM_IMAGES, NUM_SLOTS), np.float32), axis=1)
    ranks = {"map_class": map_class_NS, "map_score": map_score_NS}
    _write_boxes(folder, images, shared | ranks, box_N4, rng)
    extent_N4 = np.tile(np.array([0, 0, SIDE, SIDE], np.float32), (NUM_IMAGES, 1))
    maps = {
        "map": rng.random((NUM_IMAGES, NUM_SLOTS, 14, 14), np.float32).astype(np.float16),
        "map_extent": extent_N4,
        "class_score": rng.random((NUM_IMAGES, NUM_CLASSES), np.float32),
    }
    write_store(
        folder / "maps.zarr",
        "maps",
        shared | ranks | maps,
        made_from=[images],
        classes="top5+present",
    )
    return folder


def _boxes(rng: np.random.Generator, num: int) -> np.ndarray[Any, Any]:
    corner_B2 = rng.integers(0, SIDE // 2, (num, 2))
    return np.hstack([corner_B2, corner_B2 + rng.integers(20, SIDE // 2, (num, 2))]).astype(float)


def _ranked_classes(
    rng: np.random.Generator, label_N: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Five different classes an image, the true one among them, somewhere."""
    first_N = rng.integers(0, NUM_CLASSES, NUM_IMAGES)
    class_NS = (first_N[:, None] + 7 * np.arange(NUM_SLOTS)) % NUM_CLASSES
    shift_N = label_N - class_NS[np.arange(NUM_IMAGES), rng.integers(0, NUM_SLOTS, NUM_IMAGES)]
    return ((class_NS + shift_N[:, None]) % NUM_CLASSES).astype(np.int32)


def _write_boxes(
    folder: Path,
    images: Path,
    shared: dict[str, Any],
    true_N4: np.ndarray[Any, Any],
    rng: np.random.Generator,
) -> None:
    a_row = NUM_SLOTS * BOXES_A_SLOT
    slot_B = np.tile(np.repeat(np.arange(NUM_SLOTS), BOXES_A_SLOT), NUM_IMAGES)
    image_B = np.repeat(np.arange(NUM_IMAGES), a_row)
    box_B4 = true_N4[image_B] + rng.integers(-9, 10, (len(image_B), 4))
    boxes = {
        "box_start": np.full(NUM_IMAGES, a_row, np.int64),
        "box": box_B4,
        "box_class": shared["map_class"][image_B, slot_B],
        "box_score": rng.random(len(image_B), np.float32),
        "box_slot": slot_B.astype(np.int32),
    }
    write_store(
        folder / "boxes.zarr",
        "boxes",
        shared | boxes,
        made_from=[images],
        classes="top5+present",
        box_score_kind="heat-max",
    )


def _score(folder: Path, store: str, *arguments: str) -> tuple[float, int, list[Any]]:
    """Return seconds, peak memory in bytes and the values of one command."""
    command = [sys.executable, "-m", "wsltool", "score", store, "-q", "--json", *arguments]
    with (folder / "out.json").open("wb") as out:
        start = time.perf_counter()
        child = subprocess.Popen(command, cwd=folder, stdout=out)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    spent_s = time.perf_counter() - start
    assert child.returncode == 0
    values = [one["value"] for one in json.loads((folder / "out.json").read_text())["results"]]
    return spent_s, usage.ru_maxrss * 1024, values


@pytest.mark.parametrize(
    ("store", "protocol"),
    [
        ("boxes.zarr", "ilsvrc-top5"),
        ("boxes.zarr", "voc-ap"),
        ("boxes.zarr", "coco-ap"),
        ("boxes.zarr", "corloc"),
        ("maps.zarr", "point"),
        ("maps.zarr", "peak-in-box"),
    ],
)
def test_score_fits_a_laptop(
    folder: Path, record: Callable[..., None], store: str, protocol: str
) -> None:
    spent_s, peak_bytes, values = _score(folder, store, "--protocol", protocol)
    record(
        protocol=protocol,
        images=NUM_IMAGES,
        boxes=NUM_IMAGES * NUM_SLOTS * BOXES_A_SLOT if store == "boxes.zarr" else 0,
        seconds=round(spent_s, 1),
        peak_mb=peak_bytes >> 20,
    )
    assert peak_bytes < LIMIT_BYTES
    assert values[0] is not None
