"""Pictures become proposals: the whole stage, in both containers, in shares."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from tests.localize.test_selective_search import contrib
from wsltool.errors import BadImageError, ExtraMissingError, LineageError, UsageError
from wsltool.localize.selective_search import selective_search
from wsltool.stages import propose as stage
from wsltool.stages.ingest import ingest_folder
from wsltool.stages.propose import propose
from wsltool.stages.select import select
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from ..cli.processes import Command
from .making import Ears, arrays, assert_equal_arrays, meta, noise, put_picture


def picture(n):
    """Noise of different sizes, not square."""
    return noise(60 + n % 3, 40 - n % 5, n)


@pytest.fixture
def images(tmp_path):
    """Five pictures in two classes; lossless."""
    for n in range(5):
        put_picture(tmp_path / "photos" / ("ant", "bee")[n % 2] / f"{n}.png", picture(n))
    return ingest_folder(tmp_path / "photos", output=tmp_path / "s.zarr")


@contrib
@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_the_stage_is_its_core_on_every_row(images, tmp_path, suffix):
    output = propose(images, max_boxes=9, output=tmp_path / f"p{suffix}")
    found = arrays(output)
    numbers = [int(name.split("/")[-1].split(".")[0]) for name in found["image_id"].tolist()]
    expected = [selective_search(picture(n), max_boxes=9) for n in numbers]
    np.testing.assert_array_equal(found["box"], np.concatenate(expected))
    counts = [len(one) for one in expected]
    assert np.diff(found["box_start"]).tolist() == counts
    assert found["class_name"].tolist() == ["proposal"]
    assert found["map_class"].tolist() == [[0]] * 5
    assert found["map_score"].tolist() == [[1]] * 5
    first = found["box_score"][: counts[0]]
    np.testing.assert_array_equal(first, np.float32(1 - np.arange(counts[0]) / counts[0]))
    assert not found["box_class"].any()
    assert not found["box_slot"].any()
    assert verify(output)["problems"] == []
    with open_store(output) as store:
        about = {k: store.attributes[k] for k in ("box_score_kind", "classes", "score_kind")}
        assert store.meta["params"] == {
            "mode": "fast",
            "max_boxes": 9,
            "longest_side": 500,
            "seed": 0,
        }
    assert about == {"box_score_kind": "rank", "classes": "all", "score_kind": "unknown"}


@contrib
def test_equal_bytes_whatever_shards_and_container(images, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_BLOCK_ROWS", 2)
    whole = propose(images, output=tmp_path / "whole.h5")
    for shard in ("2/3", "0/3", "1/3"):
        propose(images, output=tmp_path / "shared.zarr", shard=shard)
    assert meta(whole)["digest"] == meta(tmp_path / "shared.zarr")["digest"]
    assert_equal_arrays(whole, tmp_path / "shared.zarr")
    few = propose(images, output=tmp_path / "few.zarr", limit=3)
    np.testing.assert_array_equal(
        arrays(few)["box"], arrays(whole)["box"][: arrays(whole)["box_start"][3]]
    )
    assert meta(few)["limit"] == {"how": "limit", "num_rows": 3, "of": 5}


@pytest.mark.slow
@contrib
def test_killed_in_the_middle_and_run_again(tmp_path):
    """70 pictures are three blocks of 32."""
    for n in range(70):
        put_picture(tmp_path / "photos" / "ant" / f"{n:02}.png", picture(n))
    images = ingest_folder(tmp_path / "photos", output=tmp_path / "s.zarr")
    whole = propose(images, output=tmp_path / "whole.zarr")
    work = tmp_path / "out.zarr.wip"
    command = Command(tmp_path, "propose", str(images), "-o", "out.zarr")
    while command.runs and not list(work.glob("part-*.npz")):
        time.sleep(0.005)
    if command.kill():
        assert not (tmp_path / "out.zarr").exists()
        assert len(list(work.glob("part-*.npz"))) < 3
    again = Command(tmp_path, "propose", str(images), "-o", "out.zarr")
    assert again.wait() == 0, again.stderr
    assert meta(whole)["digest"] == meta(tmp_path / "out.zarr")["digest"]
    assert_equal_arrays(whole, tmp_path / "out.zarr")
    assert not work.exists()


@contrib
def test_a_picture_has_its_boxes_in_any_store(images, tmp_path):
    """The order is drawn for the picture, not for its row."""
    whole = arrays(propose(images))
    chosen = arrays(propose(select(images, class_="bee")))
    row = whole["image_id"].tolist().index(chosen["image_id"].tolist()[1])
    there = slice(*whole["box_start"][row : row + 2])
    np.testing.assert_array_equal(
        chosen["box"][chosen["box_start"][1] : chosen["box_start"][2]], whole["box"][there]
    )


@contrib
def test_a_broken_picture(images, tmp_path):
    with open_store(images) as store:
        row = 1
        name, path = (store.rows(one, row, row + 1)[0] for one in ("image_id", "image_path"))
        root = tmp_path / "photos"
    file = root / path
    data = bytearray(file.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    file.write_bytes(data)
    with pytest.raises(BadImageError, match=rf's\.zarr row 1 "{name}": PNG .*--on-bad skip'):
        propose(images)
    ears = Ears()
    found = arrays(propose(images, on_bad="skip", report=ears))
    assert ears.num_skipped == len(ears.warnings) == 1
    assert found["image_status"].tolist() == [0, 1, 0, 0, 0]
    assert np.diff(found["box_start"])[1] == 0
    assert found["map_class"].tolist() == [[0], [-1], [0], [0], [0]]
    assert found["map_score"][1].tolist() == [-np.inf]


@contrib
def test_pictures_that_are_elsewhere(images, tmp_path):
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(LineageError, match=r"its pictures' folder .*photos is not there\. Say"):
        propose(images)
    assert len(arrays(propose(images, images=tmp_path / "moved"))["image_id"]) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "slow"}, '--mode must be fast or quality, got "slow".'),
        ({"max_boxes": 0}, "--max-boxes must be in [1, 1048576], got 0."),
        ({"max_boxes": 2.5}, "--max-boxes must be a whole number, got 2.5."),
        ({"longest_side": 8}, "--longest-side must be in [16, 8192], got 8."),
        ({"seed": -1}, "--seed must be in [0, 9223372036854775808), got -1."),
    ],
)
def test_wrong_options_are_told_before_anything_is_claimed(images, tmp_path, options, message):
    ears = Ears()
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        propose(images, report=ears, **options)
    assert ears.announced == []


def test_without_the_contrib_build_nothing_is_claimed(images, tmp_path, monkeypatch):
    monkeypatch.delattr("cv2.ximgproc", raising=False)
    ears = Ears()
    with pytest.raises(ExtraMissingError, match=r"^selective search needs OpenCV's contrib build"):
        propose(images, report=ears)
    assert ears.announced == []
    assert not list(tmp_path.glob("s.propose*"))
