from __future__ import annotations

import re

import numpy as np
import pytest

from wsltool.datasets.voc import VOC_CLASSES, open_voc
from wsltool.errors import BadImageError, DatasetError


def obj(name="car", box=(2, 3, 10, 8), difficult=None, extra=""):
    corners = "".join(
        f"<{tag}>{value}</{tag}>"
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    return f"<object><name>{name}</name>{flag}{extra}<bndbox>{corners}</bndbox></object>"


@pytest.fixture
def voc(tmp_path, put_picture):
    """A data set of one image, 20 wide and 10 high; call to set its objects."""
    root = tmp_path / "VOC"
    for folder in ("Annotations", "ImageSets/Main", "ImageSets/Segmentation", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    put_picture(root / "JPEGImages/a.jpg")
    (root / "ImageSets/Main/train.txt").write_text("a\n")

    def build(*objects, head="<size><width>20</width><height>10</height></size>"):
        (root / "Annotations/a.xml").write_text(
            f"<annotation>{head}{''.join(objects)}</annotation>"
        )
        return root

    return build


def test_record(voc):
    root = voc(
        obj("person", (1, 1, 20, 10)),
        obj("car", (3, 4, 3, 4), difficult=1, extra="<truncated>1</truncated>"),
        obj("dog", (" 1.5", 2, 2.25, 9), difficult=1),
        obj("dog", (1, 1, 2, 2), difficult=0),
    )
    record = open_voc(root, "train").read(0)
    assert (record.image_id, record.image_path) == ("a", "JPEGImages/a.jpg")
    assert record.size_wh == (20, 10)
    assert record.num_bytes == (root / "JPEGImages/a.jpg").stat().st_size
    dog, car, person = (VOC_CLASSES.index(name) for name in ("dog", "car", "person"))
    assert record.present == (dog, person)
    assert record.undecided == (car,)
    np.testing.assert_array_equal(
        record.box_xyxy_B4, [[0, 0, 20, 10], [2, 3, 3, 4], [0.5, 1, 2.25, 9], [0, 0, 2, 2]]
    )
    assert record.box_class_B.tolist() == [person, car, dog, dog]
    assert record.box_difficult_B.tolist() == [0, 1, 1, 0]
    assert record.box_truncated_B.tolist() == [0, 1, 0, 0]
    assert (record.box_xyxy_B4.dtype, record.box_class_B.dtype) == (np.float64, np.int32)
    assert (record.box_difficult_B.dtype, record.box_truncated_B.dtype) == (np.uint8, np.uint8)
    assert record.masks == ()


def test_no_objects(voc):
    record = open_voc(voc(), "train").read(0)
    assert record.box_xyxy_B4.shape == (0, 4)
    assert record.present == record.undecided == ()


def test_parts_are_left_out(voc):
    part = obj("head", (1, 1, 99, 99)).replace("object>", "part>")
    record = open_voc(voc(obj("person", extra=part)), "train").read(0)
    np.testing.assert_array_equal(record.box_xyxy_B4, [[1, 2, 10, 8]])


def test_masks_only_where_they_exist(voc, put_picture):
    root = voc()
    put_picture(root / "JPEGImages/b.jpg")
    (root / "Annotations/b.xml").write_text("<annotation/>")
    (root / "ImageSets/Main/train.txt").write_text("a\nb\n")
    assert not open_voc(root, "train").has_masks
    put_picture(root / "SegmentationClass/b.png")
    data = open_voc(root, "train")
    assert data.has_masks
    assert data.read(0).masks == ()
    assert data.read(1).masks == (("SegmentationClass/b.png", -1),)


@pytest.mark.parametrize("ending", [".jpeg", ".JPEG", ".JPG", ".png", ".PNG"])
def test_other_endings(voc, put_picture, ending):
    root = voc()
    (root / "JPEGImages/a.jpg").unlink()
    put_picture(root / f"JPEGImages/a{ending}")
    data = open_voc(root, "train")
    assert data.path(0) == data.read(0).image_path == f"JPEGImages/a{ending}"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (obj(box=(13, 3, 21, 8)), "object 1: box 13 3 21 8 lies outside the 20x10 picture."),
        (obj(box=(0, 3, 5, 8)), "object 1: box 0 3 5 8 lies outside the 20x10 picture."),
        (
            obj() + obj(box=(1, 1, 5, 10.5)),
            "object 2: box 1 1 5 10.5 lies outside the 20x10 picture.",
        ),
        (obj(box=(5, 3, 4, 8)), "object 1: box 5 3 4 8 ends before it begins."),
        (obj(box=(5, "nan", 9, 8)), "object 1: box 5 nan 9 8 is not finite."),
        (obj(box=(5, 3, "inf", 8)), "object 1: box 5 3 inf 8 is not finite."),
        (obj(box=(5, 3, "ten", 8)), "object 1: box 5 3 ten 8 is not four numbers."),
        (obj(box=(5, 3, "", 8)), "object 1: no <xmax>."),
        (obj(name=""), "object 1: no <name>."),
        ("<object><name>car</name></object>", "object 1: no <bndbox>."),
        (
            obj("zebra"),
            'object 1: class "zebra" is none of the 20 classes of PASCAL VOC '
            "(aeroplane, bicycle, bird, boat, bottle, …).",
        ),
        (obj(difficult="maybe"), 'object 1: <difficult> is "maybe", expected 0 or 1.'),
        (obj(extra="<truncated>2</truncated>"), 'object 1: <truncated> is "2", expected 0 or 1.'),
    ],
)
def test_bad_objects(voc, entry, message):
    data = open_voc(voc(entry), "train")
    message = message if message.startswith("annotation") else f"annotation a.xml {message}"
    with pytest.raises(BadImageError, match=f"^{re.escape(message)}$"):
        data.read(0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot be read, No such file or directory\.$"),
        ("", r"no safe XML, no element found"),
        ("<annotation><object>", r"no safe XML, no element found"),
        ("not xml", r"no safe XML, syntax error"),
        ("<html/>", r"root is <html>, expected <annotation>\.$"),
        (
            '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><annotation>&y;</annotation>',
            r"no safe XML, EntitiesForbidden",
        ),
        (
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation>&x;</annotation>',
            r"no safe XML, EntitiesForbidden",
        ),
        (
            '<?xml version="1.0" encoding="nonsense"?><annotation/>',
            r"no safe XML, unknown encoding",
        ),
        (
            "<annotation><size><width>10</width><height>20</height></size></annotation>",
            r"made for 10x20 pixels, but the picture has 20x10\.$",
        ),
        (
            "<annotation><size><width>wide</width></size></annotation>",
            r"made for widex0 pixels, but the picture",
        ),
    ],
)
def test_bad_annotations(voc, content, message):
    root = voc()
    path = root / "Annotations/a.xml"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(BadImageError, match=f"^annotation a.xml: {message}"):
        open_voc(root, "train").read(0)


def test_a_size_of_zero_says_nothing(voc):
    root = voc(obj(), head="<size><width>0</width><height>0</height></size>")
    assert open_voc(root, "train").read(0).size_wh == (20, 10)


def test_only_the_bad_row_fails(voc, put_picture):
    root = voc(obj())
    (root / "ImageSets/Main/train.txt").write_text("gone\na\ntext\n")
    (root / "JPEGImages/text.jpg").write_text("no picture")
    data = open_voc(root, "train")
    with pytest.raises(
        BadImageError, match=r"^gone\.jpg: cannot be opened, No such file or directory\.$"
    ):
        data.read(0)
    assert data.path(0) == "JPEGImages/gone.jpg"
    assert data.read(1).image_id == "a"
    with pytest.raises(
        BadImageError, match=r"^text\.jpg: no picture, it starts with b'no picture'; expected JPEG"
    ):
        data.read(2)


def test_splits_are_found_in_order(voc):
    root = voc()
    (root / "ImageSets/Segmentation/train.txt").write_text("b\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("c\n")
    (root / "ImageSets/mine.txt").write_text("d\n")
    (root / "ImageSets/Main/car_train.txt").write_text("\ufeffe -1\r\n\r\nf  1\r\n")
    ids = {
        split: open_voc(root, split).image_id
        for split in ("train", "Segmentation/train", "val", "mine", "car_train")
    }
    assert ids == {
        "train": ["a"],
        "Segmentation/train": ["b"],
        "val": ["c"],
        "mine": ["d"],
        "car_train": ["e", "f"],
    }
    assert open_voc(root, "val").sources == {"split": root / "ImageSets/Segmentation/val.txt"}
    message = (
        'no image set "nosuch"; there are Main/train, Segmentation/train, Segmentation/val '
        "(and 1 lists of one class each)."
    )
    with pytest.raises(DatasetError, match=re.escape(message)):
        open_voc(root, "nosuch")


def test_lists_of_objects_name_an_image_more_than_once(voc):
    root = voc()
    (root / "ImageSets/Layout").mkdir()
    (root / "ImageSets/Layout/objects.txt").write_text("a 1\na 2\nb 1\n")
    assert open_voc(root, "objects").image_id == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"train\.txt: no image id in it\.$"),
        (
            "a\n\nb\na\n",
            r'train\.txt line 4: id "a" again, first on line 1\. Give each image one line\.$',
        ),
        (
            "my picture\n",
            r'train\.txt line 1: "my picture"; expected an image id and at most two whole num',
        ),
        ("../a\n", r'train\.txt line 1: id "\.\./a" leaves the data set\.$'),
        ("/etc/a\n", r'train\.txt line 1: id "/etc/a" leaves the data set\.$'),
    ],
)
def test_bad_lists(voc, text, message):
    root = voc()
    (root / "ImageSets/Main/train.txt").write_text(text)
    with pytest.raises(DatasetError, match=message):
        open_voc(root, "train")


def test_bad_folders(voc, tmp_path):
    root = voc()
    with pytest.raises(DatasetError, match=r"nothing: does not exist; expected a folder\.$"):
        open_voc(tmp_path / "nothing", "train")
    with pytest.raises(DatasetError, match=r"a\.xml: is a file; expected a folder\.$"):
        open_voc(root / "Annotations/a.xml", "train")
    with pytest.raises(
        DatasetError,
        match=rf"no ImageSets in it; expected a folder like VOC2007\. Did you mean {root}\?$",
    ):
        open_voc(tmp_path, "train")


def test_other_classes(voc, tmp_path):
    classes = tmp_path / "classes.txt"
    classes.write_text("zebra\ncar\n")
    data = open_voc(voc(obj("zebra"), obj("car")), "train", classes)
    assert data.class_name == data.class_id == ["zebra", "car"]
    assert data.read(0).box_class_B.tolist() == [0, 1]
    assert data.sources["classes"] == classes
    assert tuple(sorted(VOC_CLASSES)) == VOC_CLASSES
    assert len(VOC_CLASSES) == 20


@pytest.mark.real
@pytest.mark.parametrize(
    ("split", "num_images", "num_masks"),
    [
        ("small_trainval", 267, 68),
        ("small_test", 186, 38),
        ("Segmentation/val", 36, 36),
        ("car_test", 602, 38),
    ],
)
def test_real_image_sets(data_dir, split, num_images, num_masks):
    root = data_dir / "VOCdevkit/VOC2007"
    data = open_voc(root, split)
    records = [data.read(row) for row in range(len(data.image_id))]
    assert len(records) == num_images
    assert sum(len(record.masks) for record in records) == num_masks
    xml = [(root / "Annotations" / f"{image_id}.xml").read_text() for image_id in data.image_id]
    assert sum(len(record.box_class_B) for record in records) == sum(
        text.count("<object>") for text in xml
    )
    assert all((root / record.image_path).is_file() for record in records)


@pytest.mark.real
@pytest.mark.parametrize("split", ["trainval", "test"])
def test_real_labels_are_the_official_ones(data_dir, split):
    root = data_dir / "VOCdevkit/VOC2007"
    data = open_voc(root, split)
    value_of_flag = {"1": 1, "-1": 0, "0": 255}
    records = [data.read(row) for row in range(len(data.image_id))]
    for index, name in enumerate(data.class_name):
        lines = (root / "ImageSets/Main" / f"{name}_{split}.txt").read_text().splitlines()
        flags = dict(line.split() for line in lines)
        for record in records:
            label = 1 if index in record.present else 255 if index in record.undecided else 0
            assert label == value_of_flag[flags[record.image_id]], (name, record.image_id)


def test_labels_without_the_picture(voc):
    """Labels come from the annotation alone; a bad box or size does not matter to them."""
    root = voc(
        obj("dog", (1, 1, 99, 99)),
        obj("car", difficult=1),
        obj("dog", difficult=1),
        head="<size><width>7</width><height>7</height></size>",
    )
    (root / "JPEGImages/a.jpg").write_bytes(b"")
    data = open_voc(root, "train")
    car, dog = (VOC_CLASSES.index(name) for name in ("car", "dog"))
    assert data.labels(0) == ((dog,), (car,))
    assert data.annotation(0) == root / "Annotations/a.xml"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "<annotation>",
        "<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>",
        f"<annotation>{obj('dog')}{obj('zebra')}</annotation>",
        f"<annotation>{obj('dog', difficult='maybe')}</annotation>",
        "<annotation><object/></annotation>",
    ],
)
def test_no_labels_from_an_unusable_annotation(voc, text):
    root = voc()
    annotation = root / "Annotations/a.xml"
    annotation.unlink()
    if text is not None:
        annotation.write_text(text)
    assert open_voc(root, "train").labels(0) is None
