from __future__ import annotations

import os
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsltool.datasets.classes import ClassList
from wsltool.datasets.folder import open_folder
from wsltool.datasets.tables import LabelTable, image_names, read_boxes, read_labels
from wsltool.errors import BadImageError, DatasetError


@pytest.fixture
def pets(tmp_path, put_picture):
    """Two classes, four pictures of 20x10 pixels, and things that are no pictures."""
    root = tmp_path / "pets"
    for name in ("dog/b.jpg", "dog/a.PNG", "cat/deep/er/z.jpeg", "cat/a.jpg"):
        put_picture(root / name)
    for name in ("dog/readme.txt", "dog/.DS_Store", "dog/._a.jpg", ".hidden/a.jpg", "notes/a.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("no picture")
    (root / "labels.txt").write_text("no picture")
    return root


@pytest.fixture
def write(tmp_path):
    def put(text, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return put


def labels_of(data):
    return [
        (record.present, record.undecided) for record in map(data.read, range(len(data.image_id)))
    ]


def test_a_folder_a_class(pets):
    data = open_folder(pets)
    assert data.class_name == data.class_id == ["cat", "dog"]
    assert data.image_id == ["cat/a.jpg", "cat/deep/er/z.jpeg", "dog/a.PNG", "dog/b.jpg"]
    assert labels_of(data) == [((0,), ()), ((0,), ()), ((1,), ()), ((1,), ())]
    assert (data.has_boxes, data.has_masks) == (False, False)
    assert data.sources == {}
    record = data.read(1)
    assert record.image_path == data.path(1) == "cat/deep/er/z.jpeg"
    assert record.size_wh == (20, 10)
    assert record.num_bytes == (pets / "cat/deep/er/z.jpeg").stat().st_size
    assert record.box_xyxy_B4.shape == (0, 4)


def test_class_list_gives_order_ids_and_absent_classes(pets, write):
    classes = write("0 n02084071 dog\n1 n00000001 fish\n2 n02121808 cat\n")
    data = open_folder(pets, classes=classes)
    assert data.class_name == ["dog", "fish", "cat"]
    assert data.class_id == ["n02084071", "n00000001", "n02121808"]
    assert data.image_id[:2] == ["dog/a.PNG", "dog/b.jpg"]
    assert labels_of(data)[-1] == ((2,), ())
    assert data.sources == {"classes": classes}
    (pets / "dog").rename(pets / "n02084071")
    assert open_folder(pets, classes=classes).image_id[0] == "n02084071/a.PNG"


def test_unknown_and_ambiguous_class_folders(pets, write):
    with pytest.raises(
        DatasetError,
        match=r'pets/dog: class "dog" is none of the 2 classes of table\.csv \(cat, cow\)\.$',
    ):
        open_folder(pets, classes=write("cat\ncow\n"))
    with pytest.raises(DatasetError, match=r'class "dog" is the name of several classes'):
        open_folder(pets, classes=write("0 n00000000 dog\n1 n00000001 dog\n2 n00000002 cat\n"))


def test_links_are_followed_and_loops_end(pets, tmp_path, put_picture):
    put_picture(tmp_path / "elsewhere/x.jpg")
    (pets / "dog/link").symlink_to(tmp_path / "elsewhere")
    (pets / "dog/loop").symlink_to(pets / "dog")
    (pets / "cat/up").symlink_to(pets)
    (pets / "bird").symlink_to(tmp_path / "elsewhere")
    (pets / "dog/gone.jpg").symlink_to(tmp_path / "gone.jpg")
    data = open_folder(pets)
    assert "dog/link/x.jpg" in data.image_id
    assert "bird/x.jpg" in data.image_id
    assert not any("loop" in name or "up" in name for name in data.image_id)
    with pytest.raises(
        BadImageError, match=r"^gone\.jpg: cannot be opened, No such file or directory\.$"
    ):
        data.read(data.image_id.index("dog/gone.jpg"))


def test_bad_folders(pets, tmp_path, put_picture):
    (tmp_path / "empty/a").mkdir(parents=True)
    with pytest.raises(
        DatasetError, match=r"empty: no pictures in it; expected a folder a class\.$"
    ):
        open_folder(tmp_path / "empty")
    with pytest.raises(DatasetError, match=r"none: does not exist; expected a folder\.$"):
        open_folder(tmp_path / "none")
    put_picture(pets / "stray.jpg")
    with pytest.raises(
        DatasetError, match=r'picture "stray\.jpg" lies in no class folder\. Move it'
    ):
        open_folder(pets)


def test_file_name_that_is_not_utf8(pets):
    try:
        (pets / os.fsdecode(b"dog/\xff.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(DatasetError, match=r"file name b'dog/\\xff\.jpg' is not UTF-8\.$"):
        open_folder(pets)


def test_a_broken_picture_fails_at_its_row(pets):
    (pets / "dog/b.jpg").write_bytes(b"")
    data = open_folder(pets)
    assert data.read(2).size_wh == (20, 10)
    with pytest.raises(BadImageError, match=r"^b\.jpg: the file is empty \(0 bytes\)\.$"):
        data.read(3)


def test_long_labels(pets, write):
    text = (
        '\ufeffimage,label\r\ndog/b.jpg,dog\r\n\r\n"cat/a.jpg","cat, big"\r\n'
        "pets/dog/b.jpg,animal\r\ndog/b.jpg,dog\r\n"
    )
    data = open_folder(pets, labels=write(text))
    assert data.class_name == ["animal", "cat, big", "dog"]
    assert data.image_id == ["dog/b.jpg", "cat/a.jpg"]
    assert labels_of(data) == [((0, 2), ()), ((1,), ())]


def test_long_labels_with_values(pets, write):
    text = (
        "image,label,value\ndog/b.jpg,dog,1\ndog/b.jpg,cat,255\n"
        "cat/a.jpg,dog,0\ncat/a.jpg,cat,1.0\n"
    )
    data = open_folder(pets, labels=write(text))
    assert labels_of(data) == [((1,), (0,)), ((0,), ())]
    no_class = open_folder(pets, labels=write("image,label,value\ncat/a.jpg,dog,0\n"))
    assert labels_of(no_class) == [((), ())]


def test_wide_labels(pets, write):
    table = write("image,dog,cat\npets/cat/a.jpg,0,1\ndog/b.jpg,1,255\ndog/a.PNG,0.0,0\n")
    data = open_folder(pets, labels=table)
    assert data.class_name == ["dog", "cat"]
    assert labels_of(data) == [((1,), ()), ((0,), (1,)), ((), ())]
    ordered = open_folder(pets, labels=table, classes=write("cat\nfish\ndog\n", "c.txt"))
    assert ordered.class_name == ["cat", "fish", "dog"]
    assert labels_of(ordered) == [((0,), ()), ((2,), (0,)), ((), ())]


def test_a_labelled_picture_that_is_missing_fails_at_its_row(pets, write):
    data = open_folder(pets, labels=write("image,label\ngone.jpg,dog\ncat/a.jpg,cat\n"))
    with pytest.raises(
        BadImageError, match=r"^gone\.jpg: cannot be opened, No such file or directory\.$"
    ):
        data.read(0)
    assert data.read(1).present == (0,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'line 1: header is ""; expected image,label or image,label,value or'),
        ("test/a.jpg,0\n", 'line 1: header is "test/a.jpg,0"; expected image,label'),
        ("image\na.jpg\n", 'line 1: header is "image"; expected'),
        ("image,dog,dog\n", 'line 1: header is "image,dog,dog"; expected'),
        ("image,label\n", "table.csv: no image in it."),
        ("image,label\na.jpg\n", "line 2: 1 fields, expected 2."),
        ("image,label\na.jpg,dog,1\n", "line 2: 3 fields, expected 2."),
        ("image,label\na.jpg,\n", "line 2: the label is empty."),
        ("image,label\n/a.jpg,dog\n", 'line 2: image "/a.jpg" is not inside the folder.'),
        (
            "image,label\n\na/../../b.jpg,dog\n",
            'line 3: image "a/../../b.jpg" is not inside the folder.',
        ),
        ("image,label\n,dog\n", 'line 2: image "" is not inside the folder.'),
        (
            "image,label,value\na.jpg,dog,0.5\n",
            'line 2: value "0.5"; expected 1 (present), 0 (absent) or 255 (undecided).',
        ),
        ("image,dog,cat\na.jpg,1,-1\n", 'line 2: value "-1"; expected'),
        ("image,dog,cat\na.jpg,1,\n", 'line 2: value ""; expected'),
        ("image,dog,cat\na.jpg,1,nan\n", 'line 2: value "nan"; expected'),
        ("image,dog,cat\na.jpg,1\n", "line 2: 2 fields, expected 3."),
        (
            "image,dog,cat\na.jpg,1,0\npets/a.jpg,1,0\n",
            'line 3: image "pets/a.jpg" again. Give it one line.',
        ),
        (
            "image,label,value\na.jpg,dog,1\nb.jpg,dog,1\na.jpg,dog,0\n",
            "line 4: value 0, but line 2 gives the same image and label the value 1.",
        ),
        ('image,label\n"a.jpg,dog\n', "line 2: no valid CSV, unexpected end of data."),
    ],
)
def test_bad_labels(pets, write, text, message):
    with pytest.raises(DatasetError, match=re.escape(message)):
        open_folder(pets, labels=write(text))


def test_label_that_is_no_class(pets, write):
    classes = write("cat\n", "c.txt")
    with pytest.raises(
        DatasetError,
        match=r'table\.csv line 3: label "dog" is none of the 1 classes of c\.txt \(cat\)\.$',
    ):
        open_folder(pets, labels=write("image,label\na.jpg,cat\nb.jpg,dog\n"), classes=classes)
    with pytest.raises(
        DatasetError, match=r'table\.csv line 1: label "dog" is none of the 1 classes'
    ):
        open_folder(pets, labels=write("image,cat,dog\na.jpg,1,0\n"), classes=classes)


def test_boxes_with_a_header(pets, write):
    table = write(
        "\ufefflabel,x0,y0,x1,y1,image,difficult,truncated\r\n"
        'dog,0,0,20,10,dog/b.jpg,0,1\r\n"dog",1.5,2,3,4,pets/dog/b.jpg,1,0\r\ncat,0,0,1,1,cat/a.jpg,0,0\r\n'
    )
    data = open_folder(pets, boxes=table)
    assert data.has_boxes
    assert data.sources == {"boxes": table}
    record = data.read(3)
    np.testing.assert_array_equal(record.box_xyxy_B4, [[0, 0, 20, 10], [1.5, 2, 3, 4]])
    assert record.box_class_B.tolist() == [1, 1]
    assert record.box_difficult_B.tolist() == [0, 1]
    assert record.box_truncated_B.tolist() == [1, 0]
    assert (record.box_class_B.dtype, record.box_difficult_B.dtype) == (np.int32, np.uint8)
    assert data.read(0).box_class_B.tolist() == [0]
    assert data.read(1).box_xyxy_B4.shape == (0, 4)


def test_boxes_without_a_header_take_the_only_class(pets, write):
    data = open_folder(
        pets, boxes=write("cat/a.jpg,1,2,3,4\ndog/b.jpg,5,6,7,8\ncat/a.jpg,0,0,9,9.5\n")
    )
    record = data.read(0)
    np.testing.assert_array_equal(record.box_xyxy_B4, [[1, 2, 3, 4], [0, 0, 9, 9.5]])
    assert record.box_class_B.tolist() == [0, 0]
    assert data.read(3).box_class_B.tolist() == [1]


def test_a_difficult_box_may_be_of_an_undecided_class(pets, write):
    labels = write("image,label,value\ndog/b.jpg,dog,255\n", "labels.csv")
    boxes = write("image,x0,y0,x1,y1,label,difficult\ndog/b.jpg,1,1,2,2,dog,1\n")
    record = open_folder(pets, labels=labels, boxes=boxes).read(0)
    assert (record.present, record.undecided, record.box_class_B.tolist()) == ((), (0,), [0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            'line 1: header is ""; expected image,x0,y0,x1,y1 and, if wanted, label,difficult,'
            "truncated.",
        ),
        ("image,x0,y0,x1\n", 'line 1: header is "image,x0,y0,x1"; expected'),
        (
            "image,x0,y0,x1,y1,dificult\n",
            'line 1: header is "image,x0,y0,x1,y1,dificult"; expected',
        ),
        ("image,x0,y0,x1,y1,x0\n", "line 1: header is"),
        ("dog/b.jpg,1,2,3\n", 'line 1: header is "dog/b.jpg,1,2,3"; expected'),
        ("dog/b.jpg,1,2,3,4\ndog/b.jpg,1,2,3\n", "line 2: 4 fields, expected 5."),
        ("dog/b.jpg,1,2,3,4\ndog/b.jpg,1,2,3,4x\n", 'line 2: y1 is "4x", expected a number.'),
        ("image,x0,y0,x1,y1\ndog/b.jpg,nan,2,3,4\n", 'line 2: x0 is "nan", expected a number.'),
        ("image,x0,y0,x1,y1\ndog/b.jpg,1,2,inf,4\n", 'line 2: x1 is "inf", expected a number.'),
        ("dog/gone.jpg,1,2,3,4\n", 'line 1: image "dog/gone.jpg" is not in the data set.'),
        ("../dog/b.jpg,1,2,3,4\n", 'line 1: image "../dog/b.jpg" is not inside the folder.'),
        (
            "image,x0,y0,x1,y1,label\ndog/b.jpg,1,2,3,4,zebra\n",
            'line 2: label "zebra" is none of the 2 classes of pets (cat, dog).',
        ),
        (
            "image,x0,y0,x1,y1,label\ndog/b.jpg,1,2,3,4,cat\n",
            'line 2: a box of "cat", but image "dog/b.jpg" is not labelled with it.',
        ),
        (
            "image,x0,y0,x1,y1,difficult\ndog/b.jpg,1,2,3,4,2\n",
            'line 2: difficult is "2", expected 0 or 1.',
        ),
    ],
)
def test_bad_boxes(pets, write, text, message):
    with pytest.raises(DatasetError, match=r"table\.csv " + re.escape(message)):
        open_folder(pets, boxes=write(text))


def test_a_box_without_a_label_needs_one_class(pets, write):
    labels = write("image,label\ndog/b.jpg,dog\ndog/b.jpg,animal\n", "labels.csv")
    message = (
        'table.csv line 1: the box has no label and image "dog/b.jpg" has 2 classes '
        "(animal, dog). Add a column label."
    )
    with pytest.raises(DatasetError, match=re.escape(message)):
        open_folder(pets, labels=labels, boxes=write("dog/b.jpg,1,2,3,4\n"))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("1,2,20.5,4", r"box 1 2 20\.5 4 lies outside the 20x10 picture\.$"),
        ("-1,2,3,4", r"box -1 2 3 4 lies outside the 20x10 picture\.$"),
        ("3,2,3,4", r"box 3 2 3 4 is empty; expected x0 < x1 and y0 < y1\.$"),
        ("3,5,4,4", r"box 3 5 4 4 is empty"),
    ],
)
def test_bad_box_fails_at_its_row(pets, write, box, message):
    data = open_folder(pets, boxes=write(f"cat/a.jpg,0,0,20,10\ndog/b.jpg,{box}\n"))
    assert len(data.read(0).box_xyxy_B4) == 1
    with pytest.raises(BadImageError, match=r"^table\.csv line 2: " + message):
        data.read(3)


def test_names_keep_the_folders_own_name_where_it_exists_inside(tmp_path):
    outer = tmp_path / "test"
    outer.mkdir()
    assert image_names(outer)("test/a.jpg") == "a.jpg"
    assert image_names(outer)("./b//a.jpg") == "b/a.jpg"
    inner = outer / "inner"
    inner.mkdir()
    assert image_names(inner / "..")("test/a.jpg") == "a.jpg"
    (outer / "test").mkdir()
    assert image_names(outer)("test/a.jpg") == "test/a.jpg"


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 3), st.sampled_from([0, 1, 255])), min_size=1
    )
)
def test_labels_equal_a_dictionary(tmp_path_factory, triples):
    unique = {(image, label): value for image, label, value in triples}
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    rows = [f"{image}.jpg,{label},{value}" for (image, label), value in unique.items()]
    path.write_text("\n".join(["image,label,value", *rows]))
    images, classes, table = read_labels(path, image_names(path.parent), None)
    assert images == list(dict.fromkeys(f"{image}.jpg" for image, _ in unique))
    for row, image in enumerate(images):
        for value in (1, 255):
            expected = {
                str(label) for (i, label), v in unique.items() if f"{i}.jpg" == image and v == value
            }
            assert {classes.class_name[index] for index in table.of(row, value)} == expected
        assert list(table.of(row, 1)) == sorted(table.of(row, 1))


def test_memory_for_a_box_is_a_few_numbers(tmp_path):
    path = tmp_path / "boxes.csv"
    num_boxes = 2_000
    path.write_text("".join(f"{n % 100}.jpg,1,2,3,4\n" for n in range(num_boxes)))
    row_of = {f"{n}.jpg": n for n in range(100)}
    labels = LabelTable.one_class(np.zeros(100, np.int32))
    table = read_boxes(path, image_names(tmp_path), row_of, ClassList(["a"], origin="x"), labels)
    assert table.start_N1.tolist() == list(range(0, num_boxes + 1, num_boxes // 100))
    per_box = [array.nbytes for name, array in vars(table).items() if name != "start_N1"]
    assert sum(per_box) == 46 * num_boxes  # four corners, class, two flags, line


@pytest.mark.real
def test_real_imagenette(data_dir):
    boxes = data_dir / "imagenette/metadata/test/localization.txt"
    data = open_folder(
        data_dir / "imagenette/test", boxes=boxes, classes=data_dir / "weights/imagenet_classes.txt"
    )
    records = [data.read(row) for row in range(len(data.image_id))]
    assert len(records) == 300
    assert len(data.class_name) == 1000
    assert (
        sum(len(record.box_class_B) for record in records) == 477 == boxes.read_bytes().count(b"\n")
    )
    assert all(record.size_wh == (224, 224) for record in records)
    for record in records:
        wnid = record.image_id.split("/")[0]
        assert [data.class_id[index] for index in record.present] == [wnid]
        assert set(record.box_class_B.tolist()) == set(record.present)
    first = data.read(data.image_id.index("n01440764/ILSVRC2012_val_00000293.JPEG"))
    np.testing.assert_array_equal(
        first.box_xyxy_B4, [[78.4, 109.9, 223.6, 203.7], [105.7, 77.1, 223.1, 167.3]]
    )


@pytest.mark.real
def test_real_ten_classes_without_boxes(data_dir):
    data = open_folder(data_dir / "imagenette/train", classes=data_dir / "imagenette/classes.txt")
    assert len(data.image_id) == 1500
    assert data.class_name[5] == "French horn"
    assert data.read(0).present == (0,)


def test_labels_without_pictures(pets, write):
    """A broken picture does not take its labels with it."""
    (pets / "cat/a.jpg").write_bytes(b"")
    data = open_folder(pets)
    with pytest.raises(BadImageError, match=r"^a\.jpg: the file is empty \(0 bytes\)\.$"):
        data.read(0)
    assert data.labels(0) == ((0,), ())
    assert data.annotation(0) is None
    labels = write("image,cat,dog,cow\ncat/a.jpg,255,1,1\ngone.jpg,0,0,0\n")
    data = open_folder(pets, labels=labels)
    assert data.labels(0) == ((1, 2), (0,))
    assert data.labels(1) == ((), ())
