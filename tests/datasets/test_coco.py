"""COCO's instances: exact boxes and masks (against pycocotools), and every fault in one line."""

from __future__ import annotations

import builtins
import json
import re
import sys

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from wsltool.datasets.coco import find_pictures, open_coco
from wsltool.datasets.coco_rle import decode_rle
from wsltool.errors import BadImageError, DatasetError, ExtraMissingError

SIZE = {"width": 20, "height": 10}
SQUARE = [[2, 1, 8, 1, 8, 6, 2, 6]]


def one(**changes):
    """A sound annotation of image 7, with some of its keys changed or, by `...`, missing."""
    entry = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [2, 1, 6, 5], "area": 30.5}
    entry |= {"iscrowd": 0, "segmentation": SQUARE} | changes
    return {key: value for key, value in entry.items() if value is not ...}


def content(*entries, **changes):
    images = [{"id": 7, "file_name": "b.png", **SIZE}, {"id": 2, "file_name": "a.png", **SIZE}]
    categories = [{"id": 18, "name": "dog"}, {"id": 3, "name": "cat"}]
    return {"images": images, "annotations": list(entries), "categories": categories} | changes


@pytest.fixture
def coco(tmp_path, put_picture):
    """Call with the JSON's content; returns its path, with two pictures of 20 x 10."""
    for name in "ab":
        put_picture(tmp_path / f"val2017/{name}.png")
    path = tmp_path / "annotations/instances_val2017.json"
    path.parent.mkdir()

    def write(data):
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return path

    return write


def test_rows_are_in_the_order_of_ids_and_boxes_in_that_of_the_file(coco, tmp_path):
    entries = (
        one(id=9, bbox=[0.25, 0, 19.75, 10], area=12.5, segmentation=...),
        one(id=4, category_id=18, iscrowd=1, bbox=[1, 2, 3, 4], segmentation=[]),
        one(id=5, image_id=2, bbox=[3, 3, 0, 2]),
    )
    data = open_coco(coco(content(*entries)))
    assert data.image_id == ["2", "7"]
    assert (data.class_id, data.class_name) == (["3", "18"], ["cat", "dog"])
    assert data.root == tmp_path / "val2017"
    assert data.box_extras == {"box_crowd", "box_area", "box_rle"}
    first, second = data.read(0), data.read(1)
    assert (second.image_path, second.size_wh) == ("b.png", (20, 10))
    assert second.num_bytes == (tmp_path / "val2017/b.png").stat().st_size
    assert second.box_xyxy_B4.tolist() == [[0.25, 0, 20, 10], [1, 2, 4, 6]]
    assert second.box_class_B.tolist() == [0, 1]
    assert second.box_crowd_B.tolist() == second.box_difficult_B.tolist() == [0, 1]
    assert second.box_area_B.tolist() == [12.5, 30.5]
    assert second.box_rle == ("", "")
    assert (second.present, second.undecided) == data.labels(1) == ((0,), (1,))
    assert first.box_xyxy_B4.tolist() == [[3, 3, 3, 5]]  # real ones have no width either
    assert (first.present, first.undecided) == ((0,), ())


def test_an_image_without_annotations(coco):
    record = open_coco(coco(content(one()))).read(0)
    assert record.box_xyxy_B4.shape == (0, 4)
    assert (record.present, record.undecided) == ((), ())


def test_a_class_with_one_instance_beside_its_crowd_is_present(coco):
    data = open_coco(coco(content(one(iscrowd=1), one(id=2))), masks=False)
    assert data.labels(1) == ((0,), ())


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_three_forms_of_a_mask_are_pycocotools_own(coco):
    rng = np.random.default_rng(3)
    drawn_HW = np.asfortranarray((rng.random((10, 20)) < 0.4).astype(np.uint8))
    code = coco_mask.encode(drawn_HW)["counts"].decode()
    flat = drawn_HW.ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [2]])))
    runs = np.diff(np.concatenate([[0], edges])).tolist()
    polygons = [[2, 1, 8.5, 1, 8, 6, 2, 6], [12, 2, 25, 2, 15, 20]]
    data = open_coco(
        coco(
            content(
                one(id=1, segmentation=polygons),
                one(id=2, segmentation={"size": [10, 20], "counts": runs}, iscrowd=1),
                one(id=3, segmentation={"size": [10, 20], "counts": code}),
            )
        )
    )
    found = [decode_rle(text, (10, 20)) for text in data.read(1).box_rle]
    merged = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, 10, 20)))
    np.testing.assert_array_equal(found[0], merged)
    np.testing.assert_array_equal(found[1], drawn_HW)
    assert data.read(1).box_rle[2] == code


def test_masks_left_out_need_no_pycocotools(coco, monkeypatch):
    path = coco(content(one()))
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("pycocotools"):
            raise ImportError(name)
        return real(name, *rest, **more)

    for name in [name for name in sys.modules if name.startswith("pycocotools")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(builtins, "__import__", without)
    assert "box_rle" not in open_coco(path, masks=False).box_extras
    with pytest.raises(
        ExtraMissingError,
        match=r"^the segmentations of COCO need pycocotools, which is not installed\. "
        r"pip install 'wsltool\[coco\]', or pass --no-masks to leave them out\.$",
    ):
        open_coco(path)


def test_without_segmentations_and_areas(coco):
    data = open_coco(coco(content(one(segmentation=[], area=..., iscrowd=...))))
    assert data.box_extras == {"box_crowd"}
    assert data.read(1).box_crowd_B.tolist() == [0]


def test_without_pictures_the_told_size_counts(coco, tmp_path):
    path = coco(content(one()))
    for picture in (tmp_path / "val2017").iterdir():
        picture.unlink()
    data = open_coco(path, pictures=False)
    record = data.read(1)
    assert (record.size_wh, record.num_bytes, data.has_pictures) == ((20, 10), 0, False)
    with pytest.raises(
        DatasetError,
        match=r'instances_val2017\.json: its pictures \("a\.png", …\) are not in .*val2017 or '
        r"beside it\. Say where with --images, or pass --no-images\.$",
    ):
        open_coco(path)


@pytest.mark.parametrize(
    "place", ["val2017", "annotations/val2017", "images/val2017", "images", "annotations"]
)
def test_where_pictures_are_found(tmp_path, place):
    (tmp_path / "annotations").mkdir()
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "b.jpg").touch()
    path = tmp_path / "annotations/instances_val2017.json"
    assert find_pictures(path, ["a.jpg", "b.jpg"]).resolve() == tmp_path / place


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (one(category_id=4), "category_id 4 is none of the 2 categories."),
        (one(category_id="3"), "category_id '3' is none of the 2 categories."),
        (one(category_id=[]), "category_id an empty list is none of the 2 categories."),
        (one(category_id=...), "category_id missing is none of the 2 categories."),
        (one(iscrowd=2), "iscrowd is 2, expected 0 or 1."),
        (one(iscrowd=True), "iscrowd is True, expected 0 or 1."),
        (one(bbox=[1, 2, 3]), "bbox is list, expected four numbers x y w h."),
        (one(bbox=...), "bbox is missing, expected four numbers x y w h."),
        (one(bbox=[1, 2, "3", 4]), "bbox is list, expected four numbers x y w h."),
        (one(bbox=[1, 2, -3, 4]), "bbox 1 2 -3 4 has a negative size."),
        (one(bbox=[1, float("nan"), 3, 4]), "bbox 1 nan 3 4 is not finite."),
        (one(bbox=[1, 2, 10**400, 4]), "bbox 1 2 inf 4 is not finite."),
        (one(bbox=[1, 2, 20.5, 4]), "bbox 1 2 20.5 4 lies outside the 20x10 picture."),
        (one(bbox=[-1.5, 2, 3, 4]), "bbox -1.5 2 3 4 lies outside the 20x10 picture."),
        (one(area=-1), "area is -1, expected a number of at least 0."),
        (one(area=float("nan")), "area is nan, expected a number of at least 0."),
        (one(area="30"), "area is '30', expected a number of at least 0."),
        (one(segmentation="x"), "segmentation is 'x', expected polygons or run lengths."),
        (one(segmentation=[1, 2, 3, 4, 5, 6]), "polygon 1: is no list of numbers x y x y …."),
        (one(segmentation=[[1, 2, 3, 4]]), "polygon 1: has 4 numbers; expected pairs, at least"),
        (one(segmentation=[*SQUARE, [1] * 7]), "polygon 2: has 7 numbers; expected pairs, at"),
        (
            one(segmentation=[[1, 2, 3, 4, 5, 1e9]]),
            "polygon 1: corner 1000000000.0 is far from the 20x10 picture.",
        ),
        (
            one(segmentation=[[1, 2, float("nan"), 4, 5, 6]]),
            "polygon 1: corner nan is far from the 20x10 picture.",
        ),
        (
            one(segmentation={"size": [20, 10], "counts": [200]}),
            "run lengths for the size [20, 10], but the picture has height and width [10, 20].",
        ),
        (
            one(segmentation={"size": [10, 20], "counts": [199]}),
            "run lengths tell 199 pixels; expected 20x10.",
        ),
        (
            one(segmentation={"size": [10, 20], "counts": [1.5]}),
            "counts are no run lengths, expected whole numbers.",
        ),
        (
            one(segmentation={"size": [10, 20], "counts": "01"}),
            "counts '01' are no compressed run lengths of a 20x10 picture.",
        ),
        (
            one(segmentation={"size": [10, 20], "counts": "\ud800"}),
            "counts '\\ud800' are no compressed run lengths of a 20x10 picture.",
        ),
    ],
)
def test_a_bad_annotation_costs_its_image_only(coco, entry, message):
    entry["id"] = 55
    data = open_coco(coco(content(one(id=1, image_id=2), entry)))
    place = "instances_val2017.json annotation 55"
    with pytest.raises(BadImageError, match=f"^{place}:? {re.escape(message)}"):
        data.read(1)
    assert data.read(0).box_class_B.tolist() == [0]


def test_a_box_may_overhang_by_a_pixel_and_is_kept_as_written(coco):
    record = open_coco(coco(content(one(bbox=[-0.75, 2, 21.5, 8.25])))).read(1)
    assert record.box_xyxy_B4.tolist() == [[-0.75, 2, 20.75, 10.25]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 21}, "image 7: made for 21x10 pixels, but the picture has 20x10."),
        ({"width": "20"}, "image 7: size '20' x 10; expected two positive whole numbers."),
        ({"height": 0}, "image 7: size 20 x 0; expected two positive whole numbers."),
        ({"height": None}, "image 7: size 20 x missing; expected two positive whole numbers."),
    ],
)
def test_a_bad_size_costs_its_image_only(coco, changes, message):
    data = content(one())
    data["images"][0] |= changes
    with pytest.raises(BadImageError, match=f"^{re.escape('instances_val2017.json ' + message)}$"):
        open_coco(coco(data)).read(1)


def test_a_size_beyond_all_pictures_is_refused_without_pictures(coco):
    data = content(one())
    data["images"][0] |= {"width": 10**9}
    with pytest.raises(BadImageError, match=r"image 7: size 1000000000x10; expected at least 1x1"):
        open_coco(coco(data), pictures=False).read(1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", ".json: no valid JSON, Expecting value: line 1 column 1 (char 0)."),
        ("[" * 100_000, ".json: no valid JSON, nested too deep."),
        ("[1]", ".json: the JSON is a list; expected an object with images, annotations and"),
        ('{"images": ' + "1" * 5000 + "}", ".json: no valid JSON, Exceeds the limit"),
        (content(images=...), 'no sound "images"'),
        (content(categories=[]), '.json: "categories" is empty; expected at least one.'),
        (content(images=[]), '.json: "images" is empty; expected at least one.'),
        (content(annotations=3), '.json: "annotations" is 3; expected the list of an instances'),
        (content(4), '.json: "annotations" entry 1 is 4, expected an object.'),
        (content(one(id="1")), ".json: \"annotations\" entry 1 has the id '1', expected a whole"),
        (content(one(), one()), '.json: "annotations" entry 2 has the id 1 of an entry before it.'),
        (
            content(one(image_id=8)),
            ".json annotation 1: image_id 8 is none of the 2 images.",
        ),
        (
            content(images=[{"id": 1, "file_name": "../a", **SIZE}]),
            'instances_val2017.json image 1: "../a" leaves the data set.',
        ),
        (
            content(images=[{"id": 1, **SIZE}]),
            "instances_val2017.json image 1: file_name is missing, expected a text.",
        ),
        (
            content(images=[{"id": 1, "file_name": "a\nb", **SIZE}]),
            "instances_val2017.json image 1: file_name 'a\\nb' cannot be stored as text.",
        ),
        (
            content(categories=[{"id": 3, "name": "\ud800"}]),
            "instances_val2017.json category 3: name '\\ud800' cannot be stored as text.",
        ),
    ],
)
def test_a_broken_file(coco, data, message):
    if isinstance(data, dict) and ... in data.values():
        data = {key: value for key, value in data.items() if value is not ...}
        message = '"images" is missing; expected the list of an instances JSON.'
    with pytest.raises(DatasetError, match=re.escape(message)) as caught:
        open_coco(coco(data))
    assert "\n" not in str(caught.value)


def test_a_broken_annotation_leaves_the_labels_unknown(coco):
    data = open_coco(coco(content(one(category_id=99))))
    assert data.labels(1) is None
    assert open_coco(coco(content(one(bbox=[])))).labels(1) == ((0,), ())
