"""The same store in the other container, and what `inspect` and `verify` say of it."""

from __future__ import annotations

import re

import numpy as np
import pytest
import zarr

from wsltool.errors import StoreExistsError, StoreMissingError, StoreUnfinishedError, UsageError
from wsltool.stages.baseline import baseline
from wsltool.stages.boxes import boxes
from wsltool.stages.convert import convert
from wsltool.stages.ingest import ingest_folder
from wsltool.stages.inspect import inspect
from wsltool.stages.pictures import Pictures
from wsltool.stages.score import score
from wsltool.stages.select import select
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .making import Ears, assert_equal_arrays, meta, put_picture, write_images, write_maps

CLASSES = ["cat", "dog"]


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "pets"
    for name in ("cat/a.png", "cat/b.png", "dog/c.png"):
        put_picture(root / name, (20, 10))
    (tmp_path / "b.csv").write_text("image,x0,y0,x1,y1\ncat/a.png,0,0,10,10\ndog/c.png,1,1,2,2\n")
    return ingest_folder(root, boxes=tmp_path / "b.csv", embed=True, output=tmp_path / "s.zarr")


@pytest.fixture
def drawn(images):
    maps = baseline(images, prior="gaussian", grid=5)
    return boxes(maps)


def about(path):
    return {k: v for k, v in meta(path).items() if k != "inputs"}


@pytest.mark.parametrize("which", ["images", "maps", "boxes"])
def test_there_and_back(images, drawn, which, tmp_path):
    source = {"images": images, "maps": tmp_path / "s.baseline.zarr", "boxes": drawn}[which]
    ears = Ears()
    there = convert(source, report=ears)
    assert there == source.with_suffix(".h5")
    assert ears.announced == [there]
    back = convert(there, output=tmp_path / "back.zarr")
    for other in (there, back):
        assert_equal_arrays(source, other)
        assert meta(other) == meta(source)
        assert verify(other) == {
            "path": str(other),
            "kind": which,
            "num_images": 3,
            "problems": [],
        }
        with open_store(source) as one, open_store(other) as two:
            assert one.attributes == two.attributes
            assert [one.dims(name) for name in one.names] == [two.dims(n) for n in two.names]


def test_lineage_works_from_another_folder(images, drawn, tmp_path):
    deep = tmp_path / "one/two"
    deep.mkdir(parents=True)
    other = convert(drawn, output=deep / "b.h5")
    assert meta(other)["inputs"]["images"]["path"] == "../../s.zarr"
    assert meta(other)["inputs"]["maps"]["path"] == "../../s.baseline.zarr"
    protocols = ["gt-known", "peak-in-box"]
    one, two = (score(path, protocol=protocols)["results"] for path in (drawn, other))
    assert [found["value"] for found in one] == [found["value"] for found in two]


def test_converted_truth_is_found_beside_the_store(images, drawn, tmp_path):
    """Its name is another, so it must be named; its fingerprint is the same."""
    convert(images)
    expected = score(drawn, protocol="peak-in-box")["results"][0]["value"]
    found = score(drawn, protocol="peak-in-box", truth=tmp_path / "s.h5")["results"][0]
    assert found["value"] == expected
    assert "warnings" in found
    images.rename(tmp_path / "gone.zarr")
    (tmp_path / "s.h5").rename(tmp_path / "kept.h5")
    back = convert(tmp_path / "kept.h5", output=images)
    assert back == images
    assert score(drawn, protocol="peak-in-box")["results"][0]["value"] == expected


def test_pictures_are_found_from_another_folder(tmp_path):
    put_picture(tmp_path / "pets/cat/a.png", (20, 10))
    source = ingest_folder(tmp_path / "pets")
    (tmp_path / "far").mkdir()
    other = convert(source, output=tmp_path / "far/x.h5")
    with open_store(other) as store:
        assert store.attributes["root"] == "../pets"
        assert Pictures(store)(0).shape == (10, 20, 3)


def test_twice_is_left_alone_and_another_is_told(images, tmp_path):
    output = convert(images)
    stamp = output.stat().st_mtime_ns
    assert convert(images) == output
    assert output.stat().st_mtime_ns == stamp
    other = write_images(tmp_path / "t.zarr", {"x": {}}, CLASSES)
    line = f"{output}: made from another source than t.zarr is now. Pass -o for another name, or "
    with pytest.raises(StoreExistsError, match=f"^{re.escape(line)}"):
        convert(other, output=output)
    convert(other, output=output, overwrite=True)
    assert_equal_arrays(other, output)


def test_onto_itself(images):
    with pytest.raises(UsageError, match=r"s\.zarr: that is the input itself\. Give another name"):
        convert(images, output=images)


def test_a_stranger_is_never_replaced(images, tmp_path):
    (tmp_path / "s.h5").write_text("mine")
    with pytest.raises(StoreExistsError, match=r"s\.h5: something stands there that wsltool did"):
        convert(images, overwrite=True)
    assert (tmp_path / "s.h5").read_text() == "mine"


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_inspect(images, tmp_path, suffix):
    path = images if suffix == ".zarr" else convert(images)
    found = inspect(path)
    assert found["path"] == str(path)
    assert found["num_images"] == 3
    assert found["meta"]["kind"] == "images"
    assert found["meta"]["params"] == {"form": "folder", "embed": True}
    assert found["attributes"] == {"root": "pets", "orientation": "ignored"}
    assert found["arrays"]["label"] == {
        "dims": ["image", "class"],
        "shape": [3, 2],
        "dtype": "uint8",
    }
    assert found["arrays"]["box"]["dims"] == ["box", "xyxy"]
    assert found["arrays"]["image_id"]["dtype"] == "string"
    assert list(found["arrays"])[:3] == ["image_id", "image_size", "class_name"]


def test_inspect_what_is_not_there_or_not_finished(tmp_path):
    with pytest.raises(StoreMissingError, match=r"x\.zarr: there is no such store\. Give the path"):
        inspect(tmp_path / "x.zarr")
    for n in range(300):
        put_picture(tmp_path / f"p/a/{n:03}.png", (1, 1))
    ingest_folder(tmp_path / "p", output=tmp_path / "x.zarr", shard="1/2")
    with pytest.raises(
        StoreUnfinishedError, match=r"x\.zarr: not finished, 1 of 2 blocks missing \(0\)\. Run the"
    ):
        inspect(tmp_path / "x.zarr")


def test_verify_finds_what_breaks_the_schema(tmp_path):
    images = write_images(tmp_path / "s.zarr", {"a": {}, "b": {}}, CLASSES)
    hot = np.ones((2, 2))
    maps = write_maps(
        tmp_path / "m.zarr",
        images,
        {"a": (None, [(1, 1.0, hot), (0, 2.0, hot)]), "b": (None, [(5, 1.0, hot * np.nan)])},
    )
    problems = verify(maps)["problems"]
    assert any('"map_class" holds 5, expected -1 to 1' in line for line in problems)
    assert any('"map_score" rises along the slots' in line for line in problems)


def test_verify_of_maps_with_several_empty_slots(tmp_path):
    """Scores of -inf one after another are as they should be."""
    images = write_images(tmp_path / "s.zarr", {"a": {}, "b": {}}, CLASSES)
    hot = np.ones((2, 2))
    slots = [(1, 2.0, hot), (0, 1.0, hot), (0, 0.5, hot)]
    maps = write_maps(tmp_path / "m.zarr", images, {"a": (None, slots), "b": (None, [])})
    assert verify(maps)["problems"] == []


@pytest.mark.filterwarnings("ignore:Consolidated metadata:zarr.errors.ZarrUserWarning")
def test_arrays_outside_the_schema_are_left_behind_with_a_word(images):
    group = zarr.open_group(str(images), mode="a")
    group.create_array("mood", data=np.zeros(3, np.int8))
    zarr.consolidate_metadata(group.store)
    line = "s.zarr: arrays outside the schema are left behind: mood."
    ears = Ears()
    copy = convert(images, report=ears)
    assert ears.warnings == [line]
    with open_store(copy) as store:
        assert "mood" not in store
    ears = Ears()
    select(images, class_="cat", report=ears)
    assert ears.warnings == [line]
