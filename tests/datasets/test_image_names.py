"""Which image another tool means."""

from __future__ import annotations

import re

import pytest

from wsltool.datasets.image_names import ImageNames, without_ending
from wsltool.errors import DatasetError

IDS = ["COCO_val2014_000000000042", "000000000007", "b/x.y.jpg", "c/z.png", "v2.5"]
PATHS = ["val/COCO_val2014_000000000042.jpg", "val/7.jpg", "p/b/x.y.jpg", "c/z.png", "v2.5.tif"]


@pytest.fixture
def names():
    return ImageNames(IDS, PATHS, origin="val.zarr")


@pytest.mark.parametrize(
    ("name", "row"),
    [
        (42, 0),
        ("42", 0),
        ("0042", 0),
        ("COCO_val2014_000000000042.jpg", 0),
        ("anywhere/COCO_val2014_000000000042", 0),
        (7, 1),
        ("val/7", 1),
        ("b/x.y", 2),
        ("x.y.jpg", 2),
        ("x.y", 2),
        ("elsewhere/z", 3),
        ("c/z.png", 3),
        ("v2.5", 4),
        ("v2", None),
        (5, 4),
        (8, None),
        ("x", None),
        ("", None),
        ("9" * 40, None),
    ],
)
def test_rows(names, name, row):
    assert names.row(name) == row


def test_the_id_itself_goes_before_all_else():
    names = ImageNames(["a/1.jpg", "1", "b/1.jpg"], ["a/1.jpg", "q.jpg", "b/1.jpg"], origin="i")
    assert names.row("1") == 1
    assert names.row(1) == 1
    assert names.row("a/1.jpg") == 0
    assert names.row("a/1") == 0


@pytest.mark.parametrize("name", ["1.jpg", "z/1.jpg"])
def test_a_name_of_several_is_refused(name):
    names = ImageNames(["a/1.jpg", "b/1.jpg"], ["a/1.jpg", "b/1.jpg"], origin="i.zarr")
    with pytest.raises(
        DatasetError,
        match=rf'^image "{re.escape(name)}" fits 2 images of i\.zarr \("a/1\.jpg", "b/1\.jpg"\)',
    ):
        names.row(name)


def test_endings():
    assert [without_ending(name) for name in ("a.JPG", "a.b", ".png", "x.y.tiff")] == [
        *("a", "a.b", ".png", "x.y"),
    ]
