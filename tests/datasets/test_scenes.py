from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from wsltool.datasets.pictures import decode
from wsltool.datasets.scene_shapes import SHAPES, Frame, track_paint
from wsltool.datasets.scenes import FIRST_TEST_INDEX, SCENE_CLASSES, draw_scene, write_scenes
from wsltool.datasets.voc import open_voc
from wsltool.errors import DatasetError, UsageError

TRAIN = SCENE_CLASSES.index("train")


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(3, index) for index in range(48)]


def test_equal_arguments_give_equal_scenes():
    first, again, other = draw_scene(1, 5), draw_scene(1, 5), draw_scene(2, 5)
    np.testing.assert_array_equal(first.picture_HWC, again.picture_HWC)
    np.testing.assert_array_equal(first.mask_HW, again.mask_HW)
    np.testing.assert_array_equal(first.box_xyxy_B4, again.box_xyxy_B4)
    assert (
        first.picture_HWC.shape != other.picture_HWC.shape
        or (first.picture_HWC != other.picture_HWC).any()
    )


def test_types_sizes_and_counts(scenes):
    for scene in scenes:
        height, width = scene.mask_HW.shape
        assert 96 <= min(height, width) <= max(height, width) <= 160
        assert scene.picture_HWC.shape == (height, width, 3)
        assert (scene.picture_HWC.dtype, scene.mask_HW.dtype) == (np.uint8, np.uint8)
        assert (scene.box_xyxy_B4.dtype, scene.box_class_B.dtype) == (np.float64, np.int32)
        assert 1 <= len(scene.box_class_B) <= 3
        assert (scene.box_class_B == TRAIN).sum() <= 1
        x0, y0, x1, y1 = scene.box_xyxy_B4.T
        assert (x0 >= 0).all()
        assert (y0 >= 0).all()
        assert (x1 <= width).all()
        assert (y1 <= height).all()
        share = np.maximum(x1 - x0, y1 - y0) / min(height, width)
        assert (share >= 0.2).all()
        assert (share <= 0.72).all()  # a pixel more at each end where an edge cuts one


def test_every_class_appears_and_some_pictures_hold_two_of_one(scenes):
    num_images = [sum(index in scene.box_class_B for scene in scenes) for index in range(6)]
    assert min(num_images) >= 8
    assert any(len(set(scene.box_class_B.tolist())) < len(scene.box_class_B) for scene in scenes)
    assert any(len(scene.box_class_B) == 1 for scene in scenes)
    assert len({scene.mask_HW.shape for scene in scenes}) > 30


def test_boxes_are_the_hulls_of_the_mask(scenes):
    for scene in scenes:
        assert set(np.unique(scene.mask_HW)) == {0, *(scene.box_class_B + 1)}
        for index in set(scene.box_class_B.tolist()):
            rows, cols = np.nonzero(scene.mask_HW == index + 1)
            boxes = scene.box_xyxy_B4[scene.box_class_B == index]
            hull = (*boxes[:, :2].min(0), *boxes[:, 2:].max(0))
            assert hull == (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)
            inside = np.zeros(len(rows), bool)
            for x0, y0, x1, y1 in boxes:
                inside |= (cols >= x0) & (cols < x1) & (rows >= y0) & (rows < y1)
            assert inside.all()


def test_colours_do_not_give_the_class_away(scenes):
    means = np.zeros((6, 3))
    for index in range(6):
        pixels = [
            s.picture_HWC[s.mask_HW == index + 1].mean(0) for s in scenes if index in s.box_class_B
        ]
        means[index] = np.mean(pixels, 0)
        assert np.std(pixels, 0).min() > 10
    assert np.abs(means - means.mean(0)).max() < 50


def test_shapes_lie_in_the_unit_circle_and_show_both_colours():
    x = np.linspace(-1.5, 1.5, 301)
    u, v = Frame(0, 0, 1).local(x, x)
    radius = np.sqrt(u * u + v * v)
    for shape in SHAPES.values():
        painting = shape(u, v)
        assert radius[painting.inside_HW].max() <= 1.01
        share = painting.second_HW[painting.inside_HW].mean()
        assert 0.2 < share < 0.7


def test_the_track_touches_no_wheel_and_runs_on():
    x = np.linspace(-3, 3, 301)
    u, v = Frame(0, 0, 1).local(x, x)
    ballast, sleepers, rails = track_paint(u, v)
    track = ballast | sleepers | rails
    body = SHAPES["train"](u, v).inside_HW
    assert (track & body).sum() <= 0.06 * body.sum()
    assert track[:, [0, -1]].any(0).all()
    assert track[:, np.abs(x) > 1].sum() > 1.5 * track[:, np.abs(x) <= 1].sum()


def test_frame_turns_clockwise_and_mirrors():
    x, y = np.array([3.0]), np.array([5.0])
    np.testing.assert_allclose(Frame(1, 5, 2).local(x, y), [[[1]], [[0]]])
    # A quarter turn clockwise: what lies to the right of the centre was up in the shape.
    np.testing.assert_allclose(Frame(1, 5, 2, turn=1024).local(x, y), [[[0]], [[-1]]], atol=1e-9)
    np.testing.assert_allclose(Frame(1, 5, 2, mirrored=True).local(x, y), [[[-1]], [[0]]])


def test_given_size_and_its_bounds():
    assert draw_scene(0, 0, (50, 300)).mask_HW.shape == (300, 50)
    with pytest.raises(UsageError, match=r"^a scene needs at least 48x48 pixels, got 47x100\.$"):
        draw_scene(0, 0, (47, 100))
    with pytest.raises(UsageError, match=r"^seed and index must not be negative, got -1 and 0\.$"):
        draw_scene(-1, 0)


def test_written_scenes_are_read_as_voc(tmp_path):
    folder = write_scenes(tmp_path / "new" / "scenes", num_train=5, num_test=3, seed=7)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scenes"]
    for split, first, count in (("train", 0, 5), ("Segmentation/test", FIRST_TEST_INDEX, 3)):
        data = open_voc(folder, split, classes=folder / "classes.txt")
        assert data.class_name == list(SCENE_CLASSES)
        assert len(data.image_id) == count
        assert data.has_masks
        for row in range(count):
            scene, record = draw_scene(7, first + row), data.read(row)
            np.testing.assert_array_equal(record.box_xyxy_B4, scene.box_xyxy_B4)
            np.testing.assert_array_equal(record.box_class_B, scene.box_class_B)
            np.testing.assert_array_equal(
                decode((folder / record.image_path).read_bytes()), scene.picture_HWC
            )
            ((mask_path, mask_class),) = record.masks
            assert mask_class == -1
            with Image.open(folder / mask_path) as mask:
                assert mask.mode == "P"
                np.testing.assert_array_equal(np.asarray(mask), scene.mask_HW)


def test_bad_calls_of_write_scenes(tmp_path):
    with pytest.raises(UsageError, match=r"^num_test must be in 1\.\.1048576, got 0\.$"):
        write_scenes(tmp_path / "a", num_train=1, num_test=0)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/mine.txt").write_text("mine")
    with pytest.raises(
        DatasetError, match=r"b: something is there already\. Choose another folder\.$"
    ):
        write_scenes(tmp_path / "b", num_train=1, num_test=1)
    (tmp_path / "c").mkdir()
    assert write_scenes(tmp_path / "c", num_train=1, num_test=1) == tmp_path / "c"
