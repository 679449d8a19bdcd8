"""Proposals of OpenCV's selective search: the same boxes every time, in pixels of the picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from wsltool.errors import ExtraMissingError
from wsltool.localize.selective_search import load_selective_search, selective_search

try:
    load_selective_search()
except ExtraMissingError as error:
    WHY_NOT = str(error)
else:
    WHY_NOT = ""
contrib = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)


def squares(width=120, height=90):
    """A red and a green square on blue."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 2] = 200
    picture[10:40, 20:60] = (220, 30, 20)
    picture[50:80, 70:110] = (20, 200, 40)
    return picture


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@contrib
@pytest.mark.parametrize("mode", ["fast", "quality"])
def test_finds_what_stands_out(mode):
    found = selective_search(squares(), mode=mode).tolist()
    for box in ([0, 0, 120, 90], [20, 10, 60, 40], [70, 50, 110, 80]):
        near = [np.abs(np.subtract(box, one)).max() for one in found]
        assert min(near) <= 3, box


@contrib
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (2, 2), (9, 700)])
@pytest.mark.parametrize("make", [noise, lambda *size: np.full((*size[::-1], 3), 77, np.uint8)])
def test_small_and_plain_pictures_have_one_region_at_least(make, size):
    found = selective_search(make(*size))
    assert len(found) >= 1
    assert [0, 0, *size] in found.tolist()


@contrib
def test_boxes_lie_in_the_picture_each_once():
    found = selective_search(noise(173, 121))
    assert len(found) > 20
    assert found.dtype == np.float64
    assert len(np.unique(found, axis=0)) == len(found)
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] <= (173, 121)).all()
    assert (found[:, 2:] > found[:, :2]).all()


@contrib
def test_colours_are_not_swapped():
    """OpenCV reads blue first; the other way round it finds other boxes."""

    def boxes_of(picture_bgr):
        search = load_selective_search()()
        search.setBaseImage(np.ascontiguousarray(picture_bgr))
        search.switchToSelectiveSearchFast()
        return sorted((x, y, x + w, y + h) for x, y, w, h in set(map(tuple, search.process())))

    picture = noise(173, 121)
    found = sorted(map(tuple, selective_search(picture, max_boxes=10_000).tolist()))
    assert found == boxes_of(picture[..., ::-1])
    assert found != boxes_of(picture)


@contrib
def test_the_same_boxes_whatever_ran_before_and_however_many_threads():
    """OpenCV's own order is drawn by rand() of the C library, differently at every call."""
    picture = noise(173, 121)
    expected = selective_search(picture, seed=3)
    before = cv2.getNumThreads()
    try:
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            cv2.setRNGSeed(threads)
            np.testing.assert_array_equal(selective_search(picture, seed=3), expected)
    finally:
        cv2.setNumThreads(before)
    other = selective_search(picture, seed=4)
    assert (other != expected).any()
    np.testing.assert_array_equal(np.unique(other, axis=0), np.unique(expected, axis=0))
    few = selective_search(picture, seed=3, max_boxes=7)
    np.testing.assert_array_equal(few, expected[:7])


@contrib
def test_a_reduced_picture_gives_boxes_of_the_whole_one():
    """Half the sides of twice the picture: the picture itself, pixel for pixel."""
    small = noise(100, 60)
    large = small.repeat(2, axis=0).repeat(2, axis=1)
    expected = selective_search(small)
    np.testing.assert_array_equal(selective_search(large, longest_side_px=100), expected * 2)
    odd = selective_search(noise(201, 101), longest_side_px=100)  # 100 x 50 pixels
    assert [0, 0, 201, 101] in odd.tolist()
    np.testing.assert_allclose(odd[:, ::2] / 2.01, np.round(odd[:, ::2] / 2.01), atol=1e-9)
    np.testing.assert_allclose(odd[:, 1::2] / 2.02, np.round(odd[:, 1::2] / 2.02), atol=1e-9)


@contrib
def test_a_picture_is_never_enlarged_nor_changed():
    picture = squares()
    before = picture.copy()
    whole = selective_search(picture, longest_side_px=120)
    np.testing.assert_array_equal(selective_search(picture, longest_side_px=8000), whole)
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize("hollow", [True, False])
def test_without_the_contrib_build(monkeypatch, hollow):
    """With the plain build installed over the other, cv2.ximgproc is there and empty."""
    if hollow:
        monkeypatch.setattr(cv2, "ximgproc", object(), raising=False)
    else:
        monkeypatch.delattr(cv2, "ximgproc", raising=False)
    with pytest.raises(
        ExtraMissingError,
        match=r"^selective search needs OpenCV's contrib build; the cv2 [\d.]+ here lacks it\. "
        r"pip install 'wsltool\[proposals\]', and if opencv-python-headless was installed over it: "
        r"pip install --force-reinstall --no-deps opencv-contrib-python-headless$",
    ):
        selective_search(squares())


def test_what_a_removed_build_leaves_behind_has_no_version(monkeypatch):
    monkeypatch.delattr(cv2, "ximgproc", raising=False)
    monkeypatch.delattr(cv2, "__version__")
    with pytest.raises(ExtraMissingError, match="; the cv2 without a version here lacks it\\. pip"):
        load_selective_search()
