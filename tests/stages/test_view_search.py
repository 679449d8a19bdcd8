"""A search level by level: hand-made candidates, the page, and maps without any."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wsltool.errors import LineageError, StoreError, UsageError
from wsltool.stages.boxes import boxes
from wsltool.stages.convert import convert
from wsltool.stages.ingest import ingest_folder
from wsltool.stages.judged import Shown, judge
from wsltool.stages.select import select
from wsltool.stages.verify import verify
from wsltool.stages.view import view
from wsltool.stages.view_search import search_cases
from wsltool.stores.open import open_store

from .making import Ears, put_picture, write_boxes, write_maps

NAMES = ["cat/a.png", "cat/b.png", "dog/c.png"]
LEFT = np.zeros((10, 20), np.float32)
LEFT[:, :10] = 1

CANDIDATES = {
    "cat/a.png": [
        (0, 1, 0.75, (0, 0, 15, 10)),
        (0, 1, 0.5, (5, 0, 20, 10)),
        (0, 2, 0.875, (0, 0, 10, 10)),
        (1, 1, 0.25, (1, 2, 3, 4)),
    ],
    "dog/c.png": [(0, 1, 0.625, (0, 5, 20, 10))],
}


@pytest.fixture
def images(tmp_path):
    """Three pictures of 20 x 10, each with a true box on its left half."""
    for name in NAMES:
        put_picture(tmp_path / "pets" / name, (20, 10))
    lines = [f"{name},0,0,10,10" for name in NAMES]
    (tmp_path / "b.csv").write_text("\n".join(["image,x0,y0,x1,y1", *lines]) + "\n")
    return ingest_folder(tmp_path / "pets", boxes=tmp_path / "b.csv", output=tmp_path / "s.zarr")


@pytest.fixture
def maps(images, tmp_path):
    """Of a cat and a dog in a, of a dog in c; b, a cat, has a map without candidates."""
    slots = {
        "cat/a.png": (None, [(0, 0.7, LEFT), (1, 0.2, LEFT)]),
        "cat/b.png": (None, [(0, 0.6, 1 - LEFT)]),
        "dog/c.png": (None, [(1, 0.9, LEFT)]),
    }
    return write_maps(tmp_path / "m.zarr", images, slots, candidates=CANDIDATES)


def panels(maps, images):
    with open_store(maps) as store, open_store(images) as truth:
        judged = judge(store, truth)
        shown = Shown(store, truth, store, lambda row: np.zeros((10, 20, 3), np.uint8))
        every = np.arange(len(judged.class_M))
        return list(search_cases(shown, store, judged, every, Ears()))


def test_the_panels_by_hand(maps, images):
    assert verify(maps)["problems"] == []
    found = panels(maps, images)
    assert [(n, case.caption) for n, case in found] == [
        (0, "level 1"),
        (0, "level 2"),
        (0, "heat map"),
        (1, "heat map"),
        (2, "level 1"),
        (2, "heat map"),
    ]
    one, two, heat = (case for n, case in found if n == 0)
    assert one.search.earlier_B4.tolist() == []
    assert one.search.current_B4.tolist() == [[0, 0, 15, 10], [5, 0, 20, 10]]
    assert two.search.earlier_B4.tolist() == one.search.current_B4.tolist()
    assert two.search.current_B4.tolist() == [[0, 0, 10, 10]]
    assert (one.verdict, two.verdict) == (("none", "0.750"), ("none", "0.875"))
    assert one.told == (
        ("level", "1 of 2"),
        ("candidates", "2"),
        ("best score", "0.75"),
        ("lowest score", "0.5"),
        ("best box", "0, 0, 15, 10"),
    )
    assert one.heat_HW is None
    assert heat.search is None
    assert heat.heat_HW.shape == (10, 20)
    assert heat.iou == 1
    assert heat.predicted_box_B4.tolist() == heat.true_box_B4.tolist() == [[0, 0, 10, 10]]


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_the_page(maps, tmp_path, suffix):
    path = maps if suffix == ".zarr" else convert(maps)
    ears = Ears()
    page = view(path, search=True, report=ears)
    assert page == tmp_path / "m.search/index.html"
    assert ears.announced == [page]
    assert ears.warnings == []
    text = page.read_text()
    assert "m: the search, level by level" in text
    assert "<dt>candidates</dt><dd>5</dd>" in text
    found = re.findall(
        r'id="best-(\d-\d)">.*?class="name" title="([^"]+)".*?class="chip">([^<]*)', text
    )
    assert found == [
        ("1-1", "level 1", "0.750"),
        ("1-2", "level 2", "0.875"),
        ("1-3", "heat map", "✓ 1.00"),
        ("2-1", "level 1", "0.625"),
        ("2-2", "heat map", "✓ 1.00"),
        ("3-1", "heat map", "✗ 0.00"),
    ]
    assert 'class="current best"><path class="dark" d="M0.00 0.00H15.00V10.00H0.00Z"' in text
    assert 'class="sign earlier"' in text
    for place in re.findall(r'(?:src|href)="(?!data:)([^"#][^"]*)"', text):
        assert (page.parent / place).is_file()
    assert len(list((page.parent / "pictures").glob("*-overlay.jpg"))) == 6
    assert len(list((page.parent / "pictures").glob("*a.png.jpg"))) == 1  # panels share the photo
    stamp = page.stat().st_mtime_ns
    assert view(path, search=True) == page
    assert page.stat().st_mtime_ns == stamp
    assert view(path) == tmp_path / "m.view/index.html"


def test_how_many_are_shown(maps):
    text = view(maps, search=True, num=1, samples=0).read_text()
    assert re.findall(r'id="(worst-\d-1|best-\d-1|classes-\d-1)"', text) == [
        "worst-1-1",
        "best-1-1",
    ]


def test_boxes_show_the_search_behind_them(maps, tmp_path):
    """Their own threshold: at .4 as at .2 here; the folder is theirs."""
    page = view(boxes(maps, threshold=0.4), search=True)
    assert page == tmp_path / "m.boxes.search/index.html"
    assert '<span class="chip">0.875</span>' in page.read_text()


def test_a_selection_shows_its_own_search(maps):
    text = view(select(maps, class_="dog"), search=True).read_text()
    assert "<dt>candidates</dt><dd>1</dd>" in text
    assert "0.625" in text
    assert "0.875" not in text


def test_images_without_a_map_and_a_search_that_kept_nothing(images, tmp_path):
    """Such as an image that was skipped; and a grid of one cell, which has nothing smaller."""
    slots = {name: (None, [(0, 1.0, LEFT)][: name == NAMES[0]]) for name in NAMES}
    path = write_maps(tmp_path / "e.zarr", images, slots, candidates={})
    text = view(path, search=True).read_text()
    assert "<dt>candidates</dt><dd>0</dd>" in text
    assert "no map of this class" in text
    assert "✓ 1.00" in text
    assert "level 1<" not in text


def test_maps_without_candidates(images, tmp_path):
    path = write_maps(
        tmp_path / "n.zarr", images, {name: (None, [(0, 1.0, LEFT)]) for name in NAMES}
    )
    with pytest.raises(
        StoreError,
        match=r"^n\.zarr: holds no candidates of a search, expected those that beam-search kept\. "
        r"Make it with wsltool beam-search --keep-candidates\.$",
    ):
        view(path, search=True)
    assert not (tmp_path / "n.search").exists()
    with pytest.raises(StoreError, match=r"^n\.zarr: holds no candidates"):
        view(boxes(path), search=True)


def test_boxes_whose_maps_are_unknown(images, tmp_path):
    slots = {"cat/a.png": [(0, 1.0, (0, 0, 10, 10))]}
    path = write_boxes(tmp_path / "b.zarr", images, slots, classes="all")
    line = r"^b\.zarr: does not record what maps .* Say where with wsltool view MAPS --search\.$"
    with pytest.raises(LineageError, match=line):
        view(path, search=True)


def test_what_excludes_it(maps):
    with pytest.raises(UsageError, match=r"^--compare and --search are both given; expected one o"):
        view(maps, search=True, compare=maps)
    with pytest.raises(UsageError, match=r"^--over, --before, --search are all given; expected on"):
        view(maps, search=True, over=[maps], before=maps)
