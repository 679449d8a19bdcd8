"""``wsltool export`` and ``wsltool ingest maps|boxes|masks`` from the command line, in a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.stages.making import arrays, write_boxes, write_images, write_maps

CLASSES = ["cat", "dog"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    images = write_images(
        tmp_path / "val.zarr",
        {"1": {"boxes": [(0, 0, 0, 5, 5)]}, "2": {"boxes": [(1, 0.1, 2, 3, 4)]}},
        CLASSES,
    )
    write_boxes(tmp_path / "found.zarr", images, {"1": [(0, 0.5, (0.1, 1, 2, 3))], "2": []})
    write_maps(
        tmp_path / "maps.zarr", images, {"1": (None, [(0, 2, [[1.0, 2.0]])]), "2": (None, [])}
    )
    return tmp_path


def wsltool(place: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell."""
    call = f"wsltool() {{ '{sys.executable}' -m wsltool \"$@\"; }}; set -o pipefail; {line}"
    return subprocess.run(
        ["bash", "-c", call],
        cwd=place,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_round_in_one_pipe(place: Path) -> None:
    done = wsltool(
        place,
        "wsltool export found.zarr --form voc-comp --split val "
        "| wsltool ingest boxes --form voc --images val.zarr -o back.zarr",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "back.zarr\n"
    np.testing.assert_array_equal(
        arrays(place / "back.zarr")["box"], arrays(place / "found.zarr")["box"]
    )


@pytest.mark.slow
def test_only_the_name_goes_to_stdout(place: Path) -> None:
    done = wsltool(place, "wsltool export maps.zarr --form npy -o theirs")
    assert (done.returncode, done.stdout) == (0, "theirs\n")
    done = wsltool(
        place,
        "wsltool ingest maps theirs --images val.zarr --classes theirs/maps.json "
        "--class-score theirs/class-score.npy -o m.zarr",
    )
    assert (done.returncode, done.stdout) == (0, "m.zarr\n"), done.stderr
    assert "warning" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("wsltool export found.zarr", 2, "wsltool: --form is missing. Say what to write"),
        ("wsltool export val.zarr --form coco", 1, 'wsltool: val.zarr: kind is "images", but --fo'),
        ("wsltool ingest masks .", 2, "wsltool: --images is missing. Give the images store"),
        ("wsltool ingest masks . --images val.zarr", 1, "wsltool: .: no .png file in it; expected"),
        ("wsltool ingest boxes no.json --images found.zarr", 1, 'wsltool: found.zarr: kind is "bo'),
    ],
)
def test_refusals_are_one_line(place: Path, line: str, code: int, told: str) -> None:
    done = wsltool(place, line)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(told)
    assert len(done.stderr.splitlines()) == 1
