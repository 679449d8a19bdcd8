"""Protocols of masks and of pairs of stores: shards of two images each, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest

from wsltool.stages import plan
from wsltool.stages.score import score

from .making import write_images, write_maps
from .scoring import with_masks
from .test_score_masks import write_masks

CLASSES = ["cat", "dog", "cow"]
NAMES = [f"i{number}" for number in range(9)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Nine images, one of them without a mask; two stores of maps, two of masks."""
    folder, rng = tmp_path_factory.mktemp("masks"), np.random.default_rng(1)
    truth, masks, predicted = {}, {}, {}
    for number, name in enumerate(NAMES):
        x, y, label = rng.integers(0, 3, 3).tolist()
        truth[name] = {"boxes": [(label, x, y, x + 4, y + 3)]}
        label_HW = np.zeros((10, 12), np.uint8)
        label_HW[y : y + 3, x : x + 4] = label + 1
        noise_HW = rng.integers(0, 4, (10, 12))
        predicted[name] = np.where(rng.random((10, 12)) < 0.2, noise_HW, label_HW).astype(np.uint8)
        label_HW[0, :2] = 255
        if number != 4:
            masks[name] = [(-1, label_HW)]
    images = with_masks(write_images(folder / "s.zarr", truth, CLASSES, size=(12, 10)), masks)

    def maps(name):
        slots = {
            one: (None, [(k, 1.0 - k, rng.normal(size=(3, 4))) for k in range(3)]) for one in NAMES
        }
        return write_maps(folder / name, images, slots)

    fewer = {name: predicted[name] for name in NAMES[:7]}
    return {
        "maps": maps("m.zarr"),
        "other maps": maps("n.zarr"),
        "masks": write_masks(folder / "p.zarr", images, predicted),
        "other masks": write_masks(folder / "q.zarr", images, fewer),
    }


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("maps", {"protocol": ["pxap", "saliency-ap", "maxboxacc-v3"], "interval": 0.1}),
        ("maps", {"protocol": "saliency-ap", "pairs": "per-pair", "classes": "cat,cow"}),
        ("maps", {"protocol": "pointing-game", "regions": "masks"}),
        ("maps", {"protocol": "peak-distance", "other": True}),
        ("masks", {"protocol": "voc-miou"}),
    ],
)
def test_shards_are_one(stores, tmp_path, monkeypatch, kind, options):
    other = stores[f"other {kind}"]
    options = options | {"bootstrap": 5, "compare": other}
    if "other" in options:
        options["other"] = other
    alone = tmp_path / "alone.json"
    found = score(stores[kind], output=alone, **options)["results"]
    assert all(one["value"] is not None for one in found)
    assert all(one["compared"]["low"] is not None for one in found)
    monkeypatch.setattr(plan, "_BLOCK_ROWS", 2)
    for index in (2, 0, 1):
        score(stores[kind], output=tmp_path / "r.json", shard=f"{index}/3", **options)
    assert (tmp_path / "r.json").read_bytes() == alone.read_bytes()


def test_stores_rewritten_at_their_place_are_read_anew(tmp_path):
    """Maps, truth and files of masks: nothing that was read before is remembered."""
    left, right = (np.zeros((10, 20), np.uint8) for _ in range(2))
    left[:, :5], right[:, 15:] = 1, 1
    values = []
    for number, (shown, hot) in enumerate([(left, left), (left, right), (right, right)]):
        folder = tmp_path / "one"
        if number:
            folder.rename(tmp_path / f"before {number}")
        folder.mkdir()
        x0 = int(shown.any(axis=0).argmax())
        listed = {"a": {"boxes": [(0, x0, 0, x0 + 5, 10)]}}
        images = write_images(folder / "s.zarr", listed, CLASSES)
        images = with_masks(images, {"a": [(-1, shown)]})
        maps = write_maps(folder / "m.zarr", images, {"a": (None, [(0, 1.0, hot)])})
        protocols = ["peak-in-box", "saliency-ap", "pxap"]
        found = score(maps, protocol=protocols, interval=0.1)["results"]
        values.append([round(one["value"]) for one in found])
    assert values == [[100, 100, 100], [0, 25, 25], [100, 100, 100]]
