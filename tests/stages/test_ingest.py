"""Other people's files become an images store: exact arrays, bad rows, changed folders."""

from __future__ import annotations

import io
import re
import shutil
import zlib

import numpy as np
import pytest
from PIL import Image

from wsltool.errors import BadImageError, LineageError, StoreExistsError, UsageError
from wsltool.stages.ingest import ingest_folder, ingest_voc
from wsltool.stages.pictures import Pictures
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .making import Ears, arrays, assert_equal_arrays, meta, noise, put_picture

XML = "<annotation><size><width>20</width><height>10</height></size>{}</annotation>"
OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult><truncated>{}</truncated><bndbox>"
    "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


@pytest.fixture
def voc(tmp_path):
    """Three images of 20 x 10, one with a mask; b holds only a difficult cow."""
    root = tmp_path / "VOC"
    for name in "abc":
        put_picture(root / f"JPEGImages/{name}.jpg", (20, 10))
    objects = {
        "a": [("dog", 0, 1, 1, 1, 20, 10), ("cow", 1, 0, 3, 4, 5, 6), ("cow", 0, 0, 2, 2, 3, 3)],
        "b": [("cow", 1, 0, 6, 7, 8, 9)],
        "c": [],
    }
    (root / "Annotations").mkdir()
    for name, listed in objects.items():
        text = "".join(OBJECT.format(*one) for one in listed)
        (root / f"Annotations/{name}.xml").write_text(XML.format(text))
    for folder, names in {"Main": "abc", "Segmentation": "ba"}.items():
        (root / f"ImageSets/{folder}").mkdir(parents=True)
        (root / f"ImageSets/{folder}/val.txt").write_text("\n".join(names) + "\n")
    put_picture(root / "SegmentationClass/b.png", (20, 10))
    return root


@pytest.fixture
def pets(tmp_path):
    """Four pictures of different sizes in two class folders, and boxes of two of them."""
    root = tmp_path / "pets"
    for index, name in enumerate(("cat/a.png", "cat/b.jpg", "dog/c.png", "dog/d.jpg")):
        put_picture(root / name, (20 + index, 10))
    (tmp_path / "boxes.csv").write_text(
        "image,x0,y0,x1,y1,difficult\ndog/c.png,1,2,3.5,4,1\ncat/a.png,0,0,20,10,0\n"
        "dog/c.png,0,0,22,10,0\n"
    )
    return root


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_voc_array_by_array(voc, tmp_path, suffix):
    ears = Ears()
    output = tmp_path / f"val{suffix}"
    assert ingest_voc(voc, split="val", output=output, report=ears) == output
    assert ears.announced == [output]
    found = arrays(output)
    classes = found["class_name"].tolist()
    cow, dog = classes.index("cow"), classes.index("dog")
    assert len(classes) == 20
    assert found["class_id"].tolist() == classes
    assert found["image_id"].tolist() == ["a", "b", "c"]
    assert found["image_path"].tolist() == [f"JPEGImages/{name}.jpg" for name in "abc"]
    assert found["image_size"].tolist() == [[20, 10]] * 3
    sizes = [(voc / f"JPEGImages/{name}.jpg").stat().st_size for name in "abc"]
    assert found["image_num_bytes"].tolist() == sizes
    expected = np.zeros((3, 20), np.uint8)
    expected[0, [cow, dog]], expected[1, cow] = 1, 255
    np.testing.assert_array_equal(found["label"], expected)
    assert found["box_start"].tolist() == [0, 3, 4, 4]
    boxes = [[0, 0, 20, 10], [2, 3, 5, 6], [1, 1, 3, 3], [5, 6, 8, 9]]
    assert found["box"].tolist() == boxes
    assert found["box_class"].tolist() == [dog, cow, cow, cow]
    assert found["box_difficult"].tolist() == [0, 1, 0, 1]
    assert found["box_truncated"].tolist() == [1, 0, 0, 0]
    assert found["mask_start"].tolist() == [0, 0, 1, 1]
    assert found["mask_path"].tolist() == ["SegmentationClass/b.png"]
    assert found["mask_class"].tolist() == [-1]
    assert found["image_status"].tolist() == [0, 0, 0]
    assert found["image_note"].tolist() == ["", "", ""]
    assert verify(output)["problems"] == []
    with open_store(output) as store:
        assert store.attributes["root"] == "VOC"
        assert store.attributes["orientation"] == "ignored"


def test_voc_default_names_and_other_sets(voc):
    assert ingest_voc(voc, split="val") == voc.with_name("VOC.val.zarr")
    output = ingest_voc(voc, split="Segmentation/val")
    assert output == voc.with_name("VOC.Segmentation_val.zarr")
    assert arrays(output)["image_id"].tolist() == ["b", "a"]


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_folder_array_by_array(pets, tmp_path, suffix):
    output = tmp_path / f"out/pets{suffix}"
    output.parent.mkdir()
    ingest_folder(pets, boxes=tmp_path / "boxes.csv", output=output)
    found = arrays(output)
    assert found["image_id"].tolist() == ["cat/a.png", "cat/b.jpg", "dog/c.png", "dog/d.jpg"]
    assert found["image_path"].tolist() == found["image_id"].tolist()
    assert found["image_size"].tolist() == [[20, 10], [21, 10], [22, 10], [23, 10]]
    assert found["class_name"].tolist() == found["class_id"].tolist() == ["cat", "dog"]
    assert found["label"].tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert found["box_start"].tolist() == [0, 1, 1, 3, 3]
    assert found["box"].tolist() == [[0, 0, 20, 10], [1, 2, 3.5, 4], [0, 0, 22, 10]]
    assert found["box_class"].tolist() == [0, 1, 1]
    assert found["box_difficult"].tolist() == [0, 1, 0]
    assert "mask_path" not in found
    with open_store(output) as store:
        assert store.attributes["root"] == "../pets"
    assert meta(output)["inputs"]["boxes"]["path"] == "../boxes.csv"
    assert verify(output)["problems"] == []


def test_folder_without_boxes_has_no_box_arrays(pets):
    output = ingest_folder(pets)
    assert output == pets.with_name("pets.images.zarr")
    assert not [name for name in arrays(output) if name.startswith(("box", "mask", "byte"))]


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_embedded_pictures_are_the_files_and_need_no_folder(pets, tmp_path, suffix):
    files = ingest_folder(pets, output=tmp_path / "files.zarr")
    packed = ingest_folder(pets, embed=True, output=tmp_path / f"packed{suffix}")
    with open_store(files) as one, open_store(packed) as other:
        read = Pictures(one)
        kept = [read(row) for row in range(4)]
        shutil.rmtree(pets)
        embedded = Pictures(other)
        for row, picture in enumerate(kept):
            np.testing.assert_array_equal(embedded(row), picture)
    assert_equal_arrays(files, packed, skip=("byte_start", "byte"))


def truncated_header(path):
    path.write_bytes(path.read_bytes()[:20])


BAD = {
    "gone": (lambda path: path.unlink(), "b.jpg: cannot be opened, No such file or directory."),
    "empty": (lambda path: path.write_bytes(b""), "b.jpg: the file is empty (0 bytes)."),
    "text": (
        lambda path: path.write_bytes(b"hello, no picture"),
        "b.jpg: no picture, it starts with b'hello, no pictur'; "
        "expected JPEG, PNG, GIF, BMP, WebP, TIFF or PPM.",
    ),
    "cut": (truncated_header, "b.jpg: JPEG header is broken or cut off: "),
}


@pytest.mark.parametrize("how", BAD)
def test_a_bad_picture_stops_or_is_left_out_with_its_labels(pets, tmp_path, how):
    spoil, message = BAD[how]
    labels = tmp_path / "labels.csv"
    labels.write_text("image,cat,dog\ncat/a.png,1,0\ncat/b.jpg,1,255\ndog/c.png,0,1\n")
    spoil(pets / "cat/b.jpg")
    place = 'pets.images.zarr row 1 "cat/b.jpg": '
    with pytest.raises(BadImageError, match=f"^{re.escape(place + message)}.*") as stopped:
        ingest_folder(pets, labels=labels)
    assert str(stopped.value).endswith(" Pass --on-bad skip to leave it out.")
    assert "\n" not in str(stopped.value)
    ears = Ears()
    output = ingest_folder(pets, labels=labels, on_bad="skip", report=ears)
    assert ears.num_skipped == 1
    assert ears.warnings[0].startswith(place + message)
    assert ears.warnings[0].endswith(" Left out.")
    found = arrays(output)
    assert found["image_status"].tolist() == [0, 1, 0]
    assert found["image_note"].tolist()[1].startswith(message)
    assert found["image_size"].tolist() == [[20, 10], [0, 0], [22, 10]]
    assert found["image_num_bytes"].tolist()[1] == 0
    assert found["label"].tolist() == [[1, 0], [1, 255], [0, 1]]
    assert meta(output)["skipped"] == 1
    assert verify(output)["problems"] == []


def test_a_bad_box_stops_or_leaves_the_image_out(pets, tmp_path):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("image,x0,y0,x1,y1\ncat/a.png,1,1,2,2\ncat/b.jpg,1,1,22,2\n")
    message = "boxes.csv line 3: box 1 1 22 2 lies outside the 21x10 picture."
    line = f'pets.images.zarr row 1 "cat/b.jpg": {message} Pass --on-bad skip to leave it out.'
    with pytest.raises(BadImageError, match=f"^{re.escape(line)}$"):
        ingest_folder(pets, boxes=boxes)
    found = arrays(ingest_folder(pets, boxes=boxes, on_bad="skip"))
    assert found["image_note"].tolist() == ["", message, "", ""]
    assert found["label"].tolist()[1] == [1, 0]
    assert found["box"].tolist() == [[1, 1, 2, 2]]


@pytest.mark.parametrize(
    ("spoil", "undecided"),
    [
        (lambda root: (root / "JPEGImages/b.jpg").unlink(), ["cow"]),
        (lambda root: put_picture(root / "JPEGImages/b.jpg", (30, 10)), ["cow"]),
        (lambda root: (root / "Annotations/b.xml").unlink(), "all"),
        (lambda root: (root / "Annotations/b.xml").write_text("<annotation>"), "all"),
        (
            lambda root: (root / "Annotations/b.xml").write_text(
                XML.format(OBJECT.format("zebra", 0, 0, 1, 1, 2, 2))
            ),
            "all",
        ),
    ],
    ids=["no picture", "other size", "no annotation", "broken XML", "unknown class"],
)
def test_voc_labels_outlive_the_picture_but_not_the_annotation(voc, spoil, undecided):
    spoil(voc)
    found = arrays(ingest_voc(voc, split="val", on_bad="skip"))
    assert found["image_status"].tolist() == [0, 1, 0]
    names = found["class_name"].tolist()
    expected = np.full(20, 255) if undecided == "all" else np.zeros(20)
    expected[[names.index(name) for name in undecided if undecided != "all"]] = 255
    assert found["label"][1].tolist() == expected.tolist()
    assert found["box_start"].tolist() == [0, 3, 3, 3]


def test_a_picture_too_large_is_refused_by_its_header(pets):
    header = io.BytesIO()
    Image.new("1", (1, 1)).save(header, "PNG")
    content = bytearray(header.getvalue())
    content[16:24] = (20000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (pets / "cat/a.png").write_bytes(content)
    with pytest.raises(BadImageError, match=r"a\.png: PNG has 20000x20000 pixels; the limit is"):
        ingest_folder(pets)


def test_limit(pets):
    output = ingest_folder(pets, limit=3)
    assert arrays(output)["image_id"].tolist() == ["cat/a.png", "cat/b.jpg", "dog/c.png"]
    assert meta(output)["limit"] == {"how": "limit", "num_rows": 3, "of": 4}
    with pytest.raises(
        StoreExistsError, match=r"pets\.images\.zarr: made from 3 of 4 rows, now all rows\. Pass"
    ):
        ingest_folder(pets, limit=100)
    with pytest.raises(UsageError, match=r"^--limit must be at least 1, got 0\.$"):
        ingest_folder(pets, limit=0)


def test_a_bad_row_beyond_the_limit_is_never_read(pets):
    (pets / "dog/d.jpg").write_bytes(b"")
    assert len(arrays(ingest_folder(pets, limit=3))["image_id"]) == 3


def test_the_same_command_twice_is_left_alone(pets):
    output = ingest_folder(pets)
    before = meta(output)
    ears = Ears()
    assert ingest_folder(pets, report=ears) == output
    assert meta(output) == before
    assert ears.announced == [output]
    assert ears.notes == [f"{output}: finished already, left alone."]


def another_picture(pets):
    put_picture(pets / "cat/c.png", (20, 10))


def bigger_picture(pets):
    put_picture(pets / "cat/a.png", noise(20, 11, seed=1))


def renamed_class(pets):
    (pets / "dog").rename(pets / "wolf")


@pytest.mark.parametrize("change", [another_picture, bigger_picture, renamed_class])
def test_a_changed_folder_is_noticed_and_overwritten_on_request(pets, change):
    output = ingest_folder(pets)
    before = meta(output)
    change(pets)
    with pytest.raises(
        StoreExistsError, match=r"made from another listing than pets is now\. Pass -o .*--overwr"
    ):
        ingest_folder(pets)
    ingest_folder(pets, overwrite=True)
    assert meta(output)["digest"] != before["digest"]


def test_an_edited_annotation_is_noticed(voc):
    output = ingest_voc(voc, split="val")
    annotation = voc / "Annotations/b.xml"
    annotation.write_text(annotation.read_text().replace("<xmin>6<", "<xmin>7<"))
    with pytest.raises(StoreExistsError, match="made from another listing than VOC is now"):
        ingest_voc(voc, split="val")
    ingest_voc(voc, split="val", overwrite=True)
    assert arrays(output)["box"].tolist()[-1] == [6, 6, 8, 9]


def test_a_picture_that_came_back_is_ingested(pets):
    kept = (pets / "cat/a.png").read_bytes()
    (pets / "cat/a.png").write_bytes(b"")
    output = ingest_folder(pets, on_bad="skip")
    (pets / "cat/a.png").write_bytes(kept)
    with pytest.raises(StoreExistsError, match="another listing"):
        ingest_folder(pets, on_bad="skip")
    ingest_folder(pets, overwrite=True)
    assert arrays(output)["image_status"].tolist() == [0] * 4


def test_shards_make_the_same_store(tmp_path):
    root = tmp_path / "many"
    for index in range(300):
        put_picture(root / f"c{index % 3}/{index:03}.png", (4, 3))
    whole = ingest_folder(root, output=tmp_path / "whole.zarr")
    shared = tmp_path / "shared.zarr"
    ears = Ears()
    ingest_folder(root, output=shared, shard="1/2", report=ears)
    assert not shared.exists()
    assert ears.notes == [
        f"{shared}: this share is done, 1 of 2 blocks of other shards are missing."
    ]
    ingest_folder(root, output=shared, shard="0/2")
    assert meta(shared)["digest"] == meta(whole)["digest"]
    assert_equal_arrays(whole, shared)


def test_no_such_folder(tmp_path):
    with pytest.raises(
        UsageError, match=r"nowhere: there is no such folder\. Give the data set's folder\.$"
    ):
        ingest_folder(tmp_path / "nowhere")


class TestPictures:
    """Where the pictures of a store are looked for."""

    def test_the_store_moves_with_its_folder(self, pets, tmp_path):
        output = ingest_folder(pets)
        moved = tmp_path / "elsewhere/deep"
        moved.mkdir(parents=True)
        for path in (pets, output):
            path.rename(moved / path.name)
        with open_store(moved / output.name) as store:
            assert Pictures(store)(0).shape == (10, 20, 3)

    def test_beside_the_store_under_the_same_name(self, pets, tmp_path):
        output = tmp_path / "a/b/out.zarr"
        output.parent.mkdir(parents=True)
        ingest_folder(pets, output=output)
        pets.rename(output.with_name("pets"))
        with open_store(output) as store:
            assert Pictures(store)(0).shape == (10, 20, 3)

    def test_elsewhere_only_where_told(self, pets, tmp_path):
        output = ingest_folder(pets)
        pets.rename(tmp_path / "animals")
        with open_store(output) as store:
            with pytest.raises(
                LineageError,
                match=r"^pets\.images\.zarr: its pictures' folder pets is not there\. "
                r"Say where with --images\.$",
            ):
                Pictures(store)
            assert Pictures(store, tmp_path / "animals")(0).shape == (10, 20, 3)

    def test_a_picture_that_changed_is_refused(self, pets):
        output = ingest_folder(pets)
        size = (pets / "cat/a.png").stat().st_size
        with (pets / "cat/a.png").open("ab") as file:
            file.write(b"more")
        with (
            open_store(output) as store,
            pytest.raises(
                BadImageError,
                match=rf"^picture cat/a\.png has {size + 4} bytes, {size} when it was ingested\. "
                r"Ingest the folder again\.$",
            ),
        ):
            Pictures(store)(0)
