"""Masks of an images store that boxes carry, as in COCO; and all classes in one picture."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wsltool.errors import BadImageError
from wsltool.stages.true_masks import TrueMasks, has_masks, true_masks
from wsltool.stores.open import open_store

from .making import write_images
from .outlined import with_outlines
from .scoring import CLASSES, RIGHT, with_masks

LEFT = [[1, 1, 0], [0, 0, 0]]
RIGHTMOST = [[0, 1, 1], [0, 0, 1]]
BELOW = [[0, 0, 0], [1, 1, 1]]


@pytest.fixture
def images(tmp_path):
    """Image a has two boxes of the cat and one of the dog, b one of the dog, c none."""
    boxes = {"a": [(0, *RIGHT), (0, *RIGHT), (1, *RIGHT)], "b": [(1, *RIGHT)], "c": []}
    listed = {name: {"boxes": some, "size": (3, 2)} for name, some in boxes.items()}
    return write_images(tmp_path / "s.zarr", listed, CLASSES)


def _masks(path, row=0, **options):
    with open_store(path) as truth:
        of_class = TrueMasks(truth).of_row(row, **options)
        return [of_class(index) for index in range(3)]


def _label_image(path, row=0):
    with open_store(path) as truth:
        return TrueMasks(truth).label_image(row)


class TestOutlines:
    def test_a_class_is_the_union_of_its_instances(self, images):
        path = with_outlines(images, [LEFT, BELOW, RIGHTMOST, BELOW])
        cat, dog, cow = _masks(path)
        np.testing.assert_array_equal(cat, [[1, 1, 0], [1, 1, 1]])
        np.testing.assert_array_equal(dog, RIGHTMOST)
        assert not cow.any()
        assert cat.dtype == np.uint8
        np.testing.assert_array_equal(_masks(path, 1)[1], BELOW)
        assert not np.any(_masks(path, 2))

    def test_a_crowd_is_left_out_where_there_is_no_instance(self, images):
        path = with_outlines(images, [LEFT, RIGHTMOST, BELOW, BELOW], [0, 1, 0, 1])
        cat, dog, _ = _masks(path)
        np.testing.assert_array_equal(cat, [[1, 1, 255], [0, 0, 255]])
        np.testing.assert_array_equal(dog, BELOW)
        np.testing.assert_array_equal(_masks(path, 1)[1], 255 * np.array(BELOW))

    def test_or_part_of_the_class(self, images):
        path = with_outlines(images, [LEFT, RIGHTMOST, BELOW, BELOW], [0, 1, 0, 1])
        np.testing.assert_array_equal(_masks(path, crowd=1)[0], [[1, 1, 1], [0, 0, 1]])

    def test_files_go_before_outlines(self, images):
        path = with_outlines(images, [LEFT, LEFT, LEFT, LEFT])
        both = with_masks(path, {"a": [(0, BELOW)]})
        with open_store(both) as truth:
            masks = TrueMasks(truth)
            assert [masks.annotated(row) for row in range(3)] == [True, False, False]
            np.testing.assert_array_equal(masks.of_row(0)(0), BELOW)

    def test_rows_in_any_order(self, tmp_path):
        """Of more than one block."""
        rng = np.random.default_rng(0)
        listed = {
            str(n): {"boxes": [(0, *RIGHT)] * int(num), "size": (3, 2)}
            for n, num in enumerate(rng.integers(0, 3, 600))
        }
        images = write_images(tmp_path / "s.zarr", listed, CLASSES)
        num_boxes = sum(len(one["boxes"]) for one in listed.values())
        drawn = rng.random((num_boxes, 2, 3)) < 0.5
        path = with_outlines(images, list(drawn))
        start = np.cumsum([0, *(len(one["boxes"]) for one in listed.values())])
        with open_store(path) as truth:
            masks = TrueMasks(truth)
            for row in rng.permutation(600)[:60].tolist():
                expected = drawn[start[row] : start[row + 1]].any(axis=0)
                np.testing.assert_array_equal(masks.of_row(row)(0), expected)

    @pytest.mark.parametrize(
        ("code", "line"),
        [
            (
                "",
                "truth row 0: box 1 (class 0) has no mask; expected one for every box. Ingest "
                "annotations with masks, or use a protocol of boxes.",
            ),
            (
                "22",
                'truth row 0: box 1 (class 0): mask "22" tells 4 pixels; expected 3x2. Ingest '
                "the annotations again.",
            ),
        ],
    )
    def test_unusable(self, images, code, line):
        path = with_outlines(images, [LEFT, code, BELOW, BELOW])
        with pytest.raises(BadImageError, match=f"^{re.escape(line)}$"):
            _masks(path)

    def test_has_masks(self, images):
        for path, expected in (
            (images, False),
            (with_outlines(images, [LEFT] * 4), True),
            (with_masks(images, {"a": [(0, BELOW)]}), True),
        ):
            with open_store(path) as truth:
                assert has_masks(truth) == expected

    def test_one_reader_a_store(self, images):
        path = with_outlines(images, [LEFT] * 4)
        with open_store(path) as truth, open_store(path) as again:
            assert true_masks(truth) is true_masks(truth)
            assert true_masks(truth) is not true_masks(again)


class TestLabelImage:
    def test_as_it_is(self, images):
        label = [[0, 1, 255], [2, 1, 6]]
        np.testing.assert_array_equal(_label_image(with_masks(images, {"a": [(-1, label)]})), label)

    def test_with_what_is_left_out_besides(self, images):
        files = [(-1, [[0, 1, 255], [2, 1, 6]]), (-2, [[9, 0, 0], [9, 0, 0]])]
        np.testing.assert_array_equal(
            _label_image(with_masks(images, {"a": files})), [[255, 1, 255], [255, 1, 6]]
        )

    def test_of_masks_of_classes(self, images):
        """Where two classes claim a pixel it is left out."""
        files = [
            (0, LEFT),
            (0, [[0, 0, 0], [1, 0, 0]]),
            (3, RIGHTMOST),
            (-2, [[0, 0, 0], [0, 9, 0]]),
        ]
        np.testing.assert_array_equal(
            _label_image(with_masks(images, {"a": files})), [[1, 255, 4], [1, 255, 4]]
        )

    def test_only_what_is_left_out(self, images):
        path = with_masks(images, {"a": [(-2, LEFT)]})
        np.testing.assert_array_equal(_label_image(path), 255 * np.array(LEFT))

    def test_of_outlines(self, images):
        """The crowd of the cat is left out, its overlap with the dog, too."""
        path = with_outlines(images, [LEFT, RIGHTMOST, BELOW, BELOW], [0, 1, 0, 0])
        np.testing.assert_array_equal(_label_image(path), [[1, 1, 255], [2, 2, 255]])
        np.testing.assert_array_equal(_label_image(path, 1), [[0, 0, 0], [2, 2, 2]])

    def test_too_many_classes(self, tmp_path):
        listed = {"a": {"boxes": [(0, *RIGHT)], "size": (3, 2)}}
        names = [str(n) for n in range(255)]
        path = with_outlines(write_images(tmp_path / "s.zarr", listed, names), [LEFT])
        line = (
            "outlined.zarr: 255 classes, but a label image of 8 bits has room for 254. Select "
            "fewer."
        )
        with pytest.raises(BadImageError, match=f"^{re.escape(line)}$"):
            _label_image(path)
