"""wsolevaluation's lists: numbers kept exactly, sizes without pictures, every fault by line."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wsltool.datasets.wsol_metadata import open_wsol
from wsltool.errors import BadImageError, DatasetError

LISTS = {
    "image_ids": "x/a.png\nx/b.png\n",
    "class_labels": "x/a.png,1\nx/b.png,0\n",
    "image_sizes": "x/a.png,20,10\nx/b.png,30,20\n",
    "localization": "x/a.png,0,1,20,9\nx/b.png,3,3,3,3\nx/a.png,1.25,2,3,4\n",
}


@pytest.fixture
def lists(tmp_path):
    """Call with what some lists hold instead; returns their folder."""

    def write(**changes):
        folder = tmp_path / "meta"
        folder.mkdir(exist_ok=True)
        for name, text in (LISTS | changes).items():
            (folder / f"{name}.txt").unlink(missing_ok=True)
            if text is not None:
                (folder / f"{name}.txt").write_text(text)
        return folder

    return write


def test_boxes_stand_as_in_the_file(lists):
    data = open_wsol(lists())
    assert data.image_id == ["x/a.png", "x/b.png"]
    assert data.class_name == data.class_id == ["0", "1"]
    assert (data.has_boxes, data.has_masks, data.has_pictures) == (True, False, False)
    first, second = data.read(0), data.read(1)
    assert first.box_xyxy_B4.tolist() == [[0, 1, 20, 9], [1.25, 2, 3, 4]]
    assert first.box_class_B.tolist() == [1, 1]
    assert first.box_difficult_B.tolist() == [0, 0]
    assert (first.size_wh, first.num_bytes, first.present) == ((20, 10), 0, (1,))
    assert second.box_xyxy_B4.tolist() == [[3, 3, 3, 3]]
    assert data.labels(1) == ((0,), ())


@pytest.mark.parametrize("text", [None, ""])
def test_training_lists_have_no_localization(lists, text):
    data = open_wsol(lists(localization=text))
    assert not data.has_boxes
    assert data.read(0).box_xyxy_B4.shape == (0, 4)


def test_pictures_are_compared_with_the_told_size(lists, tmp_path, put_picture):
    put_picture(tmp_path / "pics/x/a.png")
    put_picture(tmp_path / "pics/x/b.png")
    data = open_wsol(lists(), images=tmp_path / "pics")
    record = data.read(0)
    assert (record.size_wh, data.root) == ((20, 10), tmp_path / "pics")
    assert record.num_bytes == (tmp_path / "pics/x/a.png").stat().st_size
    message = "image_sizes.txt: made for 30x20 pixels, but the picture has 20x10."
    with pytest.raises(BadImageError, match=f"^{re.escape(message)}$"):
        data.read(1)
    assert open_wsol(lists(image_sizes="", localization=""), images=tmp_path / "pics").read(
        1
    ).size_wh == (20, 10)


def test_masks_of_the_class_and_what_is_left_out(lists, tmp_path, put_picture):
    for name in ("a1", "a2", "skip", "b1"):
        put_picture(tmp_path / f"masks/x/{name}.png", 7, 5)
    text = "x/a.png,x/a1.png,x/skip.png\nx/a.png,x/a2.png,\nx/b.png,x/b1.png,\n"
    folder = lists(localization=text, image_sizes=None)
    data = open_wsol(folder, masks=tmp_path / "masks")
    record = data.read(0)
    assert (data.has_masks, data.has_boxes, data.root) == (True, False, tmp_path / "masks")
    assert record.masks == (("x/a1.png", 1), ("x/a2.png", 1), ("x/skip.png", -2))
    assert record.size_wh == (7, 5)
    assert data.read(1).masks == (("x/b1.png", 0),)
    put_picture(tmp_path / "pics/x/a.png")
    beside = open_wsol(folder, images=tmp_path / "pics", masks=tmp_path / "masks").read(0)
    assert beside.masks[0] == ("../masks/x/a1.png", 1)
    assert beside.size_wh == (20, 10)  # masks of another size are no fault
    put_picture(tmp_path / "masks/x/a2.png", 8, 5)
    message = "masks of different sizes: x/a1.png 7x5, x/a2.png 8x5, x/skip.png 7x5; expected one"
    with pytest.raises(BadImageError, match=re.escape(message)):
        data.read(0)
    (tmp_path / "masks/x/b1.png").unlink()
    with pytest.raises(BadImageError, match=r"^mask x/b1\.png is not there\.$"):
        data.read(1)
    with pytest.raises(
        DatasetError, match=r"localization\.txt: lists masks\. Say where they lie with --masks\.$"
    ):
        open_wsol(folder)


def test_a_class_list_names_the_numbers(lists, tmp_path):
    (tmp_path / "classes.txt").write_text("bee\nwasp\nfly\n")
    data = open_wsol(lists(), classes=tmp_path / "classes.txt")
    assert data.class_name == ["bee", "wasp", "fly"]
    assert data.sources["classes"] == tmp_path / "classes.txt"
    (tmp_path / "classes.txt").write_text("bee\n")
    with pytest.raises(
        DatasetError, match=r'labels\.txt line 1: class "1", expected a whole number from 0 to 0\.$'
    ):
        open_wsol(lists(), classes=tmp_path / "classes.txt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_ids": None}, "image_ids.txt: cannot be read, No such file or directory."),
        ({"image_ids": ""}, "image_ids.txt: no image in it; expected one a line."),
        ({"image_ids": "a\na\n"}, 'ids.txt line 2: image "a" again, first on line 1. Give it one'),
        ({"image_ids": "../a\n"}, 'ids.txt line 1: "../a" leaves the data set.'),
        ({"image_ids": "a\0b\n"}, "ids.txt line 1: 'a\\x00b' is no file name."),
        ({"class_labels": "x/a.png,1\n"}, 'labels.txt: image "x/b.png" of image_ids.txt has no cl'),
        ({"class_labels": "x/a.png\n"}, 'labels.txt line 1: "x/a.png"; expected IMAGE,CLASS.'),
        ({"class_labels": "c,1\n"}, 'labels.txt line 1: image "c" is not in image_ids.txt.'),
        ({"class_labels": "x/a.png,-1\n"}, 'line 1: class "-1", expected a whole number from 0 to'),
        ({"class_labels": "x/a.png,1.0\n"}, 'line 1: class "1.0", expected a whole number from 0'),
        ({"class_labels": "x/a.png,99999\n"}, "to 9999. Name the classes with --classes if there"),
        ({"class_labels": "x/a.png,1\nx/a.png,1\n"}, 'line 2: image "x/a.png" again. Give it one'),
        ({"image_sizes": "x/a.png,0,5\n"}, 'sizes.txt line 1: size "0,5", expected two positive'),
        ({"image_sizes": "x/a.png,5,5\n" * 2}, 'sizes.txt line 2: image "x/a.png" again. Give it'),
        ({"localization": "x/a.png,1,2,3,4\nx/a.png,1,nan,3,4\n"}, 'line 2: y0 is "nan", expected'),
        ({"localization": "x/a.png,1,2,3,4\nc,1,2,3,4\n"}, 'line 2: image "c" is not in the data'),
        ({"localization": "x/a.png,1,2,3,4\nx/a.png,1,2,3\n"}, "line 2: 4 fields, expected 5."),
        ({"localization": "x/a.png,1,2,3,4\nx/a.png,m.png,\n"}, "line 2: 3 fields, expected 5."),
    ],
)
def test_a_bad_list(lists, changes, message):
    with pytest.raises(DatasetError, match=re.escape(message)):
        open_wsol(lists(**changes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x/a.png,m.png,i.png\nx/a.png,n.png,j.png\n", 'line 2: image "x/a.png" has a second mask'),
        ("x/a.png,m.png,i.png\nx/a.png,m.png,\n", 'line 2: mask "m.png" again. Give it one line.'),
        ("x/a.png,../m.png,\n", 'line 1: "../m.png" leaves the data set.'),
        ("x/a.png,,\n", "line 1: '' is no file name."),
    ],
)
def test_a_bad_list_of_masks(lists, tmp_path, text, message):
    with pytest.raises(DatasetError, match=re.escape(message)):
        open_wsol(lists(localization=text), masks=tmp_path)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("5,1,4,2", "box 5 1 4 2 ends before it begins."),
        ("-1,1,4,2", "box -1 1 4 2 lies outside the 20x10 picture."),
        ("1,1,4,10.5", "box 1 1 4 10.5 lies outside the 20x10 picture."),
    ],
)
def test_a_bad_box_costs_its_image_only(lists, box, message):
    data = open_wsol(lists(localization=f"x/b.png,1,1,2,2\nx/a.png,{box}\n"))
    with pytest.raises(BadImageError, match=f"^{re.escape('localization.txt line 2: ' + message)}"):
        data.read(0)
    assert len(data.read(1).box_class_B) == 1


def test_no_size_known(lists):
    data = open_wsol(lists(image_sizes=""))
    message = "image_sizes.txt: no size is told, and there are no pictures."
    with pytest.raises(BadImageError, match=f"^{re.escape(message)}$"):
        data.read(0)


@pytest.mark.real
def test_real_cub_boxes_are_the_file(data_dir):
    folder = data_dir / "wsol-metadata/CUB/test"
    data = open_wsol(folder)
    assert (len(data.image_id), len(data.class_name)) == (5794, 200)
    lines = (folder / "localization.txt").read_text().splitlines()
    for row in range(0, 5794, 61):
        written = [
            line.split(",")[1:] for line in lines if line.startswith(data.image_id[row] + ",")
        ]
        np.testing.assert_array_equal(data.read(row).box_xyxy_B4, np.array(written, np.float64))


@pytest.mark.real
def test_real_openimages_masks(data_dir):
    folder = data_dir / "wsol-metadata/OpenImages"
    data = open_wsol(folder / "val", masks=folder / "masks")
    assert (len(data.image_id), len(data.class_name)) == (2500, 100)
    good, told = [], []
    for row in range(2500):
        try:
            good.append(data.read(row))
        except BadImageError as error:
            told.append(str(error))
    assert len(good) == 5
    assert all(re.fullmatch(r"mask \S+\.png is not there\.", line) for line in told)
    assert sum(len(record.masks) for record in good) == 11
    for record in good:
        kinds = [kind for _, kind in record.masks]
        assert kinds == [record.present[0]] * (len(kinds) - 1) + [-2]
        assert min(record.size_wh) > 100


@pytest.mark.real
def test_real_imagenette_with_pictures(data_dir):
    folder = data_dir / "imagenette"
    data = open_wsol(folder / "metadata/test", images=folder)
    assert len(data.image_id) == 300
    records = [data.read(row) for row in range(0, 300, 29)]
    assert {record.size_wh for record in records} == {(224, 224)}
    assert all(len(record.box_class_B) for record in records)
