"""The model and the pictures behind maps: found again, checked, or asked for by name."""

from __future__ import annotations

import os
import re
import shutil

import numpy as np
import pytest

from wsltool.errors import LineageError, UsageError
from wsltool.nets.models import load_model, save_model
from wsltool.stages.cam import cam
from wsltool.stages.extract_features import extract_features
from wsltool.stages.merge import merge
from wsltool.stages.model_behind import model_behind
from wsltool.stages.select import select
from wsltool.stores.open import open_store

from .colours import CPU, ME, small_weights
from .making import arrays, assert_equal_arrays, meta, rewritten

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def there(tmp_path, monkeypatch):
    """Where the tests run, without any named model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WSLTOOL_MODELS", raising=False)
    return tmp_path


@pytest.fixture
def file(there):
    """A model file in a folder of its own."""
    model = load_model("small_gap", weights=small_weights(there))
    (there / "made").mkdir()
    save_model(there / "made/own.safetensors", model, {})
    return there / "made/own.safetensors"


def mapped(images, model, **options):
    return cam(images, model=model, classes="all", **(CPU | options))


def params(store):
    return meta(store)["params"]


def test_a_file_at_its_recorded_place(images, file, tmp_path):
    maps = mapped(images, file, input_size=48, fit="letterbox")
    found = extract_features(maps, **CPU)
    assert {n: params(found)[n] for n in ("model", "layer", "input_size", "fit")} == {
        "model": "own.safetensors",
        "layer": "features",
        "input_size": 48,
        "fit": "letterbox",
    }
    assert meta(found)["inputs"]["model"]["path"] == "made/own.safetensors"
    named = extract_features(
        maps, model=file, input_size=48, fit="letterbox", output=tmp_path / "named.zarr", **CPU
    )
    assert_equal_arrays(found, named)
    assert params(found) == params(named)


def test_another_size_than_that_of_the_maps(images, file, tmp_path):
    maps = mapped(images, file, input_size=48, fit="letterbox")
    found = extract_features(maps, input_size=64, **CPU)
    assert (params(found)["input_size"], params(found)["fit"]) == (64, "letterbox")
    own = extract_features(maps, model=file, output=tmp_path / "own.zarr", **CPU)
    assert (params(own)["input_size"], params(own)["fit"]) == (112, "warp")


@pytest.mark.parametrize("place", ["beside", "named", "set"])
def test_a_file_that_has_moved(images, file, there, monkeypatch, place):
    maps = mapped(images, file)
    expected = extract_features(maps, output=there / "first.zarr", **CPU)
    if place == "beside":
        file.rename(there / "own.safetensors")
    elif place == "named":
        (there / "models").mkdir()
        file.rename(there / "models/own.safetensors")
    else:
        monkeypatch.setenv("WSLTOOL_MODELS", str(file.rename(there / "own2").parent / "zoo"))
        (there / "zoo").mkdir()
        (there / "own2").rename(there / "zoo/own.safetensors")
    assert_equal_arrays(expected, extract_features(maps, **CPU))


def test_a_file_that_is_gone(images, file):
    maps = mapped(images, file)
    file.unlink()
    line = (
        's.cam.zarr: its model "own.safetensors" (made/own.safetensors) is not there. '
        "Say which with --model."
    )
    with pytest.raises(LineageError, match=f"^{re.escape(line)}$"):
        extract_features(maps, **CPU)


def test_a_file_that_has_changed(images, file, there):
    maps = mapped(images, file)
    save_model(file, load_model("small_gap", weights=small_weights(there, seed=1)), {})
    line = r"own\.safetensors has other weights or another preprocessing now\)\. Say which with"
    with pytest.raises(LineageError, match=line):
        extract_features(maps, **CPU)
    assert extract_features(maps, model=file, **CPU).is_dir()


def test_a_damaged_file(images, file):
    maps = mapped(images, file)
    os.truncate(file, 1000)
    line = r"is not there \(.*own\.safetensors: not a complete safetensors file"
    with pytest.raises(LineageError, match=line):
        extract_features(maps, **CPU)


def test_a_name_with_weights(images, there):
    weights = small_weights(there)
    maps = mapped(images, "small_gap", weights=weights)
    found = extract_features(maps, **CPU)
    assert params(found)["model"] == "small_gap"
    record = meta(found)["inputs"]["model"]
    assert (record["path"], record["name"]) == ("small0.safetensors", "small_gap")
    assert record["digest"] == meta(maps)["inputs"]["model"]["digest"]


def test_a_named_model(images, file, there):
    (there / "models").mkdir()
    shutil.copy(file, there / "models/mine.safetensors")
    maps = mapped(images, "mine")
    found = extract_features(maps, **CPU)
    assert meta(found)["inputs"]["model"]["path"] == "mine"
    (there / "models/mine.safetensors").unlink()
    line = r'^s\.cam\.zarr: its model "mine" \(mine\) is not there \(there is no model "mine"'
    with pytest.raises(LineageError, match=line):
        extract_features(maps, output=there / "b.zarr", **CPU)


def test_a_factory_with_another_preprocessing_now(images):
    """What code decides counts: the same weights with another mean colour are another model."""
    maps = mapped(images, f"{ME}:colours")
    assert extract_features(maps, **CPU).is_dir()
    with open_store(maps) as store:
        store.meta["inputs"]["model"]["name"] = f"{ME}:other_mean"
        store.meta["inputs"]["model"]["path"] = f"{ME}:other_mean"
        with pytest.raises(LineageError, match=r"other_mean has other weights or another prepro"):
            model_behind(store)


def test_a_selection_has_the_model_and_the_pictures_of_its_maps(images, file, tmp_path):
    maps = mapped(images, file)
    whole = arrays(extract_features(maps, **CPU))
    (tmp_path / "ids.txt").write_text("blue/d.png\nred/a.png\n")
    chosen = select(maps, ids=tmp_path / "ids.txt", output=tmp_path / "two.zarr")
    found = arrays(extract_features(chosen, **CPU))
    rows = [whole["image_id"].tolist().index(name) for name in found["image_id"].tolist()]
    assert len(rows) == 2
    wanted = [whole["feature"][slice(*whole["cell_start"][row : row + 2])] for row in rows]
    np.testing.assert_array_equal(found["feature"], np.concatenate(wanted))


def test_features_and_what_is_made_of_them_know_their_model(images, file):
    features = extract_features(mapped(images, file, input_size=48), **CPU)
    with open_store(features) as store:
        used = model_behind(store)
        assert (used.name, used.model.preprocess.size) == ("own.safetensors", 48)
        assert model_behind(store, input_size=64).model.preprocess.size == 64


def test_maps_without_a_model(images, file, tmp_path):
    one, two = mapped(images, file), mapped(images, file, flip=True, output=tmp_path / "2.zarr")
    both = merge(one, two, how="max")
    line = f"{both.name}: does not record what model it was made with. Say which with --model."
    with pytest.raises(LineageError, match=f"^{re.escape(line)}$"):
        extract_features(both, **CPU)
    assert extract_features(both, model=file, **CPU).is_dir()


class TestPictures:
    """Where they lie."""

    def test_the_folder_has_moved(self, images, folder, tmp_path):
        maps = mapped(images, f"{ME}:colours")
        expected = extract_features(maps, output=tmp_path / "first.zarr", **CPU)
        folder.rename(tmp_path / "moved")
        found = extract_features(maps, images=tmp_path / "moved", **CPU)
        assert_equal_arrays(expected, found)

    def test_the_images_store_has_moved(self, images, tmp_path):
        maps = mapped(images, f"{ME}:colours")
        expected = extract_features(maps, output=tmp_path / "first.zarr", **CPU)
        images.rename(tmp_path / "other.zarr")
        with pytest.raises(LineageError, match=r"its images s\.zarr is not there\. Say where with"):
            extract_features(maps, **CPU)
        found = extract_features(maps, images=tmp_path / "other.zarr", **CPU)
        assert_equal_arrays(expected, found)

    def test_another_store_is_given(self, images, tmp_path):
        maps = mapped(images, f"{ME}:colours")
        names = [f"x{n}" for n in range(5)]
        other = rewritten(tmp_path / "other.zarr", images, "images", image_id=names)
        line = (
            r'^other\.zarr: has no image "blue/d\.png" of s\.cam\.zarr\. Say where its images are'
        )
        with pytest.raises(LineageError, match=line.replace("blue/d", r".*")):
            extract_features(maps, images=other, **CPU)

    def test_a_store_of_another_kind_is_given(self, images):
        maps = mapped(images, f"{ME}:colours")
        with pytest.raises(ValueError, match=r'kind is "maps", but --images reads "images"\.'):
            extract_features(maps, images=maps, **CPU)


def test_weights_alone(images, there):
    maps = mapped(images, f"{ME}:colours")
    with pytest.raises(UsageError, match=r"^--weights small0\.safetensors needs the name of a net"):
        extract_features(maps, weights="small0.safetensors", **CPU)
