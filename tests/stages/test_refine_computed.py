"""Distractors leave the maps, their patterns computed by the network behind the clusters."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wsltool.errors import BadImageError, LineageError, ModelError
from wsltool.stages.cam import cam
from wsltool.stages.extract_features import extract_features
from wsltool.stages.ingest import ingest_folder
from wsltool.stages.model_behind import model_behind
from wsltool.stages.refine import refine
from wsltool.stages.select import select
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .colours import CLASSES, CPU, ME, cells_picture
from .making import Ears, arrays, assert_equal_arrays, meta, put_picture
from .refining import label, write_clusters

pytestmark = pytest.mark.usefixtures("one_thread")

RED, GREEN, BLUE = np.eye(3).tolist()
COLOURS = f"{ME}:colours"


@pytest.fixture
def maps(images):
    return cam(images, model=COLOURS, classes="all", **CPU)


@pytest.fixture
def features(images):
    return extract_features(images, model=COLOURS, feature_dtype="float32", **CPU)


def clusters_of(features, name="k", **changes):
    """Red and green pictures with a distractor; what they record is that of the features."""
    about = meta(features)
    told = {"layer": about["params"]["layer"], "input_size": about["params"]["input_size"]}
    told |= {"fit": about["params"]["fit"], "model": about["inputs"]["model"]} | changes
    centroids = {0: [RED, BLUE, GREEN], 1: [BLUE, GREEN]}
    return write_clusters(features.with_name(f"{name}.zarr"), CLASSES, centroids, **told)


@pytest.fixture
def clusters(features):
    return clusters_of(features)


@pytest.fixture
def labels(clusters):
    return label(clusters, {"red": "odo", "green": "do"})


def test_by_hand(maps, labels, tmp_path):
    """Of picture a, red, dim orange, blue and black, only blue is a distractor of red."""
    output = refine(maps, labels=labels, **CPU)
    found, before = arrays(output), arrays(maps)
    n = found["image_id"].tolist().index("red/a.png")
    for slot, index in enumerate(found["map_class"][n].tolist()):
        gone_HW = {0: [[0, 0], [1, 0]], 1: [[0, 0], [1, 0]], 2: [[0, 0], [0, 0]]}[index]
        assert found["suppressed"][n, slot].tolist() == gone_HW
        map_HW = before["map"][n, slot]
        expected = np.where(gone_HW, min(0, map_HW.min()), map_HW)
        np.testing.assert_array_equal(found["map"][n, slot], expected)
    assert verify(output)["problems"] == []
    about = meta(output)
    assert about["params"] == {
        "unsure": "keep",
        "fill": "masked",
        "model": COLOURS,
        "layer": "cells",
        "input_size": 8,
        "fit": "warp",
        "precision": "float32",
    }
    assert set(about["inputs"]) == {
        "maps",
        "images",
        "model",
        "labels",
        "clusters",
        "feature_model",
    }
    assert about["inputs"]["model"] == meta(maps)["inputs"]["model"]
    assert about["inputs"]["feature_model"]["digest"] == about["inputs"]["model"]["digest"]
    assert about["compute"]["device"] == "cpu"


@pytest.mark.parametrize("more", [{}, {"workers": 1, "batch_size": 2, "model": COLOURS}])
def test_as_from_a_store_of_all_cells(maps, features, labels, tmp_path, more):
    stored = refine(maps, labels=labels, features=features, output=tmp_path / "stored.zarr")
    computed = refine(maps, labels=labels, output=tmp_path / "computed.h5", **(CPU | more))
    assert_equal_arrays(stored, computed)
    assert meta(stored)["digest"] == meta(computed)["digest"]
    assert arrays(stored)["suppressed"].any()


@pytest.mark.parametrize("fit", ["crop", "letterbox"])
def test_features_of_another_fit_and_size_than_the_maps(folder, tmp_path, fit):
    """Maps of 2 x 2 cells over wide pictures; features of 4 x 4 of a part, or of more."""
    rng = np.random.default_rng(3)
    for n in range(4):
        put_picture(folder / f"red/wide{n}.png", rng.integers(0, 256, (8, 20, 3), np.uint8))
    images = ingest_folder(folder, classes=folder.with_name("classes.txt"))
    maps = cam(images, model=COLOURS, classes="all", **CPU)
    options = {"input_size": 16, "fit": fit, "cells": "all", "feature_dtype": "float32"}
    features = extract_features(maps, **options, **CPU)
    assert arrays(features)["feature"].shape == (9 * 16, 3)
    clusters = clusters_of(features)
    labels = label(clusters, {"red": "odo", "green": "do"})
    stored = refine(maps, labels=labels, features=features, output=tmp_path / "stored.zarr")
    computed = refine(maps, labels=labels, **CPU)
    assert_equal_arrays(stored, computed)
    assert (meta(computed)["params"]["input_size"], meta(computed)["params"]["fit"]) == (16, fit)
    assert arrays(stored)["suppressed"].any()


def test_only_images_that_need_it_go_through_the_network(maps, clusters, folder, tmp_path):
    """Of maps of the classes present, those of blue pictures need no patterns."""
    images = maps.with_name("s.zarr")
    maps = cam(images, model=COLOURS, classes="present", output=tmp_path / "p.zarr", **CPU)
    labels = label(clusters, {"red": "odo"})
    expected = refine(maps, labels=labels, output=tmp_path / "e.zarr", **CPU)
    for name in ("green/c", "blue/d", "blue/e"):
        (folder / f"{name}.png").unlink()
    found = refine(maps, labels=labels, **CPU)
    assert_equal_arrays(expected, found)
    (folder / "red/b.png").unlink()
    message = 'p.zarr row 1 "red/b.png": picture red/b.png cannot be read: No such file'
    with pytest.raises(BadImageError, match=re.escape(message)):
        refine(maps, labels=labels, output=tmp_path / "x.zarr", **CPU)
    ears = Ears()
    skipped = refine(
        maps, labels=labels, output=tmp_path / "y.zarr", on_bad="skip", report=ears, **CPU
    )
    after, before = arrays(skipped), arrays(expected)
    assert after["image_status"].tolist() == [0, 1, 0, 0, 0]
    assert after["map_class"].tolist() == [[0], [-1], [1], [2], [2]]
    others = [0, 2, 3, 4]
    np.testing.assert_array_equal(after["map"][others], before["map"][others])
    assert ears.num_skipped == 1


def test_a_selection_and_pictures_elsewhere(maps, labels, folder, tmp_path):
    whole = arrays(refine(maps, labels=labels, **CPU))
    (tmp_path / "ids").write_text("red/b.png\nblue/e.png\n")
    some = select(maps, ids=tmp_path / "ids", output=tmp_path / "some.zarr")
    folder.rename(tmp_path / "moved")
    with pytest.raises(
        LineageError, match=r"pictures' folder set is not there. Say where with --i"
    ):
        refine(some, labels=labels, **CPU)
    found = arrays(refine(some, labels=labels, images=tmp_path / "moved", **CPU))
    rows = [whole["image_id"].tolist().index(name) for name in found["image_id"].tolist()]
    assert len(rows) == 2
    np.testing.assert_array_equal(found["map"], whole["map"][rows])
    np.testing.assert_array_equal(found["suppressed"], whole["suppressed"][rows])


def test_another_network_is_refused(maps, clusters, features, labels, tmp_path):
    record = meta(clusters)["inputs"]["model"]
    with pytest.raises(ModelError, match=r"patterns of another network mean nothing") as caught:
        refine(maps, labels=labels, model=f"{ME}:shuffled", **CPU)
    assert str(caught.value).startswith(f"--model {ME}:shuffled: its digest is sha256:")
    assert f'k.zarr was made with "{COLOURS}", {record["digest"]}' in str(caught.value)
    changed = clusters_of(features, "c", model=record | {"digest": "sha256:" + "0" * 64})
    labels = label(changed, {"red": "odo"})
    with pytest.raises(LineageError, match=r"c\.zarr: its model .* Say which with --model"):
        refine(maps, labels=labels, **CPU)
    unknown = clusters_of(features, "u", model=None)
    labels = label(unknown, {"red": "odo"})
    with pytest.raises(LineageError, match=r"u\.zarr: does not record what model it was made"):
        refine(maps, labels=labels, **CPU)
    refine(maps, labels=labels, model=COLOURS, **CPU)  # nothing to compare with


def test_maps_refined_by_features_of_another_network_keep_their_own(maps, images, tmp_path):
    (tmp_path / "ids.txt").write_text("red/a.png\n")
    chosen = select(maps, ids=tmp_path / "ids.txt", output=tmp_path / "two.zarr")
    other = extract_features(images, model=f"{ME}:shuffled", output=tmp_path / "o.zarr", **CPU)
    labels = label(clusters_of(other, "o2"), {"red": "odo"})
    refined = refine(chosen, labels=labels, features=other)
    with open_store(refined) as store:
        assert "model" not in store.meta["inputs"]
        assert model_behind(store).name == COLOURS


def test_a_layer_that_the_network_lacks(maps, features):
    clusters = clusters_of(features, layer="conv5_3")
    with pytest.raises(ModelError, match=r'--layer "conv5_3": .* has no such layer'):
        refine(maps, labels=label(clusters, {"red": "odo"}), **CPU)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """270 small pictures, 2 blocks, and a network of 8 x 8 cells."""
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(1)
    for n in range(270):
        high, wide = 8 + n % 3, 8 + n % 5
        cells = rng.integers(0, 256, (high, wide, 3), np.uint8)
        put_picture(folder / "in" / "abc"[n % 3] / f"{n}.png", cells_picture(cells, 1))
    images = ingest_folder(folder / "in", output=folder / "s.zarr", embed=True)
    network = {"model": "tests.cli.networks:small"} | CPU
    maps = cam(images, classes="top2", **network)
    features = extract_features(images, feature_dtype="float32", **network)
    about = meta(features)
    told = {"layer": about["params"]["layer"], "input_size": 32, "model": about["inputs"]["model"]}
    mean_C = arrays(features)["feature"].mean(axis=0)
    centroids = {k: mean_C * rng.uniform(0, 2, (3, len(mean_C))) for k in (0, 2)}
    clusters = write_clusters(folder / "k.zarr", ["a", "b", "c"], centroids, **told)
    return maps, features, label(clusters, {"a": "odo", "c": "ddo"})


def test_equal_bytes_whatever_shards_and_resumption(many, tmp_path):
    maps, features, labels = many
    whole = refine(maps, labels=labels, output=tmp_path / "w.zarr", **CPU)
    shared = tmp_path / "shared.h5"
    for shard in ("1/2", "0/2"):
        refine(maps, labels=labels, output=shared, shard=shard, **CPU)
    stored = refine(maps, labels=labels, features=features, output=tmp_path / "s.zarr")
    for other in (shared, stored):
        assert_equal_arrays(whole, other)
        assert meta(whole)["digest"] == meta(other)["digest"]
    found = arrays(whole)
    assert 0 < found["suppressed"].mean() < 1
    limited = refine(maps, labels=labels, output=tmp_path / "l.zarr", limit=20, **CPU)
    np.testing.assert_array_equal(arrays(limited)["map"], found["map"][:20])
    assert meta(limited)["limit"] == {"how": "limit", "num_rows": 20, "of": 270}
