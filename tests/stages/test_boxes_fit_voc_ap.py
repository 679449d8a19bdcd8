"""``boxes --fit-objective voc-ap``: by hand, and against ``boxes`` and ``score`` one by one."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wsltool.errors import ProtocolError, StoreCorruptError, UsageError
from wsltool.stages import fit_voc_ap
from wsltool.stages.boxes import boxes
from wsltool.stages.score import score
from wsltool.stages.select import select
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .making import Ears, meta, write_images, write_maps
from .scoring import values

CLASSES = ["cat", "dog", "cow"]
SIZE = (40, 20)


def steps(*widths, value=1.0):
    """Heat 1 over the first `widths[0]` columns, then .5 and .25 up to the next ones."""
    found = np.zeros((20, 40), np.float32)
    for part, width in zip((0.25, 0.5, 1.0), reversed(widths), strict=True):
        found[:, :width] = part * value
    return found


def wide(columns, index=0):
    return (index, 0, 0, columns, 20)


def fitted(scored, fit, ears=None, **options):
    options = {"fit_objective": "voc-ap", "overwrite": True, "report": ears or Ears()} | options
    output = boxes(scored, fit_threshold=fit, **options)
    assert verify(output)["problems"] == []
    with open_store(output) as store:
        return output, store.attributes["thresholds"]


def made(folder, images, maps, name="v", **options):
    truth = write_images(folder / f"{name}.zarr", images, CLASSES, size=SIZE)
    return write_maps(folder / f"{name}m.zarr", truth, maps, **options)


@pytest.fixture
def fit(tmp_path):
    """Boxes are 8 wide from .5 on, 16 from .25 to .49, 40 below.

    Cat: a shows one 16 wide, b none but is surer of it; c shows one 8 wide and has no map.
    Dog: c shows one 40 wide.
    """
    images = {"a": {"boxes": [wide(16)]}, "b": {}, "c": {"boxes": [wide(8), wide(40, 1)]}}
    ramp = steps(8, 16, 40)
    maps = {
        "a": (None, [(0, 2.0, ramp)]),
        "b": (None, [(0, 3.0, ramp), (1, 0.5, ramp)]),
        "c": (None, [(1, 1.0, ramp)]),
    }
    return made(tmp_path, images, maps)


@pytest.fixture
def scored(tmp_path):
    ramp = steps(8, 16, 40)
    slots = [(k, 5.0 - k, ramp) for k in range(3)]
    return made(tmp_path, {"z": {"boxes": [wide(24)]}}, {"z": (None, slots)}, name="z")


class TestByHand:
    def test_one_a_class(self, scored, fit):
        """Cat from .25 on: false, then true, one of two: 1/4. Below: 16 of 40, nothing.

        From .5 on the box of a is 8 of 16 wide: an IoU of .5 is right, too. The dog is right
        below .25 alone: 0 to .2, of which .1 is the middle.
        """
        output, found = fitted(scored, fit, fit_per="class:1")
        assert found["curve"]["threshold"] == [round(0.05 * n, 10) for n in range(20)]
        assert found["curve"]["objective"] == pytest.approx([100 / 2] * 5 + [25 / 2] * 15)
        assert found["value"] == [0.6, 0.1, 0.1]  # .25 to .95; the cow takes the common one
        assert (found["common"], found["num_classes_too_few"]) == (0.1, 1)
        assert found["objective_value"] == pytest.approx((25 + 100) / 2)
        assert (found["objective"], found["per"]) == ("voc-ap", "class")
        on = found["chosen_on"]
        assert (on["num_images"], on["num_pairs"], on["num_without_map"]) == (3, 3, 1)
        with open_store(output) as store:
            assert store.whole("box")[:, 2].tolist() == [8, 40, 40]
        assert meta(output)["params"]["fit_step"] == 0.05

    def test_one_for_all(self, scored, fit):
        found = fitted(scored, fit)[1]
        assert (found["value"], found["objective_value"]) == (0.1, 50)

    def test_a_class_with_few_pairs_takes_the_common_one(self, scored, fit):
        ears = Ears()
        found = fitted(scored, fit, ears, fit_per="class")[1]
        assert found["value"] == [0.1] * 3
        assert ears.warnings[0].startswith("--fit-threshold vm.zarr: 3 of 3 classes have fewer")

    def test_the_step_is_recorded_and_can_be_given(self, scored, fit):
        output, found = fitted(scored, fit, fit_step=0.25)
        assert found["curve"]["threshold"] == [0, 0.25, 0.5, 0.75]
        assert meta(output)["params"]["fit_step"] == 0.25

    def test_false_alarms_count(self, scored, tmp_path):
        """Without b's the cat reaches 1/2; by gt-known b says nothing at all."""
        images = {"a": {"boxes": [wide(16)]}, "b": {}}
        ramp = steps(8, 16, 40)
        maps = {"a": (None, [(0, 2.0, ramp)]), "b": (None, [(0, 3.0, ramp)])}
        found = fitted(scored, made(tmp_path, images, maps))[1]
        assert found["objective_value"] == 50
        found = fitted(scored, made(tmp_path, images, maps | {"b": (None, [])}, name="w"))[1]
        assert found["objective_value"] == 100

    def test_difficult_and_excluded_ones_are_as_in_score(self, scored, tmp_path):
        images = {
            "a": {"boxes": [(*wide(24), 1)], "labels": {0: 255}},
            "b": {"boxes": [wide(40)], "excluded": 1},
            "c": {"boxes": [wide(16)]},
        }
        ramp = steps(8, 16, 40)
        maps = {name: (None, [(0, float(n), ramp)]) for n, name in enumerate("cba")}
        found = fitted(scored, made(tmp_path, images, maps))[1]
        assert found["chosen_on"]["num_pairs"] == 1
        # Up to .2 c is wrong; from .25 a is neither (2/3) and c right; from .5 a is false (1/3).
        assert found["curve"]["objective"] == [0] * 5 + [100] * 5 + [50] * 10
        assert found["value"] == 0.35


def random_store(folder, seed, name):
    """Blobs on coarse maps, with equal scores, suppressed cells, skipped and excluded images."""
    rng = np.random.default_rng(seed)
    images, maps = {}, {}
    for n in range(9):
        found = []
        for index in rng.integers(0, 3, rng.integers(0, 4)):
            x0, y0 = rng.integers(0, 30), rng.integers(0, 12)
            size = rng.integers(4, 12, 2)
            box = (x0, y0, min(40, x0 + size[0]), min(20, y0 + size[1]))
            found.append((int(index), *map(int, box), int(rng.random() < 0.2)))
        images[f"{name}{n}"] = {"boxes": found, "excluded": int(n == 7)}
        scores = np.sort(rng.integers(0, 3, 3))[::-1]
        cells = rng.random((3, 5, 10)) ** 2
        order = rng.permutation(3)[: rng.integers(1, 4)]
        maps[f"{name}{n}"] = (
            None,
            [(int(k), float(s), c) for k, s, c in zip(order, scores, cells, strict=False)],
        )
    maps[f"{name}8"] = (None, [])
    gone = (rng.random((9, 3, 5, 10)) < 0.1).astype(np.uint8)
    return made(folder, images, maps, name=name, suppressed=gone)


OPTIONS = [
    {},
    {"components": "all", "box_score": "box-mean"},
    {"components": "all", "box_score": "heat-max", "connectivity": 4, "threshold_of": "range"},
    {"empty": "whole", "box_score": "heat-mean"},
]


@pytest.mark.parametrize(("seed", "options"), list(enumerate(OPTIONS, 1)))
def test_it_is_boxes_and_score_for_every_threshold(tmp_path, options, seed, monkeypatch):
    monkeypatch.setattr(fit_voc_ap, "_BLOCK_ROWS", 4)
    fit = random_store(tmp_path, seed, "f")
    scored = random_store(tmp_path, seed + 10, "s")
    found = fitted(scored, fit, fit_per="class:1", fit_step=0.3, **options)[1]
    grid = found["curve"]["threshold"]
    assert grid == [0, 0.3, 0.6, 0.9]
    each = []
    for threshold in grid:
        drawn = boxes(fit, threshold=threshold, output=tmp_path / f"{threshold}.zarr", **options)
        each.append(score(drawn, protocol="voc-ap")["results"][0])
    assert found["curve"]["objective"] == pytest.approx([one["value"] for one in each], abs=1e-9)
    for index, name in enumerate(CLASSES):
        reached = [values(one)[name] for one in each]
        chosen = reached[grid.index(found["value"][index])]
        assert chosen == max(reached)
    own = fitted(fit, fit, fit_per="class:1", fit_step=0.3, output=tmp_path / "own.zarr", **options)
    assert own[1]["value"] == found["value"]
    value = score(own[0], protocol="voc-ap")["results"][0]["value"]
    assert own[1]["objective_value"] == pytest.approx(value, abs=1e-9)
    assert [one["num_detections"] for one in each[0]["per_class"]] != [0, 0, 0]


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_blocks_make_no_difference(tmp_path, rows, monkeypatch):
    fit, scored = random_store(tmp_path, 5, "f"), random_store(tmp_path, 6, "s")
    options = {"fit_per": "class:1", "components": "all", "box_score": "class"}
    whole = fitted(scored, fit, **options)[1]
    monkeypatch.setattr(fit_voc_ap, "_BLOCK_ROWS", rows)
    assert fitted(scored, fit, output=tmp_path / "again.zarr", **options)[1] == whole


def test_nothing_stays_on_disk_beside_the_boxes(tmp_path, fit, scored):
    (tmp_path / "out").mkdir()
    output = fitted(scored, fit, output=tmp_path / "out" / "b.zarr")[0]
    assert list(output.parent.iterdir()) == [output]


class TestRefusals:
    def test_the_truth_chose_the_classes(self, scored, tmp_path):
        ramp = steps(8, 16, 40)
        images, maps = {"a": {"boxes": [wide(16)]}}, {"a": (None, [(0, 1.0, ramp)])}
        line = (
            "vm.zarr: holds the classes present, so the truth chose them; voc-ap ranks classes. "
            "Make it again with cam --classes top5 or all."
        )
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            fitted(scored, made(tmp_path, images, maps, classes="present"))
        assert not (tmp_path / "zm.boxes.zarr.wip").exists()

    def test_slots_that_owe_themselves_to_the_truth_are_left_out(self, scored, tmp_path):
        ramp = steps(8, 16, 40)
        images = {"a": {"boxes": [wide(16), wide(40, 1)]}}
        maps = {"a": (None, [(0, 2.0, ramp), (1, 1.0, ramp)])}
        found = fitted(scored, made(tmp_path, images, maps, classes="top1+present"))[1]
        assert found["chosen_on"]["num_without_map"] == 1
        assert found["objective_value"] == 50

    def test_no_map_of_any_pair(self, scored, tmp_path):
        maps = {"a": (None, [(1, 1.0, steps(8, 16, 40))])}
        val = made(tmp_path, {"a": {"boxes": [wide(16)]}}, maps)
        with pytest.raises(
            ProtocolError, match=r"of 1 pairs .* Make the maps with cam --classes all"
        ):
            fitted(scored, val)

    def test_a_truth_of_other_images(self, scored, fit, tmp_path):
        other = write_images(tmp_path / "o.zarr", {"q": {"boxes": [wide(9)]}}, CLASSES, size=SIZE)
        with pytest.raises(
            ProtocolError, match=r"^o\.zarr: holds none of the 3 images of vm\.zarr"
        ):
            fitted(scored, fit, fit_truth=other)

    def test_a_bad_map_is_named(self, scored, tmp_path):
        bad = steps(8, 16, 40)
        bad[0, 0] = np.nan
        val = made(tmp_path, {"a": {"boxes": [wide(16)]}}, {"a": (None, [(0, 1.0, bad)])})
        with pytest.raises(StoreCorruptError, match=r'^vm\.zarr row 0 "a": map has 1 values that'):
            fitted(scored, val)

    def test_step_out_of_range(self):
        with pytest.raises(UsageError, match=r"^--fit-step must be in \[0\.001, 0\.5\], got 0\.6"):
            boxes("m.zarr", fit_threshold="v.zarr", fit_objective="voc-ap", fit_step=0.6)


def test_a_part_of_a_store_is_judged_alone(scored, fit):
    """`select` says that it holds only some rows: the others are not missed."""
    half = select(fit, fraction=0.7, seed=1)
    with open_store(half) as store:
        num = len(store)
    found = fitted(scored, half)[1]
    assert found["chosen_on"]["num_images"] == num
