"""``train-cls`` under ``torchrun``: real processes train as one does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

import wsltool
from wsltool.datasets.scenes import write_scenes
from wsltool.nets.models import load_model

pytestmark = pytest.mark.skipif(
    not distributed.is_available() or not distributed.is_gloo_available(),
    reason="this torch cannot train with several processes",
)

NUM = 40
DROPOUT: dict[str, Any] = {
    "model": "squeezenet1_1",
    "init": "none",
    "batch_size": 7,
    "lr": 0.0003,
}
"""Without batch normalisation; shares of a batch are uneven. At a higher rate this network learns
in leaps, in which rounding grows tenfold a step, in one process as well."""
NORM: dict[str, Any] = {"model": "small_gap", "batch_size": 19}
"""With batch normalisation: batches of 19, 19 and 2, which are fewer than three processes."""
COMMON: dict[str, Any] = {
    "loss": "logistic",
    "optimizer": "sgd",
    "lr": 0.001,
    "iterations": 20,
    "input_size": 64,
    "device": "cpu",
    "workers": 0,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    scenes = write_scenes(folder / "scenes", num_train=NUM, num_test=6, seed=3)
    return wsltool.ingest_voc(
        scenes, split="train", classes=scenes / "classes.txt", output=folder / "train.zarr"
    )


def _start(num_processes: int, images: Path, output: Path, **options: Any) -> subprocess.Popen[str]:
    """Start torchrun as a user would; it looks for a free port itself."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(num_processes), "-m", "wsltool", "train-cls", str(images)]
    for name, value in {**COMMON, **options, "output": output}.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def _end(child: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for its end; return what it wrote to stdout and stderr since."""
    try:
        return child.communicate(timeout=180)
    except subprocess.TimeoutExpired:
        child.terminate()  # torchrun ends its processes
        raise


def _torchrun(num_processes: int, images: Path, output: Path, **options: Any) -> tuple[str, str]:
    """Run it to its end; return what it wrote to stdout and stderr."""
    with _start(num_processes, images, output, **options) as child:
        said, told = _end(child)
    assert child.returncode == 0, told
    return said, told


def _alone(images: Path, output: Path, **options: Any) -> Path:
    return wsltool.train_cls(images, **COMMON | options, output=output)


def _losses(path: Path) -> list[float]:
    lines = path.with_suffix(".log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def _assert_same_training(path: Path, other: Path) -> None:
    assert len(_losses(path)) == 20
    assert _losses(path) == pytest.approx(_losses(other), rel=0, abs=1e-5)
    models = [load_model(str(p)) for p in (path, other)]
    pairs = [model.label_pair_count_KK for model in models]
    assert pairs[0] is not None
    assert pairs[1] is not None
    assert pairs[0].tolist() == pairs[1].tolist(), "counted once, not once a process"
    one, two = (model.network.module.state_dict() for model in models)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.allclose(value.float(), two[name].float(), rtol=0, atol=1e-4), name


@pytest.mark.parametrize(
    ("num_processes", "options"),
    [
        (2, DROPOUT),
        (2, NORM),
        pytest.param(3, NORM, marks=pytest.mark.slow),
        (2, DROPOUT | {"accumulate": 2, "augment": "mirror", "loss": "softmax-bce"}),
    ],
    ids=["dropout", "batch-norm", "fewer-images-than-processes", "accumulate"],
)
def test_processes_take_the_steps_of_one(
    images: Path, tmp_path: Path, one_thread: object, num_processes: int, options: dict[str, Any]
) -> None:
    several, one = tmp_path / "several.safetensors", tmp_path / "one.safetensors"
    said, told = _torchrun(num_processes, images, several, **options)
    assert said == f"{several}\n"
    assert told.count("no weights loaded") == 1, "one process talks"
    _alone(images, one, **options)
    _assert_same_training(several, one)


@pytest.mark.slow
def test_finished_again_and_interrupted(images: Path, tmp_path: Path, one_thread: object) -> None:
    output, one = tmp_path / "m.safetensors", tmp_path / "one.safetensors"
    with _start(2, images, output, **DROPOUT) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("iteration 1, epoch 1: loss"):
                break
        child.send_signal(signal.SIGTERM)
        said, told = _end(child)
    assert child.returncode != 0
    assert said == f"{output}\n"
    assert "wsltool: interrupted; the same command continues where this one stopped." in told
    checkpoint = tmp_path / "m.safetensors.wip" / "training" / "checkpoint.pt"
    assert 1 <= torch.load(checkpoint, weights_only=True)["iteration"] < 20
    said, _ = _torchrun(2, images, output, **DROPOUT)
    assert said == f"{output}\n"
    _alone(images, one, **DROPOUT)
    _assert_same_training(output, one)
    before = output.read_bytes()
    said, told = _torchrun(2, images, output, **DROPOUT)
    assert said == f"{output}\n"
    assert told.count("finished already, left alone") == 1
    assert output.read_bytes() == before


@pytest.mark.slow
def test_processes_cut_their_shares_into_equally_many_pieces(images: Path, tmp_path: Path) -> None:
    """Shares of 9 and 10 in 10 pieces: with batch normalisation each waits for the others'."""
    options = NORM | {"accumulate": 10, "iterations": 2}
    said, _ = _torchrun(2, images, tmp_path / "m.safetensors", **options)
    assert said == f"{tmp_path / 'm.safetensors'}\n"


def test_a_failure_that_all_meet_ends_all(images: Path, tmp_path: Path) -> None:
    with _start(2, images, tmp_path / "m.safetensors", model="smal_gap") as child:
        said, told = _end(child)
    assert (child.returncode, said) == (1, "")
    lines = [line for line in told.splitlines() if line.startswith("wsltool: ")]
    assert lines
    assert all(line.startswith('wsltool: there is no model "smal_gap"') for line in lines)
    assert "This is a bug" not in told


def test_a_failure_of_one_ends_all(images: Path, tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path / "scenes", num_train=8, num_test=6, seed=3)
    store = wsltool.ingest_voc(
        scenes, split="train", classes=scenes / "classes.txt", output=tmp_path / "train.zarr"
    )
    picture = scenes / "JPEGImages" / "train_000005.png"
    picture.write_bytes(picture.read_bytes()[:100])
    with _start(2, store, tmp_path / "m.safetensors", model="small_gap", batch_size=8) as child:
        said, told = _end(child)
    assert child.returncode == 1
    assert said == f"{tmp_path / 'm.safetensors'}\n"
    lines = [line for line in told.splitlines() if line.startswith("wsltool: ")]
    assert any(
        "train.zarr row 5: picture JPEGImages/train_000005.png has 100 bytes" in s for s in lines
    )
    assert "This is a bug" not in told
