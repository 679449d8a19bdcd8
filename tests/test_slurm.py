"""A real SLURM: a job array makes the same store as one process, a training goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

import wsltool
from wsltool.datasets.scenes import write_scenes

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def _slurm() -> None:
    if shutil.which("sbatch") is None:
        pytest.skip("no sbatch here: install SLURM and start a node to run this")
    if subprocess.run(["sinfo", "-h"], capture_output=True, timeout=20).returncode:
        pytest.skip("SLURM is installed but no controller answers (is SLURM_CONF set?)")


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """Random maps large enough to make eight blocks."""
    scenes = write_scenes(tmp_path / "scenes", num_train=6, num_test=60, seed=1)
    images = wsltool.ingest_voc(
        scenes, split="test", classes=scenes / "classes.txt", output=tmp_path / "test.zarr"
    )
    return wsltool.baseline(images, prior="random", grid=700)


def _submit(folder: Path, array: str, *options: str) -> list[str]:
    """Run ``wsltool boxes --shard slurm`` as a job array; return what each task wrote."""
    job = folder / "job.sh"
    command = f"{sys.executable} -m wsltool boxes {folder}/test.baseline.zarr --shard slurm"
    job.write_text(f"#!/bin/bash\nexec {command} {' '.join(options)}\n")
    script = ["sbatch", f"--array={array}", "--wait", "-o", f"{folder}/task-%a.out", str(job)]
    subprocess.run(script, capture_output=True, timeout=300, cwd=folder)
    return [file.read_text() for file in sorted(folder.glob("task-*.out"))]


def test_a_job_array_makes_the_same_store_as_one_process(maps: Path, tmp_path: Path) -> None:
    said = _submit(tmp_path, "2-8:2", "-o", str(tmp_path / "array.zarr"))
    assert len(said) == 4
    single = wsltool.boxes(maps, output=tmp_path / "single.zarr")
    with wsltool.open_store(tmp_path / "array.zarr") as array, wsltool.open_store(single) as one:
        assert array.meta["digest"] == one.meta["digest"]


def test_a_job_array_with_gaps_is_refused(maps: Path, tmp_path: Path) -> None:
    said = _submit(tmp_path, "0,3,4")
    assert len(said) == 3
    assert all(
        "--shard slurm: the job array has gaps (3 tasks between 0 and 4, step 1)" in s for s in said
    )


def _wait_for(file: Path, text: str) -> None:
    for _ in range(600):
        if file.exists() and text in file.read_text():
            return
        time.sleep(0.1)
    raise AssertionError(f"{file}: no {text!r} in {file.read_text() if file.exists() else None!r}")


def test_a_training_that_is_asked_to_stop_goes_on(tmp_path: Path) -> None:
    """SIGTERM, as before a time limit: a checkpoint; the same script again: the same weights."""
    scenes = write_scenes(tmp_path / "scenes", num_train=24, num_test=6, seed=3)
    images = wsltool.ingest_voc(scenes, split="train", classes=scenes / "classes.txt")
    job, output = tmp_path / "job.sh", tmp_path / "m.safetensors"
    options = "--model small_gap --loss logistic --epochs 10 --batch-size 2 --input-size 48"
    options += " --device cpu --workers 0"
    command = f"{sys.executable} -m wsltool train-cls {images} {options}"
    job.write_text(f"#!/bin/bash\nexport OMP_NUM_THREADS=1\nexec {command} -o {output}\n")
    told = tmp_path / "told"
    submit = ["sbatch", "--parsable", "-o", str(told), str(job)]
    number = subprocess.run(submit, capture_output=True, text=True, check=True).stdout.strip()
    _wait_for(told, "iteration 1, epoch 1: loss")
    subprocess.run(["scancel", "--batch", "--signal=TERM", number], check=True)
    _wait_for(told, "wsltool: interrupted; the same command continues where this one stopped.")
    assert not output.exists()
    subprocess.run([*submit[:1], "--wait", *submit[2:]], capture_output=True, timeout=300)
    assert output.exists(), told.read_text()
    again = f"{command} -o {tmp_path}/whole.safetensors".split()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(again, env=environment, capture_output=True, timeout=300, check=True)
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("m", "whole"))
    assert one.keys() == two.keys()
    assert all((one[name] == two[name]).all() for name in one)
