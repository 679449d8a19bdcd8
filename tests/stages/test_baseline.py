"""What looks at no picture: boxes and maps worked out by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wsltool.errors import ProtocolError, StoreKindError, UsageError
from wsltool.stages.baseline import baseline
from wsltool.stages.boxes import boxes
from wsltool.stages.score import score
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .making import Ears, arrays, assert_equal_arrays, meta, write_boxes, write_images, write_maps

CLASSES = ["cat", "dog", "cow"]


@pytest.fixture
def images(tmp_path):
    """Dog and cow; cat (dog undecided); nothing; a picture that was left out."""
    return write_images(
        tmp_path / "s.zarr",
        {
            "a": {"labels": {1: 1, 2: 1}, "size": (40, 20)},
            "b": {"labels": {0: 1, 1: 255}, "size": (10, 30)},
            "c": {"labels": {}},
            "d": {"labels": {0: 1}, "size": (0, 0), "status": 1},
        },
        CLASSES,
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"prior": "whole"}, [[0, 0, 40, 20], [0, 0, 40, 20], [0, 0, 10, 30]]),
        ({"fraction": 0.5}, [[10, 5, 30, 15], [10, 5, 30, 15], [2.5, 7.5, 7.5, 22.5]]),
        ({}, [[4, 2, 36, 18], [4, 2, 36, 18], [1, 3, 9, 27]]),
        ({"fraction": 1}, [[0, 0, 40, 20], [0, 0, 40, 20], [0, 0, 10, 30]]),
    ],
)
def test_boxes(images, tmp_path, options, expected):
    output = baseline(images, **options)
    assert output == tmp_path / "s.baseline.zarr"
    found = arrays(output)
    np.testing.assert_allclose(found["box"], expected, rtol=0, atol=1e-12)
    assert found["box_start"].tolist() == [0, 2, 3, 3, 3]
    assert found["box_class"].tolist() == [1, 2, 0]
    assert found["box_slot"].tolist() == [0, 1, 0]
    assert found["box_score"].tolist() == [0, 0, 0]
    assert found["map_class"].tolist() == [[1, 2], [0, -1], [-1, -1], [-1, -1]]
    none = -np.inf
    assert found["map_score"].tolist() == [[0, 0], [0, none], [none, none], [none, none]]
    assert found["image_status"].tolist() == [0, 0, 0, 2]
    with open_store(output) as store:
        assert (store.kind, store.attributes["classes"]) == ("boxes", "present")


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_gaussian(images, tmp_path, suffix):
    """Cell centres at -3/8 to 3/8 of the sides; sigma 1/4: exp(-8 (u^2 + v^2))."""
    output = tmp_path / f"g{suffix}"
    found = arrays(baseline(images, prior="gaussian", grid=4, sigma=0.25, output=output))
    u = np.array([-3, -1, 1, 3]) / 8
    expected = np.exp(-8 * (u[:, None] ** 2 + u**2))
    for n, slot in ((0, 0), (0, 1), (1, 0)):
        np.testing.assert_allclose(found["map"][n, slot], expected, rtol=1e-6)
    assert not found["map"][1, 1].any()
    assert not found["map"][2:].any()
    assert found["map_extent"].tolist() == [
        [0, 0, 40, 20],
        [0, 0, 10, 30],
        [0, 0, 20, 10],
        [0, 0, 0, 0],
    ]
    assert found["class_score"].tolist() == [[0, 0, 0]] * 4


def test_maps_become_boxes_and_scores(images):
    """The Gaussian peaks in the middle, so its box is centred."""
    drawn = boxes(baseline(images, prior="gaussian", grid=4))
    found = arrays(drawn)["box"]
    np.testing.assert_allclose((found[0] + found[0][[2, 3, 0, 1]]) / 2, [20, 10, 20, 10])
    with pytest.raises(
        ProtocolError, match=r"holds the classes present, so the truth chose them; voc-ap ranks"
    ):
        score(drawn, protocol="voc-ap")


def test_random_maps_have_a_stream_for_each_row(tmp_path):
    listed = {f"{n:03}": {"labels": {n % 3: 1}} for n in range(300)}
    images = write_images(tmp_path / "s.zarr", listed, CLASSES)
    whole = baseline(images, prior="random", grid=3, seed=4, output=tmp_path / "whole.zarr")
    for shard in ("2/3", "0/3", "1/3"):
        baseline(
            images, prior="random", grid=3, seed=4, output=tmp_path / "parts.zarr", shard=shard
        )
    assert_equal_arrays(whole, tmp_path / "parts.zarr")
    few = baseline(images, prior="random", grid=3, seed=4, limit=7, output=tmp_path / "few.zarr")
    maps = arrays(whole)["map"]
    np.testing.assert_array_equal(arrays(few)["map"], maps[:7])
    assert maps.min() >= 0
    assert maps.max() < 1
    assert len(np.unique(maps[:, 0].reshape(300, -1), axis=0)) == 300
    other = baseline(images, prior="random", grid=3, seed=5, output=tmp_path / "other.zarr")
    assert (arrays(other)["map"] != maps).any()
    assert verify(whole)["problems"] == []


@pytest.fixture
def ranked(images, tmp_path):
    """Boxes with all classes ranked, made on the way with image b left out."""
    return write_boxes(
        tmp_path / "ranked.zarr",
        images,
        {
            "a": [(2, 5.0, (0, 0, 1, 1)), (0, 4.0), (1, 3.0, (1, 1, 2, 2), (3, 3, 4, 4))],
            "b": [],
            "c": [(0, 1.0), (1, 0.5), (2, 0.25)],
            "d": [],
        },
        classes="all",
    )


def test_like_takes_classes_and_scores(images, ranked):
    output = baseline(images, prior="whole", like=ranked)
    found = arrays(output)
    np.testing.assert_array_equal(found["map_class"], arrays(ranked)["map_class"])
    np.testing.assert_array_equal(found["map_score"], arrays(ranked)["map_score"])
    assert found["box_start"].tolist() == [0, 3, 3, 6, 6]
    assert found["box_class"].tolist() == [2, 0, 1, 0, 1, 2]
    assert found["box_score"].tolist() == [5, 4, 3, 1, 0.5, 0.25]
    with open_store(output) as store:
        assert store.attributes["classes"] == "all"
    assert meta(output)["inputs"]["like"]["path"] == "ranked.zarr"


def test_like_maps_keeps_every_class_score(images, tmp_path):
    maps = write_maps(
        tmp_path / "m.zarr",
        images,
        {"a": (None, [(2, 5.0, [[1]])]), "b": (None, []), "c": (None, [(0, 1.0, [[1]])])},
    )
    found = arrays(baseline(images, prior="gaussian", grid=2, like=maps, limit=3))
    assert found["map_class"].tolist() == [[2], [-1], [0]]
    assert found["class_score"].tolist() == [[0, 0, 0]] * 3
    assert found["image_status"].tolist() == [0, 0, 0]


def test_like_carries_what_was_skipped(images, tmp_path):
    cells = {name: (None, [(0, 1.0, [[np.nan if name == "b" else 1]])]) for name in "abcd"}
    maps = write_maps(tmp_path / "m.zarr", images, cells)
    drawn = boxes(maps, on_bad="skip", limit=3)
    found = arrays(baseline(images, prior="whole", like=drawn, limit=3))
    assert found["image_status"].tolist() == [0, 2, 0]
    assert found["image_note"].tolist()[1].startswith("map has 1 values that are not finite")
    assert found["box_start"].tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"a": [], "b": []}, "has other classes or fewer images than s.zarr. Give one that"),
        (
            {"a": [], "x": [], "c": [], "d": []},
            'row 1 is "x", but "b" in s.zarr. Give one that was made from these images.',
        ),
    ],
)
def test_like_of_other_images(images, tmp_path, other, message):
    path = write_boxes(tmp_path / "o.zarr", images, other)
    ears = Ears()
    with pytest.raises(UsageError, match=re.escape(f"--like o.zarr: {message}")):
        baseline(images, like=path, report=ears)
    assert ears.announced == []


def test_like_of_another_kind(images):
    with pytest.raises(
        StoreKindError, match=r'^--like s\.zarr: kind is "images", expected "maps" or "boxes"\.$'
    ):
        baseline(images, like=images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": "centered"}, '--prior must be whole, centred, gaussian or random, got "cent'),
        ({"fraction": 0}, "--fraction must be in (0, 1], got 0."),
        ({"fraction": float("nan")}, "--fraction must be in (0, 1], got nan."),
        ({"sigma": 0}, "--sigma must be in (0, 100), got 0."),
        ({"grid": 0}, "--grid must be in [1, 4096), got 0."),
        ({"seed": -1}, "--seed must be in [0, "),
    ],
)
def test_wrong_options(images, options, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        baseline(images, **options)
