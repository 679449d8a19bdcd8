"""Scores of hand-made boxes and maps, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wsltool.errors import (
    LineageError,
    ProtocolError,
    StoreKindError,
    UsageError,
)
from wsltool.stages.baseline import baseline
from wsltool.stages.boxes import boxes
from wsltool.stages.score import score

from .making import Ears, meta, write_boxes, write_images
from .scoring import (
    AWAY,
    CLASSES,
    LABELS,
    PEAKS,
    RIGHT,
    five_found,
    five_images,
    peaked,
    result,
)


@pytest.fixture
def images(tmp_path):
    return five_images(tmp_path)


@pytest.fixture
def found(images):
    return five_found(images)


def test_ilsvrc(found):
    """Top-1: a, b right. Top-5: a, b and d (c's box is just too small, e stands sixth)."""
    first, five = result(found, "ilsvrc-top1"), result(found, "ilsvrc-top5")
    assert first["value"] == pytest.approx(60)
    assert five["value"] == pytest.approx(40)
    assert five["extra"]["loc_error"] == pytest.approx([60, 60, 60, 60, 40])
    assert five["extra"]["cls_error"] == pytest.approx([60, 40, 40, 40, 20])
    assert not five["higher_is_better"]
    assert five["unit"] == "%"
    by_class = {row["class_name"]: row for row in five["per_class"]}
    assert [by_class[name]["value"] for name in CLASSES] == [0, 50, 100, None, None, None]
    assert by_class["dog"]["class_id"] == "id dog"
    assert five["warnings"] == []
    assert five["classes"] == "all"


def test_gt_known(found):
    """a, b, d and e: only c's first dog box is too small."""
    known = result(found, "gt-known")
    assert known["value"] == pytest.approx(80)
    assert result(found, "gt-known", iou=0.49)["value"] == pytest.approx(100)
    assert result(found, "gt-known", iou=0.51)["value"] == pytest.approx(60)
    assert result(found, "gt-known", iou=0.51)["parameters"] == {"iou": 0.51}


def test_voc_ap(found):
    """Cat: 9 TP, 9 TP, 9 FP, 9 FP in the order of images, both found first: AP 1.

    Dog: c is false at 8, d true at 1: precision 1/2 at recall 1/2. Cow: d is false at 7, e
    true at 1: 1/2 at recall 1. Mean of 100, 25, 50.
    """
    ap = result(found, "voc-ap")
    values = {row["class_name"]: row["value"] for row in ap["per_class"]}
    assert values["cat"] == pytest.approx(100)
    assert values["dog"] == pytest.approx(25)
    assert values["cow"] == pytest.approx(50)
    assert values["hen"] is None
    assert ap["value"] == pytest.approx(175 / 3)
    assert ap["warnings"] == ["3 classes have no object to find and are left out of the mean."]


def test_baselines_beside_every_result(found):
    """The whole image has IoU .5 with its left half. So has no smaller centred box."""
    known = result(found, "gt-known")
    assert known["baselines"] == [
        {"name": "whole image", "value": 100},
        {"name": "centred box", "value": 100, "fraction": 1, "fitted_on": "the scored images"},
    ]
    five = result(found, "ilsvrc-top5")
    assert [one["value"] for one in five["baselines"]] == pytest.approx([20, 20])


@pytest.mark.parametrize("protocol", ["ilsvrc-top1", "ilsvrc-top5", "gt-known", "voc-ap"])
def test_baselines_are_what_baseline_makes(tmp_path, protocol):
    """`score` beside a method equals `baseline --like` the method, scored."""
    rng = np.random.default_rng(0)
    listed, slots = {}, {}
    for n in range(40):
        size = rng.integers(10, 40, 2)
        corner = rng.integers(0, size // 2)
        far = rng.integers(corner + 3, size + 1)
        name, k = f"{n:02}", int(rng.integers(6))
        listed[name] = {"size": tuple(size), "boxes": [(k, *corner, *far)]}
        order = rng.permutation(6).tolist()
        slots[name] = [(c, float(9 - rank), (0, 0, *size)) for rank, c in enumerate(order)]
    images = write_images(tmp_path / "s.zarr", listed, CLASSES)
    method = write_boxes(tmp_path / "b.zarr", images, slots, classes="all")
    whole, centred = result(method, protocol)["baselines"]
    sign = 1 if result(method, protocol)["higher_is_better"] else -1
    prior = {"whole": {"prior": "whole"}, "centred": {"fraction": centred["fraction"]}}
    for name, one in (("whole", whole), ("centred", centred)):
        path = baseline(images, like=method, output=tmp_path / f"{name}.zarr", **prior[name])
        assert result(path, protocol)["value"] == pytest.approx(one["value"], abs=1e-9)
    fractions = [round(centred["fraction"] + step, 2) for step in (-0.05, 0.05)]
    for fraction in (one for one in fractions if one <= 1):  # no neighbour is better
        path = baseline(images, like=method, fraction=fraction, output=tmp_path / f"{fraction}.h5")
        assert (result(path, protocol)["value"] - centred["value"]) * sign <= 1e-9


def test_peak_in_box(images, tmp_path):
    """Only a and c peak inside; the centre, x = 10, lies outside every box."""
    maps = peaked(images, tmp_path, PEAKS)
    ears = Ears()
    peak = result(maps, "peak-in-box", report=ears)
    assert peak["value"] == pytest.approx(40)
    assert peak["baselines"] == [{"name": "image centre", "value": 0, "difference": 40}]
    assert peak["extra"]["num_without_map"] == 1
    assert ears.warnings == ["peak-in-box: 1 classes in images have no map and count as missed."]


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_boxes_lead_back_to_their_maps(images, tmp_path, suffix):
    maps = peaked(images, tmp_path, PEAKS)
    drawn = boxes(maps, output=tmp_path / f"drawn{suffix}")
    found = score(drawn, protocol=["peak-in-box", "gt-known"])
    peak, known = found["results"]
    assert peak["value"] == pytest.approx(40)
    assert set(peak["inputs"]) == {"images", "maps", "boxes"}
    assert peak["inputs"]["maps"]["digest"] == meta(maps)["digest"]
    assert set(known["inputs"]) == {"images", "boxes"}
    assert known["made_by"]["params"]["threshold"] == 0.2


def test_maps_that_are_gone(images, tmp_path):
    maps = peaked(images, tmp_path, PEAKS)
    drawn = boxes(maps)
    maps.rename(tmp_path / "away.zarr")
    with pytest.raises(
        LineageError, match=r"^m\.boxes\.zarr: its maps m\.zarr is not there\. Say where with INPUT"
    ):
        score(drawn, protocol="peak-in-box")
    assert result(tmp_path / "away.zarr", "peak-in-box")["value"] == pytest.approx(40)


def test_limit_of_boxes_limits_the_peaks_too(images, tmp_path):
    drawn = boxes(peaked(images, tmp_path, PEAKS), limit=3)
    ears = Ears()
    peak = result(drawn, "peak-in-box", report=ears)
    assert peak["value"] == pytest.approx(200 / 3)
    assert peak["images"]["scored"] == 3
    assert ears.warnings == ["peak-in-box: first 3 of 5 images"]


class TestRefusals:
    """Classes that do not suit a protocol."""

    def make(self, images, tmp_path, classes):
        slots = {name: [(0, 1.0, RIGHT), (1, 0.5, RIGHT)] for name in "abcde"}
        return write_boxes(tmp_path / "b.zarr", images, slots, classes=classes)

    @pytest.mark.parametrize("protocol", ["ilsvrc-top1", "ilsvrc-top5", "voc-ap", "voc07-ap"])
    @pytest.mark.parametrize("classes", ["present", "above:0.5+present"])
    def test_the_truth_chose_them(self, images, tmp_path, protocol, classes):
        line = (
            f"b.zarr: holds the classes {classes}, so the truth chose them; {protocol} ranks "
            "classes. Make it again with cam --classes top5 or all."
        )
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            score(self.make(images, tmp_path, classes), protocol=protocol)

    @pytest.mark.parametrize("classes", ["top2", "top2+present", "above:0.1+top2+present"])
    def test_too_few(self, images, tmp_path, classes):
        line = (
            f"b.zarr: holds the classes {classes}, ilsvrc-top5 needs the best 5. "
            "Make it again with cam --classes top5."
        )
        path = self.make(images, tmp_path, classes)
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            score(path, protocol="ilsvrc-top5")
        assert result(path, "ilsvrc-top1")["value"] is not None

    @pytest.mark.parametrize("classes", ["top5", "above:0.3"])
    @pytest.mark.parametrize("protocol", ["gt-known"])
    def test_the_class_present_may_lack(self, images, tmp_path, protocol, classes):
        line = (
            f"b.zarr: holds the classes {classes}, {protocol} needs those present in every image. "
            f"Make it again with cam --classes {classes}+present."
        )
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            score(self.make(images, tmp_path, classes), protocol=protocol)

    def test_peaks_too(self, images, tmp_path):
        maps = peaked(images, tmp_path, PEAKS, classes="top1")
        with pytest.raises(ProtocolError, match=r"^m\.zarr: holds the classes top1, peak-in-box"):
            score(maps, protocol="peak-in-box")

    @pytest.mark.parametrize("classes", ["", "all", "top6", "top99", "present", "top1+present"])
    def test_all_that_suit_a_given_class(self, images, tmp_path, classes):
        path = self.make(images, tmp_path, classes)
        assert result(path, "gt-known")["value"] == pytest.approx(80)  # but the cow

    def test_as_many_as_there_are_will_do(self, tmp_path):
        images = write_images(tmp_path / "s.zarr", {"a": {"boxes": [(0, *RIGHT)]}}, CLASSES[:2])
        slots = {"a": [(1, 2.0), (0, 1.0, RIGHT)]}
        path = write_boxes(tmp_path / "b.zarr", images, slots, classes="top2")
        assert result(path, "ilsvrc-top5")["value"] == 0

    def test_another_kind(self, images, tmp_path):
        with pytest.raises(
            StoreKindError,
            match=r'^s\.zarr: kind is "images", but score --protocol gt-known reads "boxes"\. Run '
            r"first: wsltool boxes MAPS$",
        ):
            score(images, protocol="gt-known")
        maps = peaked(images, tmp_path, PEAKS)
        with pytest.raises(StoreKindError, match=r'^m\.zarr: kind is "maps", but score --prot'):
            score(maps, protocol="voc-ap")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"protocol": []}, "--protocol is missing. Pass one"),
            ({"protocol": "voc-map"}, '--protocol "voc-map" is not known; expected one of'),
            ({"protocol": "gt-known", "iou": 0}, "--iou must be in (0, 1], got 0."),
            ({"protocol": "gt-known", "iou": float("nan")}, "--iou must be in (0, 1], got nan."),
            ({"protocol": "peak-in-box", "iou": 0.5}, "--iou 0.5 has no meaning for peak-in-box."),
        ],
    )
    def test_wrong_options(self, found, options, message):
        with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
            score(found, **options)

    def test_several_labels(self, tmp_path):
        listed = {"a": {"boxes": [(0, *RIGHT), (1, *RIGHT)]}}
        images = write_images(tmp_path / "s.zarr", listed, CLASSES)
        path = write_boxes(tmp_path / "b.zarr", images, {"a": []}, classes="all")
        with pytest.raises(
            ProtocolError, match=r"^truth row 0: 2 classes are present \(0, 1\); gt"
        ):
            score(path, protocol="gt-known")

    def test_no_true_boxes(self, tmp_path):
        images = write_images(tmp_path / "s.zarr", {"a": {"labels": {0: 1}}}, CLASSES, boxes=False)
        path = write_boxes(tmp_path / "b.zarr", images, {"a": []}, classes="all")
        with pytest.raises(
            ProtocolError,
            match=r"^s\.zarr: has no true boxes, so nothing can be scored\. Ingest them",
        ):
            score(path, protocol="gt-known")


class TestUnion:
    """``top5+present``: what the truth added must not help where classes are ranked."""

    @pytest.fixture
    def union(self, images, tmp_path):
        """The class of each image is sixth, its box right; the store asked for it."""
        slots = {}
        for name, k in zip("abcde", LABELS, strict=True):
            slots[name] = [(c, 9.0 - c, AWAY) for c in range(6) if c != k]
            slots[name].append((k, -1.0, RIGHT))
        return write_boxes(tmp_path / "b.zarr", images, slots, classes="top5+present")

    def test_given_classes_see_all(self, union):
        assert result(union, "gt-known")["value"] == 100

    def test_ranked_ones_see_the_first_five(self, union):
        five = result(union, "ilsvrc-top5")
        assert five["value"] == 100
        assert five["extra"]["cls_error"][-1] == 100
        assert five["baselines"][0]["value"] == 100

    def test_detections_that_owe_themselves_to_the_truth_are_left_out(self, union):
        """Without the sixth slot every box lies away from the object."""
        ap = result(union, "voc-ap")
        assert ap["value"] == 0
        assert [row["num_detections"] for row in ap["per_class"]][:3] == [3, 3, 4]
        assert ap["baselines"][0]["value"] == 0

    def test_of_all_classes_nothing_is_left_out(self, images, tmp_path):
        slots = {name: [(0, 1.0, RIGHT)] for name in "abcde"}
        path = write_boxes(tmp_path / "b2.zarr", images, slots, classes="all+present")
        assert result(path, "voc-ap")["per_class"][0]["num_detections"] == 5
