"""Features made at once, in shards, in another container, or by runs that were killed."""

from __future__ import annotations

import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from wsltool.stages.cam import cam
from wsltool.stages.convert import convert
from wsltool.stages.extract_features import extract_features
from wsltool.stages.ingest import ingest_folder
from wsltool.stages.verify import verify

from ..cli.processes import ROOT, Command
from .colours import CLASSES, CPU, ME
from .fake_stage import contents
from .making import assert_equal_arrays, meta, put_picture
from .tiny_networks import Colours

SIDE_PX = 64
OPTIONS = {"device": "cpu", "batch_size": 50, "on_bad": "skip"}


class Wide(Colours):
    """Its features take half a megabyte a picture, so a block has 128 rows."""

    def __init__(self):
        super().__init__()
        self.wide = Repeat()

    def forward(self, x_NCHW):
        self.wide(x_NCHW)
        return super().forward(x_NCHW)


class Repeat(nn.Module):
    def forward(self, x_NCHW):
        return x_NCHW.repeat(1, 21, 1, 1)


def wide():
    return Wide(), {"size": SIDE_PX, "mean": [0.0] * 3, "std": [1.0] * 3}


def write_pictures(folder, num, bad=()):
    """Small pictures of noise in class folders; those of `bad` are truncated."""
    rng = np.random.default_rng(1)
    for n in range(num):
        size = (int(rng.integers(6, 14)), int(rng.integers(6, 14)))
        path = put_picture(
            folder / f"{CLASSES[n % 3]}/{n:04}.jpg", rng.integers(0, 256, (*size, 3), np.uint8)
        )
        if n in bad:
            path.write_bytes(path.read_bytes()[:-40])
    (folder.parent / "classes.txt").write_text("red\ngreen\nblue\n")
    return ingest_folder(
        folder, classes=folder.parent / "classes.txt", output=folder.with_suffix(".zarr")
    )


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Maps of 270 pictures, so two blocks; a truncated picture in each, which the maps have."""
    folder = tmp_path_factory.mktemp("many")
    images = write_pictures(folder / "set", 270)
    maps = cam(images, model=f"{ME}:colours", classes="top2", **CPU)
    for name in ("blue/0005.jpg", "red/0267.jpg"):  # after the maps, of the same size
        path = folder / "set" / name
        path.write_bytes(path.read_bytes()[:40] + bytes(path.stat().st_size - 40))
    return maps


@pytest.fixture(scope="module")
def whole(many):
    return extract_features(many, workers=0, **OPTIONS)


@pytest.mark.usefixtures("one_thread")
def test_the_same_bytes_whatever_workers_shards_and_container(many, whole, tmp_path):
    assert meta(whole)["skipped"] == 2
    assert verify(whole)["problems"] == []
    for name, workers in (("one.h5", 1), ("two.zarr", 2)):
        other = extract_features(many, output=tmp_path / name, workers=workers, **OPTIONS)
        assert meta(other)["digest"] == meta(whole)["digest"]
        assert_equal_arrays(whole, other)
        assert verify(other)["problems"] == []
    for shard in ("1/4", "3/4", "0/4", "2/4"):
        done = extract_features(
            many, output=tmp_path / "parts.zarr", workers=0, shard=shard, **OPTIONS
        )
    assert meta(done)["digest"] == meta(whole)["digest"]


@pytest.mark.usefixtures("one_thread")
def test_maps_in_the_other_container(many, whole, tmp_path):
    other = convert(many, output=many.with_suffix(".h5"))
    found = extract_features(other, output=tmp_path / "x.zarr", workers=0, **OPTIONS)
    assert meta(found)["digest"] == meta(whole)["digest"]


@pytest.mark.slow
def test_killed_five_times_gives_the_same_bytes(many, whole, tmp_path):
    expected, rng, num_killed = contents(whole), random.Random(5), 0

    def start():
        options = ("--on-bad", "skip", "--batch-size", "50", "--workers", "1", "--device", "cpu")
        return Command(tmp_path, "extract-features", str(many), "-o", "out.zarr", *options)

    for _ in range(2):  # the first may have to warm the process that forks
        began = time.monotonic()
        command = start()
        assert command.wait() == 3, command.stderr
        life_s = time.monotonic() - began
        assert contents(tmp_path / "out.zarr") == expected
        shutil.rmtree(tmp_path / "out.zarr")
    while num_killed < 5:
        command = start()
        time.sleep(rng.uniform(0, life_s))
        if command.kill():
            num_killed += 1
        elif (tmp_path / "out.zarr").exists():
            assert contents(tmp_path / "out.zarr") == expected
            shutil.rmtree(tmp_path / "out.zarr")
    assert start().wait() == 3
    assert contents(tmp_path / "out.zarr") == expected
    assert not (tmp_path / "out.zarr.wip").exists()


@pytest.mark.benchmark
def test_four_times_as_many_images_take_no_more_memory(tmp_path):
    """Two blocks of 64 MB against eight; glibc keeps some 100 MB more or less of what is free."""
    peak_mb = []
    for num in (256, 1024):
        images = write_pictures(tmp_path / f"n{num}", num)
        run = [sys.executable, "-m", __name__, str(images)]
        done = subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True)
        peak_mb.append(float(done.stdout.split()[-1]))
    assert peak_mb[1] < peak_mb[0] + 3 * 64, peak_mb


def _measure(images):
    extract_features(images, model=f"{__spec__.name}:wide", layer="wide", **CPU)
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}\n")


if __name__ == "__main__":
    _measure(Path(sys.argv[1]))
