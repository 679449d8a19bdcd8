"""Maps of several stores side by side, and the maxima of two on one picture."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wsltool.errors import (
    LineageError,
    ProtocolError,
    StoreCorruptError,
    StoreExistsError,
    StoreKindError,
    UsageError,
)
from wsltool.stages.boxes import boxes
from wsltool.stages.ingest import ingest_folder
from wsltool.stages.side_by_side import distances, map_label
from wsltool.stages.view import view
from wsltool.stores.open import open_store

from .making import Ears, put_picture, write_images, write_maps

NAMES = ["cat/a.png", "cat/b.png", "dog/c.png"]


@pytest.fixture
def images(tmp_path):
    """Three pictures of 20 x 10, each with a true box on its left half."""
    for name in NAMES:
        put_picture(tmp_path / "pets" / name, (20, 10))
    lines = [f"{name},0,0,10,10" for name in NAMES]
    (tmp_path / "b.csv").write_text("\n".join(["image,x0,y0,x1,y1", *lines]) + "\n")
    return ingest_folder(tmp_path / "pets", boxes=tmp_path / "b.csv", output=tmp_path / "s.zarr")


def spot(col, row=5):
    cells = np.zeros((10, 20), np.float32)
    cells[row, col] = 1
    return cells


@pytest.fixture
def first(images, tmp_path):
    slots = {name: (None, [(n // 2, 2.0, spot(2))]) for n, name in enumerate(NAMES)}
    return write_maps(tmp_path / "one.zarr", images, slots)


@pytest.fixture
def other(images, tmp_path):
    """Maxima 3, 4 down and 15 to the right; none of a dog in c."""
    slots = {
        "cat/a.png": (None, [(0, 1.5, spot(5))]),
        "cat/b.png": (None, [(0, -1.5, spot(17, 9)), (1, -2, spot(0))]),
        "dog/c.png": (None, [(0, 1.0, spot(2))]),
    }
    return write_maps(tmp_path / "two.zarr", images, slots)


# Panels


def test_panels_in_the_order_given(first, other, tmp_path):
    ears = Ears()
    page = view(first, over=[other, first], report=ears)
    assert page == tmp_path / "one.over/index.html"
    assert ears.announced == [page]
    assert ears.warnings == []
    text = page.read_text()
    assert "one, two and one, side by side" in text
    worst = re.findall(
        r'id="(worst-[^"]+)">.*?class="name" title="(\w+)".*?class="chip">([^<]*)', text
    )
    assert worst[3:6] == [
        ("worst-2-1", "one", "✓ inside"),
        ("worst-2-2", "two", "✗ outside"),
        ("worst-2-3", "one", "✓ inside"),
    ]
    assert worst[7] == ("worst-3-2", "two", "no map")
    assert text.count('d="M2.50 5.50l0 0"') > 3
    for place in re.findall(r'(?:src|href)="(?!data:)([^"#][^"]*)"', text):
        assert (tmp_path / "one.over" / place).is_file()


def test_images_that_another_store_lacks_or_skipped(images, first, tmp_path):
    few = write_maps(tmp_path / "few.zarr", images, {"cat/a.png": (None, [(0, 1, spot(1))])})
    text = view(first, over=[few]).read_text()
    assert "no map" in text
    assert "cat/b.png" in text


def test_without_true_boxes_nothing_is_inside(tmp_path):
    put_picture(tmp_path / "pets/cat/a.png", (20, 10))
    images = ingest_folder(tmp_path / "pets")
    slots = {"cat/a.png": (None, [(0, 1.0, spot(2))])}
    paths = [write_maps(tmp_path / f"{n}.zarr", images, slots) for n in "xy"]
    text = view(paths[0], over=[paths[1]]).read_text()
    assert "inside</span>" not in text
    assert "outside</span>" not in text


def test_the_iteration_of_the_model_behind(images, tmp_path):
    from wsltool.nets.initial import start_network
    from wsltool.nets.models import Model, save_model
    from wsltool.nets.preprocess import Preprocess
    from wsltool.nets.weights import file_sha256

    network = start_network("small_gap", 2, init="none", seed=1).network.eval()
    model = Model(network, "small_gap", None, None, Preprocess(48), "logistic", "")
    for n, provenance in enumerate(({"iteration": 4200}, {"made": {"iteration": 7}}, {})):
        file = tmp_path / f"{n}.safetensors"
        save_model(file, model, provenance)
        record = {"path": file.name, "kind": "model", "digest": file_sha256(file)}
        slots = {name: (None, [(0, 1, spot(1))]) for name in NAMES}
        path = write_maps(tmp_path / f"m{n}.zarr", images, slots)
        with open_store(path) as store:
            store.meta["inputs"]["model"] = record
            label = map_label(store)
            record["digest"] = "another"
            assert map_label(store) == f"m{n}"
        assert label == [f"m{n} · iteration 4,200", f"m{n} · iteration 7", f"m{n}"][n]


# Maxima


def test_distances_by_hand(images, first, other):
    with open_store(first) as one, open_store(other) as two, open_store(images) as truth:
        found = distances(one, two, truth)
    assert found.truth_row_M.tolist() == [0, 1]
    assert found.class_M.tolist() == [0, 0]
    assert found.first_M2.tolist() == [[2.5, 5.5], [2.5, 5.5]]
    assert found.other_M2.tolist() == [[5.5, 5.5], [17.5, 9.5]]
    np.testing.assert_allclose(found.px_M, [3, np.hypot(15, 4)])
    assert found.num_without == 1


def test_the_maxima_on_one_picture(first, other, tmp_path):
    page = view(first, compare=other)
    assert page == tmp_path / "one.compare/index.html"
    text = page.read_text()
    assert "one and two: how far apart are their maxima?" in text
    assert "9.3 px" in text  # (3 + 15.52) / 2
    assert "1, not counted" in text
    found = re.findall(r'id="(farthest|median|nearest)-1-\d">.*?class="chip">([^<]*)', text)
    assert found == [
        *[("farthest", "16 px"), ("farthest", "3 px")],
        *[("median", "3 px"), ("median", "16 px")],
        *[("nearest", "3 px"), ("nearest", "16 px")],
    ]
    assert 'class="peak first"' in text
    assert 'class="peak other"' in text
    assert 'class="heat"' not in text
    assert "2 cases, 9 px on average" in text


def test_numbers_of_cases(first, other, tmp_path):
    view(first, compare=other, num=1, samples=0)
    assert len(list((tmp_path / "one.compare/pictures").iterdir())) == 2 * 2
    view(first, over=[other], num=1, samples=0)
    assert len(list((tmp_path / "one.over/pictures").iterdir())) <= 2 * 5


# Both


@pytest.mark.parametrize("options", ["over", "compare"])
def test_the_same_again_is_left_alone_another_is_told(first, other, tmp_path, options):
    def call(path=first, maps=other, **more):
        return view(path, **{options: [maps] if options == "over" else maps}, **more)

    page = call()
    stamp = page.stat().st_mtime_ns
    assert call() == page
    assert page.stat().st_mtime_ns == stamp
    with pytest.raises(StoreExistsError, match=r"a gallery is already there; .*--overwrite"):
        call(other, first, output=page.parent)
    with pytest.raises(StoreExistsError, match=r"a gallery is already there; .*--overwrite"):
        view(first, output=page.parent)
    call(other, first, output=page.parent, overwrite=True)
    assert "two" in page.read_text()


@pytest.mark.parametrize("options", ["over", "compare"])
def test_a_picture_that_is_gone(images, first, other, tmp_path, options):
    given = {options: [other] if options == "over" else other}
    (tmp_path / "pets/cat/b.png").unlink()
    ears = Ears()
    page = view(first, **given, report=ears)
    assert ears.num_skipped == 1
    assert len(ears.warnings) == 1
    assert ears.warnings[0].startswith('s.zarr row 1 "cat/b.png": picture cat/b.png cannot be read')
    text = page.read_text()
    assert 'title="cat/a.png"' in text
    put_picture(tmp_path / "pets/cat/b.png", (20, 10))
    ears = Ears()
    view(first, **given, report=ears)
    assert ears.num_skipped == 0
    (tmp_path / "pets").rename(tmp_path / "moved")
    with pytest.raises(LineageError, match=r"s\.zarr: its pictures' folder pets is not there"):
        view(first, **given, output=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_shown(images, first, other, tmp_path):
    with pytest.raises(UsageError, match=r"^--over and --compare are both given; expected one of"):
        view(first, over=[other], compare=other)
    with pytest.raises(UsageError, match=r"^--over must be a sequence of paths, got '.*two\.zarr'"):
        view(first, over=str(other))
    for options in ({"over": [other]}, {"compare": other}):
        with pytest.raises(
            StoreKindError, match=r'^one\.boxes\.zarr: kind is "boxes", but view --over or --comp'
        ):
            view(boxes(first), **options)
    for options in ({"over": [images]}, {"compare": images}):
        with pytest.raises(StoreKindError, match=r'^s\.zarr: kind is "images", but view reads "ma'):
            view(first, **options)
    assert not [path for path in tmp_path.iterdir() if (path / "index.html").exists()]


def test_stores_that_do_not_belong_together(images, first, tmp_path):
    strange = write_images(tmp_path / "x.zarr", {"x": {}}, ["cat", "dog"])
    slots = {"x": (None, [(0, 1.0, spot(1))])}
    ids = write_maps(tmp_path / "ids.zarr", strange, slots)
    for options in ({"over": [ids]}, {"compare": ids}):
        with pytest.raises(ProtocolError, match=r"^ids\.zarr and s\.zarr: no image is left to sc"):
            view(first, **options)
    none = write_maps(
        tmp_path / "none.zarr",
        images,
        {n: (None, []) for n in NAMES[:2]} | {NAMES[2]: (None, [(0, 1, spot(1))])},
    )
    with pytest.raises(
        ProtocolError, match=r"^one\.zarr and none\.zarr: no image has a map of the same class pr"
    ):
        view(first, compare=none)


@pytest.mark.parametrize("options", ["over", "compare"])
def test_a_map_that_is_not_finite_is_named(images, first, tmp_path, options):
    slots = {name: (None, [(0, 1.0, spot(1) * np.nan)]) for name in NAMES}
    bad = write_maps(tmp_path / "bad.zarr", images, slots)
    with pytest.raises(StoreCorruptError, match=r'^bad\.zarr row 0 "cat/a\.png": map has 200 val'):
        view(first, **{options: [bad] if options == "over" else bad})
    assert not (tmp_path / f"one.{options}").exists()
