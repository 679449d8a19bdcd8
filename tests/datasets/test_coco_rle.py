"""COCO's run-length code against pycocotools, and codes that are broken."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from wsltool.datasets.coco_rle import decode_rle
from wsltool.errors import DatasetError


def _encoded(mask_HW):
    return coco_mask.encode(np.asfortranarray(mask_HW, np.uint8))["counts"].decode()


def test_by_hand():
    """4 x 5, down the columns: 9 of 0, 2 of 1, 9 of 0; "9" is 57 - 48."""
    assert _encoded(np.pad([[1], [1]], ((1, 1), (2, 2)))) == "929"
    np.testing.assert_array_equal(decode_rle("929", (4, 5)), np.pad([[1], [1]], ((1, 1), (2, 2))))


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 60), st.integers(0, 4))
def test_law_the_same_as_pycocotools(seed, height, width, smooth):
    rng = np.random.default_rng(seed)
    mask_HW = np.kron(rng.random((height, width)) < rng.random(), np.ones((1 + smooth, 1)))
    decoded = decode_rle(_encoded(mask_HW), mask_HW.shape)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, mask_HW)


@pytest.mark.parametrize("fill", [0, 1])
def test_long_runs(fill):
    """One run of 12 million pixels needs five characters."""
    mask_HW = np.full((3000, 4000), fill, np.uint8)
    mask_HW[2999, 3999] = 1
    np.testing.assert_array_equal(decode_rle(_encoded(mask_HW), mask_HW.shape), mask_HW)


@pytest.mark.parametrize("code", ["", "92/", "92p", "92P", "PPPPPPP1", "9é"])
def test_no_code(code):
    line = f'mask "{code}" is no compressed run-length code of COCO.'
    with pytest.raises(DatasetError, match=f"^{re.escape(line)}$"):
        decode_rle(code, (4, 5))


@pytest.mark.parametrize(("code", "num"), [("92", 11), ("9291", 23), ("0", 0), ("92N", 9)])
def test_does_not_fill_the_picture(code, num):
    line = f'mask "{code}" tells {num} pixels; expected 5x4.'
    with pytest.raises(DatasetError, match=f"^{re.escape(line)}$"):
        decode_rle(code, (4, 5))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@settings(deadline=None, max_examples=300)
@example("::")  # a picture: pycocotools warns of numpy when it decodes one
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12))
def test_law_any_text_is_a_mask_or_one_line(text):
    """What pycocotools accepts as exactly this picture, we read alike."""
    try:
        found = decode_rle(text, (4, 5))
    except DatasetError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert found.shape == (4, 5)
        theirs = coco_mask.decode({"size": [4, 5], "counts": text.encode()})
        np.testing.assert_array_equal(found, theirs)
