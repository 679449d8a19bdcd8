"""``cluster`` on a class of a million patterns of 512 channels: peak memory of the process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsltool.stores.open import open_store
from wsltool.stores.schema import string_array
from wsltool.stores.write import StoreWriter

pytestmark = pytest.mark.benchmark

NUM, NUM_CHANNELS, CELLS = 1_000_000, 512, 100
AT_ONCE = 20_000
LIMIT_BYTES = 1_500_000_000


def _write_features(path: Path) -> None:
    """One class, 10 000 images of 100 cells; about 1 GB of float16."""
    rng, num_images = np.random.default_rng(0), NUM // CELLS
    prototype_C = (rng.random((3, NUM_CHANNELS)) ** 8).astype(np.float32)
    place = np.arange(CELLS, dtype=np.int16)
    writer = StoreWriter(path, "features")
    fixed: dict[str, Any] = {
        "image_id": string_array([f"image {n}" for n in range(num_images)]),
        "image_size": np.full((num_images, 2), 224, np.int32),
        "class_name": string_array(["only"]),
        "map_extent": np.tile(np.array([0, 0, 224, 224], np.float32), (num_images, 1)),
        "cell_start": np.arange(num_images + 1, dtype=np.int64) * CELLS,
        "cell": np.tile(np.stack([place // 10, place % 10], axis=1), (num_images, 1)),
        "pattern_cell": np.arange(NUM, dtype=np.int64),
        "pattern_class": np.zeros(NUM, np.int32),
    }
    for name, values in fixed.items():
        writer.put(name, values)
    writer.create("feature", (NUM, NUM_CHANNELS), "float16")
    for _ in range(0, NUM, AT_ONCE):
        noise = rng.random((AT_ONCE, NUM_CHANNELS), np.float32)
        feature = prototype_C[rng.integers(0, 3, AT_ONCE)] + noise * (noise > 0.8)
        writer.append("feature", feature.astype(np.float16))
    meta = {"format": 1, "kind": "features", "id": "f" * 32, "limit": None, "skipped": 0}
    writer.finish(meta | {"inputs": {}}, {"layer": "made up", "grid": [10, 10]})


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_million_patterns_fit(tmp_path: Path, record: Callable[..., None], suffix: str) -> None:
    source = tmp_path / f"f{suffix}"
    _write_features(source)
    command = [sys.executable, "-m", "wsltool", "cluster", str(source), "-q"]
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    spent_s = time.perf_counter() - start
    assert child.returncode == 0
    peak_bytes = usage.ru_maxrss * 1024
    with open_store(tmp_path / f"f.cluster{suffix}") as store:
        assert store.whole("num_patterns").tolist() == [NUM]
    record(
        num_patterns=NUM,
        num_channels=NUM_CHANNELS,
        container=suffix,
        seconds=round(spent_s, 1),
        peak_mb=round(peak_bytes / 1e6),
    )
    assert peak_bytes < LIMIT_BYTES
