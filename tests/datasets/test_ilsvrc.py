"""ILSVRC's two layouts: classes and their orders, boxes from 0, blacklist, every fault."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.io import savemat

from wsltool.datasets.ilsvrc import open_ilsvrc
from wsltool.errors import BadImageError, DatasetError

TENCH, CAT, BALL = "n01440764", "n02123045", "n02799071"
VAL = "ILSVRC2012_val_0000000"
OBJECT = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin>"
    "<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


def xml(*objects, size=(20, 10)):
    told = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation>{told}{''.join(OBJECT.format(*one) for one in objects)}</annotation>"


@pytest.fixture
def kaggle(tmp_path, put_picture):
    """The layout of Data/CLS-LOC: three validation and two training images."""
    root = tmp_path / "ILSVRC"
    for name in "123":
        put_picture(root / f"Data/CLS-LOC/val/{VAL}{name}.JPEG")
    for name in (f"{CAT}/{CAT}_7", f"{TENCH}/{TENCH}_1"):
        put_picture(root / f"Data/CLS-LOC/train/{name}.JPEG")
    for folder in ("Annotations/CLS-LOC/val", f"Annotations/CLS-LOC/train/{CAT}"):
        (root / folder).mkdir(parents=True)
    boxes = root / "Annotations/CLS-LOC"
    (boxes / f"val/{VAL}1.xml").write_text(xml((CAT, 0, 0, 19, 9), (CAT, 3, 4, 3, 4)))
    (boxes / f"val/{VAL}2.xml").write_text(xml((TENCH, 1, 1, 20, 10)))
    (boxes / f"train/{CAT}/{CAT}_7.xml").write_text(xml((CAT, 1, 2, 3, 4)))
    (root / "ImageSets/CLS-LOC").mkdir(parents=True)
    (root / "ImageSets/CLS-LOC/val.txt").write_text(f"{VAL}1 1\n{VAL}2 2\n{VAL}3 3\n")
    (root / "ImageSets/CLS-LOC/train_cls.txt").write_text(f"{CAT}/{CAT}_7 1\n{TENCH}/{TENCH}_1 2\n")
    (tmp_path / "LOC_synset_mapping.txt").write_text(
        f"{TENCH} tench, Tinca tinca\n{CAT} tabby\n{BALL} baseball\n"
    )
    return root


@pytest.fixture
def devkit(tmp_path):
    """Ground truth in the devkit's order: ball, tench, cat."""
    folder = tmp_path / "devkit"
    folder.mkdir()
    (folder / "map_clsloc.txt").write_text(f"{BALL} 1 baseball\n{TENCH} 2 tench\n{CAT} 3 tabby\n")
    (folder / "truth.txt").write_text("3\n2\n1\n")
    return folder


def test_val_of_the_boxes(kaggle):
    data = open_ilsvrc(kaggle, "val")
    assert data.image_id == [f"{VAL}{name}" for name in "123"]
    assert data.class_id == [TENCH, CAT, BALL]
    assert data.class_name == ["tench, Tinca tinca", "tabby", "baseball"]
    first, second = data.read(0), data.read(1)
    assert first.image_path == f"Data/CLS-LOC/val/{VAL}1.JPEG"
    assert first.box_xyxy_B4.tolist() == [[0, 0, 20, 10], [3, 4, 4, 5]]
    assert first.box_class_B.tolist() == [1, 1]
    assert (first.present, first.undecided) == data.labels(0) == ((1,), ())
    assert second.box_xyxy_B4.tolist() == [[1, 1, 21, 11]]  # one pixel over, as written
    message = f"{VAL}3: no XML and no ground truth tells its class. Give the ground truth file"
    with pytest.raises(BadImageError, match=f"^{re.escape(message)}"):
        data.read(2)
    assert data.labels(2) is None
    assert data.excluded is None
    assert open_ilsvrc(kaggle.parent, "val").root == kaggle


def test_val_with_ground_truth_in_the_devkits_order(kaggle, devkit):
    data = open_ilsvrc(kaggle, "val", labels=devkit / "truth.txt")
    assert [data.labels(row) for row in range(3)] == [((1,), ()), ((0,), ()), ((2,), ())]
    assert data.read(2).box_xyxy_B4.shape == (0, 4)
    assert data.sources["devkit"] == devkit / "map_clsloc.txt"
    (devkit / "truth.txt").write_text("1\n2\n1\n")
    data = open_ilsvrc(kaggle, "val", labels=devkit / "truth.txt")
    message = f"annotation {VAL}1.xml object 1: is a {CAT}, but the image is labelled {BALL}."
    with pytest.raises(BadImageError, match=f"^{re.escape(message)}$"):
        data.read(0)
    (devkit / "map_clsloc.txt").unlink()
    with pytest.raises(DatasetError, match=r"counts classes in the devkit's order, which map_cls"):
        open_ilsvrc(kaggle, "val", labels=devkit / "truth.txt")


def test_train(kaggle):
    data = open_ilsvrc(kaggle, "train")
    assert data.image_id == [f"{CAT}/{CAT}_7", f"{TENCH}/{TENCH}_1"]
    assert data.read(0).box_xyxy_B4.tolist() == [[1, 2, 4, 5]]
    assert data.read(1).box_xyxy_B4.shape == (0, 4)
    assert data.read(1).present == (0,)


def test_the_flat_layout(tmp_path, put_picture):
    root = tmp_path / "flat"
    for name in "12":
        put_picture(root / f"ILSVRC2012_img_val/{VAL}{name}.JPEG")
    boxes = root / "ILSVRC2012_bbox_val_v3/val"
    boxes.mkdir(parents=True)
    (boxes / f"{VAL}1.xml").write_text(xml((CAT, 0, 0, 4, 4)))
    data_folder = root / "ILSVRC2012_devkit_t12/data"
    data_folder.mkdir(parents=True)
    (root / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n1\n")
    rows = [(1, BALL, "baseball", 0), (2, CAT, "tabby", 0), (3, "n00000001", "thing", 2)]
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("num_children", "f8")]
    savemat(data_folder / "meta.mat", {"synsets": np.array(rows, kinds)[:, None]})
    data = open_ilsvrc(root, "val")
    assert (data.class_id, data.class_name) == ([CAT, BALL], ["tabby", "baseball"])
    assert [data.labels(row) for row in range(2)] == [((0,), ()), ((1,), ())]
    assert data.read(0).box_xyxy_B4.tolist() == [[0, 0, 5, 5]]
    assert data.annotation(1) is None
    assert data.read(1).box_class_B.tolist() == []
    (data_folder / "meta.mat").write_bytes(b"MATLAB 5.0 MAT-file, nonsense" * 9)
    with pytest.raises(DatasetError, match=r"meta\.mat: no meta\.mat of the ILSVRC devkit, "):
        open_ilsvrc(root, "val")


def test_classes_of_the_training_folders(kaggle):
    (kaggle.parent / "LOC_synset_mapping.txt").unlink()
    assert open_ilsvrc(kaggle, "val").class_id == [TENCH, CAT]
    for folder in (kaggle / "Data/CLS-LOC/train").iterdir():
        folder.rename(folder.with_name("x" + folder.name))
    with pytest.raises(DatasetError, match=r"and no training images tell the classes\. Give them"):
        open_ilsvrc(kaggle, "val")


def test_a_given_class_list_gives_the_order(kaggle, devkit):
    data = open_ilsvrc(kaggle, "val", classes=devkit / "map_clsloc.txt")
    assert data.class_id == [BALL, TENCH, CAT]
    assert data.read(0).present == (2,)


def test_the_blacklist_counts_the_whole_list(kaggle, tmp_path):
    path = tmp_path / "blacklist.txt"
    path.write_text("2\n49999\n")
    (kaggle / "ImageSets/CLS-LOC/val.txt").write_text(f"{VAL}2 2\n{VAL}1 1\n")
    assert open_ilsvrc(kaggle, "val", blacklist=path).excluded == {0}
    for text, message in (
        ("2\n0\n", 'blacklist.txt line 2: "0", expected the number of an image, from 1.'),
        ("x\n", 'blacklist.txt line 1: "x", expected the number of an image, from 1.'),
        ("2\n2\n", "blacklist.txt line 2: number 2 again, first on line 1."),
    ):
        path.write_text(text)
        with pytest.raises(DatasetError, match=re.escape(message)):
            open_ilsvrc(kaggle, "val", blacklist=path)
    path.write_text("2\n")
    (kaggle / "ImageSets/CLS-LOC/val.txt").write_text("a 1\n")
    with pytest.raises(DatasetError, match=r'image "a" has no number in its name; expected names'):
        open_ilsvrc(kaggle, "val", blacklist=path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (xml((CAT, 0, 0, 19, 9), size=(40, 20)), "made for 40x20 pixels, but the picture has 20x"),
        (xml((CAT, 0, 0, 21, 9)), "object 1: box 0 0 21 9 lies outside the 20x10 picture."),
        (xml((CAT, 5, 0, 4, 9)), "object 1: box 5 0 4 9 ends before it begins."),
        (xml(("n00000000", 0, 0, 4, 9)), 'object 1: class "n00000000" is none of the 3 classes'),
        (xml(), "objects of 0 classes, expected 1. Give the ground truth file with --labels."),
        (xml((CAT, 0, 0, 4, 9), (BALL, 0, 0, 4, 9)), "objects of 2 classes, expected 1."),
        ("<annotation>", "no safe XML, "),
    ],
)
def test_a_bad_annotation_costs_its_image_only(kaggle, text, message):
    (kaggle / f"Annotations/CLS-LOC/val/{VAL}1.xml").write_text(text)
    data = open_ilsvrc(kaggle, "val")
    with pytest.raises(BadImageError, match=f"^annotation {VAL}1.xml:? {re.escape(message)}"):
        data.read(0)
    assert data.read(1).present == (0,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4\n2\n1\n", 'truth.txt line 1: "4", expected a whole number from 1 to 3.'),
        ("1\n\n1\n", "truth.txt line 2: is blank; expected a class number."),
        ("", "truth.txt: nothing in it; expected a class number in each line."),
        ("1\n", 'truth.txt: has 1 lines; which is that of image "ILSVRC2012_val_00000002"?'),
    ],
)
def test_a_bad_ground_truth(kaggle, devkit, text, message):
    (devkit / "truth.txt").write_text(text)
    with pytest.raises(DatasetError, match=re.escape(message)):
        open_ilsvrc(kaggle, "val", labels=devkit / "truth.txt")


def test_bad_lists(kaggle, devkit, tmp_path):
    sets = kaggle / "ImageSets/CLS-LOC/val.txt"
    for text, message in (
        ("", "val.txt: no image id in it."),
        ("a 1\na 2\n", 'val.txt line 2: id "a" again, first on line 1.'),
        ("a b c\n", 'val.txt line 1: "a b c"; expected an image id and its number.'),
        ("../a 1\n", 'val.txt line 1: "../a" leaves the data set.'),
    ):
        sets.write_text(text)
        with pytest.raises(DatasetError, match=re.escape(message)):
            open_ilsvrc(kaggle, "val")
    (devkit / "map_clsloc.txt").write_text(f"{BALL} 2 baseball\n")
    sets.write_text(f"{VAL}1 1\n")
    with pytest.raises(DatasetError, match=r"map_clsloc\.txt line 1: .* the number 1 and a name"):
        open_ilsvrc(kaggle, "val", labels=devkit / "truth.txt")
    (kaggle / "ImageSets/CLS-LOC/train_cls.txt").write_text("n00000000/n00000000_1 1\n")
    with pytest.raises(DatasetError, match=r'^image "n00000000/n00000000_1": class "n00000000" is'):
        open_ilsvrc(kaggle, "train")
    with pytest.raises(DatasetError, match=r"neither Data/CLS-LOC/val nor ILSVRC2012_img_val in"):
        open_ilsvrc(devkit, "val")
    (tmp_path / "flat/ILSVRC2012_img_val/n1").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"no \*\.JPEG in it\. Pictures sorted into a folder a"):
        open_ilsvrc(tmp_path / "flat", "val")
