"""A real SLURM job array makes the same store as one process."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
