"""``pointing-game`` on hand-made stores: boxes or masks as regions, maps or boxes as points."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wsltool.errors import BadImageError, ProtocolError
from wsltool.stages.read_game import played_on_masks, read
from wsltool.stages.scored import join_images
from wsltool.stages.scored_records import Source, truths
from wsltool.stores.open import open_store

from .making import arrays, write_boxes, write_images, write_store
from .outlined import with_outlines
from .scoring import CLASSES, RIGHT, five_images, mapped, result, values, with_masks

LEFT_EDGE = np.eye(1, 20, 0).repeat(10, axis=0)  # one column of pixels


@pytest.fixture
def images(tmp_path):
    """Five images of 20 x 10, the object in the left half."""
    return five_images(tmp_path)


def _maps(images, columns):
    """Maps of one class that peak in the given columns, in row 3."""
    classes = dict(zip("abcde", (0, 0, 1, 1, 2), strict=True))
    return mapped(images, {name: [(classes[name], 1.0, x, 1.0)] for name, x in columns.items()})


class TestBoxes:
    def test_by_hand(self, images):
        """The box ends at column 9; less than 5 pixels away is 13."""
        maps = _maps(images, {"a": 13, "b": 14, "c": 9, "d": 0, "e": 19})
        found = result(maps, "pointing-game", tolerance=5)
        assert list(values(found).values()) == [50, 100, 0, None, None, None]
        assert found["value"] == pytest.approx(150 / 6)
        assert found["extra"]["mean_over_played"] == 50
        assert found["extra"]["num_pairs_on_masks"] == 0

    def test_a_store_of_boxes(self, images):
        """Centres in columns 13 and 14."""
        slots = {
            "a": [(0, 1.0, (12, 0, 15, 10), (0, 0, 4, 4))],
            "b": [(0, 1.0, (13, 0, 15, 10))],
            "c": [(1, 1.0)],
            "d": [(1, 1.0, RIGHT)],
            "e": [(2, 1.0, RIGHT)],
        }
        store = write_boxes(images.with_name("b.zarr"), images, slots, classes="all")
        found = result(store, "pointing-game", tolerance=5)
        assert list(values(found).values())[:3] == [50, 50, 100]
        assert found["extra"]["num_without_point"] == 1

    def test_masks_of_files_are_not_asked_for(self, images):
        """As in TorchRay on VOC, where some images have label images."""
        truth = with_masks(images, {"a": [(0, np.zeros((10, 20)))]})
        maps = _maps(images, dict.fromkeys("abcde", 0))
        found = result(maps, "pointing-game", truth=truth)
        assert found["extra"]["num_pairs_on_masks"] == 0
        assert values(found)["cat"] == 100


class TestMasks:
    def test_outlines(self, images):
        """One column of pixels instead of the box: column 4 is less than 5 away, 5 is not."""
        truth = with_outlines(images, [LEFT_EDGE] * 5)
        maps = _maps(images, {"a": 4, "b": 5, "c": 0, "d": 9, "e": 19})
        found = result(maps, "pointing-game", truth=truth, tolerance=5)
        assert list(values(found).values())[:3] == [50, 50, 0]
        assert found["extra"]["num_pairs_on_masks"] == 5

    def test_crowds_belong_to_the_region(self, tmp_path):
        """Image b has only a crowd: undecided, and played all the same."""
        listed = {
            "a": {"boxes": [(0, *RIGHT), (0, *RIGHT)]},
            "b": {"boxes": [(0, *RIGHT)], "labels": {0: 255}},
        }
        images = write_images(tmp_path / "s.zarr", listed, CLASSES)
        crowd = LEFT_EDGE[:, ::-1]
        truth = with_outlines(images, [LEFT_EDGE, crowd, crowd], [0, 1, 1])
        maps = _maps(images, {"a": 19, "b": 18})
        found = result(maps, "pointing-game", truth=truth, tolerance=2)
        assert found["per_class"][0]["num_hits"] == 2

    def test_a_box_without_an_outline(self, images):
        truth = with_outlines(images, [LEFT_EDGE, "", LEFT_EDGE, LEFT_EDGE, LEFT_EDGE])
        maps = _maps(images, dict.fromkeys("abcde", 0))
        with pytest.raises(BadImageError, match=r"^truth row 1: box 0 \(class 0\) has no mask; "):
            result(maps, "pointing-game", truth=truth)

    def test_files(self, images):
        """Images without a file are left out."""
        path = with_masks(images, {"a": [(-1, LEFT_EDGE)], "b": [(0, LEFT_EDGE)]})
        points = _read(path, _maps(images, {"a": 3, "b": 4, "c": 0, "d": 0, "e": 0}), "masks")
        assert points.masks.drawn_N.tolist() == [True, True, False, False, False]
        assert points.masks.gap_NS[:2, 0].tolist() == [9, 16]
        assert points.masks.centre_gap_NS[:2, 0].tolist() == [100, 100]

    def test_boxes_asked_for_and_not_there(self, tmp_path, images):
        plain = write_images(tmp_path / "n.zarr", {"a": {"labels": {0: 1}}}, CLASSES, boxes=False)
        masked = with_masks(images, {"a": [(-1, np.ones((10, 20), np.uint8))]})
        boxless = {
            name: value.tolist() if value.dtype.kind == "T" else value
            for name, value in arrays(masked).items()
            if not name.startswith("box")
        }
        boxless["mask_start"] = np.diff(boxless["mask_start"])
        write_store(tmp_path / "o.zarr", "images", boxless, root=".")
        maps = _maps(images, dict.fromkeys("abcde", 0))
        assert result(maps, "pointing-game", truth=tmp_path / "o.zarr")["value"] is not None
        for path, regions in ((tmp_path / "o.zarr", "boxes"), (plain, "auto")):
            with pytest.raises(ProtocolError, match=rf"^{path.name}: has no true boxes, so noth"):
                result(maps, "pointing-game", truth=path, regions=regions)

    def test_asked_for_and_not_there(self, images):
        maps = _maps(images, dict.fromkeys("abcde", 0))
        line = (
            "--regions masks: the truth has no masks; expected files or those of boxes. Pass "
            "--regions boxes."
        )
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            result(maps, "pointing-game", regions="masks")


def _read(truth_path, maps_path, regions):
    with open_store(truth_path) as truth, open_store(maps_path) as maps:
        join = join_images(maps, truth, given=maps, without_skipped=False)
        source = Source(maps, truth, join)
        true = next(truths(truth, join))
        return read(source, slice(0, len(true)), true, regions)


def test_which_regions(tmp_path, images):
    plain = write_images(tmp_path / "n.zarr", {"a": {}}, CLASSES, boxes=False)
    for path, auto in (
        (images, False),
        (with_masks(images, {"a": [(0, LEFT_EDGE)]}), False),
        (with_outlines(images, [LEFT_EDGE] * 5), True),
        (plain, True),
    ):
        with open_store(path) as truth:
            assert played_on_masks(truth) == auto
            assert played_on_masks(truth, "masks")
            assert not played_on_masks(truth, "boxes")
    assert _read(images, _maps(images, dict.fromkeys("abcde", 0)), "masks").masks is None
