"""``beam-search`` for 20 classes an image beside one candidate at a time; peak memory of the stage.

The network is the paper's AlexNet with its adaptation layers, random weights of the true shapes;
the plain loop is the one of the parity tests, which computes the features of a crop once and runs
the head for each candidate of each class. It takes the same for every class, so a few classes of
an image are timed, other ones each round.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.parity.beam_networks import adapted, blobs, features_of, head_of
from tests.parity.plain_beam_search import PlainSearch
from wsltool.nets.beam_search import BeamSettings, run_beam_search
from wsltool.nets.models import Model, load_model

pytestmark = pytest.mark.benchmark

NUM_CLASSES, NUM_IMAGES = 20, 2
CLASSES_TIMED = 2
BATCH = 32
SIZE_WH = (500, 375)
NUM_STAGE = 4
STAGE_BATCH = 2


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("beam") / "alexnet_adapted.safetensors"
    save_file(adapted("alexnet", NUM_CLASSES).state_dict(), path)
    return path


@pytest.fixture
def model(weights: Path) -> Model:
    loaded = load_model("alexnet_adapted", weights=weights, maps=False)
    return replace(loaded, loss="logistic")


class _Ours(NamedTuple):
    images_per_s: float
    num_heads: int
    num_crops: int


def _all(rows: Sequence[int], score_NK: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.tile(np.arange(NUM_CLASSES), (len(rows), 1))


def _ours(model: Model, mode: Any) -> _Ours:
    """Search a batch of images for every class; a first image, before, is not counted."""
    import torch

    found = run_beam_search(
        model,
        lambda row: blobs(*SIZE_WH, row),
        [[NUM_IMAGES], range(NUM_IMAGES)],
        _all,
        settings=BeamSettings(mode),
        device=torch.device("cpu"),
        batch_size=BATCH,
    )
    next(found)
    start = time.perf_counter()
    took = next(found).num_evaluated
    spent_s = time.perf_counter() - start
    return _Ours(NUM_IMAGES / spent_s, took.num_heads, took.num_crops)


class _Plain(NamedTuple):
    images_per_s: float
    num_heads: float
    num_crops: float


def _plain(model: Model, mode: str, number: int) -> _Plain:
    """Search one image for some classes, as if for all; the heat is left out of the time."""
    import torch

    module = model.network.module.to(memory_format=torch.contiguous_format)
    search = PlainSearch(features_of(module), head_of(module), model.preprocess, mode, model.loss)
    picture_HWC = blobs(*SIZE_WH, number)
    share = NUM_CLASSES / CLASSES_TIMED
    with torch.inference_mode():
        start = time.perf_counter()
        found = [search(picture_HWC, number * CLASSES_TIMED + k) for k in range(CLASSES_TIMED)]
        spent_s = time.perf_counter() - start
    num_heads = sum(one.num_heads for one in found)
    num_crops = sum(one.num_features - 1 for one in found)
    return _Plain(1 / (share * spent_s), share * num_heads, share * num_crops)


@pytest.mark.parametrize("mode", ["grid", "recrop"])
def test_beam_search_against_the_plain_loop(
    model: Model, record: Callable[..., None], mode: str
) -> None:
    """At least five times as fast, for 20 classes an image; and what sharing saves."""
    rounds = []
    for number in range(3):  # interleaved, so that a slow minute touches both
        rounds.append((_plain(model, mode, number), _ours(model, mode)))
    plain, ours = sorted(rounds, key=lambda r: r[1].images_per_s / r[0].images_per_s)[1]
    ratios = [ours.images_per_s / plain.images_per_s for plain, ours in rounds]
    record(
        network="alexnet_adapted, 224, float32, random weights",
        mode=mode,
        num_classes=NUM_CLASSES,
        beam=8,
        levels=10,
        batch=BATCH,
        images_per_s=round(ours.images_per_s, 3),
        plain_images_per_s=round(plain.images_per_s, 4),
        times_as_fast=round(sorted(ratios)[1], 1),
        all_times=[round(ratio, 1) for ratio in ratios],
        heads_an_image=round(ours.num_heads / NUM_IMAGES),
        plain_heads_an_image=round(float(np.mean([r[0].num_heads for r in rounds]))),
        crops_an_image=round(ours.num_crops / NUM_IMAGES),
        plain_crops_an_image=round(float(np.mean([r[0].num_crops for r in rounds]))),
    )
    assert sorted(ratios)[1] >= 5


@pytest.fixture(scope="module")
def images(weights: Path) -> Path:
    import wsltool

    folder = weights.parent / "in"
    for n in range(2 * NUM_STAGE):
        name = folder / f"class{n % NUM_CLASSES:02}" / f"{n:03}.jpg"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(blobs(*SIZE_WH, n)).save(name, quality=95)
    classes = weights.with_name("classes.txt")
    classes.write_text("".join(f"class{k:02}\n" for k in range(NUM_CLASSES)))
    return wsltool.ingest_folder(folder, classes=classes, output=weights.with_name("in.zarr"))


def _peak_bytes(images: Path, weights: Path, *arguments: str) -> int:
    """Return the peak memory of the stage as a process of its own."""
    output = images.with_name("out.zarr")
    command = [sys.executable, "-m", "wsltool", "beam-search", str(images), "-o", str(output)]
    command += ["--model", "alexnet_adapted", "--weights", str(weights), "--keep-candidates"]
    command += ["--batch-size", str(STAGE_BATCH), "--workers", "0", "-q", "--overwrite"]
    child = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return usage.ru_maxrss * 1024


@pytest.mark.parametrize("mode", ["grid", "recrop"])
def test_memory_of_beam_search(
    images: Path, weights: Path, record: Callable[..., None], mode: str
) -> None:
    """Bounded by the batch size alone: neither images nor classes, M or H add to it."""
    few = ("--mode", mode, "--limit", str(NUM_STAGE))
    peaks = {
        "n": _peak_bytes(images, weights, *few, "--classes", "top5"),
        "2n": _peak_bytes(images, weights, "--mode", mode, "--classes", "top5"),
        "all_classes": _peak_bytes(images, weights, *few, "--classes", "all"),
        "narrow": _peak_bytes(
            images, weights, *few, "--classes", "top1", "--beam", "1", "--levels", "2"
        ),
    }
    record(
        network="alexnet_adapted, 224, float32, random weights",
        mode=mode,
        num_images=NUM_STAGE,
        batch=STAGE_BATCH,
        peak_mb_n=peaks["n"] >> 20,
        peak_mb_2n=peaks["2n"] >> 20,
        peak_mb_20_classes=peaks["all_classes"] >> 20,
        peak_mb_1_class_beam_1_levels_2=peaks["narrow"] >> 20,
    )
    assert peaks["2n"] <= 1.03 * peaks["n"]
    assert peaks["all_classes"] <= 1.05 * peaks["n"]
