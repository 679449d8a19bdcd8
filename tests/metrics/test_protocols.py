"""The registry, and laws that every protocol keeps."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import UsageError
from wsltool.metrics.peak_distance import PeakPairs
from wsltool.metrics.protocols import PROTOCOLS, find_protocol
from wsltool.metrics.result import Result, percent
from wsltool.metrics.tally import Tally

from .blocks import (
    predictions,
    random_class_scores,
    random_peak_pairs,
    random_peaks,
    random_predictions,
    random_truth,
    truth,
)

PARAMETERS = {
    "peak-in-box": {},
    "coco-ap": {},
    "corloc": {"iou": 0.5, "definition": "wsod"},
    "voc07-ap": {"iou": 0.5, "grid": "devkit"},
    "cls-map": {},
    "peak-distance": {},
    "point": {
        "tolerance": 18,
        "metric": "chebyshev",
        "point_at": "peak",
        "confidence": "map",
        "misses": "fp",
    },
}
MAKE = {
    "boxes": random_predictions,
    "peaks": random_peaks,
    "class-scores": random_class_scores,
    "peak-pairs": random_peak_pairs,
}
# Heat and pixels are no arrays of images; the laws of their protocols stand beside their tests.
NAMES = sorted(name for name in PROTOCOLS if PROTOCOLS[name].record in MAKE)


def _random_block(name, seed, num_images=24, num_classes=6):
    protocol, rng = PROTOCOLS[name], np.random.default_rng(seed)
    one_label = name.startswith("ilsvrc") or name == "gt-known"
    true = random_truth(rng, num_images, num_classes, one_label=one_label)
    return protocol, MAKE[protocol.record](rng, true), true


def _text(protocol, tally):
    return json.dumps(protocol.result(tally).as_dict(), allow_nan=False)


def _repeated(record, true, times):
    """Make a data set in which image n occurs times[n] times, with rows of its own."""
    image = np.repeat(np.arange(len(true)), times)
    return record.take(image), dataclasses.replace(true.take(image), row_N=np.arange(len(image)))


def _copy(record):
    values = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    return {
        name: _copy(value) if dataclasses.is_dataclass(value) else copy.copy(value)
        for name, value in values.items()
    }


def _scaled(record, scale):
    """Make another record whose boxes or points are so many times as large."""
    if isinstance(record, PeakPairs):
        return PeakPairs(_scaled(record.one, scale), _scaled(record.other, scale))
    fields = [f.name for f in dataclasses.fields(record) if "_xy" in f.name]
    return dataclasses.replace(record, **{one: getattr(record, one) * scale for one in fields})


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 6), st.randoms(use_true_random=False))
def test_any_division_into_blocks_in_any_order_counts_the_same(name, seed, num_blocks, random):
    protocol, predicted, true = _random_block(name, seed)
    whole = _text(protocol, protocol.count(predicted, true))
    order = list(range(len(true)))
    random.shuffle(order)
    blocks = [np.array(order[start::num_blocks], dtype=int) for start in range(num_blocks)]
    parts = [protocol.count(predicted.take(block), true.take(block)) for block in blocks]
    joined = Tally.joined(parts)
    assert _text(protocol, joined) == whole
    nothing = protocol.count(predicted.take(np.arange(0)), true.take(np.arange(0)))
    assert _text(protocol, nothing + joined) == whole
    assert _text(protocol, Tally.from_arrays(joined.as_arrays())) == whole


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32))
def test_drawn_is_a_data_set_where_images_occur_so_often(name, seed):
    protocol, predicted, true = _random_block(name, seed)
    times = np.random.default_rng(seed).integers(0, 4, len(true))
    tally = protocol.count(predicted, true)
    drawn = protocol.result(tally.drawn(times))
    again = _repeated(predicted, true, times)
    real = protocol.result(protocol.count(*again))
    _assert_alike(drawn, real)
    assert _text(protocol, tally) == _text(protocol, protocol.count(predicted, true))
    once = protocol.result(tally.drawn(np.ones(len(true), int)))
    _assert_alike(once, protocol.result(tally))


def _assert_alike(one: Result, other: Result):
    """Every number is the same, sums of floats but for rounding."""
    assert one.value == pytest.approx(other.value, abs=1e-11, nan_ok=True)
    assert one.extra.keys() == other.extra.keys()
    for name, value in one.extra.items():
        assert value == pytest.approx(other.extra[name], abs=1e-11, nan_ok=True), name
    values = [[row.value for row in found.per_class] for found in (one, other)]
    assert values[0] == pytest.approx(values[1], abs=1e-11, nan_ok=True)
    assert [row.counts for row in one.per_class] == [row.counts for row in other.per_class]
    assert one.mistakes == other.mistakes
    assert one.warnings == other.warnings


@pytest.mark.parametrize("name", NAMES)
def test_every_image_has_an_entry_and_every_entry_an_image(name):
    protocol, predicted, true = _random_block(name, 3)
    true = dataclasses.replace(true, row_N=true.row_N + 100)
    tally = protocol.count(predicted, true)
    np.testing.assert_array_equal(tally.row_N, true.row_N)
    for table, columns in tally.tables.items():
        assert {len(column) for column in columns.values()} == {len(columns["row"])}, table
        assert np.isin(columns["row"], true.row_N).all()
        assert columns["row"].dtype == np.int64


@pytest.mark.parametrize("name", [name for name in NAMES if name != "coco-ap"])  # has areas
@pytest.mark.parametrize("scale", [0.25, 8])
def test_scale_of_the_image_makes_no_difference(name, scale):
    protocol, predicted, true = _random_block(name, 4)
    larger = protocol
    if "tolerance" in protocol.options:
        larger = protocol.with_options(tolerance=protocol.tolerance * scale)
    found = larger.result(larger.count(_scaled(predicted, scale), _scaled(true, scale)))
    plain = protocol.result(protocol.count(predicted, true))
    in_px = scale if protocol.unit == "px" else 1
    assert found.value == pytest.approx(plain.value * in_px, rel=1e-15)
    assert [row.counts for row in found.per_class] == [row.counts for row in plain.per_class]


@pytest.mark.parametrize("name", NAMES)
def test_float32_boxes_and_uint8_flags_are_read_too(name):
    protocol, predicted, true = _random_block(name, 5)
    other = dataclasses.replace(
        true,
        box_xyxy_B4=true.box_xyxy_B4.astype(np.float32),
        box_difficult_B=true.box_difficult_B.astype(np.uint8),
        excluded_N=true.excluded_N.astype(np.uint8),
    )
    if not isinstance(predicted, PeakPairs):
        flags = predicted.has_prediction_N.astype(np.uint8)
        predicted = dataclasses.replace(predicted, has_prediction_N=flags)
    tally = protocol.count(predicted, other)
    assert _text(protocol, tally) == _text(protocol, protocol.count(predicted, true))


@pytest.mark.parametrize("name", NAMES)
def test_inputs_stay_as_they_are(name):
    protocol, predicted, true = _random_block(name, 6)
    before = _copy(predicted), _copy(true)
    protocol.result(protocol.count(predicted, true))
    for record, kept in zip((predicted, true), before, strict=True):
        np.testing.assert_equal(_copy(record), kept)


@pytest.mark.parametrize("name", NAMES)
def test_result_tells_what_it_is(name):
    protocol, predicted, true = _random_block(name, 7)
    result = protocol.result(protocol.count(predicted, true))
    assert result.protocol == protocol.name == name
    assert result.unit == protocol.unit == ("px" if name == "peak-distance" else "%")
    assert result.higher_is_better == protocol.higher_is_better
    assert result.parameters == PARAMETERS.get(name, {"iou": 0.5})
    assert 0 <= result.value <= 100
    assert [row.class_index for row in result.per_class] == list(range(6))
    assert protocol.summary
    assert len(protocol.summary) < 80


def test_classes_are_ranked_where_the_truth_must_not_choose_them():
    assert [name for name in NAMES if PROTOCOLS[name].ranks_classes] == [
        "coco-ap",
        "ilsvrc-top1",
        "ilsvrc-top5",
        "point",
        "voc-ap",
        "voc07-ap",
    ]
    assert {name: PROTOCOLS[name].rank_depth for name in NAMES if PROTOCOLS[name].rank_depth} == {
        "ilsvrc-top1": 1,
        "ilsvrc-top5": 5,
    }
    assert {name for name in PROTOCOLS if "maps" in PROTOCOLS[name].reads} == {
        "maxboxacc",
        "maxboxacc-v2",
        "maxboxacc-v3",
        "pxap",
        "pointing-game",
        "peak-in-box",
        "cls-map",
        "point",
        "saliency-ap",
        "peak-distance",
    }
    assert PROTOCOLS["point"].reads == ("maps", "boxes")


def test_registry_loads_no_numpy():
    code = (
        "import sys, wsltool.metrics.protocols as p; print(len(p.PROTOCOLS));"
        "sys.exit('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{len(PROTOCOLS)}\n"), done.stderr


def test_unknown_name():
    with pytest.raises(UsageError, match=r'"voc_ap" is not known; .* Did you mean "voc-ap"\?'):
        find_protocol("voc_ap")
    with pytest.raises(
        UsageError, match=r'"zzz" is not known; expected one of ilsvrc-top1, .*distance\.$'
    ):
        find_protocol("zzz")
    assert find_protocol("voc-ap") is PROTOCOLS["voc-ap"]


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("voc-ap", {"iou": 0}, "--iou must be in (0, 1], got 0."),
        ("voc-ap", {"iou": -0.5}, "--iou must be in (0, 1], got -0.5."),
        ("voc-ap", {"iou": 1.5}, "--iou must be in (0, 1], got 1.5."),
        ("voc-ap", {"iou": float("nan")}, "--iou must be in (0, 1], got nan."),
        ("point", {"tolerance": -1}, "--tolerance must be at least 0 pixels, got -1."),
        ("point", {"tolerance": float("nan")}, "--tolerance must be at least 0 pixels, got nan."),
        ("point", {"tolerance": float("inf")}, "--tolerance must be at least 0 pixels, got inf."),
        ("point", {"metric": "l1"}, '--metric must be chebyshev or euclidean, got "l1".'),
        ("point", {"confidence": "max"}, '--confidence must be map or cls, got "max".'),
        ("point", {"misses": "tp"}, '--misses must be fp or fn, got "tp".'),
        ("voc07-ap", {"grid": "matlab"}, '--grid must be devkit or numpy, got "matlab".'),
        ("saliency-ap", {"pairs": "all"}, '--pairs must be pooled or per-pair, got "all".'),
        (
            "cls-map",
            {"classes": ("cat", "")},
            '--classes must be names with commas between, got "cat,".',
        ),
        ("cls-map", {"classes": ()}, '--classes must be names with commas between, got "".'),
        ("peak-in-box", {"iou": 0.3}, "--iou 0.3 has no meaning for peak-in-box. Leave it out."),
        ("voc-ap", {"tolerance": 3}, "--tolerance 3 has no meaning for voc-ap. Leave it out."),
        (
            "gt-known",
            {"classes": ("cat", "dog")},
            "--classes cat,dog has no meaning for gt-known. Leave it out.",
        ),
        ("point", {"other": "m.zarr"}, "--other m.zarr has no meaning for point. Leave it out."),
        (
            "cls-map",
            {"pairs": "pooled"},
            "--pairs pooled has no meaning for cls-map. Leave it out.",
        ),
    ],
)
def test_options_that_are_refused(name, options, line):
    with pytest.raises(UsageError, match=f"^{re.escape(line)}$"):
        PROTOCOLS[name].with_options(**options)


def test_options_of_a_protocol():
    point = PROTOCOLS["point"].with_options(tolerance=0, misses="fn", metric=None)
    assert (point.tolerance, point.misses, point.metric) == (0, "fn", "chebyshev")
    assert point.parameters == PARAMETERS["point"] | {"tolerance": 0, "misses": "fn"}
    assert PROTOCOLS["point"].tolerance == 18


class TestClasses:
    """The value over some classes only."""

    NAMES = ("cat", "dog", "cow", "hen", "pig", "owl")
    IDS = ("n0", "n1", "n2", "n3", "n4", "n5")

    def chosen(self, name, *classes):
        return PROTOCOLS[name].with_options(classes=classes).with_classes(self.NAMES, self.IDS)

    def test_names_and_ids_in_their_own_order_and_once(self):
        one = self.chosen("cls-map", "owl", "n1", "dog")
        assert one.class_index == (5, 1)
        assert one.parameters == {"classes": ["owl", "n1", "dog"]}
        assert PROTOCOLS["cls-map"].with_classes(self.NAMES, self.IDS).chosen == slice(None)

    def test_unknown_class(self):
        line = (
            '--classes: "cats" is none of the 6 classes (cat, dog, cow, hen, pig, …). Did you '
            'mean "cat"? Give names or ids with commas between.'
        )
        with pytest.raises(UsageError, match=f"^{re.escape(line)}$"):
            self.chosen("cls-map", "dog", "cats")

    @pytest.mark.parametrize("name", ["voc-ap", "voc07-ap", "cls-map", "point"])
    def test_mean_over_the_named_ones(self, name):
        protocol, predicted, true = _random_block(name, 8)
        whole = protocol.result(protocol.count(predicted, true))
        one = self.chosen(name, "cow", "dog")
        some = one.result(one.count(predicted, true))
        assert some.value == pytest.approx(
            (whole.per_class[1].value + whole.per_class[2].value) / 2
        )
        assert [row.value for row in some.per_class] == [row.value for row in whole.per_class]
        assert some.extra["num_classes"] == 2

    @pytest.mark.parametrize("name", ["peak-in-box", "peak-distance"])
    def test_pairs_of_the_named_ones(self, name):
        protocol, predicted, true = _random_block(name, 9, 100)
        whole = protocol.result(protocol.count(predicted, true))
        one = self.chosen(name, "cow")
        some = one.result(one.count(predicted, true))
        assert some.value == whole.per_class[2].value
        assert some.extra["num_pairs"] == whole.per_class[2].counts["num_pairs"]

    def test_none_of_them_has_anything_to_score(self):
        true = truth([(1, [0, 0, 10, 10])], num_classes=6)
        one = self.chosen("voc-ap", "owl")
        result = one.result(one.count(predictions(([1], [(1, [0, 0, 10, 10])])), true))
        assert np.isnan(result.value)
        assert result.warnings == (
            "1 classes have no object to find and are left out of the mean.",
        )


def test_nan_becomes_null_in_json():
    protocol = PROTOCOLS["voc-ap"]
    text = _text(protocol, protocol.count(predictions(), truth(num_classes=1)))
    assert json.loads(text)["value"] is None
    assert json.loads(text)["per_class"][0]["value"] is None


def test_percent():
    np.testing.assert_array_equal(percent([1, 0, 3], [2, 0, 3]), [50, np.nan, 100])
    assert np.isnan(percent(0, 0))
