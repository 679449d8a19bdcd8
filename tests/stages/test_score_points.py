"""``point`` and ``cls-map`` on hand-made stores."""

from __future__ import annotations

import re

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import (
    ProtocolError,
    StoreCorruptError,
    UsageError,
)
from wsltool.stages.boxes import boxes
from wsltool.stages.map_rows import MapRow, map_rows
from wsltool.stages.score import score
from wsltool.stages.scored_records import _value_at
from wsltool.stores.open import open_store

from .making import Ears, write_boxes, write_images, write_maps
from .scoring import (
    AWAY,
    CLASSES,
    POINTS,
    RIGHT,
    SLOTS,
    five_images,
    mapped,
    result,
    values,
)


@pytest.fixture
def images(tmp_path):
    return five_images(tmp_path)


class TestPoint:
    def test_by_map(self, images):
        """Cat: true, false, false: 1 at recall 1/2, then nothing: 50. The others 100."""
        found = result(mapped(images, POINTS), "point", tolerance=3)
        assert values(found) == {
            "cat": 50,
            "dog": 100,
            "cow": 100,
            "hen": None,
            "pig": None,
            "owl": None,
        }
        assert found["value"] == pytest.approx(250 / 3)
        assert found["parameters"] == {
            "tolerance": 3,
            "metric": "chebyshev",
            "point_at": "peak",
            "confidence": "map",
            "misses": "fp",
        }

    def test_by_class_score(self, images):
        """Cat: b misses first, c is absent, a is right: precision 1/3 at recall 1/2."""
        found = result(mapped(images, POINTS), "point", tolerance=3, confidence="cls")
        assert values(found)["cat"] == pytest.approx(100 / 6)
        found = result(
            mapped(images, POINTS, name="n.zarr"),
            "point",
            tolerance=3,
            confidence="cls",
            misses="fn",
        )
        assert values(found)["cat"] == pytest.approx(25)

    def test_tolerance(self, images):
        """b's point (19.5) is 9.5 from the box; the default of 18 px reaches it."""
        maps = mapped(images, POINTS)
        assert values(result(maps, "point"))["cat"] == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))
        assert values(result(maps, "point", tolerance=9.5))["cat"] > 50
        assert values(result(maps, "point", tolerance=9.4))["cat"] == 50

    def test_centre_beside_it(self, images):
        """The centre, x = 10, is on the edge of every box: cat true, false (c), true."""
        found = result(mapped(images, POINTS), "point", tolerance=0)
        (centre,) = found["baselines"]
        assert centre["name"] == "image centre"
        value = (100 * (0.5 + 0.5 * 2 / 3) + 100 + 100) / 3
        assert centre["value"] == pytest.approx(value)
        assert centre["difference"] == pytest.approx(found["value"] - value)

    def test_classes(self, images):
        maps = mapped(images, POINTS)
        found = result(maps, "point", tolerance=3, classes="cat, id dog")
        assert found["value"] == pytest.approx(75)
        assert found["parameters"]["classes"] == ["cat", "id dog"]
        assert values(found)["cow"] == 100
        assert result(maps, "point", tolerance=3, classes=["cow"])["value"] == 100

    @pytest.mark.parametrize("classes", ["present", "above:0.5+present"])
    def test_the_truth_chose_the_classes(self, images, classes):
        line = (
            f"m.zarr: holds the classes {classes}, so the truth chose them; point ranks classes. "
            "Make it again with cam --classes top5 or all."
        )
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            score(mapped(images, POINTS, classes=classes), protocol="point")

    def test_top_k_tells_what_has_no_map(self, images):
        ears = Ears()
        found = result(mapped(images, POINTS, classes="top2"), "point", report=ears)
        assert found["extra"]["num_without_point"] == 30 - 6
        assert ears.warnings[0] == (
            "point: 24 of 30 pairs of an image and a class have no map (or box) and predict "
            "nothing."
        )

    def test_slots_that_owe_themselves_to_the_truth_are_left_out(self, images):
        """Of top1+present only the first slot is read: c's dog is not found."""
        slots = {**POINTS, "d": [(3, 2.0, 2, 1.0), (1, 1.0, 2, 1.0)]}
        found = result(mapped(images, slots, classes="top1+present"), "point")
        assert values(found)["dog"] == 0
        assert [row["num_points"] for row in found["per_class"]] == [3, 0, 1, 1, 0, 0]

    def test_skipped_images_count_as_not_found(self, images, tmp_path):
        listed = {n: {"boxes": [(0, *RIGHT)]} for n in "ab"}
        source = write_images(tmp_path / "two.zarr", listed, CLASSES)
        maps = mapped(source, {"a": POINTS["a"]})
        ears = Ears()
        assert values(result(maps, "point", report=ears))["cat"] == 50
        assert ears.warnings[:2] == [
            "point: 1 of 2 images of two.zarr are not in m.zarr; they count as missed",
            "point: 1 images have no prediction; the classes they contain count as not found.",
        ]

    def test_a_map_that_is_not_finite(self, images):
        slots = {**POINTS, "b": [(0, 3.0, 19, np.nan)]}
        with pytest.raises(StoreCorruptError, match=r'^m\.zarr row 1 "b": map has 1 values that'):
            score(mapped(images, slots), protocol="point")

    def test_constant_map_peaks_in_its_first_pixel(self, images):
        cells = {"a": (None, [(0, 1.0, np.full((10, 20), 2.0))])}
        limit = {"how": "limit", "num_rows": 1, "of": 5}
        source = write_images(
            images.parent / "t.zarr", {"a": {"boxes": [(0, 0, 0, 1, 1)]}}, CLASSES, limit=limit
        )
        maps = write_maps(images.parent / "c.zarr", source, cells)
        assert result(maps, "point", tolerance=0)["value"] == 100

    def test_best_box_of_boxes(self, images):
        """Of a the first of two equals, x = 5, is right; b's, x = 17.5, is not."""
        slots = {**SLOTS, "a": [(0, 1.0, RIGHT, AWAY)]}
        path = write_boxes(images.parent / "b.zarr", images, slots, classes="all")
        found = result(path, "point", tolerance=0)
        assert found["inputs"].keys() == {"boxes", "images"}
        assert values(found)["cat"] == 50
        assert values(found)["dog"] == 100
        assert found["baselines"][0]["name"] == "image centre"

    @settings(deadline=None, max_examples=60)
    @given(st.integers(0, 2**32), st.booleans())
    def test_law_the_value_is_the_maximum(self, seed, suppress):
        """Whatever the extent: a crop, a letterbox, or the whole."""
        rng = np.random.default_rng(seed)
        size_wh = rng.integers(3, 60, 2)
        extent = np.concatenate([rng.uniform(-5, 1, 2), size_wh + rng.uniform(-1, 9, 2)])
        map_SHW = rng.normal(size=(1, *rng.integers(1, 9, 2))).astype(np.float32)
        gone = (rng.random(map_SHW.shape) < 0.3).astype(np.uint8) if suppress else None
        row = MapRow(map_SHW, np.zeros(1, np.int32), extent.astype(np.float32), size_wh, gone)
        assert _value_at(row, 0, *row.peak(0)) == row.heat(0).max()


REGION = {"point_at": "region", "tolerance": 0}

# The cat of a and b is on columns 0 to 10. a: centre 10, on its edge; peak 6.5. b: centre 11,
# beside it; peak 5.5. c has no cat.
CATS = {
    "a": [(0, 1.0, (6, 14), 2.0)],
    "b": [(0, 3.0, (5, 17), 3.0)],
    "c": [(0, 2.0, (0, 2), 1.0)],
    "d": [(1, 1.0, (0, 20), 1.0)],
    "e": [(2, 1.0, (0, 19), 1.0)],
}


class TestRegion:
    """Bency et al. §4.2: the centre of the region of maximal response, tolerance 0."""

    def plateaus(self, images, found, **options):
        """Maps of 10 x 20 cells, each of a pixel: class, class score, columns and value."""
        cells = {}
        for name, slots in found.items():
            listed = []
            for index, score_, (first, last), value in slots:
                cells_HW = np.zeros((10, 20))
                cells_HW[3:6, first:last] = value
                listed.append((index, score_, cells_HW))
            cells[name] = (None, listed)
        return write_maps(images.parent / "r.zarr", images, cells, **options)

    def test_both_rankings_by_hand(self, images):
        """By the map: b false, a true, c false; by the class score: b, c false, then a."""
        maps = self.plateaus(images, CATS)
        found = result(maps, "point", **REGION)
        assert found["parameters"]["point_at"] == "region"
        assert values(found)["cat"] == pytest.approx(100 / 2 * 1 / 2)
        assert values(found)["dog"] == 50  # d's whole width has its centre on the edge; none in c
        assert values(found)["cow"] == 100
        found = result(maps, "point", confidence="cls", **REGION)
        assert values(found)["cat"] == pytest.approx(100 / 2 * 1 / 3)
        found = result(maps, "point", misses="fn", **REGION)
        assert values(found)["cat"] == 50

    def test_the_first_pixel_of_the_same_plateaus_is_right_in_all(self, images):
        found = result(self.plateaus(images, CATS), "point", tolerance=0)
        assert values(found)["cat"] == 100
        assert found["parameters"]["point_at"] == "peak"

    def test_the_centre_stays_beside_it(self, images):
        found = result(self.plateaus(images, CATS), "point", **REGION)
        (centre,) = found["baselines"]
        assert centre["name"] == "image centre"
        assert centre["difference"] == found["value"] - centre["value"]

    def test_cells_in_use_and_extent_decide(self, images):
        """Two of four columns are in use, over pixels 0 to 8: the right one's centre is 6."""
        cells = {name: (None, [(0, 1.0, np.zeros((10, 20)))]) for name in "abcde"}
        cells["a"] = ((0, 0, 8, 10), [(0, 1.0, [[0, 1, 9, 9], [0, 1, 9, 9], [9] * 4])])
        grid = np.full((5, 2), (10, 20), np.int32)
        grid[0] = 2, 2
        maps = write_maps(images.parent / "g.zarr", images, cells, map_grid=grid)
        with open_store(maps) as store:
            found = next(map_rows(store, 0, 1)).hottest_region(0)
        assert (found.x_px, found.y_px, found.value, found.num_cells) == (6, 5, 1, 2)
        assert result(maps, "point", **REGION)["per_class"][0]["num_true"] >= 1

    def test_several_processes_count_the_same(self, images):
        maps = self.plateaus(images, CATS)
        alone = score(maps, protocol="point", **REGION)["results"]
        assert score(maps, protocol="point", workers=2, **REGION)["results"] == alone

    def test_boxes_have_no_region(self, images):
        path = write_boxes(images.parent / "b.zarr", images, SLOTS, classes="all")
        line = (
            "b.zarr: holds boxes, whose point is their centre; --point-at region needs maps. Give "
            "the maps, or leave --point-at out."
        )
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            score(path, protocol="point", point_at="region")

    def test_a_map_that_is_not_finite(self, images):
        bad = {**CATS, "b": [(0, 3.0, (5, 17), np.nan)]}
        with pytest.raises(StoreCorruptError, match=r'^r\.zarr row 1 "b": map has 36 values that'):
            score(self.plateaus(images, bad), protocol="point", **REGION)


class TestClsMap:
    def scored(self, images, **options):
        maps = mapped(images, POINTS, **options)
        group = zarr.open_group(maps)
        values = np.zeros((5, 6), np.float32)
        values[:, 0] = [5, 1, 3, 0, 0]  # cat: a true, c false, b true
        values[:, 1] = [0, 0, 2, 3, 0]  # dog: d, c true
        group["class_score"][:] = values
        return maps

    @pytest.mark.parametrize("classes", ["all", "present", "top1"])
    def test_whatever_maps_are_kept(self, images, classes):
        """Cow: e is absent from the first four ranks, all 0: precision 1/5."""
        found = result(self.scored(images, classes=classes), "cls-map")
        assert [values(found)[name] for name in CLASSES[:3]] == pytest.approx(
            [100 * (0.5 + 0.5 * 2 / 3), 100, 20]
        )
        assert found["value"] == pytest.approx((100 * 5 / 6 + 120) / 3)
        assert found["baselines"] == []
        assert found["parameters"] == {}

    def test_boxes_lead_back_to_their_maps(self, images):
        maps = self.scored(images)
        drawn = boxes(maps)
        assert result(drawn, "cls-map")["value"] == result(maps, "cls-map")["value"]

    def test_needs_no_true_boxes(self, tmp_path):
        source = write_images(
            tmp_path / "s.zarr", {"a": {"labels": {0: 1}}, "b": {}}, CLASSES, boxes=False
        )
        maps = mapped(source, {"a": POINTS["a"], "b": POINTS["b"]})
        assert result(maps, "cls-map", classes="cat")["value"] == 100
        with pytest.raises(ProtocolError, match=r"^s\.zarr: has no true boxes, so nothing can"):
            score(maps, protocol="point")

    def test_skipped_images_stand_last(self, images):
        maps = mapped(images, {name: POINTS[name] for name in "ab"})
        found = result(maps, "cls-map")
        assert values(found)["cat"] == 100
        assert values(found)["cow"] == 20
        assert found["extra"]["num_without_prediction"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"protocol": "point", "point_at": "centre"},
            '--point-at must be peak or region, got "centre".',
        ),
        (
            {"protocol": "peak-in-box", "point_at": "region"},
            "--point-at region has no meaning for peak-in-box. Leave it out.",
        ),
        ({"protocol": "point", "iou": 0.5}, "--iou 0.5 has no meaning for point. Leave it out."),
        (
            {"protocol": ["peak-in-box", "cls-map"], "tolerance": 3},
            "--tolerance 3 has no meaning for peak-in-box. Leave it out.",
        ),
        (
            {"protocol": "ilsvrc-top1", "classes": "cat,dog"},
            "--classes cat,dog has no meaning for ilsvrc-top1. Leave it out.",
        ),
        (
            {"protocol": "point", "classes": "cat,,dog"},
            '--classes must be names with commas between, got "cat,,dog".',
        ),
        (
            {"protocol": "point", "classes": "catt"},
            '--classes: "catt" is none of the 6 classes (cat, dog, cow, hen, pig, …). Did you '
            'mean "cat"? Give names or ids with commas between.',
        ),
    ],
)
def test_wrong_options(images, options, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        score(mapped(images, POINTS), **options)


def test_several_protocols_of_one_store_at_once(images):
    found = score(mapped(images, POINTS), protocol=["point", "cls-map", "peak-in-box"])
    assert [one["protocol"] for one in found["results"]] == ["point", "cls-map", "peak-in-box"]


def test_each_protocol_takes_the_options_that_it_reads(images):
    store = mapped(images, POINTS)
    both = score(store, protocol=["cls-map", "point"], tolerance=3, classes="cat,dog")["results"]
    alone = score(store, protocol="point", tolerance=3, classes="cat,dog")["results"]
    assert both[1] == alone[0]
    assert "tolerance" not in both[0]["parameters"]
    assert both[0]["parameters"]["classes"] == ["cat", "dog"]
