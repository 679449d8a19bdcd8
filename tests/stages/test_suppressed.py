"""Whoever reads maps leaves suppressed cells out: boxes, every protocol, merge, export, view.

The suppressed cells of these maps hold the highest scores, so that a reader that forgot them
would be seen; `refine` itself writes the floor there.
"""

from __future__ import annotations

import numpy as np
import pytest

from wsltool.stages.boxes import boxes
from wsltool.stages.export import export
from wsltool.stages.judged import judge
from wsltool.stages.merge import merge
from wsltool.stages.score import score
from wsltool.stages.side_by_side import distances
from wsltool.stores.open import open_store

from .making import Ears, arrays, write_images, write_maps
from .scoring import with_masks

LEFT = (0, 0, 50, 100)
CELLS = np.zeros((10, 20), np.float32)
CELLS[:, :5], CELLS[:, 8:] = 1, 5
GONE = CELLS == 5


@pytest.fixture
def images(tmp_path):
    """The object is the left quarter of a picture of 200 x 100; cells have 10 x 10 pixels."""
    listed = {"a": {"boxes": [(0, *LEFT)]}}
    source = write_images(tmp_path / "s.zarr", listed, ["cat"], size=(200, 100))
    mask_HW = np.zeros((100, 200), np.uint8)
    mask_HW[:, :50] = 1
    return with_masks(source, {"a": [(0, mask_HW)]})


def put(images, name, *, suppressed, cells=CELLS):
    more = {"suppressed": suppressed[None, None].astype(np.uint8)} if suppressed is not None else {}
    return write_maps(
        images.with_name(name),
        images,
        {"a": (None, [(0, 1.0, cells)])},
        score_kind="probability",
        **more,
    )


@pytest.fixture
def plain(images):
    return put(images, "plain.zarr", suppressed=None)


@pytest.fixture
def refined(images):
    return put(images, "refined.zarr", suppressed=GONE)


@pytest.fixture
def everywhere(images):
    """All suppressed: the map keeps its scores, as if none were."""
    return put(images, "everywhere.zarr", suppressed=np.ones_like(GONE))


def value(maps, protocol):
    return score(maps, protocol=protocol)["results"][0]["value"]


@pytest.mark.parametrize(
    "protocol",
    ["point", "pointing-game", "peak-in-box", "maxboxacc", "pxap", "saliency-ap"],
)
def test_protocols_that_read_maps(plain, refined, everywhere, protocol):
    right, wrong = value(refined, protocol), value(plain, protocol)
    assert right > 95
    assert wrong < 50
    assert value(everywhere, protocol) == wrong


@pytest.mark.parametrize("rule", ["kl16", "zhou"])
def test_boxes(plain, refined, everywhere, rule):
    """The heat falls from 1 at x = 45 to 0 at 55, hence to a fifth at 53."""
    assert value(boxes(refined, rule=rule), "gt-known") == 100
    assert value(boxes(plain, rule=rule), "gt-known") == 0
    assert value(boxes(everywhere, rule=rule), "gt-known") == 0
    if rule == "kl16":
        assert arrays(boxes(refined))["box"].tolist() == [[0, 0, 53, 100]]
        found = arrays(boxes(refined, box_score="heat-max", output=plain.with_name("b.zarr")))
        assert found["box_score"].tolist() == [1]


def test_a_fitted_threshold(refined, plain, images):
    fitted = boxes(refined, fit_threshold=plain, output=images.with_name("f.zarr"))
    with open_store(fitted) as store:
        assert store.attributes["thresholds"]["objective_value"] == 0
    fitted = boxes(plain, fit_threshold=refined, output=images.with_name("g.zarr"))
    with open_store(fitted) as store:
        assert store.attributes["thresholds"]["objective_value"] == 100


def test_distances_of_peaks(refined, plain, images):
    clean = put(images, "clean.zarr", suppressed=None, cells=np.where(GONE, 0, CELLS))
    with open_store(refined) as one, open_store(clean) as two, open_store(images) as truth:
        assert distances(one, two, truth).px_M.tolist() == [0]
    with open_store(plain) as one, open_store(clean) as two, open_store(images) as truth:
        assert distances(one, two, truth).px_M[0] > 50


@pytest.mark.parametrize("how", ["weighted-max", "max", "mean"])
def test_merge(refined, everywhere, plain, images, how):
    """What both suppress stays so; what one suppresses the other decides."""
    again = put(images, "again.zarr", suppressed=GONE, cells=2 * CELLS)
    both = merge(refined, again, how=how, output=images.with_name("both.zarr"))
    found = arrays(both)
    assert found["suppressed"][0, 0].tolist() == GONE.astype(int).tolist()
    assert found["map"][0, 0][GONE].max() == 0
    assert value(both, "peak-in-box") == 100
    one = merge(refined, plain, how=how, output=images.with_name("one.zarr"))
    assert not arrays(one)["suppressed"].any()
    assert value(one, "peak-in-box") == 0
    kept = merge(everywhere, everywhere_again(images), how=how, output=images.with_name("k.zarr"))
    assert not arrays(kept)["suppressed"].any()
    np.testing.assert_array_equal(arrays(kept)["map"], arrays(plain)["map"])


def everywhere_again(images):
    return put(images, "everywhere2.zarr", suppressed=np.ones_like(GONE))


def test_export_keeps_the_floor_and_says_so(images, tmp_path):
    refined = put(images, "refined.zarr", suppressed=GONE, cells=np.where(GONE, 0, CELLS))
    ears = Ears()
    export(refined, form="npy", output=tmp_path / "npy", report=ears)
    written = np.load(next((tmp_path / "npy").rglob("a.npy")))
    np.testing.assert_array_equal(written[0], np.where(GONE, 0, CELLS))
    line = "refined.zarr: which cells are suppressed is left behind; they keep the floor."
    assert line in ears.warnings


def test_view_draws_the_box_that_is_left(plain, refined, images):
    with open_store(images) as truth:
        for maps, found in ((refined, True), (plain, False)):
            with open_store(maps) as store:
                assert (judge(store, truth).iou_M[0] > 0.9) == found
