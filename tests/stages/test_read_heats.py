"""Maps of a store on wsolevaluation's grid, and masks there; both protocols from end to end."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest

from tests.metrics.evaluator_rule import right_at
from wsltool.errors import BadImageError, ProtocolError, StoreCorruptError
from wsltool.localize.grid_heat import grid_heat
from wsltool.stages.read_heats import read
from wsltool.stages.score import score
from wsltool.stages.scored import join_images
from wsltool.stages.scored_records import Source, truths
from wsltool.stores.open import open_store

from .making import write_images, write_maps
from .scoring import CLASSES, RIGHT, result, with_masks

RNG = np.random.default_rng(0)
ONE, OTHER = (RNG.random((3, 5)).astype(np.float32) for _ in range(2))
BOXES = {"a": (0, *RIGHT), "b": (1, *RIGHT), "c": (0, *RIGHT)}


@pytest.fixture
def images(tmp_path):
    listed = {name: {"boxes": [box]} for name, box in BOXES.items()}
    return write_images(tmp_path / "s.zarr", listed, CLASSES)


def _maps(images, cells, **options):
    return write_maps(images.with_name("m.zarr"), images, cells, **options)


def _read(maps, images):
    with open_store(maps) as store, open_store(images) as truth:
        join = join_images(store, truth, given=store, without_skipped=False)
        true = next(truths(truth, join))
        heats = read(Source(store, truth, join), slice(0, len(true)), true)
        return heats, None if heats.masks is None else heats.masks()


def test_the_map_of_the_class_present(images):
    cells = {
        "a": (None, [(1, 2.0, OTHER), (0, 1.0, ONE)]),
        "b": (None, [(0, 1.0, ONE)]),
        "c": (None, []),
    }
    heats, masks = _read(_maps(images, cells), images)
    assert heats.has_map_N.tolist() == [True, False, False]
    assert heats.off_grid_N.tolist() == [False, False, False]
    np.testing.assert_array_equal(
        heats.heat_NHW[0], grid_heat(ONE, (0, 0, 20, 10), (20, 10), 224)[0]
    )
    assert not heats.heat_NHW[1:].any()
    assert masks is None


def test_an_image_that_the_store_lacks(images):
    heats, _ = _read(_maps(images, {"a": (None, [(0, 1.0, ONE)])}), images)
    assert heats.has_map_N.tolist() == [True, False, False]


def test_crops_grids_and_suppressed_cells(images):
    gone = np.zeros((3, 1, 3, 5), np.uint8)
    gone[2, 0, :, :2] = 1
    cells = {
        "a": ((5, 0, 15, 10), [(0, 1.0, ONE)]),
        "b": (None, [(1, 1.0, ONE[:2, :3])]),
        "c": (None, [(0, 1.0, ONE)]),
    }
    grid = np.array([[3, 5], [2, 3], [3, 5]], np.int32)
    heats, _ = _read(_maps(images, cells, map_grid=grid, suppressed=gone), images)
    assert heats.off_grid_N.tolist() == [True, False, True]
    whole = ((0, 0, 20, 10), (20, 10), 224)
    expected = [
        grid_heat(ONE, (5, 0, 15, 10), (20, 10), 224)[0],
        grid_heat(ONE[:2, :3], *whole)[0],
        grid_heat(ONE, *whole, gone[2, 0])[0],
    ]
    np.testing.assert_array_equal(heats.heat_NHW, expected)
    assert (heats.heat_NHW[0][:, :50] == 0).all()


def test_nan_and_constant_maps_are_zero(images):
    nan = ONE.copy()
    nan[1, 1] = np.nan
    cells = {
        "a": (None, [(0, 1.0, nan)]),
        "b": (None, [(1, 1.0, np.ones((3, 5)))]),
        "c": (None, [(0, 1.0, ONE)]),
    }
    heats, _ = _read(_maps(images, cells), images)
    assert heats.has_map_N.all()
    assert not heats.heat_NHW[:2].any()
    assert heats.heat_NHW[2].max() == 1


def test_infinite_map(images):
    infinite = ONE.copy()
    infinite[1, 1] = np.inf
    maps = _maps(images, {"a": (None, [(0, 1.0, infinite)])})
    line = (
        'm.zarr row 0 "a": map has 1 values that are not finite, the first at row 1, column 1: '
        "inf; expected finite scores. Make the maps again."
    )
    with pytest.raises(StoreCorruptError, match=f"^{re.escape(line)}$"):
        _read(maps, images)


def test_several_classes(tmp_path):
    listed = {"a": {"boxes": [(0, *RIGHT), (2, *RIGHT)]}}
    images = write_images(tmp_path / "s.zarr", listed, CLASSES)
    line = "truth row 0: 2 classes are present (0, 2); maxboxacc or pxap expects exactly"
    with pytest.raises(ProtocolError, match=f"^{re.escape(line)}"):
        _read(_maps(images, {"a": (None, [(0, 1.0, ONE)])}), images)


def test_masks_on_the_grid(images):
    """The object wins over what is left out; the class that is present is meant."""
    shown, other, ignored = (RNG.random((10, 20)) < 0.3 for _ in range(3))
    masked = with_masks(
        images,
        {"a": [(0, shown), (0, other), (1, ~shown), (-2, ignored)], "b": [(1, shown)], "c": []},
    )
    _, masks = _read(_maps(images, {"a": (None, [(0, 1.0, ONE)])}), masked)
    shown = shown | other

    def on_grid(mask_HW):
        return cv2.resize(mask_HW.astype(np.uint8), (224, 224), interpolation=cv2.INTER_NEAREST) > 0

    expected = np.where(on_grid(shown), 1, np.where(on_grid(ignored), 255, 0))
    np.testing.assert_array_equal(masks[0], expected)
    assert masks.dtype == np.uint8
    assert (shown & ignored).any()
    assert not masks[2].any()


def test_masks_are_read_only_when_they_are_asked_for(images):
    masked = with_masks(images, {name: [(0, np.ones((10, 20)))] for name in "abc"})
    (masked.parent / "masks" / "a-0.png").unlink()
    maps = _maps(images, {name: (None, [(box[0], 1.0, ONE)]) for name, box in BOXES.items()})
    assert result(maps, "maxboxacc", truth=masked)["value"] is not None
    with pytest.raises(BadImageError, match=r"^mask masks/a-0\.png cannot be read"):
        score(maps, protocol="pxap", truth=masked)


def test_maxboxacc_from_end_to_end(images):
    cells = {name: (None, [(box[0], 1.0, ONE)]) for name, box in BOXES.items()}
    found = result(_maps(images, cells), "maxboxacc-v2", interval=0.1)
    heat_HW = grid_heat(ONE, (0, 0, 20, 10), (20, 10), 224)[0]
    true = [(0, 0, 112, 224)]  # 10 of 20 columns, all 10 rows
    for iou in (0.3, 0.5, 0.7):
        right = [
            right_at(heat_HW, threshold, true, iou, largest=False)
            for threshold in np.arange(0, 1, 0.1)
        ]
        assert found["curve"][f"iou {iou:g}"] == [100.0 * one for one in right]
    assert found["warnings"][0].startswith("the threshold was chosen on the scored images")


def test_pxap_from_end_to_end(images):
    """Maps that are their masks, but that a pixel of the grid in 10 is never wrong at the top."""
    left = np.zeros((10, 20))
    left[:, :10] = 1
    cells = {name: (None, [(box[0], 1.0, left)]) for name, box in BOXES.items()}
    masked = with_masks(images, {name: [(box[0], left)] for name, box in BOXES.items()})
    found = result(_maps(images, cells), "pxap", truth=masked, interval=0.01)
    assert found["value"] == pytest.approx(100)
    assert found["extra"]["num_object_px"] == 3 * 224 * 112
