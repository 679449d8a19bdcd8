"""The gallery: what it says of hand-made boxes, and when it is written."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wsltool.errors import (
    LineageError,
    StoreCorruptError,
    StoreExistsError,
    StoreKindError,
    UsageError,
)
from wsltool.stages.baseline import baseline
from wsltool.stages.boxes import boxes
from wsltool.stages.ingest import ingest_folder
from wsltool.stages.judged import Shown, judge
from wsltool.stages.select import select
from wsltool.stages.view import view
from wsltool.stores.open import open_store

from .making import Ears, put_picture, write_boxes, write_maps

LEFT = (0, 0, 10, 10)
NAMES = ["cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png"]


@pytest.fixture
def images(tmp_path):
    """Four pictures of 20 x 10; each but d has a box on its left half, c two of them."""
    root = tmp_path / "pets"
    for seed, name in enumerate(NAMES):
        put_picture(
            root / name, np.random.default_rng(seed).integers(0, 256, (10, 20, 3), np.uint8)
        )
    (tmp_path / "b.csv").write_text(
        "image,x0,y0,x1,y1\ncat/a.png,0,0,10,10\ncat/b.png,0,0,10,10\n"
        "dog/c.png,15,0,20,10\ndog/c.png,0,0,10,10\n"
    )
    return ingest_folder(root, boxes=tmp_path / "b.csv", output=tmp_path / "s.zarr")


@pytest.fixture
def found(images, tmp_path):
    """a is found, b's first box is half right, c has none, d has one but no true box."""
    slots = {
        "cat/a.png": [(0, 3.0, LEFT), (1, 2.0, (0, 0, 1, 1))],
        "cat/b.png": [(0, 3.0, (0, 0, 10, 4), LEFT)],
        "dog/c.png": [(1, 3.0)],
        "dog/d.png": [(1, 3.0, LEFT)],
    }
    return write_boxes(tmp_path / "f.zarr", images, slots, classes="all")


def hot(left=10):
    cells = np.zeros((10, 20), np.float32)
    cells[:, :left] = 1
    return cells


def test_judged_by_the_first_box_and_the_nearest_truth(images, found):
    with open_store(found) as store, open_store(images) as truth:
        judged = judge(store, truth)
    assert judged.truth_row_M.tolist() == judged.row_M.tolist() == [0, 1, 2, 3]
    assert judged.class_M.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(judged.iou_M, [1, 0.4, np.nan, 0])
    # a centred box of the whole image: half of it is the left half; d has no true box
    np.testing.assert_allclose(judged.prior_MF[:, -1], [0.5, 0.5, 0.5, 0])
    assert judged.has_boxes


def test_judged_from_maps_as_from_their_boxes(images, tmp_path):
    cells = {
        "cat/a.png": (None, [(1, 2.0, hot(3)), (0, 1.0, hot())]),
        "cat/b.png": (None, [(0, 2.0, hot(4))]),
        "dog/c.png": (None, [(0, 2.0, hot(4))]),
        "dog/d.png": (None, [(1, 2.0, hot(2) * 0)]),
    }
    maps = write_maps(tmp_path / "m.zarr", images, cells)
    drawn = boxes(maps)
    with open_store(maps) as one, open_store(drawn) as two, open_store(images) as truth:
        left, right = judge(one, truth), judge(two, truth)
    np.testing.assert_array_equal(left.iou_M, right.iou_M)
    np.testing.assert_allclose(left.iou_M, [1, 0.4, np.nan, np.nan])


def test_the_page(found, tmp_path):
    ears = Ears()
    page = view(found, report=ears)
    assert page == tmp_path / "f.view/index.html"
    assert ears.announced == [page]
    assert ears.warnings == []
    text = page.read_text()
    for name in NAMES:
        assert name in text
    assert "f.zarr: is what is there found?" in text
    assert "25.0" in text  # one of four
    assert "centred box" in text
    assert len(list((tmp_path / "f.view/pictures").iterdir())) == 4 * 2  # no maps: no heat
    for place in re.findall(r'(?:src|href)="(?!data:)([^"#][^"]*)"', text):
        assert (tmp_path / "f.view" / place).is_file()


def test_numbers_of_cases(found, tmp_path):
    view(found, num=1, samples=0)
    shown = {file.name[:5] for file in (tmp_path / "f.view/pictures").iterdir()}
    assert len(shown) == 2  # the worst and the best
    for options, name in (({"num": -1}, "--num"), ({"samples": 1000}, "--samples")):
        with pytest.raises(UsageError, match=rf"^{name} must be in \[0, 1000\), got"):
            view(found, **options)


def test_the_same_again_is_left_alone_another_is_told(images, found, tmp_path):
    page = view(found)
    stamp = page.stat().st_mtime_ns
    ears = Ears()
    assert view(found, report=ears) == page
    assert page.stat().st_mtime_ns == stamp
    assert ears.announced == [page]
    other = baseline(images)
    with pytest.raises(StoreExistsError, match="overwrite"):
        view(other, output=tmp_path / "f.view")
    assert page.stat().st_mtime_ns == stamp
    view(other, output=tmp_path / "f.view", overwrite=True)
    assert "s.baseline.zarr" in page.read_text()


def test_a_stranger_is_never_replaced(found, tmp_path):
    (tmp_path / "f.view").mkdir()
    (tmp_path / "f.view/mine.txt").write_text("mine")
    with pytest.raises(StoreExistsError, match=r"f\.view"):
        view(found, overwrite=True)
    assert (tmp_path / "f.view/mine.txt").read_text() == "mine"


def test_images_without_true_boxes(tmp_path):
    """There is nothing to judge by: no share, no baseline, no hit."""
    put_picture(tmp_path / "pets/cat/a.png", (20, 10))
    images = ingest_folder(tmp_path / "pets")
    slots = {"cat/a.png": [(0, 1.0, LEFT)]}
    path = write_boxes(tmp_path / "f.zarr", images, slots, classes="all")
    text = view(path).read_text()
    assert "unknown, there are no true boxes" in text
    assert "centred box" not in text
    with open_store(path) as store, open_store(images) as truth:
        assert np.isnan(judge(store, truth).iou_M).all()


def test_boxes_of_a_baseline_have_no_maps(images):
    text = view(baseline(images, prior="whole")).read_text()
    assert "no map of this class" not in text


def test_boxes_with_their_maps(images, tmp_path):
    cells = {name: (None, [(0, 1.0, hot())]) for name in NAMES}
    drawn = boxes(write_maps(tmp_path / "m.zarr", images, cells))
    text = view(drawn).read_text()
    assert "no map of this class" in text  # the dogs
    assert len(list((tmp_path / "m.boxes.view/pictures").iterdir())) == 2 * 2 + 2 * 3


class TestOutlines:
    """The white outline is at the threshold that the boxes were drawn at."""

    @pytest.fixture
    def maps(self, images, tmp_path):
        """Heat 1 on the left 5 columns, .6 up to column 10, .3 up to 15."""
        cells = np.zeros((10, 20), np.float32)
        cells[:, :15], cells[:, :10], cells[:, :5] = 0.3, 0.6, 1
        slots = {name: (None, [(int(name[0] == "d"), 1.0, cells)]) for name in NAMES}
        return write_maps(tmp_path / "m.zarr", images, slots, classes="top2")

    def levels(self, store, images, maps):
        with open_store(store) as found, open_store(images) as true, open_store(maps) as behind:
            shown = Shown(found, true, behind, lambda row: np.zeros((10, 20, 3), np.uint8))
            cases = shown.cases(judge(found, true), np.arange(4), Ears())
            return [case.contour_level for case in cases]

    def test_given(self, images, maps):
        drawn = boxes(maps, threshold=0.5)
        assert self.levels(drawn, images, maps) == [0.5] * 4
        assert self.levels(select(drawn, fraction=1), images, maps) == [0.5] * 4
        assert "<dt>threshold</dt><dd>0.5</dd>" in view(drawn).read_text()

    def test_of_maps(self, images, maps):
        assert self.levels(maps, images, maps) == [0.2] * 4

    def test_fitted(self, images, maps):
        drawn = boxes(maps, fit_threshold=maps)
        assert self.levels(drawn, images, maps) == [0.47] * 4  # right from 0 to .95
        assert "0.47, chosen on m.zarr" in view(drawn).read_text()

    def test_fitted_one_a_class(self, images, maps, tmp_path):
        drawn = boxes(maps, fit_threshold=maps, fit_per="class:1")
        with open_store(drawn) as store:
            cat, dog = store.attributes["thresholds"]["value"]
        assert self.levels(drawn, images, maps) == [cat, cat, dog, dog]
        assert "one a class, chosen on m.zarr" in view(drawn).read_text()

    def test_a_rule_of_several_has_none(self, images, maps):
        drawn = boxes(maps, rule="zhou")
        assert self.levels(drawn, images, maps) == [None] * 4
        assert "20, 100, 110 of 255, no outline" in view(drawn).read_text()


def test_a_picture_that_is_gone(images, found, tmp_path):
    (tmp_path / "pets/cat/b.png").unlink()
    ears = Ears()
    page = view(found, report=ears)
    assert ears.warnings == [
        's.zarr row 1 "cat/b.png": picture cat/b.png cannot be read: No such file or directory. '
        "Left out."
    ]
    assert "cat/a.png" in page.read_text()


def test_all_pictures_are_gone(found, tmp_path):
    (tmp_path / "pets").rename(tmp_path / "moved")
    with pytest.raises(LineageError, match=r"s\.zarr: its pictures' folder pets is not there\. S"):
        view(found)
    assert not (tmp_path / "f.view").exists()
    assert view(found, images=tmp_path / "moved").exists()


def test_images_without_a_prediction_count_and_are_not_drawn(images, tmp_path):
    slots = {"cat/a.png": [(0, 3.0, LEFT)], "cat/b.png": [(0, 3.0, LEFT)]}
    path = write_boxes(tmp_path / "f.zarr", images, slots, classes="all")
    text = view(path).read_text()
    assert "50.0" in text
    assert "2, counted as missed, not shown" in text
    assert "dog/c.png" not in text


def test_a_selection_is_only_of_itself(found):
    part = select(found, class_="cat")
    text = view(part).read_text()
    assert "2 of 4 (select)" in text
    assert "dog/c.png" not in text
    assert "counted as missed" not in text


def test_a_map_that_is_not_finite_is_named(images, tmp_path):
    cells = {name: (None, [(0, 1.0, hot() * np.nan)]) for name in NAMES}
    maps = write_maps(tmp_path / "m.zarr", images, cells)
    with pytest.raises(
        StoreCorruptError, match=r'^m\.zarr row 0 "cat/a\.png": map has 200 values that are not'
    ):
        view(maps)


def test_images_are_neither_maps_nor_boxes(images):
    with pytest.raises(
        StoreKindError,
        match=r'^s\.zarr: kind is "images", but view reads "boxes", "maps" or "clusters"\. Run fi',
    ):
        view(images)


def test_a_gallery_that_left_pictures_out_is_not_finished(images, found, tmp_path):
    (tmp_path / "pets").rename(tmp_path / "moved")
    (tmp_path / "pets").mkdir()
    ears = Ears()
    page = view(found, output=tmp_path / "g", report=ears)
    assert ears.num_skipped == 4
    assert "<img" not in page.read_text()
    ears = Ears()
    page = view(found, output=tmp_path / "g", images=tmp_path / "moved", report=ears)
    assert ears.num_skipped == 0
    assert "<img" in page.read_text()
