"""``voc-miou`` and ``saliency-ap`` on hand-made stores of masks."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from wsltool.errors import BadImageError, ProtocolError, StoreCorruptError
from wsltool.stages.ingest import ingest_voc
from wsltool.stages.true_masks import TrueMasks
from wsltool.stores.open import open_store

from .making import arrays, write_images, write_maps, write_store
from .outlined import with_outlines
from .scoring import CLASSES, RIGHT, result, values, with_masks

CAT = [[1, 1, 0], [0, 0, 0]]
DOG = [[0, 1, 1], [0, 0, 1]]


def png(label_HW, mode="P"):
    """Return the bytes of an indexed PNG."""
    label_HW = np.asarray(label_HW, np.uint8)
    picture = Image.new("P", label_HW.shape[::-1])
    picture.putdata(label_HW.ravel().tolist())
    picture.putpalette([255 - index for index in range(256) for _ in "rgb"])
    kept = io.BytesIO()
    (picture if mode == "P" else picture.convert(mode)).save(kept, "PNG")
    return kept.getvalue()


def write_masks(path, source, masks, **more):
    """Write a masks store; `masks` is a dict: id to a label image, bytes or None."""
    truth = arrays(source)
    row_of = {name: row for row, name in enumerate(truth["image_id"].tolist())}
    encoded = [
        b"" if one is None else one if isinstance(one, bytes) else png(one)
        for one in masks.values()
    ]
    values = {
        "image_id": list(masks),
        "image_size": truth["image_size"][[row_of.get(name, 0) for name in masks]],
        "class_name": truth["class_name"].tolist(),
        "mask_start": [len(one) for one in encoded],
        "mask_byte": np.frombuffer(b"".join(encoded), np.uint8),
    }
    return write_store(path, "masks", values, made_from=[source], **more)


@pytest.fixture
def images(tmp_path):
    listed = {name: {"boxes": [(0, *RIGHT), (1, *RIGHT)], "size": (3, 2)} for name in "abc"}
    return write_images(tmp_path / "s.zarr", listed, CLASSES)


@pytest.fixture
def labelled(images):
    """Image c has no mask."""
    files = {"a": [(-1, [[0, 0, 255], [1, 1, 2]])], "b": [(-1, [[0, 0, 0], [1, 0, 0]])]}
    return with_masks(images, files)


class TestMiou:
    def test_by_hand(self, labelled, tmp_path):
        """Background: 5 of 6; cat 2 of 3, dog 0 of 1."""
        found = {"b": [[0, 0, 0], [0, 0, 0]], "a": [[0, 0, 9], [1, 1, 0]], "c": CAT}
        with open_store(labelled) as truth:
            assert len(truth) == 3
        found["a"][0][2] = 3
        masks = write_masks(tmp_path / "p.zarr", labelled, found)
        said = result(masks, "voc-miou")
        assert said["extra"]["background_iou"] == pytest.approx(100 * 7 / 9)
        assert values(said)["cat"] == pytest.approx(100 * 2 / 3)
        assert values(said)["dog"] == 0
        assert values(said)["cow"] is None
        assert said["value"] == pytest.approx(100 * (7 / 9 + 2 / 3) / 3)
        assert said["images"]["scored"] == 2
        assert said["images"]["without_mask"] == 1
        assert "1 images have no true mask and are left out" in said["warnings"]

    @pytest.mark.parametrize("mode", ["P", "L"])
    def test_the_truth_is_right(self, labelled, tmp_path, mode):
        found = {"a": png([[0, 0, 2], [1, 1, 2]], mode="P"), "b": [[0, 0, 0], [1, 0, 0]]}
        if mode == "L":
            kept = io.BytesIO()
            Image.fromarray(np.array([[0, 0, 2], [1, 1, 2]], np.uint8)).save(kept, "PNG")
            found["a"] = kept.getvalue()
        assert result(write_masks(tmp_path / "p.zarr", labelled, found), "voc-miou")["value"] == 100

    def test_an_image_without_a_mask_counts_as_background(self, labelled, tmp_path):
        found = {"a": None, "b": [[0, 0, 0], [1, 0, 0]]}
        said = result(write_masks(tmp_path / "p.zarr", labelled, found), "voc-miou")
        assert values(said)["cat"] == pytest.approx(100 / 3)
        assert said["extra"]["num_without_prediction"] == 1

    def test_outlines_as_truth(self, images, tmp_path):
        """The pixel of both is left out."""
        path = with_outlines(images, [CAT, DOG, CAT, DOG, CAT, DOG])
        right = [[1, 1, 2], [0, 0, 2]]
        masks = write_masks(tmp_path / "p.zarr", path, dict.fromkeys("abc", right))
        said = result(masks, "voc-miou")
        assert said["value"] == 100
        assert said["extra"]["num_left_out_px"] == 3

    def test_of_another_size(self, labelled, tmp_path):
        masks = write_masks(tmp_path / "p.zarr", labelled, {"a": [[0, 0]], "b": [[0, 0]]})
        line = (
            "predictions row 0: the mask is 2x1 pixels, the true one 3x2; expected the same. "
            "Bring it to the size of its image."
        )
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            result(masks, "voc-miou")

    @pytest.mark.parametrize(
        ("data", "line"),
        [
            (b"no picture", "mask cannot be decoded: "),
            (png(CAT, "RGB"), "mask has mode RGB; expected an 8-bit indexed or grey picture."),
        ],
    )
    def test_no_indexed_picture(self, labelled, tmp_path, data, line):
        masks = write_masks(tmp_path / "p.zarr", labelled, {"a": data, "b": CAT})
        place = re.escape(f'p.zarr row 0 "a": {line}')
        with pytest.raises(StoreCorruptError, match=rf"^{place}.* Make the masks again\.$"):
            result(masks, "voc-miou")

    def test_no_true_masks(self, images, tmp_path):
        masks = write_masks(tmp_path / "p.zarr", images, {"a": CAT})
        with pytest.raises(ProtocolError, match=r"^s\.zarr: has no true masks, which voc-miou"):
            result(masks, "voc-miou")

    @pytest.mark.real
    def test_voc(self, tmp_path, data_dir):
        """The true masks of VOC 2007 as a prediction, and with every person called a dog."""
        folder = data_dir / "VOCdevkit" / "VOC2007"
        path = ingest_voc(folder, split="small_test", output=tmp_path / "s.zarr")
        with open_store(path) as truth:
            names = truth.whole("image_id").tolist()
            rows = np.flatnonzero(np.diff(truth.whole("mask_start"))).tolist()
            reader = TrueMasks(truth)
            labels = {names[row]: reader.label_image(row) for row in rows}
            person, dog = (truth.class_names().index(one) + 1 for one in ("person", "dog"))
        found = {name: np.where(one == 255, 0, one) for name, one in labels.items()}
        right = result(write_masks(tmp_path / "p.zarr", path, found), "voc-miou")
        assert right["value"] == right["extra"]["background_iou"] == 100
        found = {name: np.where(one == person, dog, one) for name, one in found.items()}
        wrong = result(write_masks(tmp_path / "q.zarr", path, found), "voc-miou")
        assert values(wrong)["person"] == 0
        assert values(wrong)["dog"] < 100
        assert wrong["extra"]["background_iou"] == 100


class TestSaliency:
    def test_outlines_as_truth(self, images, tmp_path):
        """Image a shows the cat; its crowd beside is left out."""
        path = with_outlines(images, [CAT, DOG] * 3, [0, 0, 0, 0, 0, 1])
        maps = write_maps(
            tmp_path / "m.zarr",
            path,
            {
                "a": (None, [(0, 1.0, CAT), (1, 1.0, DOG)]),
                "b": (None, [(0, 1.0, CAT), (1, 1.0, DOG)]),
                "c": (None, [(0, 1.0, CAT), (1, 1.0, CAT)]),
            },
        )
        said = result(maps, "saliency-ap")
        assert values(said)["cat"] == 100
        assert said["extra"]["num_pairs_without_object_px"] == 1
        assert values(said)["dog"] == 100

    def test_a_box_without_an_outline(self, images, tmp_path):
        path = with_outlines(images, [CAT, ""] * 3)
        maps = write_maps(tmp_path / "m.zarr", path, {"a": (None, [(0, 1.0, CAT)])})
        with pytest.raises(BadImageError, match=r"^truth row 0: box 1 \(class 1\) has no mask; "):
            result(maps, "saliency-ap")
