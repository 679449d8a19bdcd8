"""``cam``, whole stage from JPEG to store, beside the bare forward pass of the same network."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.benchmark, pytest.mark.real]

BATCH = 32
NUM = 192


@pytest.fixture(scope="module")
def images(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import wsltool

    folder = tmp_path_factory.mktemp("cam")
    voc = data_dir / "VOCdevkit" / "VOC2007"
    return wsltool.ingest_voc(voc, split="trainval", output=folder / "trainval.zarr")


@pytest.fixture(scope="module")
def weights(images: Path) -> Path:
    import torch
    import torchvision
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = images.with_name("resnet50.safetensors")
    save_file(torchvision.models.resnet50(num_classes=20).state_dict(), path)
    return path


def _bare(weights: Path, num_batches: int) -> float:
    """Return images/s of the network alone, tensors in memory, as a user would write it."""
    import torch
    import torchvision
    from safetensors.torch import load_file

    network = torchvision.models.resnet50(num_classes=20)
    network.load_state_dict(load_file(weights))
    network.eval().to(memory_format=torch.channels_last)
    batch = torch.rand(BATCH, 3, 224, 224).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        network(batch)
        start = time.perf_counter()
        for _ in range(num_batches):
            network(batch)
    return num_batches * BATCH / (time.perf_counter() - start)


def _cam(images: Path, weights: Path, num: int) -> tuple[float, int]:
    """Return seconds and peak memory (bytes) of the stage as a process of its own."""
    output = images.with_name(f"maps-{num}.zarr")
    command = [sys.executable, "-m", "wsltool", "cam", str(images), "--model", "resnet50"]
    command += ["--weights", str(weights), "--limit", str(num), "-o", str(output), "-q"]
    command += ["--batch-size", str(BATCH), "--overwrite", "--classes", "top5"]
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    spent = time.perf_counter() - start
    subprocess.run(["rm", "-r", str(output)], check=True)
    return spent, usage.ru_maxrss * 1024


def test_cam_stage_against_bare_forward(
    images: Path, weights: Path, record: Callable[..., None]
) -> None:
    """The images/s of N further images of the stage are at least 0.9 of the bare network's."""
    rounds = []
    for _ in range(3):  # interleaved, so that a slow minute touches both
        bare = _bare(weights, NUM // BATCH)
        short_s, short_bytes = _cam(images, weights, NUM)
        long_s, long_bytes = _cam(images, weights, 2 * NUM)
        rounds.append((bare, NUM / (long_s - short_s), short_bytes, long_bytes))
    bare, stage, short_bytes, long_bytes = sorted(rounds, key=lambda r: r[1] / r[0])[1]
    record(
        network="resnet50, 224, float32",
        batch=BATCH,
        bare_images_per_s=round(bare, 2),
        stage_images_per_s=round(stage, 2),
        ratio=round(stage / bare, 3),
        all_ratios=[round(r[1] / r[0], 3) for r in rounds],
        peak_mb_n=short_bytes >> 20,
        peak_mb_2n=long_bytes >> 20,
    )
    assert stage >= 0.9 * bare
    assert long_bytes <= 1.03 * short_bytes
