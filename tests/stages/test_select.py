"""Some rows of a store: every condition, the draw, and what the result still knows."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import DatasetError, LineageError, StoreExistsError, UsageError
from wsltool.stages.boxes import boxes
from wsltool.stages.ingest import ingest_folder
from wsltool.stages.pictures import Pictures
from wsltool.stages.score import score
from wsltool.stages.select import _by_class, select
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .making import Ears, arrays, meta, put_picture, write_boxes, write_images, write_maps

CLASSES = ["cat", "dog", "cow"]


@pytest.fixture
def images(tmp_path):
    """Twelve images: 0 to 5 cats, 6 to 9 dogs (8 and 9 with a cow too), 10 undecided, 11 none."""
    labels = [{0: 1}] * 6 + [{1: 1}] * 2 + [{1: 1, 2: 1}] * 2 + [{2: 255}, {}]
    return write_images(
        tmp_path / "set.zarr",
        {
            f"i{row:02}": {
                "labels": one,
                "boxes": [(k, row, 0, row + 1, 1) for k in one if one[k] == 1],
            }
            for row, one in enumerate(labels)
        },
        CLASSES,
        size=(30, 20),
    )


def ids(path):
    return arrays(path)["image_id"].tolist()


def names(*rows):
    return [f"i{row:02}" for row in rows]


def id_file(folder, *lines, name="ids.txt"):
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def test_ids_keep_the_order_of_the_store(images, tmp_path):
    file = id_file(tmp_path, "i07", " i02 ", "", "i07", "i11")
    output = select(images, ids=file)
    assert output == tmp_path / "set.select.zarr"
    found, whole = arrays(output), arrays(images)
    assert found["image_id"].tolist() == names(2, 7, 11)
    for name in ("image_size", "image_path", "label", "image_num_bytes"):
        np.testing.assert_array_equal(found[name], whole[name][[2, 7, 11]])
    assert found["box_start"].tolist() == [0, 1, 2, 2]
    assert found["box"].tolist() == [[2, 0, 3, 1], [7, 0, 8, 1]]
    assert found["class_name"].tolist() == CLASSES
    assert found["class_id"].tolist() == ["id cat", "id dog", "id cow"]
    assert meta(output)["limit"] == {"how": "select", "num_rows": 3, "of": 12}
    assert verify(output)["problems"] == []


def test_unknown_ids(images, tmp_path):
    file = id_file(tmp_path, "i01", "z", "y")
    with pytest.raises(
        UsageError,
        match=rf'^{file}: 2 ids are not in set\.zarr, first "y"\. Leave them out of the file\.$',
    ):
        select(images, ids=file)


def test_a_file_of_ids_that_cannot_be_read(images, tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.txt: cannot be read, No such file"):
        select(images, ids=tmp_path / "gone.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DatasetError, match=r"latin\.txt: not UTF-8, byte b'\\xe9'\."):
        select(images, ids=tmp_path / "latin.txt")


@pytest.mark.parametrize(("word", "rows"), [("cow", [8, 9]), ("id dog", [6, 7, 8, 9])])
def test_class_by_name_and_by_id(images, word, rows):
    """An undecided image (10) is not labelled with the class."""
    assert ids(select(images, class_=word)) == names(*rows)


def test_an_unknown_class(images):
    with pytest.raises(
        UsageError,
        match=r'^--class "horse": no such class in set\.zarr \(cat, dog, cow, …\)\.$',
    ):
        select(images, class_="horse")


def test_not_in_another_store_of_any_kind(images, tmp_path):
    part = write_boxes(tmp_path / "part.zarr", images, {name: [] for name in names(0, 5, 11)})
    assert ids(select(images, not_in=part)) == names(*range(1, 5), *range(6, 11))


def test_conditions_add_up(images, tmp_path):
    part = select(images, ids=id_file(tmp_path, *names(6, 8)), output=tmp_path / "part.zarr")
    file = id_file(tmp_path, *names(0, 6, 7, 8, 9, 11), name="more.txt")
    both = select(images, ids=file, not_in=part, class_="dog", output=tmp_path / "both.zarr")
    assert ids(both) == names(7, 9)
    drawn = select(
        images, ids=file, not_in=part, class_="dog", fraction=0.5, output=tmp_path / "drawn.zarr"
    )
    assert ids(drawn) == names(7, 9)  # a stratum of one each, dog and cow: at least one stays
    first = select(images, class_="cat", limit=2, output=tmp_path / "first.zarr")
    assert ids(first) == names(0, 1)


def test_nothing_asked_and_nothing_left(images, tmp_path):
    with pytest.raises(
        UsageError, match=r"^select: no condition\. Pass --fraction, --ids, --class or --not-in\.$"
    ):
        select(images)
    with pytest.raises(UsageError, match=r"^set\.zarr: none of 12 rows fulfils that\.$"):
        select(images, not_in=images)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
def test_fraction_out_of_range(images, fraction):
    line = f"--fraction must be in (0, 1], got {fraction}."
    with pytest.raises(UsageError, match=f"^{re.escape(line)}$"):
        select(images, fraction=fraction)


def test_a_negative_seed(images):
    with pytest.raises(UsageError, match=r"^--seed must be in \[0, \d+\), got -1\.$"):
        select(images, fraction=0.5, seed=-1)


def test_the_draw_is_stratified_and_seeded(images, tmp_path):
    """Strata: six cats; two dogs; two dogs with a cow, whose rarer class is cow; two others."""
    drawn = []
    for seed in range(4):
        output = select(images, fraction=0.5, seed=seed, output=tmp_path / f"{seed}.zarr")
        rows = [int(name[1:]) for name in ids(output)]
        assert rows == sorted(rows)
        parts = [sum(low <= row < high for row in rows) for low, high in [(0, 6), (6, 8), (8, 10)]]
        assert parts == [3, 1, 1]
        assert len(rows) == 6
        drawn.append(tuple(rows))
    assert len(set(drawn)) > 1
    again = select(images, fraction=0.5, seed=3, output=tmp_path / "again.zarr")
    assert tuple(int(name[1:]) for name in ids(again)) == drawn[3]


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.lists(st.sampled_from([0, 1, 255]), min_size=3, max_size=3), min_size=1),
    fraction=st.floats(0.01, 1),
    seed=st.integers(0, 9),
)
def test_every_stratum_keeps_its_share(tmp_path_factory, labels, fraction, seed):
    path = tmp_path_factory.mktemp("law") / "set.h5"
    listed = {
        f"{row}": {"labels": dict(enumerate(one)), "boxes": []} for row, one in enumerate(labels)
    }
    write_images(path, listed, CLASSES)
    with open_store(path) as store:
        drawn = _by_class(store, np.ones(len(labels), bool), None, fraction, seed)
    label = np.array(labels) == 1
    count = label.sum(axis=0)
    stratum = [
        min(np.flatnonzero(row), key=lambda k: (count[k], k)) if row.any() else -1 for row in label
    ]
    for one in set(stratum):
        rows = np.array([other == one for other in stratum])
        assert drawn[rows].sum() == max(1, round(fraction * rows.sum()))


def test_options_count_only_where_they_matter(images):
    select(images, class_="cow", seed=1)
    select(images, class_="cow", seed=2)  # nothing is drawn
    with pytest.raises(StoreExistsError, match=r"with --class cow, now dog\. Pass"):
        select(images, class_="dog")


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_maps_and_boxes(images, tmp_path, suffix):
    """Every kind keeps its own arrays; boxes keep their own rows."""
    cells = {
        name: (None, [(k, 1.0 - k, np.full((2, 3), 10 * row + k)) for k in range(row % 3 + 1)])
        for row, name in enumerate(names(*range(12)))
    }
    maps = write_maps(tmp_path / f"maps{suffix}", images, cells, score_kind="logit")
    kept = select(maps, class_="cow")
    assert ids(kept) == names(8, 9)
    found, whole = arrays(kept), arrays(maps)
    for name in ("map", "map_class", "map_score", "map_extent", "class_score"):
        np.testing.assert_array_equal(found[name], whole[name][8:10])
    drawn = boxes(maps, empty="whole", output=tmp_path / f"boxes{suffix}")
    part = select(drawn, ids=id_file(tmp_path, *names(1, 8)), output=tmp_path / f"part{suffix}")
    found, whole = arrays(part), arrays(drawn)
    rows = [slice(*whole["box_start"][row : row + 2]) for row in (1, 8)]
    assert found["box_start"].tolist() == [0, 2, 5]
    for name in ("box", "box_class", "box_score", "box_slot"):
        np.testing.assert_array_equal(found[name], np.concatenate([whole[name][r] for r in rows]))
    for path in (kept, part):
        assert verify(path)["problems"] == []
    with open_store(kept) as store:
        assert store.attributes["classes"] == "all"
        assert store.attributes["score_kind"] == "logit"


def test_a_store_that_knows_no_images(images, tmp_path):
    lonely = write_boxes(tmp_path / "b.zarr", images, {"i01": []}, made_from=[])
    with pytest.raises(
        LineageError, match=r"^b\.zarr: does not record what images it was made from\. Say where"
    ):
        select(lonely, class_="cat")
    assert ids(select(lonely, ids=id_file(tmp_path, "i01"))) == ["i01"]


def test_score_after_select_is_of_the_selected_images(images, tmp_path):
    """Cats are found, dogs are not; of four selected images one is a cat."""
    cells = {
        name: (None, [(k, 0.0, _at(int(name[1:]) if k == 0 else 29)) for k in range(3)])
        for name in names(*range(12))
    }
    maps = write_maps(tmp_path / "maps.zarr", images, cells)
    drawn = boxes(maps, threshold=0.9)
    file = id_file(tmp_path, *names(3, 6, 7, 8))
    chosen = {
        "maps first": boxes(select(maps, ids=file, output=tmp_path / "m.zarr"), threshold=0.9),
        "boxes after": select(drawn, ids=file, output=tmp_path / "b.zarr"),
    }
    whole = score(drawn, protocol="peak-in-box")["results"][0]
    assert (whole["extra"]["num_hits"], whole["extra"]["num_pairs"]) == (6, 12)
    for path in chosen.values():
        ears = Ears()
        found = score(path, protocol="peak-in-box", report=ears)["results"][0]
        assert (found["extra"]["num_hits"], found["extra"]["num_pairs"]) == (1, 5)
        assert found["value"] == 20
        assert found["images"] == {
            "scored": 4,
            "missing": 0,
            "skipped": 0,
            "not_in_truth": 0,
            "without_truth": 0,
            "limit": {"how": "select", "num_rows": 4, "of": 12},
        }
        assert ears.warnings == ["peak-in-box: selected 4 of 12 images"]


def _at(col):
    cells = np.zeros((20, 30), np.float32)
    cells[0, col] = 1
    return cells


def test_selected_images_are_the_truth_of_what_is_made_from_them(images, tmp_path):
    part = select(images, class_="cow")
    found = {"i08": [(1, 1.0, (8, 0, 9, 1)), (2, 0.5, (8, 0, 9, 1))], "i09": []}
    drawn = write_boxes(tmp_path / "b.zarr", part, found, classes="all")
    result = score(drawn, protocol="voc-ap")["results"][0]
    assert result["images"]["scored"] == 2
    assert result["value"] == pytest.approx(50)


def test_pictures_are_found_from_another_folder(tmp_path):
    for name in ("cat/a.png", "cat/b.png", "dog/c.png"):
        put_picture(tmp_path / "pets" / name, (8, 6))
    source = ingest_folder(tmp_path / "pets")
    deep = tmp_path / "one/two"
    deep.mkdir(parents=True)
    output = select(source, class_="dog", output=deep / "dogs.zarr")
    with open_store(output) as store:
        assert store.attributes["root"] == "../../pets"
        assert Pictures(store)(0).shape == (6, 8, 3)
    assert meta(output)["inputs"]["images"]["path"] == "../../pets.images.zarr"


def test_skipped_rows_stay_skipped(tmp_path):
    source = write_images(
        tmp_path / "s.zarr", {"a": {}, "b": {"status": 1, "labels": {0: 1}}}, CLASSES
    )
    found = arrays(select(source, class_="cat"))
    assert found["image_status"].tolist() == [2]
    assert found["image_note"].tolist() == ["left out"]


def test_selecting_twice_remembers_the_whole(images, tmp_path):
    once = select(images, class_="dog")
    twice = select(once, class_="cow", output=tmp_path / "twice.zarr")
    assert meta(twice)["limit"] == {"how": "select", "num_rows": 2, "of": 12}


def test_shards_and_one_process_agree(tmp_path):
    listed = {f"{row:03}": {"labels": {row % 3: 1}} for row in range(600)}
    source = write_images(tmp_path / "s.zarr", listed, CLASSES, boxes=False)
    whole = select(source, fraction=0.9, output=tmp_path / "whole.zarr")
    for shard in ("1/2", "0/2"):
        select(source, fraction=0.9, output=tmp_path / "parts.zarr", shard=shard)
    assert meta(whole)["digest"] == meta(tmp_path / "parts.zarr")["digest"]
    assert len(ids(whole)) == 540
