"""What was mended and what was spoilt: hand-made boxes before and after."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wsltool.errors import ProtocolError, StoreKindError, UsageError
from wsltool.stages.ingest import ingest_folder
from wsltool.stages.judged import Shown
from wsltool.stages.mended import judge_both, mended_cases, mended_sections
from wsltool.stages.view import view
from wsltool.stores.open import open_store

from .making import Ears, put_picture, write_boxes, write_maps

LEFT, RIGHT, HALF = (0, 0, 10, 10), (10, 0, 20, 10), (0, 0, 10, 4)
NAMES = ["cat/a.png", "cat/b.png", "cat/c.png", "dog/d.png", "dog/e.png", "dog/f.png"]
OLD = {"a": RIGHT, "b": LEFT, "c": HALF, "d": LEFT, "e": None, "f": LEFT}
NEW = {"a": LEFT, "b": HALF, "c": (0, 0, 10, 4.5), "d": None, "e": LEFT, "f": LEFT}


@pytest.fixture
def images(tmp_path):
    """Six pictures of 20 x 10; the left half is true, f has no true box."""
    for name in NAMES:
        put_picture(tmp_path / "pets" / name, (20, 10))
    lines = [f"{name},0,0,10,10" for name in NAMES[:5]]
    (tmp_path / "b.csv").write_text("\n".join(["image,x0,y0,x1,y1", *lines]) + "\n")
    return ingest_folder(tmp_path / "pets", boxes=tmp_path / "b.csv", output=tmp_path / "s.zarr")


def store(images, name, boxes):
    slots = {
        one: [(int(one[0] == "d"), 1.0, *([box] if (box := boxes[one[4]]) else []))]
        for one in NAMES
        if one[4] in boxes
    }
    return write_boxes(images.with_name(name), images, slots, classes="all")


@pytest.fixture
def before(images):
    return store(images, "old.zarr", OLD)


@pytest.fixture
def after(images):
    return store(images, "new.zarr", NEW)


def test_by_hand(images, before, after):
    with open_store(after) as new, open_store(before) as old, open_store(images) as truth:
        found = judge_both(new, old, truth)
        sections = mended_sections(truth, found, num=12, samples=2)
    assert found.after.truth_row_M.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found.change_M, [1, -0.6, 0.05, -1, 1])
    assert found.outcome_M.tolist() == [1, -1, 0, -1, 1]
    assert found.num_without == 1
    mended, spoilt, classes = sections
    assert mended.rows[0].numbers == [0, 4]
    assert spoilt.rows[0].numbers == [3, 1]
    told = [(row.title, row.detail, row.numbers) for row in classes.rows]
    assert told == [
        ("cat", "1 mended, 1 spoilt, 1 unchanged", [0, 1]),
        ("dog", "1 mended, 1 spoilt, 0 unchanged", [4, 3]),
    ]


def test_a_case_has_both_boxes(images, before, after):
    with open_store(after) as new, open_store(before) as old, open_store(images) as truth:
        found = judge_both(new, old, truth)
        shown = Shown(new, truth, None, lambda row: np.zeros((10, 20, 3), np.uint8))
        cases = [case for _, case in mended_cases(found, shown, np.arange(5), Ears())]
    assert [case.verdict for case in cases] == [
        ("hit", "✓ 0.00 → 1.00"),
        ("miss", "✗ 1.00 → 0.40"),
        ("none", "0.40 → 0.45"),
        ("miss", "✗ 1.00 → no box"),
        ("hit", "✓ no box → 1.00"),
    ]
    assert [len(case.former_box_B4) for case in cases] == [1, 1, 1, 1, 0]
    assert cases[0].former_box_B4.tolist() == [list(RIGHT)]
    assert cases[0].predicted_box_B4.tolist() == cases[0].true_box_B4.tolist() == [list(LEFT)]
    assert cases[3].predicted_box_B4 is None


def test_an_iou_just_below_is_not_told_as_the_bound(images):
    near = dict.fromkeys(OLD, (0, 0, 10, 4.99))
    page = view(store(images, "n.zarr", NEW), before=store(images, "o.zarr", near))
    assert "✓ &lt;0.50 → 1.00" in page.read_text()


def test_the_page(before, after, tmp_path):
    ears = Ears()
    page = view(after, before=before, report=ears)
    assert page == tmp_path / "new.mended/index.html"
    assert ears.announced == [page]
    assert ears.warnings == []
    text = page.read_text()
    assert "old → new: what was mended, what was spoilt?" in text
    for name, value in (("mended", 2), ("spoilt", 2), ("right in both", 0), ("wrong in both", 1)):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in text
    assert "1, not counted" in text
    assert re.findall(r'id="(\w+-1-\d)">.*?class="name" title="(\w+)"', text)[:4] == [
        ("mended-1-1", "cat"),
        ("mended-1-2", "dog"),
        ("spoilt-1-1", "dog"),
        ("spoilt-1-2", "cat"),
    ]
    assert 'class="former"><rect' in text
    assert 'class="latter"><rect' in text
    assert 'class="predicted"' not in text
    assert '<i class="sign former"></i>before<i class="sign latter"></i>after' in text
    assert "<dt>before</dt><dd>10, 0, 20, 10</dd><dt>after</dt><dd>0, 0, 10, 10</dd>" in text
    for place in re.findall(r'(?:src|href)="(?!data:)([^"#][^"]*)"', text):
        assert (page.parent / place).is_file()
    stamp = page.stat().st_mtime_ns
    assert view(after, before=before) == page
    assert page.stat().st_mtime_ns == stamp


def test_nothing_changed(before):
    text = view(before, before=before).read_text()
    assert text.count("No cases.") == 2
    assert "0 mended, 0 spoilt, 3 unchanged" in text


def test_numbers_of_cases(before, after):
    text = view(after, before=before, num=1, samples=0).read_text()
    assert len(re.findall(r'class="card \w+" id="mended', text)) == 1
    assert len(re.findall(r'class="card \w+" id="spoilt', text)) == 1
    assert 'id="classes-1-1"' not in text
    assert "1 mended, 1 spoilt, 1 unchanged" in text


def test_maps_are_judged_by_their_boxes_and_shown(images, before, tmp_path):
    cells = np.zeros((10, 20), np.float32)
    cells[:, :10] = 1
    slots = {name: (None, [(int(name[0] == "d"), 1.0, cells)]) for name in NAMES}
    maps = write_maps(tmp_path / "m.zarr", images, slots)
    text = view(maps, before=before).read_text()
    assert "<dt>mended</dt><dd>3</dd>" in text  # a, c and e
    assert 'class="heat"' in text
    assert '<body class="no-map">' in text  # boxes first; the map on demand
    assert 'data-toggle="map" aria-pressed="false"' in text


def test_images_that_a_store_lacks(images, after):
    few = store(images, "few.zarr", {"a": RIGHT})
    text = view(after, before=few).read_text()
    assert "✓ no box → 1.00" in text  # e: counts as missed, as everywhere
    limited = write_boxes(
        images.with_name("l.zarr"),
        images,
        {"cat/a.png": [(0, 1.0, RIGHT)]},
        classes="all",
        limit={"how": "limit", "num_rows": 1, "of": 6},
    )
    assert (
        "<dt>images and classes</dt><dd>1</dd>"
        in view(limited, before=after, output=images.with_name("v")).read_text()
    )


def test_what_cannot_be_judged(images, before, after, tmp_path):
    with pytest.raises(UsageError, match=r"^--compare and --before are both given; expected one o"):
        view(after, before=before, compare=before)
    with pytest.raises(StoreKindError, match=r'^s\.zarr: kind is "images", but view --before read'):
        view(after, before=images)
    put_picture(tmp_path / "more/cat/a.png", (20, 10))
    bare = ingest_folder(tmp_path / "more", output=tmp_path / "bare.zarr")
    found = write_boxes(tmp_path / "x.zarr", bare, {"cat/a.png": [(0, 1.0, LEFT)]}, classes="all")
    with pytest.raises(ProtocolError, match=r"^bare\.zarr: has no true boxes, so nobody knows wha"):
        view(found, before=found)
    limit = {"how": "limit", "num_rows": 1, "of": 6}
    one, other = (
        write_boxes(
            tmp_path / f"{n}.zarr",
            images,
            {name: [(k, 1.0, LEFT)]},
            classes="all",
            limit=limit,
        )
        for n, (name, k) in enumerate((("cat/a.png", 0), ("cat/b.png", 0)))
    )
    with pytest.raises(ProtocolError, match=r"^0\.zarr and 1\.zarr: no image that both hold has a"):
        view(one, before=other)
