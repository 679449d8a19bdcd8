"""``saliency-ap`` and ``peak-distance`` on hand-made stores."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.metrics.blocks import exact_ap
from wsltool.errors import (
    BadImageError,
    ProtocolError,
    StoreCorruptError,
    StoreKindError,
    UsageError,
)
from wsltool.stages.baseline import baseline
from wsltool.stages.ingest import ingest_voc
from wsltool.stages.map_rows import map_rows
from wsltool.stages.score import score
from wsltool.stages.select import select
from wsltool.stages.true_masks import TrueMasks
from wsltool.stores.open import open_store

from .making import arrays, write_images, write_maps, write_store
from .scoring import (
    CLASSES,
    LABELS,
    PEAKS,
    POINTS,
    RIGHT,
    five_images,
    mapped,
    peaked,
    result,
    values,
    with_masks,
)


@pytest.fixture
def images(tmp_path):
    return five_images(tmp_path)


def put_ids(path, ids):
    path.write_text("\n".join(ids) + "\n")
    return path


LEFT = np.zeros((10, 20), np.uint8)
LEFT[:, :10] = 1


class TestSaliency:
    """Images a and c have masks: cat and dog on the left half; c's last column is left out."""

    @pytest.fixture
    def masked(self, images):
        dog = LEFT * 2
        dog[:, 19] = 255
        return with_masks(images, {"a": [(-1, LEFT)], "c": [(-1, dog)]})

    def maps(self, masked, levels, name="m.zarr", **options):
        """Make maps of 1 x 2 cells: one class an image, the left and the right value."""
        cells = {
            image: (None, [(k, 1.0, np.array([value]))])
            for (image, k), value in zip(zip("abcde", LABELS, strict=True), levels, strict=True)
        }
        return write_maps(masked.parent / name, masked, cells, **options)

    VALUES = ((4.0, 0.0), (1.0, 2.0), (-1.0, 5.0), (1.0, 2.0), (1.0, 2.0))

    def test_by_hand(self, masked):
        """In a the object is hotter throughout; in c the other half is."""
        found = result(self.maps(masked, self.VALUES, classes="present"), "saliency-ap")
        assert values(found)["cat"] == 100
        heat = np.clip((np.arange(20) + 0.5) / 10 - 0.5, 0, 1) * 6 - 1
        levels = np.clip(heat / heat.max(), 0, None)[:19]
        true = np.arange(19) < 10
        best = []
        for level in np.unique(levels)[::-1]:
            hot = levels >= level
            best.append((true[hot].sum() / 10, true[hot].mean()))
        recall, precision = np.array(best).T
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        expected = (np.diff(recall, prepend=0) * envelope).sum()
        assert values(found)["dog"] == pytest.approx(100 * expected)
        assert found["images"] == {
            "scored": 2,
            "missing": 0,
            "skipped": 0,
            "not_in_truth": 0,
            "without_truth": 0,
            "without_mask": 3,
            "limit": None,
        }
        assert found["warnings"] == ["3 images have no true mask and are left out"]
        assert found["parameters"] == {"pairs": "pooled"}
        assert found["extra"]["num_pairs"] == 2
        assert found["extra"]["num_object_px"] == 200
        assert found["extra"]["num_other_px"] == 190
        flat, centre = found["baselines"]
        assert flat["name"] == "every pixel alike"
        assert flat["value"] == pytest.approx(100 * 200 / 390)
        assert centre["name"] == "image centre"
        assert centre["difference"] == pytest.approx(found["value"] - centre["value"])

    def test_per_pair(self, masked):
        found = result(self.maps(masked, self.VALUES), "saliency-ap", pairs="per-pair")
        assert found["value"] == pytest.approx((100 + values(found)["dog"]) / 2)
        found = result(self.maps(masked, self.VALUES, "n.zarr"), "saliency-ap", classes="cat")
        assert found["value"] == 100

    def test_compare(self, masked):
        maps = self.maps(masked, self.VALUES, classes="present")
        worse = self.maps(masked, [(0.0, 1.0)] * 5, "w.zarr", classes="present")
        found = result(maps, "saliency-ap", compare=worse)
        compared = found["compared"]
        assert compared["value"] == result(worse, "saliency-ap")["value"]
        assert compared["difference"] == found["value"] - compared["value"]
        assert compared["low"] - 0.2 <= compared["difference"] <= compared["high"] + 0.2
        assert compared["inputs"]["maps"]["path"].endswith("w.zarr")
        same = result(maps, "saliency-ap", compare=maps)["compared"]
        assert (same["difference"], same["low"], same["high"]) == (0, 0, 0)

    def test_compared_images_are_joined_by_id(self, masked, tmp_path):
        maps = self.maps(masked, self.VALUES, classes="present")
        listed = {n: {"boxes": [(k, *RIGHT)]} for n, k in (("c", 1), ("a", 0))}
        source = write_images(tmp_path / "t.zarr", listed, CLASSES)
        cells = {
            "c": (None, [(1, 1.0, np.array([[-1.0, 5.0]]))]),
            "a": (None, [(0, 1.0, np.array([[4.0, 0.0]]))]),
        }
        other = write_maps(tmp_path / "o.zarr", source, cells)
        found = result(maps, "saliency-ap", compare=other)["compared"]
        assert (found["difference"], found["low"], found["high"]) == (0, 0, 0)

    def test_image_that_the_maps_lack_counts_as_zeros(self, masked):
        cells = {"a": (None, [(0, 1.0, np.array([[4.0, 0.0]]))])}
        maps = write_maps(masked.parent / "m.zarr", masked, cells)
        found = result(maps, "saliency-ap", pairs="per-pair")
        assert values(found)["dog"] == pytest.approx(100 * 10 / 19)
        assert found["images"]["missing"] == 1

    def test_no_masks(self, images):
        maps = mapped(images, POINTS)
        line = (
            "s.zarr: has no true masks, which saliency-ap needs. Ingest them (ingest voc, of a "
            "folder with SegmentationClass) or pass --truth."
        )
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            score(maps, protocol="saliency-ap")

    def test_images_that_the_compared_store_lacks_count_as_missed(self, masked, tmp_path):
        maps = self.maps(masked, self.VALUES)
        part = select(maps, ids=put_ids(tmp_path / "ids.txt", "ab"), output=tmp_path / "p.zarr")
        found = result(maps, "saliency-ap", compare=part)
        assert found["compared"]["value"] != found["value"]
        assert (
            found["warnings"][-1] == "1 of 2 images are not in p.zarr; they count as missed there"
        )

    def test_no_image_has_a_mask(self, images):
        source = with_masks(images, {"z": []})
        maps = self.maps(source, self.VALUES)
        line = (
            "masked.zarr: none of the 5 images that m.zarr holds has a true mask, so nothing can "
            "be scored. Ingest an image set that has masks (ingest voc --split Segmentation/val) "
            "or pass --truth."
        )
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            score(maps, protocol="saliency-ap")

    def test_present_classes_may_lack(self, masked):
        with pytest.raises(ProtocolError, match=r"^m\.zarr: holds the classes top1, saliency-ap n"):
            score(self.maps(masked, self.VALUES, classes="top1"), protocol="saliency-ap")

    def test_a_mask_that_is_gone(self, masked):
        (masked.parent / "masks" / "c-0.png").unlink()
        with pytest.raises(BadImageError, match=r"^mask masks/c-0\.png cannot be read: No such"):
            score(self.maps(masked, self.VALUES), protocol="saliency-ap")

    def test_a_map_that_is_not_finite(self, masked):
        levels = (*self.VALUES[:2], (np.inf, 1.0), *self.VALUES[3:])
        with pytest.raises(StoreCorruptError, match=r'^m\.zarr row 2 "c": map has 1 values that'):
            score(self.maps(masked, levels), protocol="saliency-ap")


class TestDistance:
    def test_by_hand(self, images, tmp_path):
        """a: 9 to 6; b: 10 to 10; c: 0 to 12; d has no map of the dog in one; e: 19 to 19."""
        maps = peaked(images, tmp_path, PEAKS)
        away = {"a": 6, "b": 10, "c": 12, "d": 0, "e": 19}
        slots = {n: [(k, 1.0, away[n], 1.0)] for n, k in zip("abcde", LABELS, strict=True)}
        other = mapped(images, slots, name="o.zarr", classes="present")
        found = result(maps, "peak-distance", other=other)
        assert found["value"] == pytest.approx((3 + 0 + 12 + 0) / 4)
        assert found["unit"] == "px"
        assert found["higher_is_better"] is None
        assert found["baselines"] == []
        assert found["extra"]["num_pairs"] == 4
        assert found["extra"]["median"] == 1.5
        assert [values(found)[name] for name in CLASSES[:3]] == [1.5, 12, 0]
        assert found["warnings"] == ["1 pairs have no map in one of the stores and are left out."]
        assert result(maps, "peak-distance", other=other, classes="dog")["value"] == 12
        assert result(maps, "peak-distance", other=maps)["value"] == 0

    def test_images_are_joined_by_id(self, images, tmp_path):
        maps = mapped(images, {n: [(k, 1.0, 3, 1.0)] for n, k in zip("abcde", LABELS, strict=True)})
        listed = {n: {"boxes": [(k, *RIGHT)]} for n, k in zip("edc", LABELS[:1:-1], strict=True)}
        source = write_images(tmp_path / "t.zarr", listed, CLASSES)
        slots = {n: [(k, 1.0, 5, 1.0)] for n, k in zip("edc", LABELS[:1:-1], strict=True)}
        other = mapped(source, slots, name="o.zarr")
        found = result(maps, "peak-distance", other=other)
        assert found["value"] == 2
        assert found["extra"]["num_pairs"] == 3

    def test_images_that_a_store_skipped_are_left_out(self, images):
        """Whichever of the two skipped them, and whatever maps it holds of them."""
        maps = mapped(images, {n: [(k, 1.0, 3, 1.0)] for n, k in zip("abcde", LABELS, strict=True)})
        held = arrays(maps) | {"image_status": np.array([0, 1, 0, 2, 0], np.uint8)}
        gone = write_store(images.with_name("g.zarr"), "maps", held, made_from=[images])
        for one, other in ((maps, gone), (gone, maps)):
            assert result(one, "peak-distance", other=other)["extra"]["num_pairs"] == 3

    def test_other_is_missing(self, images):
        line = (
            "--other is missing: peak-distance measures to the maps of another store. Pass "
            "--other MAPS."
        )
        with pytest.raises(UsageError, match=f"^{re.escape(line)}$"):
            score(mapped(images, POINTS), protocol="peak-distance")

    def test_other_is_no_maps(self, images):
        line = r'^s\.zarr: kind is "images", but score --other reads "maps"\. Give the maps\.$'
        with pytest.raises(StoreKindError, match=line):
            score(mapped(images, POINTS), protocol="peak-distance", other=images)

    def test_other_has_other_classes_or_images(self, images, tmp_path):
        maps = mapped(images, POINTS)
        source = write_images(tmp_path / "t.zarr", {"x": {"boxes": [(0, *RIGHT)]}}, CLASSES)
        other = mapped(source, {"x": POINTS["a"]}, name="o.zarr")
        line = (
            "o.zarr: holds none of the 5 scored images. Give one of the same images with --other."
        )
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            score(maps, protocol="peak-distance", other=other)
        source = write_images(tmp_path / "u.zarr", {"a": {"boxes": [(0, *RIGHT)]}}, CLASSES[:2])
        other = mapped(source, {"a": POINTS["a"]}, name="p.zarr")
        with pytest.raises(ProtocolError, match=r"^p\.zarr and s\.zarr have different classes"):
            score(maps, protocol="peak-distance", other=other)


@pytest.mark.real
def test_voc(tmp_path, data_dir):
    """A centred Gaussian beside random maps; the pooled AP against the exact one."""
    folder = data_dir / "VOCdevkit" / "VOC2007"
    source = ingest_voc(folder, split="Segmentation/test", output=tmp_path / "s.zarr", limit=12)
    gaussian = baseline(source, prior="gaussian", output=tmp_path / "g.zarr")
    random = baseline(source, prior="random", output=tmp_path / "r.zarr")
    found = result(gaussian, "saliency-ap", compare=random)
    assert found["images"]["without_mask"] == 0
    heat, mask = _pixels(source, gaussian)
    exact = exact_ap(heat, mask)
    assert found["value"] <= exact + 1e-9
    assert exact <= found["extra"]["exact_at_most"] + 1e-9
    assert exact - found["value"] < 0.005
    assert found["extra"]["exact_at_most"] - found["value"] < 0.1
    compared = found["compared"]
    assert 0 < compared["low"] < compared["difference"] < compared["high"]
    apart = result(gaussian, "peak-distance", other=random)
    assert apart["extra"]["num_pairs"] == found["extra"]["num_pairs"]
    assert 50 < apart["value"] < 400


def _pixels(source, maps):
    """Return heat and mask of the pixels of all pairs."""
    heats, masks = [], []
    with open_store(source) as truth, open_store(maps) as store:
        label_NK = truth.whole("label")
        for row, of_image in enumerate(map_rows(store, 0, len(store))):
            mask_of = TrueMasks(truth).of_row(row)
            for index in np.flatnonzero(label_NK[row] == 1).tolist():
                if (mask_of(index) == 1).any():
                    heat_HW = of_image.heat(of_image.slot_of(index))
                    heats.append((heat_HW / heat_HW.max()).ravel())
                    masks.append(mask_of(index).ravel())
    return np.concatenate(heats), np.concatenate(masks)
