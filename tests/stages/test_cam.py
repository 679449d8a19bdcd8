"""Class activation maps of networks that are worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from wsltool.errors import UsageError
from wsltool.nets import inference
from wsltool.stages.cam import cam
from wsltool.stages.ingest import ingest_folder
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from . import tiny_networks
from .colours import (
    BIAS,
    CLASSES,
    CPU,
    HEAD,
    ME,
    A,
    by_hand,
    cells_picture,
    made,
)
from .making import arrays, assert_equal_arrays, meta, put_picture, write_images

pytestmark = pytest.mark.usefixtures("one_thread")


class TestNumbers:
    """Values against the arithmetic."""

    def test_every_class(self, images, tmp_path):
        output = cam(images, model=f"{ME}:colours", classes="all", **CPU)
        assert output == tmp_path / "s.cam.zarr"
        found = arrays(output)
        row = found["image_id"].tolist().index("red/a.png")
        maps, scores = by_hand(A)
        np.testing.assert_allclose(found["class_score"][row], scores, rtol=1e-6)
        order = np.argsort(-scores, kind="stable")
        assert found["map_class"][row].tolist() == order.tolist()
        np.testing.assert_allclose(found["map"][row], maps[order], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(found["map_score"][row], scores[order], rtol=1e-6)
        assert found["map_extent"].tolist() == [[0, 0, 8, 8]] * 5
        assert found["map"].dtype == np.float32
        assert found["map"].shape == (5, 3, 2, 2)
        assert verify(output)["problems"] == []
        with open_store(output) as store:
            assert store.attributes["score_kind"] == "logit"
            assert store.attributes["classes"] == "all"

    def test_mean_of_the_map_and_bias_is_the_score(self, images):
        found = made(images, classes="all")
        bias = BIAS[found["map_class"]]
        np.testing.assert_allclose(
            found["map"].mean(axis=(2, 3)) + bias, found["map_score"], rtol=1e-5, atol=1e-6
        )

    def test_falling_order_and_empty_slots(self, images):
        """Present only: one map an image, and a second slot where two are present."""
        found = made(images, classes="top2+present")
        known = found["map_class"] >= 0
        assert (np.diff(np.where(known, found["map_score"], -9e9), axis=1) <= 0).all()
        assert (found["map_score"][~known] == -np.inf).all()
        assert not found["map"][~known].any()
        for row, (score, slots) in enumerate(
            zip(found["class_score"], found["map_class"], strict=True)
        ):
            top = set(np.argsort(-score)[:2].tolist())
            label = ["red", "green", "blue"].index(found["image_id"][row].split("/")[0])
            assert set(slots[slots >= 0].tolist()) == top | {label}

    def test_present(self, images):
        found = made(images, classes="present")
        labels = [CLASSES.index(name.split("/")[0]) for name in found["image_id"].tolist()]
        assert found["map_class"].tolist() == [[label] for label in labels]
        assert np.isfinite(found["class_score"]).all()

    def test_top(self, images):
        found = made(images, classes="top1")
        assert found["map_class"][:, 0].tolist() == found["class_score"].argmax(axis=1).tolist()
        assert found["map"].shape[1] == 1

    def test_above(self, images):
        """Softmax above .4; an image may have none, and keeps an empty slot."""
        found = made(images, classes="above:0.4")
        power = np.exp(found["class_score"])
        share = power / power.sum(axis=1, keepdims=True)
        for row in range(5):
            above = set(np.flatnonzero(share[row] > 0.4).tolist())
            slots = found["map_class"][row]
            assert set(slots[slots >= 0].tolist()) == above

    def test_above_all_but_certain(self, images):
        found = made(images, classes="above:0.999")
        assert found["map_class"].tolist() == [[-1]] * 5
        assert found["map_score"].tolist() == [[-np.inf]] * 5

    def test_probability(self, images):
        logit = made(images, classes="all")
        found = made(images, classes="all", scores="probability", output=images.parent / "p.zarr")
        power = np.exp(logit["class_score"].astype(np.float64))
        share = power / power.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found["class_score"], share, rtol=1e-6)
        expected = np.take_along_axis(found["class_score"], found["map_class"], axis=1)
        np.testing.assert_array_equal(found["map_score"], expected)
        np.testing.assert_array_equal(found["map"], logit["map"])

    def test_flip(self, folder, images, tmp_path):
        """The mean of the plain map and the mirrored picture's map, mirrored back."""
        plain = made(images, "lopsided", classes="all")
        found = made(images, "lopsided", classes="all", flip=True, output=tmp_path / "f.zarr")
        for file in folder.rglob("*.png"):
            mirrored = np.asarray(Image.open(file))[:, ::-1]
            put_picture(tmp_path / "mirrored" / file.relative_to(folder), np.array(mirrored))
        other = ingest_folder(
            tmp_path / "mirrored", classes=tmp_path / "classes.txt", output=tmp_path / "o.zarr"
        )
        turned = made(other, "lopsided", classes="all")
        assert (plain["class_score"] != turned["class_score"]).any()
        for row in range(5):
            for slot, index in enumerate(found["map_class"][row]):
                one = plain["map"][row, plain["map_class"][row].tolist().index(index)]
                two = turned["map"][row, turned["map_class"][row].tolist().index(index)]
                np.testing.assert_allclose(
                    found["map"][row, slot], (one + two[:, ::-1]) / 2, rtol=1e-5, atol=1e-6
                )
        np.testing.assert_allclose(
            found["class_score"], (plain["class_score"] + turned["class_score"]) / 2, rtol=1e-5
        )

    def test_scales(self, images, tmp_path):
        """Scores: the mean. Maps: the maximum on the finest grid, the others bilinear."""
        parts = {
            size: made(images, classes="all", input_size=size, output=tmp_path / f"{size}.zarr")
            for size in (8, 16)
        }
        found = made(images, classes="all", scales=(1, 2), output=tmp_path / "both.zarr")
        assert found["map"].shape == (5, 3, 4, 4)
        mean = (parts[8]["class_score"] + parts[16]["class_score"]) / 2
        np.testing.assert_allclose(found["class_score"], mean, rtol=1e-5, atol=1e-6)
        for row in range(5):
            for slot, index in enumerate(found["map_class"][row]):
                coarse, fine = (
                    part["map"][row, part["map_class"][row].tolist().index(index)]
                    for part in parts.values()
                )
                up = torch.nn.functional.interpolate(
                    torch.tensor(coarse)[None, None], (4, 4), mode="bilinear", align_corners=False
                )
                np.testing.assert_allclose(
                    found["map"][row, slot],
                    np.maximum(up[0, 0].numpy(), fine),
                    rtol=1e-4,
                    atol=1e-5,
                )

    def test_float16(self, images, tmp_path):
        full = made(images, classes="all")
        half = made(images, classes="all", map_dtype="float16", output=tmp_path / "h.zarr")
        assert half["map"].dtype == np.float16
        np.testing.assert_array_equal(half["map"], full["map"].astype(np.float16))
        assert half["class_score"].dtype == half["map_score"].dtype == np.float32

    def test_a_value_that_float16_cannot_hold(self, images):
        with pytest.raises(
            UsageError,
            match=r"^--map-dtype float16 holds values up to 65504, a map has 100000\. Pass "
            r"--map-dtype float32 --overwrite\.$",
        ):
            made(images, "huge", classes="all", map_dtype="float16")
        found = made(images, "huge", classes="all", overwrite=True)
        assert found["map"].max() == pytest.approx(1e5)


class TestExtent:
    """Pictures of 16 x 8: what the 2 x 2 cells cover, and that they show just that."""

    WIDE = np.array([[10, 20, 30, 40], [50, 60, 70, 80]], np.uint8)

    @pytest.fixture
    def wide(self, tmp_path):
        cells = np.repeat(self.WIDE[:, :, None], 3, axis=2)
        put_picture(tmp_path / "wide/red/a.png", cells_picture(cells))
        (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
        return ingest_folder(tmp_path / "wide", classes=tmp_path / "classes.txt")

    @pytest.mark.parametrize(
        ("fit", "extent", "expected"),
        [
            ("warp", [0, 0, 16, 8], [[15, 35], [55, 75]]),
            ("crop", [4, 0, 12, 8], [[20, 30], [60, 70]]),
            # the middle four of eight rows hold the picture, the others the mean colour, 0
            ("letterbox", [0, -4, 16, 12], [[15, 35], [55, 75]]),
        ],
    )
    def test_fit(self, wide, fit, extent, expected):
        found = made(wide, classes="top1", fit=fit)
        assert found["map_extent"].tolist() == [extent]
        cells = found["map"][0, 0] * 255 / HEAD[found["map_class"][0, 0]].sum()
        if fit == "letterbox":  # each cell is half border, and half of two rows' mean
            expected = np.array(expected) / 2
        np.testing.assert_allclose(cells, expected, atol=3.2)

    def test_the_peak_of_a_crop_is_where_the_light_is(self, tmp_path):
        """A light at x 8 to 11 of 16: cell column 1 of a crop that begins at 4."""
        picture = np.zeros((8, 16, 3), np.uint8)
        picture[4:, 8:12] = 255
        put_picture(tmp_path / "light/red/a.png", picture)
        (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
        source = ingest_folder(tmp_path / "light", classes=tmp_path / "classes.txt")
        found = made(source, classes="present", fit="crop")
        np.testing.assert_allclose(found["map"][0, 0], [[0, 0], [0, 1]], atol=1e-6)


@pytest.fixture
def many(tmp_path):
    """270 pictures, so two blocks; one truncated picture in each."""
    root = tmp_path / "many"
    rng = np.random.default_rng(1)
    for n in range(270):
        size = (int(rng.integers(6, 14)), int(rng.integers(6, 14)))
        picture = rng.integers(0, 256, (*size, 3), np.uint8)
        path = put_picture(root / f"{CLASSES[n % 3]}/{n:03}.jpg", picture)
        if n in (5, 269):
            path.write_bytes(path.read_bytes()[:-40])
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    return ingest_folder(root, classes=tmp_path / "classes.txt", output=tmp_path / "many.zarr")


def test_the_same_bytes_whatever_workers_shards_and_container(many, tmp_path):
    """Batches of 50 do not divide the block of 256: no batch crosses it."""
    options = {"model": f"{ME}:colours", "classes": "top2+present", "flip": True, "device": "cpu"}
    options |= {"batch_size": 50, "on_bad": "skip"}
    whole = cam(many, output=tmp_path / "whole.zarr", workers=0, **options)
    for name, workers in (("one.h5", 1), ("two.zarr", 2)):
        other = cam(many, output=tmp_path / name, workers=workers, **options)
        assert meta(other)["digest"] == meta(whole)["digest"]
        assert_equal_arrays(whole, other)
    for shard in ("1/2", "0/2"):
        cam(many, output=tmp_path / "parts.zarr", workers=0, shard=shard, **options)
    assert meta(tmp_path / "parts.zarr")["digest"] == meta(whole)["digest"]
    assert meta(whole)["skipped"] == 2
    assert verify(whole)["problems"] == []


def test_batches_never_cross_a_block_and_leave_out_skipped_images(tmp_path, monkeypatch):
    listed = {f"{n:03}": {"status": int(n in (3, 4, 257))} for n in range(270)}
    source = write_images(tmp_path / "s.zarr", listed, CLASSES, size=(4, 4))
    seen = []

    def spy(model, pictures, batches, *more, **options):
        seen.extend(batches)
        raise UsageError("seen")

    monkeypatch.setattr(inference, "run_cams", spy)
    with pytest.raises(UsageError, match=r"^seen$"):
        cam(source, model=f"{ME}:colours", batch_size=100, **CPU)
    assert [len(batch) for batch in seen] == [100, 100, 54, 13]
    assert [row for batch in seen for row in batch] == [
        n for n in range(270) if n not in (3, 4, 257)
    ]


def test_the_network_keeps_no_hooks(images):
    """What is given back is the user's own network, as it was."""
    network, _ = tiny_networks.colours()
    before = {name: len(part._forward_hooks) for name, part in network.named_modules()}

    def factory():
        return network, tiny_networks.PLAIN

    tiny_networks.mine = factory
    try:
        made(images, "mine")
    finally:
        del tiny_networks.mine
    assert {name: len(part._forward_hooks) for name, part in network.named_modules()} == before
    assert not any(part._forward_pre_hooks for part in network.modules())
