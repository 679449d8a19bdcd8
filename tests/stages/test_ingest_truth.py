"""Truth of COCO, ILSVRC, CUB and wsolevaluation becomes an images store: exact arrays."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from wsltool.errors import BadImageError, StoreExistsError, UsageError
from wsltool.stages.ingest import (
    ingest_coco,
    ingest_cub,
    ingest_ilsvrc,
    ingest_openimages,
    ingest_wsol,
)
from wsltool.stages.pictures import Pictures
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .making import Ears, arrays, meta, put_picture

VAL = "ILSVRC2012_val_0000000"


@pytest.fixture
def coco(tmp_path):
    """Two images: one with a cat and a crowd of dogs, one without a picture."""
    put_picture(tmp_path / "coco/val/1.png", (20, 10))
    images = [{"id": n, "file_name": f"{n}.png", "width": 20, "height": 10} for n in (1, 2)]
    square = {"segmentation": [[2, 1, 8, 1, 8, 6, 2, 6]]}
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [2, 1, 6, 5], "area": 30.5, **square},
        {"id": 2, "image_id": 1, "category_id": 18, "bbox": [0, 0, 9.5, 10], "area": 95.0},
        {"id": 3, "image_id": 2, "category_id": 18, "bbox": [1, 1, 2, 2], "area": 4},
    ]
    annotations[1] |= {"iscrowd": 1, "segmentation": {"size": [10, 20], "counts": [0, 95, 105]}}
    categories = [{"id": 3, "name": "cat"}, {"id": 18, "name": "dog"}]
    path = tmp_path / "coco/instances_val.json"
    tree = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(tree))
    return path


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_coco_array_by_array(coco, tmp_path, suffix):
    ears = Ears()
    output = tmp_path / f"val{suffix}"
    assert ingest_coco(coco, on_bad="skip", output=output, report=ears) == output
    found = arrays(output)
    assert found["image_id"].tolist() == ["1", "2"]
    assert found["class_id"].tolist() == ["3", "18"]
    assert found["class_name"].tolist() == ["cat", "dog"]
    assert found["label"].tolist() == [[1, 255], [0, 1]]
    assert found["image_status"].tolist() == [0, 1]
    assert found["box_start"].tolist() == [0, 2, 2]
    assert found["box"].tolist() == [[2, 1, 8, 6], [0, 0, 9.5, 10]]
    assert found["box_class"].tolist() == [0, 1]
    assert found["box_crowd"].tolist() == found["box_difficult"].tolist() == [0, 1]
    assert found["box_area"].tolist() == [30.5, 95]
    assert found["box_rle"].tolist() == ["e055000000000g3", "0o2Y3"]
    assert "box_truncated" not in found
    assert "image_excluded" not in found
    assert ears.num_skipped == 1
    assert verify(output)["problems"] == []
    assert meta(output)["params"] == {
        "form": "coco",
        "no_images": False,
        "no_masks": False,
        "embed": False,
    }
    assert meta(output)["inputs"]["annotations"]["path"] == "coco/instances_val.json"
    with open_store(output) as store:
        assert Pictures(store)(0).shape == (10, 20, 3)


def test_coco_without_pictures_and_masks(coco):
    output = ingest_coco(coco, no_images=True, no_masks=True)
    assert output == coco.with_suffix(".zarr")
    found = arrays(output)
    assert found["image_status"].tolist() == [0, 0]
    assert found["image_size"].tolist() == [[20, 10]] * 2
    assert found["image_num_bytes"].tolist() == [0, 0]
    assert found["box_start"].tolist() == [0, 2, 3]
    assert "box_rle" not in found
    put_picture(coco.with_name("2.png"), (20, 10))
    assert ingest_coco(coco, no_images=True, no_masks=True) == output  # still the same
    with open_store(output) as store:
        (coco.with_name("2.png")).unlink()
        with pytest.raises(BadImageError, match=r"^picture 1\.png cannot be read: No such file"):
            Pictures(store)(0)


def test_an_edited_json_is_noticed(coco):
    ingest_coco(coco, no_images=True)
    coco.write_text(coco.read_text().replace("30.5", "30.25"))
    with pytest.raises(StoreExistsError, match="made from another annotations than"):
        ingest_coco(coco, no_images=True)


@pytest.fixture
def ilsvrc(tmp_path):
    """Three validation images: with boxes, without XML, with a broken picture."""
    root = tmp_path / "ILSVRC"
    for name in "12":
        put_picture(root / f"Data/CLS-LOC/val/{VAL}{name}.JPEG", (20, 10), format="JPEG")
    (root / f"Data/CLS-LOC/val/{VAL}3.JPEG").write_bytes(b"")
    (root / "Annotations/CLS-LOC/val").mkdir(parents=True)
    (root / f"Annotations/CLS-LOC/val/{VAL}1.xml").write_text(
        "<annotation><object><name>n02123045</name><bndbox><xmin>0</xmin><ymin>0</ymin>"
        "<xmax>19</xmax><ymax>9</ymax></bndbox></object></annotation>"
    )
    (tmp_path / "LOC_synset_mapping.txt").write_text("n01440764 tench\nn02123045 tabby\n")
    (tmp_path / "map_clsloc.txt").write_text("n02123045 1 tabby\nn01440764 2 tench\n")
    (tmp_path / "truth.txt").write_text("1\n2\n2\n")
    (tmp_path / "black.txt").write_text("3\n")
    return root


def test_ilsvrc_with_ground_truth_and_blacklist(ilsvrc, tmp_path):
    output = ingest_ilsvrc(
        ilsvrc,
        labels=tmp_path / "truth.txt",
        blacklist=tmp_path / "black.txt",
        on_bad="skip",
    )
    assert output == tmp_path / "ILSVRC.val.zarr"
    found = arrays(output)
    assert found["label"].tolist() == [[0, 1], [1, 0], [1, 0]]
    assert found["box"].tolist() == [[0, 0, 20, 10]]
    assert found["box_start"].tolist() == [0, 1, 1, 1]
    assert found["image_status"].tolist() == [0, 0, 1]
    assert found["image_excluded"].tolist() == [0, 0, 1]  # kept although it was skipped
    assert found["box_truncated"].tolist() == [0]
    assert verify(output)["problems"] == []
    roles = set(meta(output)["inputs"])
    assert roles == {"labels", "devkit", "blacklist", "classes", "listing"}


def test_cub_with_masks(tmp_path):
    root = tmp_path / "CUB_200_2011"
    put_picture(root / "images/001.Auk/a.jpg", (20, 10))
    put_picture(root / "segmentations/001.Auk/a.png", (20, 10))
    for name, text in {
        "images": "1 001.Auk/a.jpg",
        "image_class_labels": "1 1",
        "classes": "1 001.Auk",
        "bounding_boxes": "1 1.0 2.0 3.5 4.0",
        "train_test_split": "1 0",
    }.items():
        (root / f"{name}.txt").write_text(text)
    found = arrays(ingest_cub(root))
    assert found["box"].tolist() == [[1, 2, 4.5, 6]]
    assert found["mask_path"].tolist() == ["segmentations/001.Auk/a.png"]
    assert found["mask_class"].tolist() == [0]
    assert (tmp_path / "CUB_200_2011.test.zarr").is_dir()


@pytest.fixture
def lists(tmp_path):
    """Metadata of two images with masks, of which the second's is not there."""
    folder = tmp_path / "val"
    folder.mkdir()
    for name, text in {
        "image_ids": "x/a.png\nx/b.png\n",
        "class_labels": "x/a.png,1\nx/b.png,0\n",
        "image_sizes": "",
        "localization": "x/a.png,x/a1.png,x/skip.png\nx/b.png,x/b1.png,\n",
    }.items():
        (folder / f"{name}.txt").write_text(text)
    put_picture(tmp_path / "masks/x/a1.png", (7, 5))
    put_picture(tmp_path / "masks/x/skip.png", (7, 5))
    return folder


def test_openimages_by_either_name(lists, tmp_path):
    masks = tmp_path / "masks"
    one = ingest_openimages(lists, masks=masks, no_images=True, on_bad="skip")
    found = arrays(one)
    assert one == tmp_path / "val.images.zarr"
    assert found["image_size"].tolist() == [[7, 5], [0, 0]]
    assert found["image_note"].tolist() == ["", "mask x/b1.png is not there."]
    assert found["label"].tolist() == [[0, 1], [1, 0]]
    assert found["mask_path"].tolist() == ["x/a1.png", "x/skip.png"]
    assert found["mask_class"].tolist() == [1, -2]
    assert found["mask_start"].tolist() == [0, 2, 2]
    ears = Ears()
    ingest_wsol(lists, masks=masks, no_images=True, on_bad="skip", report=ears)
    assert ears.notes == [f"{one}: finished already, left alone."]


def test_wsol_boxes_stand_as_in_the_file(lists, tmp_path):
    (lists / "localization.txt").write_text("x/b.png,3,4,5,6\n")
    (lists / "image_sizes.txt").write_text("x/a.png,20,10\nx/b.png,30,20\n")
    (tmp_path / "classes.txt").write_text("bee\nwasp\n")
    found = arrays(ingest_wsol(lists, no_images=True, classes=tmp_path / "classes.txt"))
    assert found["box"].tolist() == [[3, 4, 5, 6]]
    assert found["box_start"].tolist() == [0, 0, 1]
    assert found["class_name"].tolist() == ["bee", "wasp"]
    assert found["image_size"].tolist() == [[20, 10], [30, 20]]


def test_wsol_with_pictures_embeds_them(lists, tmp_path):
    (lists / "localization.txt").write_text("")
    for name in "ab":
        put_picture(tmp_path / f"pics/x/{name}.png", (20, 10))
    output = ingest_wsol(lists, images=tmp_path / "pics", embed=True)
    with open_store(output) as store:
        assert Pictures(store)(1).shape == (10, 20, 3)
    assert "box" not in arrays(output)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: ingest_wsol(path), "--images is missing: the folder of the pictures. Pass "),
        (
            lambda path: ingest_wsol(path, images=path, no_images=True),
            "--no-images and --images contradict each other. Pass one of them.",
        ),
        (
            lambda path: ingest_coco(path / "image_ids.txt", embed=True, no_images=True),
            "--no-images and --embed contradict each other. Pass one of them.",
        ),
        (lambda path: ingest_openimages(path), "--masks is missing: the folder of the masks."),
        (lambda path: ingest_coco(path), "val: there is no such file. Give the JSON of the ann"),
        (lambda path: ingest_cub(path, split="val"), '--split must be train or test, got "val".'),
        (lambda path: ingest_ilsvrc(path, split="x"), '--split must be train or val, got "x".'),
        (
            lambda path: ingest_ilsvrc(path, split="train", blacklist=path),
            "--labels and --blacklist belong to --split val.",
        ),
    ],
)
def test_options_that_cannot_be(lists, call, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        call(lists)


@pytest.mark.real
def test_real_cub_store(data_dir, tmp_path):
    folder = data_dir / "wsol-metadata/CUB/test"
    output = ingest_wsol(folder, no_images=True, output=tmp_path / "cub.h5")
    found = arrays(output)
    written = [line.split(",") for line in (folder / "localization.txt").read_text().split()]
    assert found["image_id"].tolist() == [words[0] for words in written]
    np.testing.assert_array_equal(found["box"], np.array([words[1:] for words in written], float))
    assert found["label"].sum() == 5794
    assert not found["image_status"].any()
