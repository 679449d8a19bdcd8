"""Intervals, differences to another store, several runs, several IoUs, what went wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

from wsltool.errors import ProtocolError, StoreError, UsageError
from wsltool.stages.score import score

from .making import write_boxes, write_images
from .scoring import AWAY, CLASSES, NEAR, RIGHT, SLOTS, five_images, result


@pytest.fixture
def images(tmp_path):
    return five_images(tmp_path)


def boxes_of(images, name, slots):
    return write_boxes(images.with_name(name), images, slots, classes="all")


@pytest.fixture
def three_right(images):
    """a, c and d are right."""
    return boxes_of(images, "three.zarr", SLOTS)


@pytest.fixture
def two_right(images):
    """a and e are right."""
    found = SLOTS | {name: [(SLOTS[name][0][0], 1.0, AWAY)] for name in "cd"}
    return boxes_of(images, "two.zarr", found | {"e": [(2, 1.0, RIGHT)]})


def test_several_ious_are_several_results(images):
    found = boxes_of(images, "b.zarr", SLOTS | {"c": [(1, 1.0, NEAR)]})
    results = score(found, protocol=["gt-known", "peak-in-box"][:1], iou=[0.3, 0.5, 0.3])["results"]
    assert [(one["parameters"]["iou"], one["value"]) for one in results] == [(0.3, 60), (0.5, 40)]


def test_an_interval_is_the_percentiles_of_resampled_images(three_right):
    """Three of five: the share in a sample is binomial; its 2.5 % and 97.5 % are 20 and 100."""
    found = result(three_right, "gt-known", bootstrap=4000)
    assert found["value"] == 60
    per_class = found["interval"].pop("per_class")
    assert per_class[2] == [0, 0]  # e alone is a cow, and wrong
    assert per_class[3:] == [[None, None]] * 3
    assert found["interval"] == {
        "low": 20,
        "high": 100,
        "level": 95,
        "num_samples": 4000,
        "num_samples_without_value": 0,
        "seed": 0,
    }
    assert "interval" not in result(three_right, "gt-known")


def test_the_difference_to_another_store_is_paired(images, three_right, two_right):
    """Right here and wrong there: c, d; the other way round: e. In the mean +1 of 5."""
    found = result(three_right, "gt-known", compare=two_right)["compared"]
    assert (found["value"], found["difference"]) == (40, 20)
    assert -80 <= found["low"] <= -40
    assert found["high"] == 80
    assert found["per_class"] == [50, 0, 100, None, None, None]
    assert found["inputs"]["boxes"]["path"].endswith("two.zarr")
    same = result(three_right, "gt-known", compare=three_right)["compared"]
    assert (same["difference"], same["low"], same["high"]) == (0, 0, 0)


def test_the_other_store_must_hold_the_images(tmp_path, three_right):
    other = write_images(tmp_path / "z.zarr", {"z": {"boxes": [(0, *RIGHT)]}}, CLASSES)
    strange = write_boxes(tmp_path / "y.zarr", other, {"z": [(0, 1.0, RIGHT)]}, classes="all")
    message = r"^y\.zarr: holds none of the 5 scored images\. Give one of the same images with "
    with pytest.raises(ProtocolError, match=message + "--compare"):
        score(three_right, protocol="gt-known", compare=strange)
    with pytest.raises(ProtocolError, match=message + "--runs"):
        score(three_right, protocol="gt-known", runs=[strange])


def test_a_result_of_before_is_compared_without_interval(tmp_path, three_right, two_right):
    score(two_right, protocol=["gt-known", "voc-ap"], output=tmp_path / "two.json")
    found = result(three_right, "gt-known", compare=tmp_path / "two.json")["compared"]
    assert (found["difference"], found["low"], found["high"]) == (20, None, None)
    with pytest.raises(UsageError, match=r"^--compare: the result holds gt-known, voc-ap, none of"):
        score(three_right, protocol="gt-known", iou=0.3, compare=tmp_path / "two.json")
    (tmp_path / "x.json").write_text(json.dumps([1]))
    with pytest.raises(StoreError, match=r"x\.json: is no result of wsltool score\."):
        score(three_right, protocol="gt-known", compare=tmp_path / "x.json")


def test_three_runs_make_a_mean_and_a_spread(three_right, two_right):
    found = result(three_right, "gt-known", runs=[two_right, two_right])["runs"]
    assert found["values"] == [60, 40, 40]
    assert found["mean"] == pytest.approx(140 / 3)
    assert found["sd"] == pytest.approx(np.std([60, 40, 40], ddof=1))


def test_what_went_wrong_is_counted(images):
    """a is right, b's box is elsewhere, c only the upper part, d has the wrong class, e none."""
    part = (0, 0, 10, 3)
    slots = SLOTS | {"c": [(1, 1.0, part)], "d": [(0, 1.0, RIGHT)], "e": [(2, 1.0)]}
    found = boxes_of(images, "b.zarr", slots)
    mistakes = result(found, "ilsvrc-top1")["mistakes"]
    assert mistakes["right"] == 1
    assert mistakes["background"] == 1
    assert mistakes["only a part"] == 1
    assert mistakes["wrong class"] == 1
    assert sum(mistakes.values()) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bootstrap": 0}, r"^--bootstrap must be in \[1, 100000\], got 0\.$"),
        ({"seed": -1}, r"^--seed must be in"),
        ({"plot": "a.jpg"}, r"^--plot a\.jpg: a plot is a \.png or a \.svg\. Give such a name\.$"),
        ({"plot": "no/a.png"}, r"^--plot no/a\.png: the folder no does not exist\. Make it first"),
        ({"interval": 0.1}, r"^--interval 0\.1 has no meaning for gt-known\. Leave it out\.$"),
        ({"iou": [0.5, 2]}, r"^--iou must be in \(0, 1\], got 2\.$"),
    ],
)
def test_wrong_options(three_right, options, message):
    with pytest.raises(UsageError, match=message):
        score(three_right, protocol="gt-known", **options)


def test_a_picture_of_the_results(tmp_path, three_right, two_right):
    path = tmp_path / "r.png"
    score(three_right, protocol=["gt-known", "voc-ap"], compare=two_right, plot=path)
    first = path.read_bytes()
    assert first.startswith(b"\x89PNG")
    score(three_right, protocol=["gt-known", "voc-ap"], compare=two_right, plot=path)
    assert path.read_bytes() == first
