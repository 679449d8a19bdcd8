"""How predictions and truth are joined, skipped images, and the result that is written."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import zarr

from wsltool.errors import (
    LineageError,
    ProtocolError,
    StoreCorruptError,
    StoreExistsError,
    StoreKindError,
    UsageError,
)
from wsltool.stages.baseline import baseline
from wsltool.stages.boxes import boxes
from wsltool.stages.score import score

from .making import Ears, arrays, write_boxes, write_images, write_maps, write_store
from .scoring import (
    CLASSES,
    LABELS,
    RIGHT,
    SLOTS,
    WHOLE,
    five_found,
    five_images,
    result,
)


@pytest.fixture
def images(tmp_path):
    return five_images(tmp_path)


@pytest.fixture
def found(images):
    return five_found(images)


class TestJoin:
    """Images are joined by their id."""

    def listed(self, names="abcde", **more):
        classes = dict(zip("abcde", LABELS, strict=True))
        listed = {n: {"boxes": [(classes.get(n, 0), *RIGHT)]} for n in names}
        return {name: one | more.get(name, {}) for name, one in listed.items()}

    def test_any_order(self, images, tmp_path):
        truth = write_images(tmp_path / "t.zarr", self.listed("dbaec"), CLASSES)
        slots = {name: SLOTS[name] for name in "ecadb"}
        path = write_boxes(tmp_path / "b.zarr", images, slots, classes="all")
        for one in (None, truth):
            found = result(path, "gt-known", truth=one)
            assert found["value"] == pytest.approx(60)
            values = [row["value"] for row in found["per_class"]][:3]
            assert values == [50, 100, 0]

    def test_an_image_that_lacks_is_missed_with_a_warning(self, images, tmp_path):
        slots = {name: SLOTS[name] for name in "abc"}
        path = write_boxes(tmp_path / "b.zarr", images, slots, classes="all")
        ears = Ears()
        found = result(path, "gt-known", report=ears)
        assert found["value"] == pytest.approx(40)
        assert found["images"]["missing"] == 2
        assert ears.warnings == [
            "gt-known: 2 of 5 images of s.zarr are not in b.zarr; they count as missed",
            "gt-known: 2 images have no prediction and count as missed.",
        ]
        assert found["warnings"] == [line.removeprefix("gt-known: ") for line in ears.warnings]

    def test_unless_the_limit_says_why(self, images, tmp_path):
        slots = {name: SLOTS[name] for name in "abc"}
        limit = {"how": "limit", "num_rows": 3, "of": 5}
        path = write_boxes(tmp_path / "b.zarr", images, slots, classes="all", limit=limit)
        ears = Ears()
        found = result(path, "gt-known", report=ears)
        assert found["value"] == pytest.approx(200 / 3)
        assert found["images"]["missing"] == 0
        assert found["images"]["limit"] == limit
        assert ears.warnings == ["gt-known: first 3 of 5 images"]

    def test_images_that_the_truth_lacks(self, images, tmp_path):
        truth = write_images(tmp_path / "t.zarr", self.listed("abx"), CLASSES)
        path = write_boxes(tmp_path / "b.zarr", images, SLOTS, classes="all")
        ears = Ears()
        found = result(path, "gt-known", truth=truth, report=ears)
        assert found["value"] == pytest.approx(100 / 3)
        assert found["images"]["not_in_truth"] == 3
        assert ears.warnings == [
            "gt-known: 1 of 3 images of t.zarr are not in b.zarr; they count as missed",
            "gt-known: 3 images of b.zarr are not in t.zarr",
            "gt-known: 1 images have no prediction and count as missed.",
        ]

    def test_none_in_common(self, images, tmp_path):
        truth = write_images(tmp_path / "t.zarr", self.listed("xyz"), CLASSES)
        path = write_boxes(tmp_path / "b.zarr", images, SLOTS, classes="all")
        line = (
            "b.zarr and t.zarr: no image is left to score, 0 are in both, 0 of them were skipped. "
            "Give the truth that it was made from."
        )
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            score(path, protocol="gt-known", truth=truth)

    def test_an_id_twice(self, images, tmp_path):
        path = write_boxes(tmp_path / "b.zarr", images, SLOTS, classes="all")
        values = self.listed("abcd")
        truth = write_images(tmp_path / "t.zarr", values, CLASSES)
        zarr.open_group(truth)["image_id"][2] = "a"
        with pytest.raises(ProtocolError, match=r'^t\.zarr: image "a" stands there twice\.$'):
            score(path, protocol="gt-known", truth=truth)

    def test_other_classes(self, images, tmp_path):
        truth = write_images(tmp_path / "t.zarr", self.listed(), [*CLASSES[1:], "cat"])
        path = write_boxes(tmp_path / "b.zarr", images, SLOTS, classes="all")
        with pytest.raises(
            ProtocolError,
            match=r"^b\.zarr and t\.zarr have different classes \(6: cat, dog, cow, … and 6: dog, ",
        ):
            score(path, protocol="gt-known", truth=truth)

    def test_truth_that_changed_or_went(self, images, tmp_path):
        path = write_boxes(tmp_path / "b.zarr", images, SLOTS, classes="all")
        images.rename(tmp_path / "moved.zarr")
        line = "b.zarr: its images s.zarr is not there. Say where with --truth."
        with pytest.raises(LineageError, match=f"^{re.escape(line)}$"):
            score(path, protocol="gt-known")
        write_images(tmp_path / "s.zarr", self.listed("abcdex"), CLASSES)
        with pytest.raises(
            LineageError, match=r"its images s\.zarr is not there\. .*s\.zarr is another store now"
        ):
            score(path, protocol="gt-known")
        found = result(path, "gt-known", truth=tmp_path / "moved.zarr")
        assert found["value"] == pytest.approx(60)

    def test_an_equal_truth_is_as_good(self, images, tmp_path):
        """Another file with the same arrays: the digest says so."""
        path = write_boxes(tmp_path / "b.zarr", images, SLOTS, classes="all")
        images.rename(tmp_path / "moved.zarr")
        write_images(tmp_path / "s.zarr", self.listed(), CLASSES)
        assert result(path, "gt-known")["value"] == pytest.approx(60)

    def test_truth_of_another_kind(self, images, tmp_path):
        path = write_boxes(tmp_path / "b.zarr", images, SLOTS, classes="all")
        with pytest.raises(
            StoreKindError, match=r'^b\.zarr: kind is "boxes", but score --truth reads "images"\.'
        ):
            score(path, protocol="gt-known", truth=path)

    def test_excluded_images_are_left_out(self, tmp_path):
        listed = self.listed(b={"excluded": 1}, e={"excluded": 1})
        images = write_images(tmp_path / "x.zarr", listed, CLASSES)
        path = write_boxes(tmp_path / "b.zarr", images, SLOTS, classes="all")
        assert result(path, "gt-known")["value"] == 100


class TestSkipped:
    """Images that were left out on the way."""

    @pytest.fixture
    def skipped(self, tmp_path):
        """c's map is not finite, so boxes leaves it out; d's picture was broken before."""
        listed = {name: {"boxes": [(k, *RIGHT)]} for name, k in zip("abc", (0, 0, 1), strict=True)}
        listed["d"] = {"labels": {1: 1}, "status": 1, "size": (0, 0)}
        images = write_images(tmp_path / "s.zarr", listed, CLASSES)
        hot = np.zeros((10, 20))
        hot[:, :10] = 1
        cells = {
            "a": (None, [(0, 1.0, hot)]),
            "b": (None, [(0, 1.0, hot)]),
            "c": (None, [(1, 1.0, hot * np.nan)]),
            "d": (None, []),
        }
        return boxes(write_maps(tmp_path / "m.zarr", images, cells), on_bad="skip")

    def test_they_count_as_images_without_a_prediction(self, skipped):
        """d is a dog, though its picture is broken: it counts as missed in its class."""
        ears = Ears()
        found = result(skipped, "gt-known", report=ears)
        assert found["value"] == pytest.approx(50)
        values = {row["class_name"]: row["value"] for row in found["per_class"]}
        assert (values["cat"], values["dog"]) == (100, 0)
        assert found["images"]["skipped"] == 1  # m.zarr has no status, so d was not skipped there
        assert (
            "1 images were skipped on the way; they count as images without a prediction"
            in (found["warnings"])
        )

    def test_or_are_left_out(self, skipped):
        found = result(skipped, "gt-known", without_skipped=True)
        assert found["value"] == pytest.approx(200 / 3)
        assert found["images"] == {
            "scored": 3,
            "missing": 0,
            "skipped": 1,
            "not_in_truth": 0,
            "without_truth": 0,
            "limit": None,
        }
        assert "1 images were skipped on the way; they are left out" in found["warnings"]

    def test_what_boxes_skipped_is_skipped_among_its_maps(self, skipped):
        """The maps hold NaN for c; peaks are read only where boxes could be drawn."""
        assert result(skipped, "peak-in-box")["value"] == pytest.approx(50)

    def test_a_map_that_is_not_finite_is_named(self, skipped, tmp_path):
        with pytest.raises(
            StoreCorruptError,
            match=r'^m\.zarr row 2 "c": map has 200 values that are not finite, the first at row '
            r"0, column 0: nan; expected finite scores\. Make the maps again\.$",
        ):
            score(tmp_path / "m.zarr", protocol="peak-in-box")

    def test_an_unreadable_annotation_has_no_truth(self, tmp_path):
        undecided = dict.fromkeys(range(6), 255)
        images = write_images(
            tmp_path / "s.zarr",
            {"a": {"boxes": [(0, *RIGHT)]}, "b": {"labels": undecided, "status": 1}},
            CLASSES,
        )
        path = baseline(images, prior="whole")
        ears = Ears()
        found = result(path, "gt-known", report=ears)
        assert found["value"] == 100
        assert found["images"]["scored"] == found["images"]["without_truth"] == 1
        assert found["images"]["skipped"] == 0
        assert ears.warnings == ["gt-known: 1 images have no usable truth and are left out"]

    def test_nothing_is_left(self, tmp_path):
        images = write_images(tmp_path / "s.zarr", {"a": {"labels": {0: 1}, "status": 1}}, CLASSES)
        path = baseline(images)
        assert result(path, "gt-known")["value"] == 0
        with pytest.raises(
            ProtocolError, match="no image is left to score, 1 are in both, 1 of them were skipped"
        ):
            score(path, protocol="gt-known", without_skipped=True)


class TestResult:
    """What is returned and written."""

    def test_two_protocols_at_once(self, found):
        both = score(found, protocol=["voc-ap", "gt-known"])
        assert [one["protocol"] for one in both["results"]] == ["voc-ap", "gt-known"]
        assert both["results"][1] == result(found, "gt-known")
        assert both["format"] == 1

    def test_strict_json_in_a_file(self, found, tmp_path):
        path = tmp_path / "result.json"
        returned = score(found, protocol=["voc-ap", "ilsvrc-top1"], output=path)
        text = path.read_text()
        assert text.endswith("}\n")

        def refuse(word):
            raise AssertionError(word)

        assert json.loads(text, parse_constant=refuse) == returned
        assert [file.name for file in tmp_path.iterdir() if "result" in file.name] == [path.name]

    def test_an_older_result_is_replaced_a_stranger_never(self, found, tmp_path):
        path = tmp_path / "result.json"
        score(found, protocol="voc-ap", output=path)
        score(found, protocol="gt-known", output=path)
        assert json.loads(path.read_text())["results"][0]["protocol"] == "gt-known"
        for name, content in (("notes.txt", "mine"), ("other.json", "[1]"), ("x.json", "{}")):
            (tmp_path / name).write_text(content)
            line = (
                f"-o {tmp_path / name}: something stands there that is no result of score. "
                "It is left alone. Give another name."
            )
            with pytest.raises(StoreExistsError, match=f"^{re.escape(line)}$"):
                score(found, protocol="voc-ap", output=tmp_path / name)
            assert (tmp_path / name).read_text() == content
        with pytest.raises(StoreExistsError, match="no result of score"):
            score(found, protocol="voc-ap", output=found)

    def test_a_folder_that_is_not_there(self, found, tmp_path):
        with pytest.raises(UsageError, match=r"-o .*x\.json: the folder .*no does not exist\. Mak"):
            score(found, protocol="voc-ap", output=tmp_path / "no/x.json")

    def test_nothing_to_score_is_null(self, tmp_path):
        images = write_images(tmp_path / "s.zarr", {"a": {"boxes": []}}, CLASSES)
        path = write_boxes(tmp_path / "b.zarr", images, {"a": []}, classes="all")
        found = score(path, protocol=["voc-ap", "peak-in-box"][:1])["results"][0]
        assert found["value"] is None
        assert found["baselines"] == [{"name": "whole image", "value": None}]
        json.dumps(found, allow_nan=False)


def test_more_images_than_a_block(tmp_path):
    """1500 images, counted in blocks of 1024: every third is found."""
    listed = {f"{n:04}": {"boxes": [(n % 2, *RIGHT)]} for n in range(1500)}
    images = write_images(tmp_path / "s.zarr", listed, CLASSES)
    names = list(listed)
    slots = {
        name: [(int(name) % 2, 1.0, WHOLE if int(name) % 3 else RIGHT)]
        for name in names[700:] + names[:700]
    }
    path = write_boxes(tmp_path / "b.zarr", images, slots, classes="all")
    assert result(path, "gt-known", iou=0.6)["value"] == pytest.approx(100 / 3)


def test_a_truth_without_images_is_not_passed_over(found, images, tmp_path):
    """It is the truth that was given, though it holds nothing."""
    held = arrays(images)
    empty = {name: held[name][:0] for name in held if name not in ("class_name", "class_id")}
    kept = {name: held[name].tolist() for name in ("class_name", "class_id")}
    truth = write_store(
        tmp_path / "none.zarr", "images", empty | kept | {"box_start": []}, root="."
    )
    with pytest.raises(ProtocolError, match=r"^b\.zarr and none\.zarr: no image is left to score"):
        score(found, protocol="gt-known", truth=truth)
