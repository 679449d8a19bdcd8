"""Label images of other tools become a masks store."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from wsltool.errors import BadImageError, DatasetError, UsageError
from wsltool.stages.ingest_masks import ingest_masks
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .making import Ears, arrays, assert_equal_arrays, meta, put_picture, write_images

CLASSES = ["cat", "dog"]
LABEL = np.array([[0, 1, 2], [2, 0, 0]], np.uint8)


@pytest.fixture
def images(tmp_path):
    return write_images(
        tmp_path / "val.zarr", {"a/x.jpg": {}, "y": {}, "z": {}}, CLASSES, size=(3, 2)
    )


def palette(label):
    picture = Image.fromarray(label).convert("P")
    picture.putdata(label.ravel().tolist())
    picture.putpalette([value for n in range(256) for value in (n, 255 - n, 7)])
    return picture


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "theirs"
    put_picture(folder / "x.png", LABEL)
    palette(LABEL).save(folder / "y.png")
    put_picture(folder / "z.png", LABEL > 1)
    return folder


def decoded(output, row):
    with open_store(output) as store:
        _, where = store.ragged("n", row, row + 1)
        data = store.rows("mask_byte", where.start, where.stop).tobytes()
    return data, np.array(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_array_by_array(folder, images, tmp_path, suffix):
    output = ingest_masks(folder, images=images, output=tmp_path / f"out{suffix}")
    for row, name in enumerate("xy"):
        data, label = decoded(output, row)
        assert data == (folder / f"{name}.png").read_bytes()
        np.testing.assert_array_equal(label, LABEL)
    data, label = decoded(output, 2)
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, LABEL > 1)
    assert arrays(output)["image_status"].tolist() == [0, 0, 0]
    assert verify(output)["problems"] == []
    assert set(meta(output)["inputs"]) == {"images", "listing"}


def test_default_name(folder, images, tmp_path):
    assert ingest_masks(folder, images=images) == tmp_path / "theirs.masks.zarr"


def png(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


BAD = [
    (b"", r"y\.png: is no PNG, it starts with b''\."),
    (b"\x89PNG\r\n\x1a\n", r"y\.png: PNG header is broken: "),
    (png(Image.new("RGB", (3, 2))), r"y\.png has mode RGB; expected an 8-bit indexed or grey pict"),
    (png(Image.new("LA", (3, 2))), r"y\.png has mode LA; expected an 8-bit indexed or grey pictur"),
    (png(Image.new("I;16", (3, 2))), r"y\.png has mode I;16; expected an 8-bit indexed or grey"),
    (
        png(Image.new("L", (2, 3))),
        r"y\.png: is 2x3 pixels, its image 3x2; expected the same\. Bring it to the size of its im",
    ),
    (
        png(Image.fromarray(LABEL + 1)),
        r"y\.png: holds the label 3, expected 0 \(background\) to 2, the number of the class\.",
    ),
    (
        png(Image.fromarray(np.where(LABEL == 1, 255, LABEL).astype(np.uint8))),
        r"y\.png: holds the label 255, .* A prediction answers every pixel: write 0 there\. Pass",
    ),
    (png(Image.fromarray(LABEL))[:45], r"y\.png cannot be decoded: "),
]


@pytest.mark.parametrize(("content", "message"), BAD)
def test_bad_files(folder, images, content, message):
    (folder / "y.png").write_bytes(content)
    with pytest.raises(BadImageError, match=r'^val\.zarr row 1 "y": ' + message):
        ingest_masks(folder, images=images)
    ears = Ears()
    output = ingest_masks(folder, images=images, on_bad="skip", report=ears)
    found = arrays(output)
    assert found["image_status"].tolist() == [0, 1, 0]
    assert found["mask_start"][1] == found["mask_start"][2] > 0
    assert ears.num_skipped == 1


def test_missing_files_and_strangers(folder, images):
    (folder / "y.png").rename(folder / "q.png")
    ears = Ears()
    with pytest.raises(
        BadImageError, match=r"there is no file of it in .*theirs; expected its id an"
    ):
        ingest_masks(folder, images=images, report=ears)
    assert ears.warnings == [
        f"{folder}: files that belong to no image: 1, the first is q.png. Not read."
    ]


def test_folders_that_cannot_be(tmp_path, images):
    with pytest.raises(UsageError, match=r"nowhere: there is no such folder\."):
        ingest_masks(tmp_path / "nowhere", images=images)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty: no \.png file in it; expected one an image\.$"):
        ingest_masks(tmp_path / "empty", images=images)


def test_shards_make_the_same_store(tmp_path):
    names = [f"{n:03}" for n in range(300)]
    images = write_images(tmp_path / "i.zarr", {key: {} for key in names}, CLASSES, size=(3, 2))
    rng = np.random.default_rng(0)
    for name in names:
        put_picture(tmp_path / f"t/{name}.png", rng.integers(0, 3, (2, 3), np.uint8))
    whole = ingest_masks(tmp_path / "t", images=images)
    shared = tmp_path / "s.h5"
    for shard in ("1/2", "0/2"):
        ingest_masks(tmp_path / "t", images=images, output=shared, shard=shard)
    assert_equal_arrays(whole, shared)
