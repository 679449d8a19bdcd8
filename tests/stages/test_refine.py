"""Distractors leave the maps: by hand, with stored features, in both containers, and refusals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from wsltool.errors import (
    BadImageError,
    LineageError,
    ProtocolError,
    StoreCorruptError,
    StoreKindError,
    UsageError,
)
from wsltool.localize.cell_lookup import nearest_cells
from wsltool.stages.boxes import boxes
from wsltool.stages.refine import refine
from wsltool.stages.select import select
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .making import Ears, arrays, assert_equal_arrays, meta, rewritten, write_images, write_maps
from .refining import MODEL, label, write_clusters, write_features

CLASSES = ["cat", "dog", "cow"]
EAST, NORTH, FLAT = (1.0, 0), (0, 1.0), (0.0, 0)

MAP = np.array([[4.0, 9, 3], [1, 2, -1]], np.float32)
"""The hottest cell is in the middle above."""
CELLS = np.array([[EAST, NORTH, EAST], [FLAT, (3, 2), (2, 3)]])
"""North of the diagonal: the middle above and the right below."""
GONE = np.array([[0, 1, 0], [0, 0, 1]])
MASKED = [[4, -1, 3], [1, 2, -1]]
ADDED = ["suppressed", "image_status", "image_note"]


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "s.zarr", {"a": {}, "b": {}, "c": {}}, CLASSES, size=(30, 20))


@pytest.fixture
def maps(images, tmp_path):
    """Image a: cat and dog; b: dog; c: no map."""
    slots = {
        "a": (None, [(0, 2.0, MAP), (1, 1.0, MAP + 10)]),
        "b": (None, [(1, 3.0, MAP)]),
        "c": (None, []),
    }
    more = {"score_kind": "logit", "probability": "softmax", "classes": "top2"}
    return write_maps(tmp_path / "m.zarr", images, slots, **more)


@pytest.fixture
def features(images, tmp_path):
    return write_features(tmp_path / "f.zarr", images, {"a": CELLS, "b": CELLS, "c": CELLS})


@pytest.fixture
def clusters(tmp_path):
    """Cats have a distractor in the north."""
    return write_clusters(tmp_path / "k.zarr", CLASSES, {0: [EAST, NORTH], 1: [NORTH, EAST]})


@pytest.fixture
def labels(clusters):
    return label(clusters, {"cat": "od", "dog": "oo"})


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_by_hand(maps, features, labels, tmp_path, suffix):
    """The cat of image a loses its peak; the dogs, labelled all object, nothing."""
    before = arrays(maps)
    output = refine(maps, labels=labels, features=features, output=tmp_path / f"r{suffix}")
    found = arrays(output)
    assert found["map"][0, 0].tolist() == MASKED
    assert found["suppressed"][0, 0].tolist() == GONE.tolist()
    assert found["map"][0, 1].tolist() == (MAP + 10).tolist()
    assert found["map"][1, 0].tolist() == MAP.tolist()
    assert found["suppressed"].dtype == np.uint8
    assert found["suppressed"].sum() == 2
    for name in before.keys() - {"map"}:
        np.testing.assert_array_equal(found[name], before[name], err_msg=name)
    for name, values in arrays(maps).items():
        np.testing.assert_array_equal(values, before[name], err_msg=name)
    assert verify(output)["problems"] == []
    with open_store(output) as store:
        told = {k: v for k, v in store.attributes.items() if k != "wsltool"}
    assert told == {
        "classes": "top2",
        "score_kind": "logit",
        "probability": "softmax",
        "refined_classes": ["cat"],
        "num_refined": 1,
        "num_suppressed_everywhere": 0,
    }


def test_the_name_and_what_is_recorded(maps, features, labels, clusters):
    output = refine(maps, labels=labels, features=features)
    assert output.name == "m.refine.zarr"
    about = meta(output)
    assert about["params"] == {"unsure": "keep", "fill": "masked"}
    assert {role: (one["path"], one["kind"]) for role, one in about["inputs"].items()} == {
        "maps": ("m.zarr", "maps"),
        "images": ("s.zarr", "images"),
        "labels": ("k.labels.json", "labels"),
        "clusters": ("k.zarr", "clusters"),
        "features": ("f.zarr", "features"),
    }
    ears = Ears()
    assert refine(maps, labels=labels, features=features, report=ears) == output
    assert ears.notes == [f"{output}: finished already, left alone."]
    label(clusters, {"cat": "do"})
    with pytest.raises(ValueError, match=r"m\.refine\.zarr.* labels .*Pass -o"):
        refine(maps, labels=labels, features=features)


@pytest.mark.parametrize(("fill", "cells"), [("floor", MASKED), ("zero", [[4, 0, 3], [1, 2, 0]])])
def test_the_other_fills_are_cells_like_any_other(maps, features, labels, fill, cells):
    found = arrays(refine(maps, labels=labels, features=features, fill=fill))
    assert found["map"][0, 0].tolist() == cells
    assert not found["suppressed"].any()


@pytest.mark.parametrize(
    ("fill", "dtype"), [("masked", np.float16), ("floor", np.float64), ("zero", np.float32)]
)
def test_twice_is_once_in_every_dtype(images, features, labels, tmp_path, dtype, fill):
    maps = write_maps(tmp_path / "m.zarr", images, {"a": (None, [(0, 1.0, MAP)])}, dtype=dtype)
    once = refine(maps, labels=labels, features=features, fill=fill)
    twice = refine(once, labels=labels, features=features, fill=fill)
    assert arrays(once)["map"].dtype == dtype
    assert_equal_arrays(once, twice)


def test_a_class_without_labels_or_distractors_passes(maps, features, clusters):
    for words in ({}, {"cat": "oo"}, {"cat": "ou", "dog": "oo"}):
        labels, ears = label(clusters, words), Ears()
        output = refine(maps, labels=labels, features=features, overwrite=True, report=ears)
        assert_equal_arrays(maps, output, skip=ADDED)
        assert not arrays(output)["suppressed"].any()
        assert ears.warnings == [
            f"k.labels.json: no cluster of its {len(words)} classes is a distractor, so every map "
            "passes unchanged."
        ]


def test_without_a_distractor_neither_features_nor_model_are_needed(maps, clusters):
    output = refine(maps, labels=label(clusters, {"cat": "oo"}))
    assert_equal_arrays(maps, output, skip=ADDED)
    assert set(meta(output)["inputs"]) == {"maps", "images", "labels", "clusters"}


def test_unsure_is_kept_unless_asked(maps, features, clusters, tmp_path):
    labels = label(clusters, {"cat": "ou"})
    kept = refine(maps, labels=labels, features=features)
    assert not arrays(kept)["suppressed"].any()
    gone = refine(
        maps, labels=labels, features=features, unsure="suppress", output=tmp_path / "u.zarr"
    )
    assert arrays(gone)["suppressed"][0, 0].tolist() == GONE.tolist()


@pytest.mark.parametrize("fill", ["masked", "zero"])
def test_a_map_suppressed_everywhere_keeps_its_scores_and_is_told(maps, features, clusters, fill):
    """Both clusters of cats are distractors; even the cell of zeros goes."""
    ears = Ears()
    labels = label(clusters, {"cat": "dd", "dog": "oo"})
    output = refine(maps, labels=labels, features=features, fill=fill, report=ears)
    found = arrays(output)
    np.testing.assert_array_equal(found["map"], arrays(maps)["map"])
    assert found["suppressed"][0, 0].all()
    assert found["suppressed"].sum() == 6
    told = (
        "m.refine.zarr: of 1 of 1 maps of classes with a distractor no cell was left; they keep "
        "their scores."
    )
    assert ears.warnings == [told]
    with open_store(output) as store:
        assert store.attributes["num_suppressed_everywhere"] == 1
    refine(maps, labels=labels, features=features, fill=fill, report=ears)  # finished already
    assert ears.warnings == [told] * 2
    drawn = [arrays(boxes(one))["box"].tolist() for one in (maps, output)]
    assert drawn[0] == drawn[1]


def test_what_was_suppressed_before_stays(images, features, labels, clusters, tmp_path):
    before = np.zeros((1, 1, 2, 3), np.uint8)
    before[0, 0, 0, 0] = 1
    cells = np.where(before[0, 0], -1, MAP)
    slots = {"a": (None, [(0, 1.0, cells)])}
    maps = write_maps(tmp_path / "m.zarr", images, slots, suppressed=before)
    found = arrays(refine(maps, labels=labels, features=features))
    assert found["suppressed"][0, 0].tolist() == [[1, 1, 0], [0, 0, 1]]
    assert found["map"][0, 0].tolist() == [[-1, -1, 3], [1, 2, -1]]
    passed = refine(
        maps, labels=label(clusters, {"dog": "do"}), features=features, output=tmp_path / "p.zarr"
    )
    assert_equal_arrays(maps, passed, skip=ADDED[1:])


def test_maps_of_different_sizes(images, features, labels, tmp_path):
    """Image b uses 1 x 3 cells of 2 x 3, which are read at their own centres: y = 10 px."""
    slots = {"a": (None, [(0, 1.0, MAP)]), "b": (None, [(0, 1.0, MAP[:1])])}
    grid = np.array([[2, 3], [1, 3]], np.int32)
    maps = write_maps(tmp_path / "m.zarr", images, slots, map_grid=grid)
    found = arrays(refine(maps, labels=labels, features=features))
    assert found["map"][0, 0].tolist() == MASKED
    assert found["map"][1, 0].tolist() == [[4, 9, 0], [0, 0, 0]]  # the lower row of the features
    assert found["suppressed"][1, 0].tolist() == [[0, 0, 1], [0, 0, 0]]
    assert found["map_grid"].tolist() == grid.tolist()


def test_of_a_map_suppressed_everywhere_only_the_cells_in_use_count(
    images, features, clusters, tmp_path
):
    slots = {"a": (None, [(0, 1.0, MAP[:1])]), "b": (None, [(2, 1.0, MAP)])}
    grid = np.array([[1, 3], [2, 3]], np.int32)
    maps = write_maps(tmp_path / "m.zarr", images, slots, map_grid=grid)
    output = refine(maps, labels=label(clusters, {"cat": "dd"}), features=features)
    assert arrays(output)["suppressed"][0, 0].tolist() == [[1, 1, 1], [0, 0, 0]]
    with open_store(output) as store:
        assert store.attributes["num_suppressed_everywhere"] == 1


def test_another_grid_is_read_at_the_centres_of_the_cells(images, labels, tmp_path):
    """Features of 4 x 6 cells over x 0 to 60: the map's centres are at x 5, 15, 25, y 5, 15."""
    cells = np.tile(np.array(EAST), (4, 6, 1))
    cells[1, 0], cells[3, 2] = NORTH, NORTH  # y 5 and x 5, y 15 and x 25
    cells[0, 1] = NORTH  # y 2.5: no centre
    features = write_features(
        tmp_path / "f.zarr", images, {"a": cells}, extents={"a": (0, 0, 60, 20)}
    )
    maps = write_maps(tmp_path / "m.zarr", images, {"a": (None, [(0, 1.0, MAP)])})
    found = arrays(refine(maps, labels=labels, features=features))
    assert found["suppressed"][0, 0].tolist() == [[1, 0, 0], [0, 0, 1]]


def test_a_selection_of_maps_in_another_order(maps, images, labels, tmp_path):
    (tmp_path / "ids").write_text("b\na\n")
    other = CELLS[::-1, ::-1]
    features = write_features(tmp_path / "f.zarr", images, {"c": other, "b": other, "a": CELLS})
    selected = select(maps, ids=tmp_path / "ids", output=tmp_path / "some.zarr")
    found = arrays(refine(selected, labels=labels, features=features))
    assert found["image_id"].tolist() == ["a", "b"]
    assert found["suppressed"][0, 0].tolist() == GONE.tolist()


def test_classes_are_matched_by_name(images, maps, features, tmp_path):
    clusters = write_clusters(
        tmp_path / "k.zarr", ["ox", "cow", "cat"], {0: [EAST, NORTH], 2: [EAST, NORTH]}
    )
    ears = Ears()
    labels = label(clusters, {"ox": "od", "cat": "od"})
    found = arrays(refine(maps, labels=labels, features=features, report=ears))
    assert found["suppressed"][0, 0].tolist() == GONE.tolist()
    assert found["suppressed"].sum() == 2
    assert "m.zarr: lacks 1 of the 2 classes with a distractor in k.zarr." in ears.notes


def test_classes_that_cannot_be_matched(maps, features, tmp_path):
    centroids = {0: [EAST, NORTH]}
    other = write_clusters(tmp_path / "k.zarr", ["ox", "cow"], centroids)
    message = (
        'm.zarr: none of the 1 classes with a distractor ("ox", …) is one of its 3 ("cat", …). '
        "Give maps of the same classes."
    )
    with pytest.raises(ProtocolError, match=re.escape(message)):
        refine(maps, labels=label(other, {"ox": "od"}), features=features)
    twice = write_clusters(tmp_path / "t.zarr", ["cat", "cat"], centroids)
    message = 't.zarr and m.zarr: the class "cat" stands twice in one of them and their classes'
    with pytest.raises(ProtocolError, match=re.escape(message)):
        refine(maps, labels=label(twice, {"cat": "od"}), features=features)


class TestBadImages:
    def test_a_map_that_is_not_finite(self, images, features, labels, tmp_path):
        """Whether its class is judged or not."""
        bad = np.where(GONE, np.nan, MAP)
        for index in (0, 2):
            slots = {"a": (None, [(index, 2.0, bad), (1, 1.0, MAP)]), "b": (None, [(0, 2.0, MAP)])}
            maps = write_maps(tmp_path / f"m{index}.zarr", images, slots)
            message = (
                f'm{index}.zarr row 0 "a": map has the value nan; expected finite scores. '
                "Pass --on-bad skip to leave it out."
            )
            with pytest.raises(BadImageError, match=re.escape(message)):
                refine(maps, labels=labels, features=features)
            ears = Ears()
            output = refine(maps, labels=labels, features=features, on_bad="skip", report=ears)
            self.check_left_out(output, ears)
            assert arrays(output)["suppressed"][1, 0].tolist() == GONE.tolist()

    @staticmethod
    def check_left_out(output, ears):
        found = arrays(output)
        assert found["image_status"].tolist() == [1, 0]
        assert found["image_note"][0]
        assert (found["map_class"][0] == -1).all()
        assert not found["map"][0].any()
        assert not found["suppressed"][0].any()
        assert (found["map_score"][0] == -np.inf).all()
        assert (found["class_score"][0] == -np.inf).all()
        assert ears.num_skipped == 1
        assert verify(output)["problems"] == []

    def test_an_image_whose_features_are_missing(self, images, labels, tmp_path):
        features = write_features(tmp_path / "f.zarr", images, {"a": None, "b": CELLS})
        slots = {name: (None, [(0, 2.0, MAP)]) for name in "ab"}
        maps = write_maps(tmp_path / "m.zarr", images, slots)
        message = 'm.zarr row 0 "a": it has no cells in f.zarr: it is bad Pass --on-bad skip'
        with pytest.raises(BadImageError, match=re.escape(message)):
            refine(maps, labels=labels, features=features)
        ears = Ears()
        output = refine(maps, labels=labels, features=features, on_bad="skip", report=ears)
        self.check_left_out(output, ears)

    def test_features_and_extents_that_mean_nothing(self, images, labels, tmp_path):
        slots = {name: (None, [(0, 2.0, MAP)]) for name in "ab"}
        maps = write_maps(tmp_path / "m.zarr", images, slots)
        cells = {"a": np.where(CELLS == 3, np.inf, CELLS), "b": CELLS}
        broken = write_features(tmp_path / "f.zarr", images, cells)
        with pytest.raises(BadImageError, match=r'row 0 "a": features of 2 cells are not finite'):
            refine(maps, labels=labels, features=broken)
        extents = {"b": (0, 0, 0, 9)}
        nowhere = write_features(
            tmp_path / "g.zarr", images, {"a": CELLS, "b": CELLS}, extents=extents
        )
        with pytest.raises(BadImageError, match=r'row 1 "b": map_extent is 0 0 0 9; expected'):
            refine(maps, labels=labels, features=nowhere, overwrite=True)

    def test_what_was_skipped_before_keeps_its_row(self, features, labels, tmp_path):
        source = write_images(
            tmp_path / "t.zarr", {"a": {}, "b": {"status": 1}}, CLASSES, size=(30, 20)
        )
        slots = {"a": (None, [(0, 2.0, MAP)]), "b": (None, [])}
        maps = rewritten(
            tmp_path / "m.zarr",
            write_maps(tmp_path / "n.zarr", source, slots),
            "maps",
            image_status=np.array([0, 1], np.uint8),
            image_note=["", "left out"],
        )
        found = arrays(refine(maps, labels=labels, features=features))
        assert found["image_status"].tolist() == [0, 2]
        assert found["image_note"].tolist() == ["", "left out"]
        assert found["map_class"].tolist() == [[0], [-1]]


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"unsure": "drop"}, '--unsure must be keep or suppress, got "drop".'),
            ({"fill": "nan"}, '--fill must be masked, floor or zero, got "nan".'),
            ({"model": "vgg16"}, "--features and --model exclude each other: stored features"),
            ({"images": "x"}, "--features and --images exclude each other"),
            (
                {"features": None, "weights": "w.pt"},
                "--weights w.pt needs --model, the network that it fills.",
            ),
        ],
    )
    def test_options(self, maps, features, labels, tmp_path, options, message):
        ears = Ears()
        with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
            refine(maps, **({"labels": labels, "features": features, "report": ears} | options))
        assert not ears.announced
        assert not list(tmp_path.glob("m.refine*"))

    def test_firing_cells_do_not_do(self, maps, images, labels, tmp_path):
        features = write_features(tmp_path / "g.zarr", images, {"a": CELLS}, cells="firing")
        message = (
            'g.zarr: holds the cells "firing", expected "all". Every cell is judged: once a peak '
            "is suppressed the threshold falls, and cells that no cluster judged would become "
            "foreground. Make it with extract-features --cells all, or leave --features out."
        )
        with pytest.raises(ProtocolError, match=re.escape(message)):
            refine(maps, labels=labels, features=features)

    def test_patterns_of_another_network_layer_or_width(self, maps, images, labels, tmp_path):
        other = MODEL | {"path": "vgg.safetensors", "digest": "sha256:" + "b" * 64}
        cells = {"a": CELLS}
        message = (
            'f.zarr: features of the model "vgg.safetensors" (bbbbbbbbbbbb), but k.zarr was made '
            'with "net.safetensors" (aaaaaaaaaaaa); patterns of another network mean nothing'
        )
        features = write_features(tmp_path / "f.zarr", images, cells, model=other)
        with pytest.raises(ProtocolError, match=re.escape(message)):
            refine(maps, labels=labels, features=features)
        (tmp_path / "ids.txt").write_text("a\n")
        chosen = select(features, ids=tmp_path / "ids.txt", output=tmp_path / "c.zarr")
        with pytest.raises(ProtocolError, match=re.escape(message.replace("f.zarr", "c.zarr"))):
            refine(maps, labels=labels, features=chosen)
        features = write_features(tmp_path / "l.zarr", images, cells, layer="conv2")
        message = (
            'l.zarr: features of the layer "conv2" with 2 channels, k.zarr has clusters of "conv" '
            "with 2. Extract features of that layer."
        )
        with pytest.raises(ProtocolError, match=re.escape(message)):
            refine(maps, labels=labels, features=features)
        features = write_features(tmp_path / "w.zarr", images, {"a": np.ones((2, 3, 5))})
        with pytest.raises(ProtocolError, match=r'"conv" with 5 channels, .* "conv" with 2\.'):
            refine(maps, labels=labels, features=features)

    def test_another_input_size_is_told(self, maps, images, labels, tmp_path):
        features = write_features(tmp_path / "f.zarr", images, {"a": CELLS}, input_size=16)
        ears = Ears()
        refine(maps, labels=labels, features=features, report=ears)
        assert ears.warnings == ["f.zarr: input_size is 16, that of k.zarr 8."]

    def test_an_image_that_the_features_lack(self, images, labels, tmp_path):
        slots = {"a": (None, [(1, 1.0, MAP)]), "b": (None, [(0, 1.0, MAP)])}
        maps = write_maps(tmp_path / "m.zarr", images, slots)
        features = write_features(tmp_path / "f.zarr", images, {"a": CELLS})
        message = (
            'f.zarr: has no image "b", row 1 of m.zarr, which has a map of a class with a '
            "distractor. Make it with extract-features --cells all"
        )
        with pytest.raises(LineageError, match=re.escape(message)):
            refine(maps, labels=labels, features=features)
        refine(maps, labels=labels, features=features, limit=1)  # image b is not needed

    def test_other_pictures_of_the_same_name(self, maps, labels, tmp_path):
        images = write_images(tmp_path / "o.zarr", {"a": {}}, CLASSES, size=(31, 20))
        features = write_features(tmp_path / "f.zarr", images, {"a": CELLS})
        message = 'f.zarr: row 0 "a" is 31x20 px, 30x20 px in m.zarr; expected the same pictures.'
        with pytest.raises(LineageError, match=re.escape(message)):
            refine(maps, labels=labels, features=features)

    def test_cells_that_are_missing(self, maps, images, labels, tmp_path):
        cell = np.indices((2, 3)).reshape(2, -1).T.astype(np.int16)
        cell[5] = 0
        features = write_features(tmp_path / "f.zarr", images, {"a": CELLS}, cell=cell)
        message = "f.zarr row 0: has 6 cells, expected each of the 2x3 once. Run: wsltool verify"
        with pytest.raises(StoreCorruptError, match=re.escape(message)):
            refine(maps, labels=labels, features=features)

    def test_other_kinds_and_other_clusters(self, maps, features, clusters, labels, tmp_path):
        with pytest.raises(StoreKindError, match=r'f\.zarr: kind is "features", but refine reads'):
            refine(features, labels=labels, features=features)
        with pytest.raises(StoreKindError, match=r'kind is "maps", but refine --features reads'):
            refine(maps, labels=labels, features=maps)
        with pytest.raises(StoreKindError, match=r'kind is "maps", but refine --clusters reads'):
            refine(maps, labels=labels, features=features, clusters=maps)
        other = write_clusters(tmp_path / "o.zarr", CLASSES, {0: [NORTH, EAST], 1: [EAST, NORTH]})
        with pytest.raises(LineageError, match=r"was made for k\.zarr, which o\.zarr is not"):
            refine(maps, labels=labels, features=features, clusters=other)
        clusters.rename(tmp_path / "moved.zarr")
        with pytest.raises(LineageError, match=r"its clusters k\.zarr are not there.*--clusters"):
            refine(maps, labels=labels, features=features)
        refine(maps, labels=labels, features=features, clusters=tmp_path / "moved.zarr")


NUM = 300


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """300 images, 2 blocks: maps of 5 x 4 cells, features of 6 x 6 in another order."""
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(7)
    listed = {f"{n:03}": {"size": (20 + n % 7, 30 - n % 5)} for n in range(NUM)}
    images = write_images(folder / "s.zarr", listed, CLASSES)
    slots = {
        name: (None, [((k + n) % 3, -float(k), rng.normal(size=(5, 4))) for k in range(n % 3)])
        for n, name in enumerate(listed)
    }
    maps = write_maps(folder / "m.zarr", images, slots)
    cells = {name: rng.uniform(size=(6, 6, 3)) for name in reversed(listed)}
    features = write_features(folder / "f.zarr", images, cells, dtype=np.float16)
    centroids = {0: rng.uniform(size=(4, 3)), 2: rng.uniform(size=(2, 3))}
    clusters = write_clusters(folder / "k.zarr", CLASSES, centroids)
    return maps, features, label(clusters, {"cat": "oddo", "cow": "od"}), clusters


def test_the_stage_is_its_rule_on_every_cell(many, tmp_path):
    """One cell after the other, with loops and plain arithmetic."""
    maps, features, labels, clusters = many
    output = refine(maps, labels=labels, features=features, output=tmp_path / "r.zarr")
    found, before = arrays(output), arrays(maps)
    stored, known = arrays(features), arrays(clusters)
    gone_of = {0: [1, 2], 2: [5]}
    kept_of = {0: [0, 3], 2: [4]}
    row_of = {name: row for row, name in enumerate(stored["image_id"].tolist())}
    changed = 0
    for n in range(0, NUM, 7):
        row = row_of[found["image_id"][n]]
        extents = before["map_extent"][n], stored["map_extent"][row]
        row_H, col_W = nearest_cells(extents[0], (5, 4), extents[1], (6, 6))
        for slot, index in enumerate(before["map_class"][n].tolist()):
            expected = before["map"][n, slot].copy()
            floor = min(0, expected.min())
            for r in range(5):
                for c in range(4):
                    at = stored["cell_start"][row] + 6 * row_H[r] + col_W[c]
                    phi = stored["feature"][at].astype(np.float64)
                    heat = known["centroid"].astype(np.float64) @ (phi / np.sqrt((phi**2).sum()))
                    if index in gone_of and max(heat[gone_of[index]]) > max(heat[kept_of[index]]):
                        expected[r, c] = floor
                        changed += 1
                        assert found["suppressed"][n, slot, r, c]
                    else:
                        assert not found["suppressed"][n, slot, r, c]
            np.testing.assert_array_equal(found["map"][n, slot], expected)
    assert changed > 100


def test_equal_bytes_whatever_shards_and_container(many, tmp_path):
    maps, features, labels, _ = many
    options = {"labels": labels, "features": features}
    outputs = [refine(maps, output=tmp_path / f"r{end}", **options) for end in (".zarr", ".h5")]
    shared = tmp_path / "shared.zarr"
    for shard in ("3/4", "1/4", "0/4", "2/4"):
        refine(maps, output=shared, shard=shard, **options)
    for other in (outputs[1], shared):
        assert meta(other)["digest"] == meta(outputs[0])["digest"]
        assert_equal_arrays(outputs[0], other)
    assert verify(shared)["problems"] == []
    with open_store(shared) as one, open_store(outputs[0]) as other:
        for name in ("num_refined", "num_suppressed_everywhere", "refined_classes"):
            assert one.attributes[name] == other.attributes[name]


_KILLED = """
import contextlib, os, signal, sys
from wsltool.stages.refine import refine
from wsltool.stages.report import Reporter

class Deadly(Reporter):
    @contextlib.contextmanager
    def progress(self, label, total, unit):
        told = 0
        def advance(num):
            nonlocal told
            told += num
            if told > int(sys.argv[5]):
                os.kill(os.getpid(), signal.SIGKILL)
        yield advance

maps, labels, features, output = sys.argv[1:5]
refine(maps, labels=labels, features=features, output=output, report=Deadly())
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


def _refined_apart(many, output, deadly_at):
    maps, features, labels, _ = many
    words = [str(maps), str(labels), str(features), str(output), str(deadly_at)]
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", _KILLED, *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_resumed_after_kill_9(many, tmp_path):
    """Killed in the second block, and again at once; the third run finds the first block."""
    maps, features, labels, _ = many
    output = tmp_path / "r.zarr"
    for at in (280, 0):
        assert _refined_apart(many, output, at).returncode == -signal.SIGKILL
        assert not output.exists()
    assert len(list((tmp_path / "r.zarr.wip").glob("*part*"))) >= 1
    done = _refined_apart(many, output, NUM)
    assert done.returncode == 0, done.stderr
    whole = refine(maps, labels=labels, features=features, output=tmp_path / "w.zarr")
    assert_equal_arrays(output, whole)
    assert meta(output)["digest"] == meta(whole)["digest"]
    assert not {"torch", "torchvision"} & set(done.stdout.split())
