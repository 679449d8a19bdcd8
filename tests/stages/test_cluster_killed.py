"""``cluster`` in shards, killed, resumed, in both containers: always the same bytes."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsltool.stages.cluster import cluster
from wsltool.stores.open import open_store
from wsltool.stores.wip import WorkInProgress

from ..cli.processes import Command
from .fake_stage import contents
from .features_made import write_features

pytestmark = pytest.mark.slow

NUM_CLASSES = 11
NUM_KILLS = 8


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """11 classes in images that are shuffled; class 8 has but few patterns."""
    folder = tmp_path_factory.mktemp("features")
    class_N = np.random.default_rng(0).permutation(np.repeat(np.arange(NUM_CLASSES), 100))
    return write_features(
        folder / "f.zarr", class_N[class_N != 8], num_classes=NUM_CLASSES, cells=24, channels=96
    )


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, features: Path) -> dict[str, Any]:
    """What one uninterrupted run makes."""
    folder = tmp_path_factory.mktemp("good")
    command = _command(folder, features)
    assert command.wait() == 0, command.stderr
    assert command.stdout == "out.zarr\n"
    return contents(folder / "out.zarr")


def _command(folder: Path, features: Path, *more: str) -> Command:
    return Command(folder, "cluster", str(features), "-o", "out.zarr", *more)


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_four_shards_at_once_give_the_same_bytes(
    tmp_path: Path, features: Path, good: dict[str, Any], suffix: str
) -> None:
    more = ("-o", f"out{suffix}", "--shard")
    commands = [Command(tmp_path, "cluster", str(features), *more, f"{n}/4") for n in range(4)]
    assert [command.wait() for command in commands] == [0] * 4
    assert contents(tmp_path / f"out{suffix}") == good
    with open_store(tmp_path / f"out{suffix}") as store:
        assert len(store) == NUM_CLASSES
        assert store.attributes["num_classes_without"] == 0


def test_a_shard_does_its_classes_and_says_what_is_missing(tmp_path: Path, features: Path) -> None:
    command = _command(tmp_path, features, "--shard", "1/4")
    assert command.wait() == 0
    assert "8 of 11 blocks of other shards are missing" in command.stderr
    work = WorkInProgress(tmp_path / "out.zarr")
    assert work.plan()["rows_per_block"] == 1  # type: ignore[index]
    assert work.missing(NUM_CLASSES) == [0, 2, 3, 4, 6, 7, 8, 10]
    assert cluster(features, output=tmp_path / "out.zarr") == tmp_path / "out.zarr"


def test_killed_and_resumed_gives_the_same_bytes(
    tmp_path: Path, features: Path, good: dict[str, Any]
) -> None:
    rng, output, num_killed = random.Random(1), tmp_path / "out.zarr", 0
    began = time.monotonic()
    assert _command(tmp_path, features).wait() == 0
    life_s = time.monotonic() - began
    shutil.rmtree(output)
    while num_killed < NUM_KILLS:
        command = _command(tmp_path, features)
        time.sleep(rng.uniform(0, life_s))
        if command.kill():
            num_killed += 1
        else:
            assert contents(output) == good
            shutil.rmtree(output)
    assert _command(tmp_path, features).wait() == 0
    assert contents(output) == good
    assert not WorkInProgress(output).folder.exists()
