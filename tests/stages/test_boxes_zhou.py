"""``boxes --rule zhou``: which classes and boxes become guesses, in what order."""

from __future__ import annotations

import numpy as np
import pytest

from wsltool.errors import BadImageError, UsageError
from wsltool.stages.boxes import boxes
from wsltool.stages.score import score
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .making import Ears, arrays, assert_equal_arrays, meta, write_images, write_maps

CLASSES = ["cat", "dog", "cow", "hen", "pig"]
BIG, SMALL = [5, 5, 45, 30], [20, 10, 30, 20]


@pytest.fixture
def images(tmp_path):
    truth = {"a": {"boxes": [(1, *SMALL)]}, "b": {"boxes": [(2, *BIG)]}}
    return write_images(tmp_path / "s.zarr", truth, CLASSES, size=(60, 40))


def heat(*, inner=True, high=1.0):
    """Two plateaus, 21 and 111 of 255, so that box 1 is `BIG` and box 2 `SMALL`; or one."""
    found = np.zeros((40, 60), np.float32)
    found[5:30, 5:45] = 21 if inner else 255
    if inner:
        found[10:20, 20:30], found[15:17, 25:27] = 111, 255
    return found / 255 * high


def made(images, tmp_path, slots_a, slots_b=(), classes="top5", **options):
    maps = write_maps(
        tmp_path / "m.zarr",
        images,
        {"a": (None, slots_a), "b": (None, list(slots_b))},
        classes=classes,
    )
    output = boxes(maps, rule="zhou", **options)
    assert verify(output)["problems"] == []
    return output, arrays(output)


def test_five_guesses_of_three_classes(images, tmp_path):
    """The first and second box of the best two classes, the first of every further one."""
    slots = [(k, 9.0 - k, heat(high=2.0 + k)) for k in (0, 1, 2, 3)]
    output, found = made(images, tmp_path, slots)
    assert found["map_class"].tolist() == [[0, 0, 1, 1, 2, 3], [-1] * 6]
    assert found["map_score"].tolist() == [[9, 9, 8, 8, 7, 6], [-np.inf] * 6]
    assert found["box"].tolist() == [BIG, SMALL, BIG, SMALL, BIG, BIG]
    assert found["box_class"].tolist() == [0, 0, 1, 1, 2, 3]
    assert found["box_slot"].tolist() == [0, 1, 2, 3, 4, 5]
    assert found["box_score"].tolist() == [9, 9, 8, 8, 7, 6]
    assert found["box_start"].tolist() == [0, 6, 6]
    assert meta(output)["params"] == {"rule": "zhou"}
    with open_store(output) as store:
        assert store.attributes["thresholds"] == {
            "chosen_on": None,
            "source": "rule",
            "value": [20, 100, 110],
            "of": 255,
        }
        assert store.attributes["classes"] == "top5"
        assert store.attributes["box_score_kind"] == "class"


def test_the_guesses_are_scored_as_top_five(images, tmp_path):
    """Image a: a dog, in the small box, is the fourth guess. Image b: a cow, the fifth."""
    slots_a = [(0, 9.0, heat()), (1, 8.0, heat()), (2, 7.0, heat())]
    slots_b = [(0, 9.0, heat()), (1, 8.0, heat()), (2, 7.0, heat())]
    output, _ = made(images, tmp_path, slots_a, slots_b)
    (found,) = score(output, protocol="ilsvrc-top5")["results"]
    assert found["extra"]["loc_error"] == [100, 100, 100, 50, 0]
    assert found["extra"]["cls_error"] == [100, 100, 50, 50, 0]


@pytest.mark.parametrize(
    ("classes", "ranked", "written"),
    [
        ("top3", [0, 0, 1, 1, 2, -1, -1], "top5"),
        ("top4+present", [0, 0, 1, 1, 2, -1, -1], "top5+present"),
        ("top7", [0, 0, 1, 1, 2, -1, -1], "top7"),
        ("all", [0, 0, 1, 1, 2, -1, -1], "all"),
        ("", [0, 0, 1, 1, 2, -1, -1], ""),
        ("top2", [0, 1, 2, -1, -1], "top2"),
        ("present", [0, 1, 2, -1, -1], "present"),
        ("above:.1", [0, 1, 2, -1, -1], "above:.1"),
    ],
)
def test_guesses_need_the_best_three(images, tmp_path, classes, ranked, written):
    """Where the truth or a probability chose the classes, each has its first box only."""
    slots = [(k, 9.0 - k, heat()) for k in (0, 1, 2)]
    more = [(k, 9.0 - k, heat()) for k in range(5)]
    output, found = made(images, tmp_path, slots, more, classes=classes)
    assert found["map_class"][0].tolist() == ranked
    num = sum(index >= 0 for index in ranked)
    assert found["box_start"][1] == num
    with open_store(output) as store:
        assert store.attributes["classes"] == written


def test_a_class_without_a_second_box_keeps_its_guess(images, tmp_path):
    """One broad plateau: box 2 is box 1 again (the skip). A black map has no box at all."""
    slots = [(0, 9.0, heat(inner=False)), (1, 8.0, heat() * 0), (2, 7.0, heat())]
    _, found = made(images, tmp_path, slots)
    assert found["map_class"][0].tolist() == [0, 0, 1, 1, 2]
    assert found["box"].tolist() == [BIG, BIG, BIG]
    assert found["box_slot"].tolist() == [0, 1, 4]


def test_a_box_without_area_is_left_out_in_its_place(images, tmp_path):
    cells = np.zeros((40, 60), np.float32)
    cells[10:20, 55:58] = 1
    _, found = made(images, tmp_path, [(0, 9.0, cells), (1, 8.0, heat())])
    assert found["map_class"][0].tolist()[:4] == [0, 0, 1, 1]
    assert found["box_slot"].tolist() == [2, 3]


def test_a_map_that_is_no_number_is_left_out(images, tmp_path):
    bad = heat()
    bad[0, 0] = np.nan
    slots = [(0, 9.0, bad), (1, 8.0, heat())]
    with pytest.raises(BadImageError, match=r'^m\.zarr row 0 "a": map has 1 values'):
        made(images, tmp_path, slots)
    ears = Ears()
    maps = tmp_path / "m.zarr"
    output = boxes(maps, rule="zhou", on_bad="skip", report=ears, overwrite=True)
    found = arrays(output)
    assert ears.num_skipped == 1
    assert found["image_status"].tolist() == [1, 0]
    assert (found["map_class"] == -1).all()
    assert (found["map_score"] == -np.inf).all()


def test_containers_and_shards_give_the_same(images, tmp_path):
    slots = [(k, 9.0 - k, heat(high=1.0 + k)) for k in (0, 1, 2)]
    output, _ = made(images, tmp_path, slots)
    for shard in ("0/2", "1/2"):
        other = boxes(tmp_path / "m.zarr", rule="zhou", output=tmp_path / "o.h5", shard=shard)
    assert_equal_arrays(output, other)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"threshold": 0.2}, "--threshold"),
        ({"threshold_of": "range"}, "--threshold-of"),
        ({"components": "all"}, "--components"),
        ({"connectivity": 4}, "--connectivity"),
        ({"empty": "whole"}, "--empty"),
        ({"box_score": "heat-max"}, "--box-score"),
        ({"fit_threshold": "val.zarr"}, "--fit-threshold"),
    ],
)
def test_options_that_it_does_not_read_are_refused(options, named):
    with pytest.raises(UsageError, match=f"^{named} is not read by --rule zhou, which has"):
        boxes("nowhere.zarr", rule="zhou", **options)


def test_another_rule_is_refused():
    with pytest.raises(UsageError, match=r'^--rule must be kl16 or zhou, got "otsu"\.$'):
        boxes("nowhere.zarr", rule="otsu")
