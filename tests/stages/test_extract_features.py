"""Activations at every cell, or where maps fire, of networks that are worked out by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest
from torch import nn

from wsltool.errors import BadImageError, ModelError, StoreKindError, UsageError
from wsltool.stages.cam import cam
from wsltool.stages.extract_features import extract_features
from wsltool.stages.ingest import ingest_folder
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .colours import CPU, ME, A, cells_picture
from .making import Ears, arrays, meta, put_picture, rewritten, write_maps
from .tiny_networks import PLAIN, Colours

pytestmark = pytest.mark.usefixtures("one_thread")

OWN = f"{ME}:colours"
RGB = np.array(A) / 255
"""What the network's cells are for ``red/a.png``, (row, column, colour)."""


class Loud(Colours):
    """Its features are a hundred thousand times as large."""

    def __init__(self):
        super().__init__()
        self.gain = Gain()

    def forward(self, x_NCHW):
        return self.head(self.gain(self.cells(x_NCHW)).mean((2, 3)))


class Gain(nn.Module):
    def forward(self, x_NCHW):
        return x_NCHW * 1e5


def loud():
    return Loud(), PLAIN


def extracted(source, **options):
    """Arrays of the features that the network of colours gives."""
    return arrays(extract_features(source, **(CPU | options)))


def per_image(found, row):
    """Cells, activations, and pairs of (cell's place in the image, class) of one image."""
    start, stop = found["cell_start"][row : row + 2]
    own = (found["pattern_cell"] >= start) & (found["pattern_cell"] < stop)
    pairs = zip(found["pattern_cell"][own] - start, found["pattern_class"][own], strict=True)
    cells = [tuple(cell) for cell in found["cell"][start:stop].tolist()]
    return cells, found["feature"][start:stop], [tuple(map(int, pair)) for pair in pairs]


def firing_by_loop(maps, row, threshold=0.2):
    """Pairs of (cell, class) that fire, cell by cell, for maps on the features' own grid."""
    found = set()
    for slot, index in enumerate(maps["map_class"][row].tolist()):
        map_HW = maps["map"][row, slot].astype(np.float64)
        for r, c in np.ndindex(map_HW.shape):
            if index >= 0 and map_HW.max() > 0 and map_HW[r, c] > threshold * map_HW.max():
                found.add(((r, c), index))
    return found


@pytest.fixture
def maps(images):
    return cam(images, model=OWN, classes="all", **CPU)


class TestEveryCell:
    """Of images."""

    def test_by_hand(self, images, tmp_path):
        output = extract_features(images, model=OWN, **CPU)
        assert output == tmp_path / "s.extract-features.zarr"
        found = arrays(output)
        row = found["image_id"].tolist().index("red/a.png")
        assert found["cell_start"].tolist() == [0, 4, 8, 12, 16, 20]
        assert found["cell"][4 * row : 4 * row + 4].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
        wanted = RGB.reshape(4, 3).astype(np.float16)
        np.testing.assert_array_equal(found["feature"][4 * row : 4 * row + 4], wanted)
        assert (found["feature"].dtype, found["cell"].dtype) == (np.float16, np.int16)
        assert found["map_extent"].tolist() == [[0, 0, 8, 8]] * 5
        assert found["class_name"].tolist() == ["red", "green", "blue"]
        assert "pattern_cell" not in found
        assert verify(output)["problems"] == []

    def test_what_is_recorded(self, images, tmp_path):
        output = extract_features(images, model=OWN, cells="all", layer="cells", **CPU)
        with open_store(output) as store:
            attributes = {n: v for n, v in store.attributes.items() if n != "wsltool"}
            inputs, params = store.meta["inputs"], store.meta["params"]
        assert attributes == {
            "layer": "cells",
            "grid": [2, 2],
            "cells": "all",
            "threshold": None,
            "input_size": 8,
            "fit": "warp",
        }
        assert set(inputs) == {"images", "model"}
        assert inputs["model"]["name"] == inputs["model"]["path"] == params["model"] == OWN
        assert inputs["images"]["path"] == "s.zarr"
        ears = Ears()
        again = extract_features(images, model=OWN, report=ears, **CPU)
        assert ears.notes == [f"{again}: finished already, left alone."]

    def test_another_layer(self, images):
        found = extracted(images, model=OWN, layer="cells:input", feature_dtype="float32")
        assert found["cell_start"].tolist() == [0, 64, 128, 192, 256, 320]
        assert found["feature"].dtype == np.float32
        row = found["image_id"].tolist().index("red/a.png")
        picture = cells_picture(A).reshape(64, 3).astype(np.float32) / 255
        np.testing.assert_allclose(found["feature"][64 * row : 64 * row + 64], picture, atol=1e-7)

    @pytest.mark.parametrize(
        ("fit", "extent"), [("crop", [4, 0, 12, 8]), ("letterbox", [0, -4, 16, 12])]
    )
    def test_pictures_that_are_not_square(self, tmp_path, fit, extent):
        put_picture(tmp_path / "wide/red/a.png", (16, 8))
        (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
        source = ingest_folder(tmp_path / "wide", classes=tmp_path / "classes.txt")
        found = extracted(source, model=OWN, fit=fit)
        assert found["map_extent"].tolist() == [extent]
        assert len(found["cell"]) == 4


class TestWhereMapsFire:
    """Of maps."""

    def test_against_a_loop(self, images, maps):
        """The default: the maps' own network and layer, above a fifth of the maximum."""
        made, found = arrays(maps), extracted(maps)
        every = extracted(images, model=OWN, output=images.with_name("every.zarr"))
        assert found["image_id"].tolist() == made["image_id"].tolist()
        for row in range(5):
            fires = firing_by_loop(made, row)
            cells, feature, pairs = per_image(found, row)
            assert cells == sorted({cell for cell, _ in fires})
            assert [(cells[m], index) for m, index in pairs] == sorted(fires)
            places = [4 * row + 2 * r + c for r, c in cells]
            np.testing.assert_array_equal(feature, every["feature"][places])
        assert (np.diff(found["pattern_cell"]) >= 0).all()
        assert found["pattern_cell"].dtype == np.int64
        assert found["pattern_class"].dtype == np.int32

    def test_by_hand(self, maps):
        """Red is 1, 0.2, 0, 0, green 0.8 in the second cell alone.

        Blue's map is -b: its maximum is 0, so it fires nowhere.
        """
        output = extract_features(maps, threshold=0.21, **CPU)
        found = arrays(output)
        row = found["image_id"].tolist().index("red/a.png")
        cells, feature, pairs = per_image(found, row)
        assert cells == [(0, 0), (0, 1)]
        assert pairs == [(0, 0), (1, 1)]
        np.testing.assert_array_equal(feature, RGB[0].astype(np.float16))
        assert verify(output)["problems"] == []
        with open_store(output) as store:
            assert store.attributes["cells"] == "firing"
            assert store.attributes["threshold"] == 0.21
            assert set(store.meta["inputs"]) == {"images", "maps", "model"}

    def test_another_threshold(self, maps):
        found = extracted(maps, threshold=0.19)
        row = found["image_id"].tolist().index("red/a.png")
        assert per_image(found, row)[2] == [(0, 0), (1, 0), (1, 1)]
        for n in range(5):
            _, _, pairs = per_image(found, n)
            assert len(pairs) == len(firing_by_loop(arrays(maps), n, 0.19))

    def test_every_cell_and_which_fire(self, images, maps, tmp_path):
        every = extracted(images, model=OWN, output=tmp_path / "every.zarr")
        firing = extracted(maps, output=tmp_path / "firing.zarr")
        both = extracted(maps, cells="all", output=tmp_path / "both.zarr")
        for name in ("cell_start", "cell", "feature", "map_extent"):
            np.testing.assert_array_equal(both[name], every[name])
        np.testing.assert_array_equal(both["pattern_class"], firing["pattern_class"])
        np.testing.assert_array_equal(
            both["feature"][both["pattern_cell"]], firing["feature"][firing["pattern_cell"]]
        )
        assert verify(tmp_path / "both.zarr")["problems"] == []

    def test_a_finer_layer_reads_the_map_at_its_cells_centres(self, maps):
        """Eight by eight cells over two by two: each map cell fires in sixteen."""
        found, coarse = extracted(maps, layer="cells:input"), arrays(maps)
        for row in range(5):
            cells, _, pairs = per_image(found, row)
            fires = firing_by_loop(coarse, row)
            wanted = {
                ((4 * r + i, 4 * c + j), index)
                for (r, c), index in fires
                for i, j in np.ndindex(4, 4)
            }
            assert {(cells[m], index) for m, index in pairs} == wanted

    def test_a_coarser_layer(self, images):
        """Maps of 16 x 16 inputs have 4 x 4 cells; the centre of a cell lies before the third."""
        fine = cam(images, model=OWN, classes="all", input_size=16, **CPU)
        assert (
            extracted(fine, output=images.with_name("own.zarr"))["map_extent"].tolist()
            == [[0, 0, 8, 8]] * 5
        )
        found, made = extracted(fine, input_size=8), arrays(fine)
        for row in range(5):
            cells, _, pairs = per_image(found, row)
            fires = firing_by_loop(made, row)
            wanted = {
                ((r, c), index)
                for r, c in np.ndindex(2, 2)
                for index in range(3)
                if ((2 * r + 1, 2 * c + 1), index) in fires
            }
            assert {(cells[m], index) for m, index in pairs} == wanted

    def test_what_the_maps_do_not_cover_does_not_fire(self, tmp_path):
        """Maps of the middle 8 of 16 columns; features of all sixteen, two by two cells."""
        picture = cells_picture(np.full((2, 4, 3), 90, np.uint8))
        put_picture(tmp_path / "wide/red/a.png", picture)
        (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
        source = ingest_folder(tmp_path / "wide", classes=tmp_path / "classes.txt")
        cropped = cam(source, model=OWN, classes="present", fit="crop", **CPU)
        found = extracted(cropped, input_size=16, fit="warp")
        assert found["map_extent"].tolist() == [[0, 0, 16, 8]]
        assert sorted({col for _, col in found["cell"].tolist()}) == [1, 2]
        assert extracted(cropped, output=tmp_path / "own.zarr")["map_extent"].tolist() == [
            [4, 0, 12, 8]
        ]

    def test_the_padding_of_a_letterbox_does_not_fire(self, tmp_path):
        """White on 16 x 8: at 16 pixels the picture is the middle two of four rows of cells."""
        put_picture(tmp_path / "wide/blue/a.png", np.full((8, 16, 3), 255, np.uint8))
        (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
        source = ingest_folder(tmp_path / "wide", classes=tmp_path / "classes.txt")
        maps = cam(source, model=OWN, classes="all", input_size=16, fit="letterbox", **CPU)
        map_HW = -arrays(maps)["map"][:, arrays(maps)["map_class"][0].tolist().index(2)][0]
        np.testing.assert_array_equal(map_HW, [[0] * 4, [1] * 4, [1] * 4, [0] * 4])
        values = arrays(maps)["map"].copy()
        values[:] = 1.0  # fires everywhere, as a network with a bias inside would in its padding
        everywhere = rewritten(
            tmp_path / "x.zarr", maps, "maps", made_from=[source], map=values, image_note=[""]
        )
        found = extracted(everywhere, model=OWN, input_size=16, fit="letterbox")
        assert found["map_extent"].tolist() == [[0, -4, 16, 12]]
        assert found["cell"].tolist() == [[r, c] for r in (1, 2) for c in range(4)]


class TestMapsOfOthers:
    """Maps written by hand, with what `cam` never writes."""

    def written(self, images, slots, **more):
        names = arrays(images)["image_id"].tolist()
        of_image = {name: (None, slots if name == "red/a.png" else []) for name in names}
        return write_maps(images.with_name("m.zarr"), images, of_image, **more)

    def test_suppressed_cells_do_not_fire(self, images):
        gone = np.zeros((5, 1, 2, 2), np.uint8)
        gone[0, 0, 0, 0] = 1
        maps = self.written(images, [(0, 1.0, [[9.0, 1.0], [0.5, 0.1]])], suppressed=gone)
        found = extracted(maps, model=OWN)
        assert found["cell"].tolist() == [[0, 1], [1, 0]]
        assert found["cell_start"].tolist() == [0, 2, 2, 2, 2, 2]

    def test_a_map_suppressed_everywhere_counts_as_none_suppressed(self, images):
        gone = np.ones((5, 1, 2, 2), np.uint8)
        maps = self.written(images, [(0, 1.0, [[9.0, 1.0], [0.5, 0.1]])], suppressed=gone)
        assert extracted(maps, model=OWN)["cell"].tolist() == [[0, 0]]

    def test_a_grid_that_varies(self, images):
        """Of the 2 x 2 only the first row is in use: it covers the whole height."""
        grid = np.tile(np.array([1, 2], np.int32), (5, 1))
        maps = self.written(images, [(1, 1.0, [[0.1, 1.0], [9.0, 9.0]])], map_grid=grid)
        found = extracted(maps, model=OWN)
        assert found["cell"].tolist() == [[0, 1], [1, 1]]
        assert found["pattern_class"].tolist() == [1, 1]

    def test_slots_in_any_order_give_rising_classes(self, images):
        maps = self.written(images, [(2, 3.0, [[1.0, 0], [0, 0]]), (0, 1.0, [[2.0, 0], [0, 2]])])
        found = extracted(maps, model=OWN)
        assert found["cell"].tolist() == [[0, 0], [1, 1]]
        assert found["pattern_cell"].tolist() == [0, 0, 1]
        assert found["pattern_class"].tolist() == [0, 2, 0]

    def test_nothing_fires(self, images):
        maps = self.written(images, [(0, 1.0, [[0.0, 0.0], [-1.0, 0.0]])])
        output = extract_features(maps, model=OWN, **CPU)
        found = arrays(output)
        assert found["feature"].shape == (0, 3)
        assert len(found["cell"]) == len(found["pattern_cell"]) == 0
        assert found["map_extent"].tolist() == [[0, 0, 8, 8]] * 5
        assert verify(output)["problems"] == []

    @pytest.mark.parametrize("cells", ["all", "firing"])
    def test_a_map_that_is_not_finite(self, images, cells):
        maps = self.written(images, [(0, 1.0, [[np.nan, 1.0], [0.5, 0.1]])])
        line = (
            'm.zarr row 0 "red/a.png": its maps have 1 values that are not finite; expected finite '
            "scores. Pass --on-bad skip to leave it out."
        )
        with pytest.raises(BadImageError, match=f"^{re.escape(line)}$"):
            extracted(maps, model=OWN, cells=cells)
        found = extracted(maps, model=OWN, cells=cells, on_bad="skip")
        assert found["image_status"].tolist() == [1, 0, 0, 0, 0]
        assert found["cell_start"][:2].tolist() == [0, 0]
        assert not found["map_extent"][0].any()

    def test_maps_of_some_images_in_another_order(self, images, maps):
        """As `select` leaves them: each row has its own picture."""
        order = [3, 0]
        every = arrays(maps)
        values = {n: every[n][order] for n in every if n != "class_name"}
        texts = {n: values[n].tolist() for n in ("image_id", "image_note")}
        made = images.with_name("some.zarr")
        rewritten(made, maps, "maps", made_from=[images], **(values | texts))
        found, whole = extracted(made, model=OWN), extracted(maps)
        assert found["image_id"].tolist() == whole["image_id"][order].tolist()
        for row, other in enumerate(order):
            one, two = per_image(found, row), per_image(whole, other)
            assert one[0] == two[0]
            assert one[2] == two[2]
            np.testing.assert_array_equal(one[1], two[1])


class TestBadPictures:
    """Rows stay, empty."""

    def test_stops(self, broken):
        line = r'^b\.zarr row 2 "red/t\.jpg": JPEG is truncated at byte \d+\. Pass --on-bad skip'
        with pytest.raises(BadImageError, match=line):
            extracted(broken, model=OWN)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_is_left_out(self, images, broken, workers):
        ears = Ears()
        found = extracted(broken, model=OWN, on_bad="skip", report=ears, workers=workers)
        assert ears.num_skipped == 1
        assert found["image_status"].tolist() == [0, 0, 1, 0, 0, 0]
        assert found["image_note"].tolist()[2].startswith("JPEG is truncated at byte")
        assert found["cell_start"].tolist() == [0, 4, 8, 8, 12, 16, 20]
        assert not found["map_extent"][2].any()
        good = extracted(images, model=OWN)
        np.testing.assert_array_equal(found["feature"], good["feature"])

    def test_skipped_by_the_maps(self, broken):
        maps = cam(broken, model=OWN, classes="all", on_bad="skip", **CPU)
        ears = Ears()
        found = extracted(maps, report=ears)
        assert ears.warnings == []
        assert ears.num_skipped == 0
        assert found["image_status"].tolist() == [0, 0, 2, 0, 0, 0]
        assert found["cell_start"][2] == found["cell_start"][3]

    def test_a_layer_that_is_not_finite(self, images):
        """The last cell of a is black."""
        line = (
            's.zarr row 0 "red/a.png": the network\'s layer cells is not finite (NaN or infinity). '
            "Pass --on-bad skip to leave it out."
        )
        with pytest.raises(BadImageError, match=f"^{re.escape(line)}$"):
            extracted(images, model=f"{ME}:nan_on_black")
        found = extracted(images, model=f"{ME}:nan_on_black", on_bad="skip")
        assert found["image_status"].tolist() == [1, 0, 0, 0, 0]
        assert np.isfinite(found["feature"]).all()

    def test_nothing_but_skipped(self, tmp_path):
        (tmp_path / "none/red").mkdir(parents=True)
        (tmp_path / "none/red/a.png").write_bytes(b"")
        (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
        source = ingest_folder(tmp_path / "none", classes=tmp_path / "classes.txt", on_bad="skip")
        output = extract_features(source, model=OWN, **CPU)
        assert arrays(output)["feature"].shape == (0, 3)
        assert verify(output)["problems"] == []


def test_a_value_that_float16_cannot_hold(images):
    own = f"{__name__}:loud"
    line = (
        r"^--feature-dtype float16 holds values up to 65504, layer gain has \d+\. Pass "
        r"--feature-dtype float32 --overwrite\.$"
    )
    with pytest.raises(UsageError, match=line):
        extracted(images, model=own, layer="gain")
    found = extracted(images, model=own, layer="gain", feature_dtype="float32", overwrite=True)
    assert found["feature"].max() == pytest.approx(1e5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--model is missing. Give a model file, a name, or module:function; only maps know"),
        ({"weights": "w.pth"}, "--weights w.pth needs the name of a network. Give it with --mod"),
        ({"model": OWN, "cells": "most"}, '--cells must be all or firing, got "most".'),
        ({"model": OWN, "cells": "firing"}, "s.zarr: kind is images, so --cells firing has no m"),
        ({"model": OWN, "threshold": 0.5}, "s.zarr: kind is images, so --threshold 0.5 has no m"),
        ({"model": OWN, "threshold": 1}, "--threshold must be in [0, 1), got 1."),
        ({"model": OWN, "threshold": float("nan")}, "--threshold must be in [0, 1), got nan."),
        ({"model": OWN, "feature_dtype": "int8"}, "--feature-dtype must be float16 or float32"),
        ({"model": OWN, "input_size": 0}, "--input-size must be in [1, 8192], got 0."),
        ({"model": OWN, "fit": "pad"}, '--fit must be warp, crop or letterbox, got "pad".'),
    ],
)
def test_wrong_options(images, options, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        extracted(images, **options)


def test_no_such_layer(images):
    with pytest.raises(ModelError, match=r'^--layer "cels": .* has no such layer\. Near names: c'):
        extracted(images, model=OWN, layer="cels")
    assert not list(images.parent.glob("*.wip"))


def test_another_kind(images, maps):
    features = extract_features(maps, **CPU)
    line = 'kind is "features", but extract-features reads "images" or "maps". Run first: wsltool'
    with pytest.raises(StoreKindError, match=re.escape(line)):
        extracted(features, model=OWN)


def test_limit(maps):
    whole = extracted(maps)
    output = extract_features(maps, limit=2, output=maps.with_name("two.zarr"), **CPU)
    found = arrays(output)
    assert found["image_id"].tolist() == whole["image_id"][:2].tolist()
    np.testing.assert_array_equal(found["feature"], whole["feature"][: len(found["feature"])])
    assert meta(output)["limit"] == {"how": "limit", "num_rows": 2, "of": 5}
