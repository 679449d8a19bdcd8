"""``train-cls``: from labels to a model file, interrupted, refused, and used."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import wsltool
from wsltool.datasets.scenes import write_scenes
from wsltool.errors import (
    BadImageError,
    ModelError,
    StoreExistsError,
    StoreUnfinishedError,
    TrainingError,
    UsageError,
)
from wsltool.nets.model_file import read_header
from wsltool.nets.models import load_model

from .making import Ears, put_picture

QUICK = {"model": "small_gap", "loss": "logistic", "epochs": 2, "device": "cpu", "workers": 0}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    scenes = write_scenes(folder / "scenes", num_train=24, num_test=6, seed=3)
    return wsltool.ingest_voc(
        scenes, split="train", classes=scenes / "classes.txt", output=folder / "train.zarr"
    )


def _arrays(path: Path) -> dict[str, str]:
    """Return the digest of every array: pytest takes minutes to show how long bytes differ."""
    state = load_model(str(path)).network.module.state_dict()
    return {n: hashlib.sha256(v.numpy().tobytes()).hexdigest() for n, v in state.items()}


def test_the_model_file_holds_what_cam_needs(images: Path, tmp_path: Path) -> None:
    heard = Ears()
    path = wsltool.train_cls(images, **QUICK, output=tmp_path / "m.safetensors", report=heard)
    assert heard.announced == [path]
    header = read_header(path)
    assert header is not None
    assert header.class_name == ["disc", "triangle", "square", "star", "cross", "train"]
    assert (header.arch, header.loss, header.pool) == ("small_gap", "logistic", "gap")
    made = header.provenance["made"]
    assert made["params"]["epochs"] == 2
    assert made["inputs"]["images"]["path"].endswith("train.zarr")
    log = [json.loads(line) for line in (tmp_path / "m.log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [1, 2]
    assert all(line["num_images"] == 24 and np.isfinite(line["loss"]) for line in log)
    assert not (tmp_path / "m.safetensors.wip").exists()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(
        (tmp_path / "m.log.jsonl").stat().st_mode
    )
    maps = wsltool.cam(images, model=str(path), output=tmp_path / "maps.zarr", workers=0)
    assert wsltool.verify(maps)["problems"] == []


def test_the_derived_name_and_the_same_command_twice(images: Path, tmp_path: Path) -> None:
    path = wsltool.train_cls(images, **QUICK)
    assert path == images.with_name("train.train-cls.safetensors")
    before = path.read_bytes()
    heard = Ears()
    assert wsltool.train_cls(images, **QUICK, report=heard) == path
    assert path.read_bytes() == before
    assert any("finished already, left alone" in line for line in heard.notes)
    with pytest.raises(StoreExistsError, match=r"made with --epochs 2, now 3\. Pass -o"):
        wsltool.train_cls(images, **QUICK | {"epochs": 3})
    assert path.read_bytes() == before


def test_equal_seeds_give_equal_weights_and_others_do_not(images: Path, tmp_path: Path) -> None:
    one = wsltool.train_cls(images, **QUICK, output=tmp_path / "one.safetensors")
    two = wsltool.train_cls(images, **QUICK, output=tmp_path / "two.safetensors")
    other = wsltool.train_cls(images, **QUICK, seed=1, output=tmp_path / "other.safetensors")
    assert _arrays(one) == _arrays(two)
    assert _arrays(one) != _arrays(other)


def test_what_is_wrong_is_found_before_a_name_is_printed(images: Path, tmp_path: Path) -> None:
    heard = Ears()
    common = {"output": tmp_path / "m.safetensors", "report": heard}
    with pytest.raises(TrainingError, match=r"softmax needs exactly one, and .* Pass --loss log"):
        wsltool.train_cls(images, **QUICK | {"loss": "softmax"}, **common)
    with pytest.raises(ModelError, match='there is no model "resnt18"'):
        wsltool.train_cls(images, **QUICK | {"model": "resnt18"}, **common)
    with pytest.raises(TrainingError, match="--freeze features: nothing of small_gap was trained"):
        wsltool.train_cls(images, **QUICK, freeze="features", **common)
    with pytest.raises(UsageError, match=r"m\.pt: a model file ends in \.safetensors\."):
        wsltool.train_cls(images, **QUICK, output=tmp_path / "m.pt", report=heard)
    with pytest.raises(UsageError, match=r"--epochs must be in \[1, 1000000\), got 0\."):
        wsltool.train_cls(images, **QUICK | {"epochs": 0}, **common)
    assert heard.announced == []
    assert list(tmp_path.iterdir()) == []


def test_a_class_without_images_is_told(images: Path, tmp_path: Path) -> None:
    heard = Ears()
    wsltool.train_cls(images, **QUICK, limit=3, output=tmp_path / "m.safetensors", report=heard)
    assert [
        line for line in heard.warnings if "of 6 classes have no image and cannot be learnt" in line
    ]


def test_frozen_features_learn_the_head_alone(images: Path, tmp_path: Path) -> None:
    first = wsltool.train_cls(images, **QUICK, output=tmp_path / "first.safetensors")
    heard = Ears()
    second = wsltool.train_cls(
        images,
        **QUICK,
        init=str(first),
        freeze="features",
        augment="mirror",
        output=tmp_path / "second.safetensors",
        report=heard,
    )
    one, two = _arrays(first), _arrays(second)
    changed = {name for name in one if one[name] != two[name]}
    assert changed == {"fc.weight", "fc.bias"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_interrupted_training_ends_like_one_that_was_not(
    images: Path, tmp_path: Path, number: signal.Signals
) -> None:
    whole, path = tmp_path / "whole.safetensors", tmp_path / "m.safetensors"
    assert _start(images, whole).wait(timeout=120) == 0
    checkpoint = tmp_path / "m.safetensors.wip" / "training" / "checkpoint.pt"
    with _start(images, path) as child:
        for _ in range(1200):
            if checkpoint.exists():
                break
            time.sleep(0.05)
        child.send_signal(number)
        assert child.wait(timeout=60) == (-9 if number == signal.SIGKILL else 143)
    assert checkpoint.exists()
    assert not path.exists()
    assert _start(images, path).wait(timeout=120) == 0
    assert _arrays(path) == _arrays(whole)


def _start(images: Path, output: Path) -> subprocess.Popen[bytes]:
    """Start a training as a user would; equal bytes are promised for equal threads."""
    command = [sys.executable, "-m", "wsltool", "train-cls", str(images), "--model", "small_gap"]
    command += ["--loss", "logistic", "--epochs", "8", "--device", "cpu", "--workers", "0"]
    command += ["-o", str(output), "-q"]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def test_stages_chain_in_python(images: Path, tmp_path: Path) -> None:
    model = wsltool.train_cls(images, **QUICK, output=tmp_path / "m.safetensors")
    maps = wsltool.cam(images, model=model, output=tmp_path / "maps.zarr", workers=0)
    again = wsltool.train_cls(
        images, **QUICK | {"model": model, "epochs": 1}, output=tmp_path / "n.safetensors"
    )
    assert maps.exists()
    assert again.exists()


def test_the_spelling_of_a_path_is_no_difference(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = wsltool.train_cls(images, **QUICK, output=tmp_path / "m.safetensors")
    more = QUICK | {"epochs": 1, "output": tmp_path / "n.safetensors"}
    wsltool.train_cls(images, **more | {"model": model})
    monkeypatch.chdir(tmp_path)
    heard = Ears()
    wsltool.train_cls(images, **more | {"model": "./m.safetensors"}, report=heard)
    assert any("finished already" in line for line in heard.notes)


def test_a_second_process_does_not_disturb_a_training(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    with _start(images, output) as child:
        lock = tmp_path / "m.safetensors.wip" / "training" / "lock"
        for _ in range(1200):
            if lock.exists():
                break
            time.sleep(0.05)
        with pytest.raises(StoreUnfinishedError, match="another process is training it"):
            wsltool.train_cls(images, **QUICK | {"epochs": 8}, output=output)
        assert child.wait(timeout=120) == 0
    assert output.exists()


def test_a_bad_picture_is_named_with_its_store(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("a", "b"):
        put_picture(folder / name / "0.png", (40, 30))
    put_picture(folder / "b" / "1.png", (40, 30))
    broken = (folder / "b" / "1.png").read_bytes()
    (folder / "b" / "1.png").write_bytes(broken[: len(broken) // 2])
    store = wsltool.ingest_folder(folder)
    with pytest.raises(BadImageError, match=r"photos\.images\.zarr row 2: .*Leave the image out"):
        wsltool.train_cls(store, **QUICK | {"loss": "softmax"}, output=tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ({"limit": 2.5}, "--limit must be a whole number, got 2.5."),
        ({"limit": True}, "--limit must be a whole number, got True."),
        ({"epochs": 1.5}, "--epochs must be a whole number, got 1.5."),
        ({"batch_size": "8"}, "--batch-size must be a whole number, got '8'."),
        ({"lr": "fast"}, "--lr must be a number, got 'fast'."),
        ({"shard": "0/2"}, "train-cls has one worker and leaves no image out: no --shard"),
    ],
)
def test_wrong_types_from_python(images: Path, tmp_path: Path, option: dict, line: str) -> None:
    with pytest.raises(UsageError, match=line.replace("(", r"\(")):
        wsltool.train_cls(images, **QUICK | option, output=tmp_path / "m.safetensors")


def test_numpy_numbers_are_numbers(images: Path, tmp_path: Path) -> None:
    path = wsltool.baseline(
        images,
        prior="random",
        grid=np.int64(4),
        seed=np.int64(1),
        limit=np.int32(3),
        output=tmp_path / "r.zarr",
    )
    boxes = wsltool.boxes(path, threshold=np.float64(0.2), output=tmp_path / "b.zarr")
    with wsltool.open_store(boxes) as store:
        assert store.meta["params"]["threshold"] == 0.2
        assert store.meta["limit"]["num_rows"] == 3
