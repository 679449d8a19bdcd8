"""The candidates of a search in maps: what carries them, and what leaves them behind."""

from __future__ import annotations

import numpy as np
import pytest

from wsltool.stages.access import StoreRows
from wsltool.stages.boxes import boxes
from wsltool.stages.convert import convert
from wsltool.stages.export import export
from wsltool.stages.ingest_maps import ingest_maps
from wsltool.stages.inspect import inspect
from wsltool.stages.merge import merge
from wsltool.stages.refine import refine
from wsltool.stages.select import select
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .making import Ears, arrays, assert_equal_arrays, meta, write_images, write_maps
from .refining import label, write_clusters, write_features

CLASSES = ["cat", "dog"]
CELLS = np.array([[4.0, 9], [1, 2]], np.float32)
HELD = ("candidate", "candidate_slot", "candidate_level", "candidate_score")

OF_A = [
    (0, 1, 0.75, (0, 0, 15, 10)),
    (0, 2, 0.5, (0, 0, 10, 10)),
    (1, 1, 0.25, (1 / 3, 2, 3, 4)),
]
OF_D = [(0, 1, 0.625, (0, 5, 20, 10)), (0, 1, 0.5, (0, 0, 20, 5))]
both = pytest.mark.parametrize("suffix", [".zarr", ".h5"])


@pytest.fixture
def images(tmp_path):
    every = {name: {"labels": {"abcd".index(name) // 2: 1}} for name in "abcd"}
    return write_images(tmp_path / "s.zarr", every, CLASSES)


def searched(path, images, **more):
    """Four images: a has maps of two classes, b has one without candidates, c nothing."""
    slots = {
        "a": (None, [(0, 0.7, CELLS), (1, 0.2, CELLS + 1)]),
        "b": (None, [(0, 0.6, CELLS)]),
        "c": (None, []),
        "d": (None, [(1, 0.9, CELLS)]),
    }
    candidates = {"a": OF_A, "d": OF_D}
    more = {"score_kind": "probability", "candidates": candidates} | more
    return write_maps(path, images, slots, **more)


def told(path):
    """Offsets, and (slot, level, score, box) of every candidate."""
    found = arrays(path)
    lists = [found[name].tolist() for name in (*HELD[1:], "candidate")]
    rows = [(*one, tuple(box)) for *one, box in zip(*lists, strict=True)]
    return found["candidate_start"].tolist(), rows


@both
def test_select_keeps_those_of_its_rows(images, tmp_path, suffix):
    maps = searched(tmp_path / f"m{suffix}", images)
    ids = tmp_path / "ids.txt"
    ids.write_text("b\nd\n")
    for kept, expected in (
        (select(maps, ids=ids, output=tmp_path / f"bd{suffix}"), ([0, 0, 2], OF_D)),
        (select(maps, class_="cat", output=tmp_path / f"cat{suffix}"), ([0, 3, 3], OF_A)),
        (
            select(maps, class_="cat", limit=1, output=tmp_path / f"one{suffix}"),
            ([0, 3], OF_A),
        ),
        (select(maps, fraction=1.0, output=tmp_path / f"all{suffix}"), ([0, 3, 3, 3, 5], None)),
    ):
        start, rows = told(kept)
        assert start == expected[0]
        assert rows == (OF_A + OF_D if expected[1] is None else expected[1])
        assert verify(kept)["problems"] == []
        for name, values in arrays(maps).items():
            assert arrays(kept)[name].dtype == values.dtype


def test_rows_without_any_candidate(images, tmp_path):
    maps = searched(tmp_path / "m.zarr", images)
    ids = tmp_path / "ids.txt"
    ids.write_text("b\nc\n")
    kept = select(maps, ids=ids)
    assert told(kept) == ([0, 0, 0], [])
    assert arrays(kept)["candidate"].shape == (0, 4)
    assert verify(kept)["problems"] == []


def test_there_and_back(images, tmp_path):
    maps = searched(tmp_path / "m.zarr", images)
    there = convert(maps)
    back = convert(there, output=tmp_path / "back.zarr")
    for other in (there, back):
        assert_equal_arrays(maps, other)
        assert meta(other) == meta(maps)
        assert verify(other)["problems"] == []


@both
def test_inspect_says_how_many(images, tmp_path, suffix):
    found = inspect(searched(tmp_path / f"m{suffix}", images))["arrays"]
    assert found["candidate"] == {
        "dims": ["candidate", "xyxy"],
        "shape": [5, 4],
        "dtype": "float64",
    }
    assert found["candidate_start"]["shape"] == [5]
    assert {found[name]["shape"][0] for name in HELD} == {5}


@both
def test_one_image_has_its_own(images, tmp_path, suffix):
    rows = StoreRows(searched(tmp_path / f"m{suffix}", images))
    assert [len(rows.row(n)["candidate"]) for n in range(4)] == [3, 0, 0, 2]
    assert rows.row(3)["candidate_score"].tolist() == [0.625, 0.5]
    assert "candidate_start" not in rows.row(0)


@both
def test_maps_made_of_maps_leave_them_behind_without_a_word(images, tmp_path, suffix):
    """A refined or merged map is no sum of candidates any more."""
    one, two = (searched(tmp_path / f"{n}{suffix}", images) for n in "mn")
    east, north = (1.0, 0), (0, 1.0)
    cells = np.array([[east, north], [east, east]])
    features = write_features(tmp_path / "f.zarr", images, dict.fromkeys("abcd", cells))
    clusters = write_clusters(tmp_path / "k.zarr", CLASSES, {0: [east, north], 1: [east, north]})
    labels = label(clusters, {"cat": "od", "dog": "oo"})
    ears = Ears()
    refined = refine(
        one, labels=labels, features=features, report=ears, output=tmp_path / f"r{suffix}"
    )
    merged = merge(one, two, report=ears, output=tmp_path / f"mm{suffix}")
    assert ears.warnings == []
    for path in (refined, merged):
        with open_store(path) as store:
            assert not [name for name in store.names if name.startswith("candidate")]
        assert verify(path)["problems"] == []
    assert arrays(refined)["suppressed"].sum() == 2  # the cats of a and b
    plain = searched(tmp_path / f"p{suffix}", images)
    assert_equal_arrays(boxes(plain), boxes(one))


def test_export_and_ingest_again(images, tmp_path):
    maps = searched(tmp_path / "m.zarr", images, score_kind="combined")
    folder = export(maps, form="npy")
    back = ingest_maps(
        folder,
        images=images,
        classes=str(folder / "maps.json"),
        class_score=folder / "class-score.npy",
    )
    found, expected = arrays(back), arrays(maps)
    assert not [name for name in found if name.startswith("candidate")]
    np.testing.assert_array_equal(found["map_score"], expected["map_score"])
    with open_store(back) as store:
        assert store.attributes["score_kind"] == "combined"
