"""Masks of an images store: label images, masks of a class, what is left out; real ones."""

from __future__ import annotations

import re

import numpy as np
import pytest
import zarr
from PIL import Image

from wsltool.errors import BadImageError, LineageError
from wsltool.stages.ingest import ingest_voc
from wsltool.stages.true_masks import TrueMasks
from wsltool.stores.open import open_store

from .making import write_images
from .scoring import CLASSES, RIGHT, with_masks, write_mask


@pytest.fixture
def images(tmp_path):
    listed = {name: {"boxes": [(0, *RIGHT)], "size": (3, 2)} for name in "ab"}
    return write_images(tmp_path / "s.zarr", listed, CLASSES)


def _masks(path, row=0):
    with open_store(path) as truth:
        return TrueMasks(truth).of_row(row)


def test_label_image(images):
    masks = _masks(with_masks(images, {"a": [(-1, [[0, 1, 255], [2, 1, 6]])]}))
    np.testing.assert_array_equal(masks(0), [[0, 1, 255], [0, 1, 0]])
    np.testing.assert_array_equal(masks(1), [[0, 0, 255], [1, 0, 0]])
    np.testing.assert_array_equal(masks(5), [[0, 0, 255], [0, 0, 1]])
    assert masks(0).dtype == np.uint8


def test_masks_of_classes_and_of_what_is_left_out(images):
    files = [
        (0, [[9, 0, 0], [0, 0, 0]]),
        (0, [[0, 1, 0], [0, 0, 0]]),
        (1, [[0, 255, 0], [0, 0, 0]]),
        (-2, [[1, 0, 0], [0, 0, 7]]),
    ]
    masks = _masks(with_masks(images, {"b": files}), row=1)
    np.testing.assert_array_equal(masks(0), [[255, 1, 0], [0, 0, 255]])
    np.testing.assert_array_equal(masks(1), [[255, 1, 0], [0, 0, 255]])
    np.testing.assert_array_equal(masks(2), [[255, 0, 0], [0, 0, 255]])


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_and_one_bit(images, mode):
    path = with_masks(images, {"a": [(0, np.zeros((2, 3)))]})
    picture = Image.fromarray(np.array([[255, 0, 0], [0, 0, 255]], np.uint8)).convert(mode)
    picture.save(path.parent / "masks" / "a-0.png")
    np.testing.assert_array_equal(_masks(path)(0), [[1, 0, 0], [0, 0, 1]])


def _rgb(path):
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(path)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda p: p.unlink(), "mask masks/a-0.png cannot be read: No such file or directory."),
        (_rgb, "mask masks/a-0.png has mode RGB; expected an 8-bit indexed or grey picture."),
        (
            lambda p: write_mask(p, np.zeros((3, 2))),
            "mask masks/a-0.png is 2x3 pixels, its image 3x2; expected the same.",
        ),
        (
            lambda p: write_mask(p, np.full((2, 3), 7)),
            "mask masks/a-0.png holds the label 7; expected 0 to 6, or 255 for what is left out. "
            "Ingest with the class list of the masks.",
        ),
    ],
)
def test_unusable(images, spoil, line):
    path = with_masks(images, {"a": [(-1, np.zeros((2, 3)))]})
    spoil(path.parent / "masks" / "a-0.png")
    with pytest.raises(BadImageError, match=f"^{re.escape(line)}$"):
        _masks(path)


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n broken"])
def test_undecodable(images, data):
    path = with_masks(images, {"a": [(-1, np.zeros((2, 3)))]})
    (path.parent / "masks" / "a-0.png").write_bytes(data)
    with pytest.raises(BadImageError, match=r"^mask masks/a-0\.png cannot be decoded: "):
        _masks(path)


def test_truncated(images):
    path = with_masks(images, {"a": [(-1, np.zeros((2, 3)))]})
    place = path.parent / "masks" / "a-0.png"
    data = place.read_bytes()
    place.write_bytes(data[: data.index(b"IDAT") + 6])
    with pytest.raises(BadImageError, match=r"^mask masks/a-0\.png cannot be decoded: "):
        _masks(path)


def test_folder_is_gone(tmp_path, images):
    path = with_masks(images, {"a": [(-1, np.zeros((2, 3)))]})
    zarr.open_group(path).attrs["root"] = "away"
    with pytest.raises(LineageError, match=r"^masked\.zarr: its masks' folder away is not there\."):
        _masks(path)


@pytest.mark.real
def test_voc(tmp_path, data_dir):
    """The palette's colours are none of the labels: indices are read, 255 is the border."""
    folder = data_dir / "VOCdevkit" / "VOC2007"
    path = ingest_voc(folder, split="small_test", output=tmp_path / "s.zarr")
    with open_store(path) as truth:
        rows = np.flatnonzero(np.diff(truth.whole("mask_start")))
        label_NK = truth.whole("label")
        masks = TrueMasks(truth)
        num_pairs = num_seen = 0
        for row in rows.tolist():
            mask_of = masks.of_row(row)
            for index in np.flatnonzero(label_NK[row] == 1):
                mask_HW = mask_of(int(index))
                assert mask_HW.shape == tuple(truth.rows("image_size", row, row + 1)[0][::-1])
                assert 0 < (mask_HW == 255).mean() < 0.5
                num_pairs += 1
                num_seen += (mask_HW == 1).any()
    assert num_pairs > 10
    assert num_seen == num_pairs
