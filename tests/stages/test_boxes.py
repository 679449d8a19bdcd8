"""Maps become boxes: hand-worked maps through the whole stage, in both containers."""

from __future__ import annotations

import re

import cv2
import h5py
import numpy as np
import pytest
import zarr

from wsltool.errors import BadImageError, StoreKindError, UsageError
from wsltool.localize.boxes import boxes_from_heat
from wsltool.localize.grid import resample
from wsltool.stages.boxes import boxes
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .making import Ears, arrays, assert_equal_arrays, meta, write_images, write_maps

CLASSES = ["cat", "dog", "cow"]


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "s.zarr", {"a": {}, "b": {}, "c": {}}, CLASSES, size=(40, 20))


def spot(rows, cols, *cells, value=1.0, ground=0.0):
    found = np.full((rows, cols), ground, np.float32)
    for cell in cells:
        found[cell] = value
    return found


def drawn(images, tmp_path, cells, extent=None, **options):
    """Boxes of image a, whose one map is `cells`."""
    maps = write_maps(tmp_path / "m.zarr", images, {"a": (extent, [(1, 7.0, cells)])})
    return arrays(boxes(maps, **options))


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_box_for_each_map_in_slots(images, tmp_path, suffix):
    """A grid of the image's own size: foreground is what is strictly above a fifth of the top.

    Image a: dog, then cat. Image b: no map at all. Image c: a cow that is nowhere.
    """
    dog = spot(20, 40, np.s_[5:9, 10:16], value=5)
    dog[9, 10] = 1.0  # exactly a fifth: not above
    dog[4, 10] = 1.01
    cat = spot(20, 40, np.s_[0:2, 0:3], np.s_[10:12, 20:24])
    maps = write_maps(
        tmp_path / f"m{suffix}",
        images,
        {
            "a": (None, [(1, 3.5, dog), (0, 2.5, cat)]),
            "b": (None, []),
            "c": (None, [(2, -1, spot(20, 40, ground=-1))]),
        },
        classes="top2",
        score_kind="logit",
    )
    output = boxes(maps)
    assert output == tmp_path / f"m.boxes{suffix}"
    found = arrays(output)
    assert found["box_start"].tolist() == [0, 2, 2, 2]
    assert found["box"].tolist() == [[10, 4, 16, 9], [20, 10, 24, 12]]
    assert found["box_class"].tolist() == [1, 0]
    assert found["box_score"].tolist() == [3.5, 2.5]
    assert found["box_slot"].tolist() == [0, 1]
    assert found["map_class"].tolist() == [[1, 0], [-1, -1], [2, -1]]
    assert found["map_score"].tolist() == [[3.5, 2.5], [-np.inf] * 2, [-1, -np.inf]]
    assert found["image_id"].tolist() == ["a", "b", "c"]
    assert found["image_size"].tolist() == [[40, 20]] * 3
    assert found["class_name"].tolist() == CLASSES
    assert found["image_status"].tolist() == [0, 0, 0]
    with open_store(output) as store:
        about = {k: store.attributes[k] for k in ("box_score_kind", "classes", "score_kind")}
    assert about == {"box_score_kind": "class", "classes": "top2", "score_kind": "logit"}
    assert set(meta(output)["inputs"]) == {"maps", "images"}


def test_upsampling_is_bilinear_between_the_centres_of_cells(images, tmp_path):
    """4 columns of 10 pixels, 1 in column 1: at pixel x it is 1 - |x + .5 - 15| / 10.

    Above .2 is |x + .5 - 15| < 8, so pixels 7 to 22; above .5, 10 to 19.
    """
    cells = spot(1, 4, (0, 1))
    assert drawn(images, tmp_path, cells)["box"].tolist() == [[7, 0, 23, 20]]


@pytest.mark.parametrize(
    ("ground", "threshold", "of", "columns"),
    [
        (0.0, 0.5, "max", [10, 20]),
        (0.0, 0.0, "max", [5, 25]),  # what is 0 is not above 0
        (0.0, 0.99, "max", [14, 16]),  # the top is .95, half a pixel from the centre
        (-1.0, 0.5, "max", [12, 18]),  # 1 - 2 |x + .5 - 15| / 10 > .45
        (-1.0, 0.5, "range", [10, 20]),  # > -1 + 1.9 / 2
    ],
)
def test_threshold_of_maximum_and_of_range(images, tmp_path, ground, threshold, of, columns):
    cells = spot(1, 4, (0, 1), ground=ground)
    found = drawn(images, tmp_path, cells, threshold=threshold, threshold_of=of)
    assert found["box"][:, [0, 2]].tolist() == [columns]


@pytest.mark.parametrize(
    ("extent", "expected"),
    [
        ((0, 0, 40, 20), [20, 5, 30, 10]),
        ((10, 0, 30, 20), [20, 5, 25, 10]),  # a centre crop: cells of 5 x 5
        ((0, -10, 40, 30), [20, 0, 30, 10]),  # a letterbox: cells of 10 x 10, one row above
        ((0.5, 0, 40.5, 20), [21, 5, 30, 10]),  # |x + .5 - 25.5| < 5
    ],
    ids=["whole", "crop", "letterbox", "half a pixel"],
)
def test_extent(images, tmp_path, extent, expected):
    """One cell, row 1 and column 2 of 4 x 4, above half of the maximum: the cell itself."""
    found = drawn(images, tmp_path, spot(4, 4, (1, 2)), extent, threshold=0.5)
    assert found["box"].tolist() == [expected]


def test_extent_of_a_crop_gives_no_box_outside(images, tmp_path):
    """Everything is hot, but nothing is known beyond the crop."""
    cells = spot(2, 2, np.s_[:, :])
    assert drawn(images, tmp_path, cells, (10, 0, 30, 20))["box"].tolist() == [[10, 0, 30, 20]]


def test_map_grid_says_how_much_is_in_use(images, tmp_path):
    """Image a uses 2 x 2 cells of a 4 x 4 array; what lies beyond is no map."""
    cells = spot(4, 4, (0, 1))
    cells[2:], cells[:, 2:] = 99, 99
    grid = np.array([[2, 2]], np.int32)
    maps = write_maps(tmp_path / "m.zarr", images, {"a": (None, [(0, 1.0, cells)])}, map_grid=grid)
    assert arrays(boxes(maps, threshold=0.5))["box"].tolist() == [[20, 0, 40, 10]]


def test_suppressed_cells_are_left_out(images, tmp_path):
    """The peak is suppressed: the threshold falls with it, its own area is floor."""
    cells = spot(20, 40, np.s_[0:4, 0:4], value=10) + spot(20, 40, np.s_[10:15, 20:30])
    gone = np.zeros((1, 1, 20, 40), np.uint8)
    gone[0, 0, 0:4, 0:4] = 1
    found = {"a": (None, [(0, 1.0, cells)])}
    plain = write_maps(tmp_path / "plain.zarr", images, found)
    assert arrays(boxes(plain))["box"].tolist() == [[0, 0, 4, 4]]
    maps = write_maps(tmp_path / "m.zarr", images, found, suppressed=gone)
    assert arrays(boxes(maps))["box"].tolist() == [[20, 10, 30, 15]]


@pytest.mark.parametrize("ground", [0.0, -3.0])
@pytest.mark.parametrize(("empty", "expected"), [("none", []), ("whole", [[0, 0, 40, 20]])])
def test_nothing_above_a_maximum_that_is_not_positive(images, tmp_path, ground, empty, expected):
    found = drawn(images, tmp_path, spot(2, 2, (0, 0), value=min(0, ground + 1)), empty=empty)
    assert found["box"].tolist() == expected
    assert found["box_score"].tolist() == [7] * len(expected)


TWO = spot(20, 40, np.s_[2:4, 2:4], value=4) + spot(20, 40, np.s_[10:14, 10:20], value=2)
CORNER = spot(20, 40, np.s_[2:4, 2:4], np.s_[4:6, 4:7])


@pytest.mark.parametrize(
    ("cells", "options", "expected"),
    [
        (TWO, {}, [[10, 10, 20, 14]]),
        (TWO, {"components": "all"}, [[10, 10, 20, 14], [2, 2, 4, 4]]),
        (TWO, {"components": "all", "threshold": 0.5}, [[2, 2, 4, 4]]),
        (CORNER, {}, [[2, 2, 7, 6]]),
        (CORNER, {"connectivity": 4}, [[4, 4, 7, 6]]),
        (CORNER, {"connectivity": 4, "components": "all"}, [[4, 4, 7, 6], [2, 2, 4, 4]]),
    ],
)
def test_components(images, tmp_path, cells, options, expected):
    found = drawn(images, tmp_path, cells, **options)
    assert found["box"].tolist() == expected
    assert found["box_start"].tolist() == [0, len(expected)]
    assert found["box_slot"].tolist() == [0] * len(expected)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("class", [7, 7]), ("heat-max", [2, 4]), ("heat-mean", [2, 3.25]), ("box-mean", [2, 3.25])],
)
def test_box_scores(images, tmp_path, kind, expected):
    """The small component holds 4, 4, 4 and 1: its mean is 3.25."""
    cells = TWO.copy()
    cells[3, 3] = 1
    found = drawn(images, tmp_path, cells, components="all", box_score=kind)
    assert found["box_score"].tolist() == expected
    assert found["box_score"].dtype == np.float32


def test_several_instances_score_the_mean_heat_of_all_of_their_boxes(images, tmp_path):
    """Bency et al. §3.4: rectangles of blobs, scored by the mean heat enclosed within each.

    A ring around a cold pixel, an L of five pixels, and a bar that is no blob.
    """
    cells = spot(20, 40, np.s_[0:3, 0:3], value=8)
    cells[0, 0:3], cells[1, 1] = 4, 1  # 3 of 4, 5 of 8, one of 1: 53 over 9 pixels
    cells[10, 10:14] = cells[11, 10] = 6  # 5 of 6 in a box of 8 pixels
    cells[15, 20:30] = 1.5  # below a fifth of 8
    maps = write_maps(tmp_path / "m.zarr", images, {"a": (None, [(1, 7.0, cells)])})
    found = arrays(boxes(maps, components="all", box_score="box-mean"))
    assert found["box"].tolist() == [[0, 0, 3, 3], [10, 10, 14, 12]]
    assert found["box_class"].tolist() == [1, 1]
    assert found["box_score"].tolist() == [np.float32(53 / 9), 3.75]
    other = boxes(maps, components="all", box_score="heat-mean", output=tmp_path / "c.zarr")
    assert arrays(other)["box_score"].tolist() == [52 / 8, 6]


@pytest.mark.parametrize(
    ("cells", "extent", "options", "expected"),
    [
        (np.full((2, 4), -2.0), None, {"empty": "whole"}, [[0, 0, 40, 20], -2]),
        (np.full((2, 2), 3.0), (0, 0, 20, 20), {}, [[0, 0, 20, 20], 3]),  # a crop saw half
    ],
)
def test_box_mean_at_its_edges(images, tmp_path, cells, extent, options, expected):
    found = drawn(images, tmp_path, cells, extent, box_score="box-mean", **options)
    assert [found["box"][0].tolist(), found["box_score"][0]] == expected


def test_float16_maps(images, tmp_path):
    cells = spot(20, 40, np.s_[5:9, 10:16])
    maps = write_maps(
        tmp_path / "m.zarr", images, {"a": (None, [(0, 1.0, cells)])}, dtype=np.float16
    )
    assert arrays(boxes(maps))["box"].tolist() == [[10, 5, 16, 9]]


def bad_maps(images, tmp_path, value=np.nan):
    cells = spot(2, 2, (0, 0))
    broken = spot(2, 2, (1, 0), value=value)
    return write_maps(
        tmp_path / "m.zarr",
        images,
        {
            "a": (None, [(0, 1.0, cells)]),
            "b": (None, [(1, 2.0, cells), (2, 1.0, broken)]),
            "c": (None, [(2, 1.0, cells)]),
        },
    )


def test_a_map_that_is_not_finite_stops(images, tmp_path):
    maps = bad_maps(images, tmp_path)
    line = (
        'm.zarr row 1 "b": map has 1 values that are not finite, the first at row 1, column 0: '
        "nan; expected finite scores. Pass --on-bad skip to leave it out."
    )
    with pytest.raises(BadImageError, match=f"^{re.escape(line)}$"):
        boxes(maps)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_left_out(images, tmp_path, value):
    ears = Ears()
    found = arrays(boxes(bad_maps(images, tmp_path, value), on_bad="skip", report=ears))
    assert ears.num_skipped == len(ears.warnings) == 1
    assert ears.warnings[0].startswith('m.zarr row 1 "b": map has 1 values that are not finite')
    assert found["image_status"].tolist() == [0, 1, 0]
    assert found["image_note"].tolist()[1].startswith("map has 1 values that are not finite")
    assert found["box_start"].tolist() == [0, 1, 1, 2]
    assert found["map_class"].tolist() == [[0, -1], [-1, -1], [2, -1]]
    assert found["map_score"][1].tolist() == [-np.inf, -np.inf]


@pytest.mark.parametrize(
    ("extent", "message"),
    [
        ((5, 5, 5, 9), "map_extent is 5 5 5 9; expected finite x0 < x1 and y0 < y1."),
        ((0, 0, np.nan, 9), "map_extent is 0 0 nan 9; expected finite"),
        ((50, 0, 60, 9), "extent 50 0 60 9 holds the centre of no pixel of the 40x20 image;"),
    ],
)
def test_an_extent_that_covers_nothing(images, tmp_path, extent, message):
    with pytest.raises(BadImageError, match=re.escape(f'm.zarr row 0 "a": {message}')):
        drawn(images, tmp_path, spot(2, 2, (0, 0)), extent)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.0}, "--threshold must be in [0, 1), got 1.0."),
        ({"threshold": -0.1}, "--threshold must be in [0, 1), got -0.1."),
        ({"threshold": float("nan")}, "--threshold must be in [0, 1), got nan."),
        ({"threshold_of": "mean"}, '--threshold-of must be max or range, got "mean".'),
        ({"components": "first"}, '--components must be largest or all, got "first".'),
        ({"connectivity": 6}, '--connectivity must be 4 or 8, got "6".'),
        ({"empty": "image"}, '--empty must be none or whole, got "image".'),
        (
            {"box_score": "mean"},
            '--box-score must be class, heat-max, heat-mean or box-mean, got "mean".',
        ),
    ],
)
def test_wrong_options_are_told_before_anything_is_claimed(images, tmp_path, options, message):
    ears = Ears()
    maps = bad_maps(images, tmp_path)
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        boxes(maps, report=ears, **options)
    assert ears.announced == []
    assert not list(tmp_path.glob("m.boxes*"))


def test_images_are_no_maps(images):
    with pytest.raises(
        StoreKindError,
        match=r'^s\.zarr: kind is "images", but boxes reads "maps"\. Run first: wsltool cam',
    ):
        boxes(images)


def test_skipped_images_keep_their_row(tmp_path):
    source = write_images(
        tmp_path / "s.zarr", {"a": {}, "b": {"status": 1, "size": (0, 0)}}, CLASSES
    )
    maps = write_maps(
        tmp_path / "m.zarr", source, {"a": (None, [(0, 1.0, spot(2, 2, (0, 0)))]), "b": (None, [])}
    )
    found = arrays(boxes(maps))
    assert found["box_start"].tolist() == [0, 1, 1]


class TestForeignStores:
    """Maps written by somebody else to the schema, with their own library."""

    @staticmethod
    def values():
        cells = np.zeros((2, 1, 2, 4), np.float32)
        cells[:, 0, 1, 3] = 1
        return {
            "image_size": np.array([[40, 20], [20, 40]], np.int32),
            "map": cells,
            "map_class": np.array([[1], [-1]], np.int32),
            "map_score": np.array([[2], [-np.inf]], np.float32),
            "map_extent": np.array([[0, 0, 40, 20], [0, 0, 20, 40]], np.float32),
            "class_score": np.zeros((2, 2), np.float32),
        }

    def check(self, path):
        found = arrays(boxes(path, threshold=0.5))
        assert found["box"].tolist() == [[30, 10, 40, 20]]
        assert found["box_class"].tolist() == [1]
        assert found["image_status"].tolist() == [0, 0]
        assert found["image_note"].tolist() == ["", ""]

    def test_zarr(self, tmp_path):
        path = tmp_path / "m.zarr"
        group = zarr.open_group(path, mode="w", attributes={"wsltool": {"kind": "maps"}})
        for name, value in self.values().items():
            group.create_array(name, data=value, config={"write_empty_chunks": True})
        for name, words in (("image_id", ["x", "y"]), ("class_name", ["cat", "dog"])):
            group.create_array(name, data=np.array(words, dtype=np.dtypes.StringDType()))
        self.check(path)

    def test_hdf5(self, tmp_path):
        path = tmp_path / "m.h5"
        with h5py.File(path, "w") as file:
            file.attrs["wsltool"] = '{"kind": "maps"}'
            for name, value in self.values().items():
                file[name] = value
            file["image_id"], file["class_name"] = ["x", "y"], ["cat", "dog"]
        self.check(path)


@pytest.fixture
def many(tmp_path):
    """300 images of different sizes with random maps: two blocks."""
    rng = np.random.default_rng(5)
    listed = {f"{n:03}": {"size": (20 + n % 7, 30 - n % 5)} for n in range(300)}
    images = write_images(tmp_path / "many.zarr", listed, CLASSES)
    cells = {
        name: (None, [(k, -float(k), rng.normal(size=(5, 6))) for k in range(n % 3)])
        for n, name in enumerate(listed)
    }
    return write_maps(tmp_path / "many.cam.zarr", images, cells)


def test_equal_bytes_whatever_threads_shards_and_container(many, tmp_path):
    before = cv2.getNumThreads()
    outputs = []
    try:
        for threads, suffix in ((1, ".zarr"), (4, ".h5")):
            cv2.setNumThreads(threads)
            output = tmp_path / f"{threads}{suffix}"
            outputs.append(boxes(many, components="all", box_score="heat-mean", output=output))
    finally:
        cv2.setNumThreads(before)
    shared = tmp_path / "shared.zarr"
    for shard in ("1/2", "0/2"):
        boxes(many, components="all", box_score="heat-mean", output=shared, shard=shard)
    for other in (outputs[1], shared):
        assert meta(other)["digest"] == meta(outputs[0])["digest"]
        assert_equal_arrays(outputs[0], other)
    assert verify(shared)["problems"] == []


def test_the_stage_is_its_core_on_every_row(many):
    """Every box is what `boxes_from_heat` gives for that map at the image's size."""
    found, maps = arrays(boxes(many)), arrays(many)
    expected = []
    for n in range(300):
        for slot in np.flatnonzero(maps["map_class"][n] >= 0):
            heat = resample(maps["map"][n, slot], maps["map_extent"][n], maps["image_size"][n])
            expected += boxes_from_heat(heat).box_xyxy_B4.tolist()
    assert found["box"].tolist() == expected


def test_limit(many):
    output = boxes(many, limit=10)
    assert len(arrays(output)["image_id"]) == 10
    assert meta(output)["limit"] == {"how": "limit", "num_rows": 10, "of": 300}
