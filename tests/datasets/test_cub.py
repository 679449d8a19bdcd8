"""Caltech-UCSD Birds: the numbers of the lists, both splits, masks, and every fault by line."""

from __future__ import annotations

import re

import pytest

from wsltool.datasets.cub import open_cub
from wsltool.errors import BadImageError, DatasetError

LISTS = {
    "images": "1 001.Auk/a.jpg\n2 001.Auk/b.jpg\n3 002.Wren/c.jpg\n",
    "image_class_labels": "1 1\n2 1\n3 2\n",
    "classes": "1 001.Auk\n2 002.Wren\n",
    "bounding_boxes": "1 1.0 2.0 3.5 4.0\n2 0.0 0.0 20.0 10.0\n3 5.0 5.0 5.0 5.0\n",
    "train_test_split": "1 0\n2 1\n3 0\n",
}


@pytest.fixture
def cub(tmp_path, put_picture):
    """Three pictures of 20 x 10; call with what some lists hold instead."""
    root = tmp_path / "CUB_200_2011"
    for name in ("001.Auk/a", "001.Auk/b", "002.Wren/c"):
        put_picture(root / f"images/{name}.jpg")

    def write(**changes):
        for name, text in (LISTS | changes).items():
            (root / f"{name}.txt").write_text(text)
        return root

    return write


def test_rows(cub):
    data = open_cub(cub(), "test")
    assert data.image_id == ["001.Auk/a.jpg", "002.Wren/c.jpg"]
    assert (data.class_id, data.class_name) == (["1", "2"], ["001.Auk", "002.Wren"])
    assert (data.has_boxes, data.has_masks) == (True, False)
    first, second = data.read(0), data.read(1)
    assert (first.image_path, first.size_wh) == ("images/001.Auk/a.jpg", (20, 10))
    assert first.num_bytes == (data.root / first.image_path).stat().st_size
    assert first.box_xyxy_B4.tolist() == [[1, 2, 4.5, 6]]
    assert (second.present, second.undecided) == data.labels(1) == ((1,), ())
    assert second.box_class_B.tolist() == [1]
    assert second.masks == ()
    assert open_cub(cub(), "train").image_id == ["001.Auk/b.jpg"]


@pytest.mark.parametrize("place", ["segmentations", "../segmentations"])
def test_masks(cub, put_picture, place):
    root = cub()
    put_picture(root / place / "001.Auk/a.png")
    data = open_cub(root, "test")
    assert data.has_masks
    assert data.read(0).masks == ((f"{place}/001.Auk/a.png", 0),)
    with pytest.raises(BadImageError, match=rf"^mask {place}/002\.Wren/c\.png is not there\.$"):
        data.read(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": "1 a.jpg\n1 b.jpg\n"}, "images.txt line 2: number 1 again. Give each number"),
        ({"images": "one a.jpg\n"}, 'images.txt line 1: "one a.jpg"; expected an image\'s number'),
        ({"images": "1\n"}, 'images.txt line 1: "1"; expected an image\'s number and path.'),
        ({"images": ""}, "images.txt: nothing in it; expected an image's number and path in each"),
        ({"images": "1 a\n2 a\n3 b\n"}, "images.txt: an image stands there twice."),
        ({"images": "1 ../a\n"}, 'images.txt image 1: "../a" leaves the data set.'),
        ({"bounding_boxes": "1 1 1 1 1\n3 1 1 1 1\n"}, "boxes.txt: image 2 is missing (1 such"),
        ({"image_class_labels": LISTS["image_class_labels"] + "4 1\n"}, "image 4 is not in images"),
        ({"image_class_labels": "1 1\n2 3\n3 2\n"}, 'labels.txt: image 2 has "3", expected one of'),
        ({"train_test_split": "1 0\n2 1\n3 2\n"}, 'split.txt: image 3 has "2", expected one of 2'),
        ({"train_test_split": "1 1\n2 1\n3 1\n"}, 'split.txt: no image is in the split "test".'),
        (
            {"bounding_boxes": "1 1 1 1\n2 1 1 1 1\n3 1 1 1 1\n"},
            'has the box "1 1 1"; expected four',
        ),
        ({"bounding_boxes": "1 1 1 1 nan\n2 1 1 1 1\n3 1 1 1 1\n"}, 'has the box "1 1 1 nan"; exp'),
    ],
)
def test_a_bad_list(cub, changes, message):
    with pytest.raises(DatasetError, match=re.escape(message)):
        open_cub(cub(**changes), "test")


def test_a_missing_list(cub):
    root = cub()
    (root / "classes.txt").unlink()
    with pytest.raises(DatasetError, match=r"classes\.txt: cannot be read, No such file or dir"):
        open_cub(root, "test")


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("1 1 0 3", "box 1 1 0 3 has no size; expected x y w h."),
        ("1 1 3 -3", "box 1 1 3 -3 has no size; expected x y w h."),
        ("1 1 3 11", "box 1 1 3 11 lies outside the 20x10 picture."),
    ],
)
def test_a_bad_box_costs_its_image_only(cub, box, message):
    data = open_cub(cub(bounding_boxes=f"1 {box}\n2 1 1 1 1\n3 1 1 19.5 9.5\n"), "test")
    with pytest.raises(BadImageError, match=f"^{re.escape('bounding_boxes.txt: ' + message)}$"):
        data.read(0)
    assert data.read(1).box_xyxy_B4.tolist() == [[1, 1, 20.5, 10.5]]
