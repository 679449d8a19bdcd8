"""``boxes --fit-threshold``: what is chosen, on what, what is recorded, and by whom."""

from __future__ import annotations

import json

import numpy as np
import pytest

from wsltool.errors import LineageError, ProtocolError, StoreKindError, UsageError
from wsltool.stages import fit_threshold
from wsltool.stages.boxes import boxes
from wsltool.stages.cam import cam
from wsltool.stages.ingest import ingest_folder
from wsltool.stages.score import score
from wsltool.stages.select import select
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .making import Ears, arrays, assert_equal_arrays, meta, write_images, write_maps

CLASSES = ["cat", "dog", "cow"]
SIZE = (40, 20)


def steps(*widths):
    """Heat 1 over the first `widths[0]` columns, then .75, .5, .25, .125 up to the next ones."""
    found = np.zeros((20, 40), np.float32)
    for value, width in zip((0.125, 0.25, 0.5, 0.75, 1.0), reversed(widths), strict=True):
        found[:, :width] = value
    return found


RAMP = steps(8, 16, 24, 32, 40)
"""From .75 on a box is 8 columns wide, from .5 16, from .25 24, from .13 32, from 0 all 40."""


def truth_of(folder, name, images):
    return write_images(folder / name, images, CLASSES, size=SIZE)


def wide(columns, index=0):
    return {"boxes": [(index, 0, 0, columns, 20)]}


@pytest.fixture
def scored(tmp_path):
    """Maps that get boxes: image z, one ramp of each class."""
    truth = truth_of(tmp_path, "s.zarr", {"z": wide(24)})
    slots = [(k, 5.0 - k, RAMP) for k in range(3)]
    return write_maps(tmp_path / "m.zarr", truth, {"z": (None, slots)}, classes="all")


@pytest.fixture
def val(tmp_path):
    """Ten cats 16 wide, ten dogs 32 wide, one cow 8 wide."""
    images = {f"c{n}": wide(16, 0) for n in range(10)}
    images |= {f"d{n}": wide(32, 1) for n in range(10)}
    images |= {"e": wide(8, 2)}
    truth = truth_of(tmp_path, "v.zarr", images)
    slots = [(k, 5.0 - k, RAMP) for k in range(3)]
    return write_maps(tmp_path / "vm.zarr", truth, dict.fromkeys(images, (None, slots)))


def fitted(scored, val, ears=None, **options):
    output = boxes(scored, fit_threshold=val, report=ears or Ears(), overwrite=True, **options)
    assert verify(output)["problems"] == []
    with open_store(output) as store:
        return output, store.attributes["thresholds"]


def test_one_threshold_by_hand(scored, val):
    """16 wide (.5 … .74) is right for cats, for dogs (1/2) and for the cow (1/2)."""
    output, found = fitted(scored, val)
    assert found["value"] == 0.62  # the middle
    assert found["per"] == "one"
    assert found["objective"] == "gt-known"
    assert found["objective_value"] == 100
    curve = dict(zip(found["curve"]["threshold"], found["curve"]["objective"], strict=True))
    assert curve[0.5] == curve[0.74] == 100
    assert curve[0.3] == pytest.approx(100 * 20 / 21)  # 24 wide: 2/3, 3/4, 1/3
    assert curve[0.2] == pytest.approx(100 * 20 / 21)  # 32 wide: 1/2, 1 and 1/4
    assert curve[0.1] == pytest.approx(100 * 10 / 21)  # 40 wide: .4, .8, .2
    assert curve[0.9] == pytest.approx(100 * 11 / 21)  # 8 wide: 1/2, 1/4, 1
    assert arrays(output)["box"].tolist() == [[0, 0, 16, 20]] * 3
    assert found["overlap"] == 0
    assert found["fitted_on_scored"] is False
    assert found["source"] == "fitted"
    chosen_on = found["chosen_on"]
    assert chosen_on["path"] == "vm.zarr"
    assert chosen_on["id"] == meta(val)["id"]
    assert (chosen_on["num_images"], chosen_on["num_pairs"]) == (21, 21)
    assert chosen_on["num_without_map"] == 0


def test_one_a_class_and_the_common_one_where_there_are_few(scored, val):
    """Cats are right from .13 to .95, dogs from 0 to .74; the cow takes the common threshold."""
    ears = Ears()
    output, found = fitted(scored, val, ears, fit_per="class")
    assert found["common"] == 0.62
    assert found["value"] == [0.54, 0.37, 0.62]
    assert arrays(output)["box"][:, 2].tolist() == [16, 24, 16]
    assert found["num_classes_too_few"] == 1
    assert ears.warnings == [
        "--fit-threshold vm.zarr: 1 of 3 classes have fewer than 10 pairs of image and class and "
        "take the common threshold 0.62: cow."
    ]
    found = fitted(scored, val, fit_per="class:1")[1]
    assert found["value"] == [0.54, 0.37, 0.72]  # the cow: 8 or 16 wide


def test_the_mean_iou(scored, val):
    """16 wide gives 1, 1/2 and 1/2; 32 gives 1/2, 1 and 1/4; 24 gives 2/3, 3/4 and 1/3."""
    found = fitted(scored, val, fit_objective="mean-iou")[1]
    assert found["value"] == 0.62
    assert found["objective_value"] == pytest.approx(100 * (10 + 5 + 0.5) / 21)
    curve = dict(zip(found["curve"]["threshold"], found["curve"]["objective"], strict=True))
    assert curve[0.2] == pytest.approx(100 * (5 + 10 + 0.25) / 21)


def test_a_coarser_grid(scored, val):
    found = fitted(scored, val, fit_step=0.25)[1]
    assert found["curve"]["threshold"] == [0, 0.25, 0.5, 0.75]
    assert found["value"] == 0.5


def test_it_is_no_worse_on_its_images_than_any_other(scored, val):
    found = fitted(scored, val)[1]
    assert found["objective_value"] == max(found["curve"]["objective"])


def test_params_and_inputs(scored, val, tmp_path):
    output, _ = fitted(scored, val, fit_per="class:4")
    about = meta(output)
    assert about["params"] == {
        "rule": "kl16",
        "threshold_of": "max",
        "components": "largest",
        "connectivity": 8,
        "empty": "none",
        "box_score": "class",
        "fit_per": "class:4",
        "fit_objective": "gt-known",
        "fit_step": 0.01,
    }
    assert set(about["inputs"]) == {"maps", "images", "fit", "fit_truth"}
    assert about["inputs"]["fit"]["path"] == "vm.zarr"
    assert about["inputs"]["fit_truth"]["path"] == "v.zarr"


def test_given_thresholds_say_so(scored):
    for options, value in (({}, 0.2), ({"threshold": 0.3}, 0.3)):
        output = boxes(scored, overwrite=True, **options)
        with open_store(output) as store:
            assert store.attributes["thresholds"] == {
                "chosen_on": None,
                "source": "given",
                "value": value,
            }


class TestWhichPairsCount:
    """Pairs of an image and a class present in it, with a true box."""

    def made(self, tmp_path, images, maps=None, **options):
        truth = truth_of(tmp_path, "v.zarr", images)
        slots = [(k, 5.0 - k, RAMP) for k in range(3)]
        maps = maps or dict.fromkeys(images, (None, slots))
        return write_maps(tmp_path / "vm.zarr", truth, maps, **options)

    def test_difficult_absent_excluded_and_skipped_ones_do_not(self, scored, tmp_path):
        images = {
            "a": wide(16),
            "difficult": {"boxes": [(0, 0, 0, 40, 20, 1)], "labels": {0: 1}},
            "absent": wide(40) | {"labels": {0: 255}},
            "excluded": wide(40) | {"excluded": 1},
            "no box": {"labels": {0: 1}},
        }
        found = fitted(scored, self.made(tmp_path, images))[1]
        assert found["chosen_on"]["num_pairs"] == 1
        assert found["objective_value"] == 100

    def test_one_without_a_map_is_not_found(self, scored, tmp_path):
        images = {"a": wide(16), "b": wide(16), "c": wide(16)}
        maps = {
            "a": (None, [(0, 1.0, RAMP)]),
            "b": (None, [(1, 1.0, RAMP)]),
            "c": (None, []),
        }
        found = fitted(scored, self.made(tmp_path, images, maps))[1]
        assert (found["chosen_on"]["num_pairs"], found["chosen_on"]["num_without_map"]) == (3, 2)
        assert found["objective_value"] == pytest.approx(100 / 3)

    def test_any_box_of_the_class_will_do(self, scored, tmp_path):
        images = {"a": {"boxes": [(0, 30, 0, 40, 20), (0, 0, 0, 16, 20), (1, 0, 0, 40, 20)]}}
        found = fitted(scored, self.made(tmp_path, images))[1]
        assert found["chosen_on"]["num_pairs"] == 2

    def test_without_any_map_there_is_nothing_to_choose(self, scored, tmp_path):
        val = self.made(tmp_path, {"a": wide(16)}, {"a": (None, [(1, 1.0, RAMP)])})
        with pytest.raises(ProtocolError, match=r"of 1 pairs of an image .* none has a map\."):
            fitted(scored, val)

    def test_a_bad_map_is_named(self, scored, tmp_path):
        bad = RAMP.copy()
        bad[0, 0] = np.nan
        val = self.made(tmp_path, {"a": wide(16)}, {"a": (None, [(0, 1.0, bad)])})
        with pytest.raises(ValueError, match=r'^vm\.zarr row 0 "a": map has 1 values that are not'):
            fitted(scored, val)


class TestOnWhat:
    """The images that a threshold is chosen on are others than those that get boxes."""

    def test_the_same_images_are_warned_of_and_recorded(self, scored):
        ears = Ears()
        found = fitted(scored, scored, ears)[1]
        assert (found["overlap"], found["fitted_on_scored"]) == (1, True)
        assert ears.warnings == [
            "--fit-threshold m.zarr: holds 1 of the 1 images that get boxes, so what these score "
            "says little about others."
        ]

    def test_only_rows_that_get_boxes_count_as_scored(self, val, tmp_path):
        truth = truth_of(tmp_path, "two.zarr", {"y": wide(24), "c3": wide(24)})
        slots = [(0, 1.0, RAMP)]
        maps = write_maps(tmp_path / "m2.zarr", truth, dict.fromkeys(["y", "c3"], (None, slots)))
        assert fitted(maps, val)[1]["overlap"] == 1
        assert fitted(maps, val, limit=1)[1]["overlap"] == 0

    def test_another_model_is_warned_of(self, scored, val):
        ears = Ears()
        with open_store(scored) as maps, open_store(val) as fit:
            maps.meta["inputs"]["model"] = {"digest": "one"}
            fit.meta["inputs"]["model"] = {"digest": "two"}
            assert fit_threshold.warn_of_misfit(maps, 1, fit, ears) == 0
        assert ears.warnings == ["--fit-threshold vm.zarr: made with another model than m.zarr."]

    def test_other_classes_are_refused(self, scored, tmp_path):
        truth = write_images(tmp_path / "o.zarr", {"a": wide(8)}, ["x", "y", "z"], size=SIZE)
        val = write_maps(tmp_path / "om.zarr", truth, {"a": (None, [(0, 1.0, RAMP)])})
        with pytest.raises(ProtocolError, match=r"^om\.zarr: its classes are others than those of"):
            fitted(scored, val)

    def test_the_truth_is_found_or_given(self, scored, val, tmp_path):
        (tmp_path / "v.zarr").rename(tmp_path / "elsewhere.zarr")
        with pytest.raises(LineageError, match=r"Say where with --fit-truth\.$"):
            fitted(scored, val)
        found = fitted(scored, val, fit_truth=tmp_path / "elsewhere.zarr")[1]
        assert found["value"] == 0.62

    def test_a_truth_of_other_images_is_refused(self, scored, val, tmp_path):
        other = truth_of(tmp_path, "other.zarr", {"q": wide(16)})
        with pytest.raises(ProtocolError, match=r"^other\.zarr: holds none of the 21 images of vm"):
            fitted(scored, val, fit_truth=other)

    def test_a_truth_without_boxes_is_refused(self, scored, val, tmp_path):
        bare = write_images(tmp_path / "bare.zarr", {"c0": {}}, CLASSES, size=SIZE, boxes=False)
        with pytest.raises(ProtocolError, match=r"^bare\.zarr: has no true boxes, so no threshold"):
            fitted(scored, val, fit_truth=bare)

    def test_images_are_no_maps(self, scored, val, tmp_path):
        with pytest.raises(StoreKindError, match=r'kind is "images", but boxes --fit-threshold'):
            fitted(scored, tmp_path / "v.zarr")


class TestShards:
    """One choice for all shards, in one file beside the parts."""

    @pytest.fixture
    def many(self, tmp_path, monkeypatch):
        monkeypatch.setattr("wsltool.stages.plan._BLOCK_ROWS", 1)
        images = {f"z{n}": wide(24) for n in range(3)}
        truth = truth_of(tmp_path, "many.zarr", images)
        slots = [(k, 5.0 - k, RAMP) for k in range(3)]
        return write_maps(tmp_path / "mm.zarr", truth, dict.fromkeys(images, (None, slots)))

    def test_a_later_shard_takes_the_choice_of_the_first(self, many, val, tmp_path, monkeypatch):
        whole = boxes(many, fit_threshold=val, output=tmp_path / "whole.zarr")
        options = {"fit_threshold": val, "output": tmp_path / "parts.h5"}
        boxes(many, shard="0/3", **options)
        (kept,) = (tmp_path / "parts.h5.wip").glob("part-*-thresholds.json")
        assert json.loads(kept.read_text())["value"] == 0.62

        def never(*args):
            raise AssertionError("chosen a second time")

        monkeypatch.setattr(fit_threshold.ThresholdFit, "_chosen", never)
        boxes(many, shard="2/3", **options)
        parts = boxes(many, shard="1/3", **options)
        assert_equal_arrays(whole, parts)
        with open_store(whole) as one, open_store(parts) as other:
            assert one.attributes["thresholds"] == other.attributes["thresholds"]

    def test_who_only_packs_records_it_too(self, many, val, tmp_path, monkeypatch):
        """All parts are there, but the one who made the last was killed before packing."""
        options = {"fit_threshold": val, "output": tmp_path / "parts.zarr"}

        def killed(*args):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("wsltool.stages.run.pack", killed)
            with pytest.raises(KeyboardInterrupt):
                boxes(many, **options)
        output = boxes(many, **options)
        with open_store(output) as store:
            assert store.attributes["thresholds"]["value"] == 0.62

    def test_the_same_command_twice_chooses_once(self, scored, val, monkeypatch):
        output, _ = fitted(scored, val)
        monkeypatch.setattr(fit_threshold.ThresholdFit, "_chosen", None)
        assert boxes(scored, fit_threshold=val, report=Ears()) == output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.2, "fit_threshold": "v"}, r"^--threshold 0\.2 and --fit-threshold excl"),
        ({"fit_per": "class"}, r"^--fit-per is only read with --fit-threshold\."),
        ({"fit_objective": "mean-iou"}, r"^--fit-objective is only read with --fit-threshold\."),
        ({"fit_truth": "t"}, r"^--fit-truth is only read with --fit-threshold\."),
        ({"fit_step": 0.1}, r"^--fit-step is only read with --fit-threshold\."),
        ({"fit_step": 0.0}, r"^--fit-step must be in \[0\.001, 0\.5\], got 0\.0\.$"),
        ({"fit_per": "image"}, r'^--fit-per must be one, class, or class:N .*, got "image"\.$'),
        ({"fit_per": "class:0"}, r'^--fit-per must be .*, got "class:0"\.$'),
        ({"fit_per": "one:3"}, r'^--fit-per must be .*, got "one:3"\.$'),
        (
            {"fit_objective": "ap"},
            r'^--fit-objective must be gt-known, mean-iou or voc-ap, got "ap"\.$',
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        boxes("nowhere.zarr", **options)


@pytest.mark.real
def test_on_real_maps_it_beats_a_fifth_where_it_was_chosen(data_dir, tmp_path):
    """30 ILSVRC images to choose on, 30 others to draw: by construction on the former only."""
    imagenette = data_dir / "imagenette"
    source = ingest_folder(
        imagenette / "test",
        boxes=imagenette / "metadata/test/localization.txt",
        classes=data_dir / "weights/imagenet_classes.txt",
        output=tmp_path / "t.zarr",
    )
    some = select(source, fraction=0.2, output=tmp_path / "some.zarr")
    maps = cam(
        some,
        model="squeezenet1_0",
        weights=data_dir / "weights/squeezenet1_0.safetensors",
        classes="present",
        images=imagenette / "test",
        device="cpu",
        workers=0,
    )
    val = select(maps, fraction=0.5, output=tmp_path / "val.zarr")
    others = select(maps, not_in=val, output=tmp_path / "others.zarr")
    output, found = fitted(others, val)
    assert found["overlap"] == 0
    assert (found["chosen_on"]["num_images"], found["chosen_on"]["num_without_map"]) == (30, 0)
    (drawn,) = score(output, protocol="gt-known")["results"]
    assert drawn["thresholds"] == found
    assert found["objective_value"] > 40

    at_fifth = dict(zip(found["curve"]["threshold"], found["curve"]["objective"], strict=True))[0.2]
    assert found["objective_value"] >= at_fifth
    fixed = boxes(val, threshold=0.2, output=tmp_path / "fixed.zarr")
    (by_score,) = score(fixed, protocol="gt-known")["results"]
    assert by_score["value"] == pytest.approx(at_fifth)
