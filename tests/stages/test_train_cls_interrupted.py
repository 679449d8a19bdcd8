"""``train-cls`` in real processes: killed or asked to stop, it goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import wsltool
from wsltool.datasets.scenes import write_scenes
from wsltool.errors import StoreExistsError, StoreUnfinishedError, TrainingError
from wsltool.nets.models import load_model

QUICK: dict[str, Any] = {
    "model": "small_gap",
    "loss": "logistic",
    "epochs": 5,
    "batch_size": 2,
    "input_size": 48,
    "device": "cpu",
    "workers": 0,
}
"""Twelve iterations make an epoch."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    scenes = write_scenes(folder / "scenes", num_train=24, num_test=6, seed=3)
    return wsltool.ingest_voc(
        scenes, split="train", classes=scenes / "classes.txt", output=folder / "train.zarr"
    )


def _start(images: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    """Start a training as a user would; equal bytes are promised for equal threads."""
    command = [sys.executable, "-m", "wsltool", "train-cls", str(images), "-o", str(output)]
    for name, value in QUICK.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    return subprocess.Popen(
        [*command, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def _arrays(path: Path) -> dict[str, str]:
    state = load_model(str(path)).network.module.state_dict()
    return {n: hashlib.sha256(v.numpy().tobytes()).hexdigest() for n, v in state.items()}


def _pairs(path: Path) -> list[list[int]]:
    count_KK = load_model(str(path)).label_pair_count_KK
    assert count_KK is not None
    found: list[list[int]] = count_KK.tolist()
    return found


def _losses(path: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, path.with_suffix(".log.jsonl").read_text().splitlines())
    return [(line["iteration"], line["loss"]) for line in lines]


def _stopped_at(output: Path) -> int:
    checkpoint = output.with_suffix(".safetensors.wip") / "training" / "checkpoint.pt"
    iteration: int = torch.load(checkpoint, weights_only=True)["iteration"]
    return iteration


def _wait_for(file: Path, num_lines: int) -> None:
    for _ in range(6000):
        if file.exists() and file.read_text().count("\n") >= num_lines:
            return
        time.sleep(0.01)
    raise AssertionError(f"{file} does not come")


def _assert_goes_on(images: Path, output: Path, tmp_path: Path) -> None:
    """The same command ends as a training that was never interrupted."""
    assert not output.exists()
    assert _stopped_at(output) % 12 != 0, "an epoch was not over"
    with _start(images, output) as child:
        said, _ = child.communicate(timeout=120)
    assert (child.returncode, said) == (0, f"{output}\n")
    whole = wsltool.train_cls(images, **QUICK, output=tmp_path / "whole.safetensors")
    assert _arrays(output) == _arrays(whole)
    assert _losses(output) == _losses(whole)
    assert _pairs(output) == _pairs(whole)
    assert [iteration for iteration, _ in _losses(output)] == list(range(1, 61))


def test_killed_in_the_middle_of_an_epoch(images: Path, tmp_path: Path, one_thread: object) -> None:
    output = tmp_path / "m.safetensors"
    log = tmp_path / "m.safetensors.wip" / "training" / "log.jsonl"
    with _start(images, output, "--checkpoint-minutes", "0") as child:
        _wait_for(log, 15)
        child.kill()
        said, _ = child.communicate(timeout=60)
    assert child.returncode == -9
    assert said == f"{output}\n"
    assert 15 <= _stopped_at(output) < 24
    _assert_goes_on(images, output, tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_it_writes_a_checkpoint_by_itself(
    images: Path, tmp_path: Path, one_thread: object, number: signal.Signals, code: int
) -> None:
    output = tmp_path / "m.safetensors"
    with _start(images, output) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("iteration 1, epoch 1: loss"):
                break
        child.send_signal(number)
        _, told = child.communicate(timeout=60)
    assert child.returncode == code
    assert told == "wsltool: interrupted; the same command continues where this one stopped.\n"
    if number == signal.SIGTERM:
        _assert_goes_on(images, output, tmp_path)


def test_other_parameters_do_not_continue_it(images: Path, tmp_path: Path) -> None:
    output, long = tmp_path / "m.safetensors", QUICK | {"epochs": 50}
    log = tmp_path / "m.safetensors.wip" / "training" / "log.jsonl"
    with _start(images, output, "--checkpoint-minutes", "0", "--epochs", "50") as child:
        _wait_for(log, 1)
        with pytest.raises(StoreUnfinishedError, match="another process is training it"):
            wsltool.train_cls(images, **long, output=output)
        child.kill()
    with pytest.raises(StoreExistsError, match=r"with --lr 0\.001, now 0\.01"):
        wsltool.train_cls(images, **long, lr=0.01, output=output)
    (log.parent / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: not a checkpoint of train-cls"):
        wsltool.train_cls(images, **long, output=output)
