"""The registry, and laws that every protocol keeps."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import ProtocolError, UsageError
from wsltool.metrics.protocols import PROTOCOLS, find_protocol, sum_counts
from wsltool.metrics.result import percent

from .blocks import predictions, random_peaks, random_predictions, random_truth, truth

NAMES = sorted(PROTOCOLS)


def _random_block(name, seed, num_images=24, num_classes=6):
    protocol, rng = PROTOCOLS[name], np.random.default_rng(seed)
    one_label = name.startswith("ilsvrc") or name == "gt-known"
    true = random_truth(rng, num_images, num_classes, one_label=one_label)
    make = random_predictions if protocol.reads == "boxes" else random_peaks
    return protocol, make(rng, true), true


def _text(protocol, counts):
    return json.dumps(protocol.result(counts).as_dict(), allow_nan=False)


def _copy(record):
    return {f.name: getattr(record, f.name).copy() for f in dataclasses.fields(record)}


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 6), st.randoms(use_true_random=False))
def test_any_division_into_blocks_in_any_order_counts_the_same(name, seed, num_blocks, random):
    protocol, predicted, true = _random_block(name, seed)
    whole = _text(protocol, protocol.count(predicted, true))
    order = list(range(len(true)))
    random.shuffle(order)
    blocks = [np.array(order[start::num_blocks], dtype=int) for start in range(num_blocks)]
    counts = [protocol.count(predicted.take(block), true.take(block)) for block in blocks]
    assert _text(protocol, sum_counts(counts)) == whole
    nothing = protocol.count(predicted.take(np.arange(0)), true.take(np.arange(0)))
    assert _text(protocol, nothing + sum_counts(counts)) == whole


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [0.25, 8])
def test_scale_of_the_image_makes_no_difference(name, scale):
    protocol, predicted, true = _random_block(name, 4)
    field = "box_xyxy_B4" if protocol.reads == "boxes" else "peak_xy_NS2"
    larger = dataclasses.replace(predicted, **{field: getattr(predicted, field) * scale})
    larger_true = dataclasses.replace(true, box_xyxy_B4=true.box_xyxy_B4 * scale)
    assert _text(protocol, protocol.count(larger, larger_true)) == _text(
        protocol, protocol.count(predicted, true)
    )


@pytest.mark.parametrize("name", NAMES)
def test_float32_boxes_and_uint8_flags_are_read_too(name):
    protocol, predicted, true = _random_block(name, 5)
    other = dataclasses.replace(
        true,
        box_xyxy_B4=true.box_xyxy_B4.astype(np.float32),
        box_difficult_B=true.box_difficult_B.astype(np.uint8),
        excluded_N=true.excluded_N.astype(np.uint8),
    )
    flags = predicted.has_prediction_N.astype(np.uint8)
    counts = protocol.count(dataclasses.replace(predicted, has_prediction_N=flags), other)
    assert _text(protocol, counts) == _text(protocol, protocol.count(predicted, true))


@pytest.mark.parametrize("name", NAMES)
def test_inputs_stay_as_they_are(name):
    protocol, predicted, true = _random_block(name, 6)
    before = _copy(predicted), _copy(true)
    protocol.result(protocol.count(predicted, true))
    for record, copies in zip((predicted, true), before, strict=True):
        for field, copy in copies.items():
            np.testing.assert_array_equal(getattr(record, field), copy)


@pytest.mark.parametrize("name", NAMES)
def test_result_tells_what_it_is(name):
    protocol, predicted, true = _random_block(name, 7)
    result = protocol.result(protocol.count(predicted, true))
    assert result.protocol == protocol.name == name
    assert result.unit == protocol.unit == "%"
    assert result.higher_is_better == protocol.higher_is_better
    assert result.parameters == ({"iou": 0.5} if protocol.compares_boxes else {})
    assert 0 <= result.value <= 100
    assert [row.class_index for row in result.per_class] == list(range(6))
    assert protocol.summary
    assert len(protocol.summary) < 80


def test_classes_are_ranked_where_the_truth_must_not_choose_them():
    assert [name for name in NAMES if PROTOCOLS[name].ranks_classes] == [
        "ilsvrc-top1",
        "ilsvrc-top5",
        "voc-ap",
        "voc07-ap",
    ]
    assert {name: PROTOCOLS[name].rank_depth for name in NAMES if PROTOCOLS[name].rank_depth} == {
        "ilsvrc-top1": 1,
        "ilsvrc-top5": 5,
    }
    assert [name for name in NAMES if PROTOCOLS[name].reads == "maps"] == ["peak-in-box"]


def test_registry_loads_no_numpy():
    code = (
        "import sys, wsltool.metrics.protocols as p; print(len(p.PROTOCOLS));"
        "sys.exit('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{len(NAMES)}\n"), done.stderr


def test_unknown_name():
    with pytest.raises(UsageError, match=r'"voc_ap" is not known; .* Did you mean "voc-ap"\?'):
        find_protocol("voc_ap")
    with pytest.raises(
        UsageError, match=r'"zzz" is not known; expected one of ilsvrc-top1, .*box\.$'
    ):
        find_protocol("zzz")
    assert find_protocol("voc-ap") is PROTOCOLS["voc-ap"]


def test_iou_of_a_protocol():
    for iou in (0, -0.5, 1.5, float("nan")):
        with pytest.raises(UsageError, match=rf"--iou must be in \(0, 1\], got {iou:g}\."):
            PROTOCOLS["voc-ap"].with_iou(iou)
    with pytest.raises(
        UsageError, match=r"--iou 0\.3 has no meaning for peak-in-box\. Leave it out."
    ):
        PROTOCOLS["peak-in-box"].with_iou(0.3)
    assert PROTOCOLS["voc-ap"].iou == 0.5


def test_no_blocks():
    with pytest.raises(ProtocolError, match="0 blocks of images were counted; expected"):
        sum_counts([])


def test_nan_becomes_null_in_json():
    protocol = PROTOCOLS["voc-ap"]
    text = _text(protocol, protocol.count(predictions(), truth(num_classes=1)))
    assert json.loads(text)["value"] is None
    assert json.loads(text)["per_class"][0]["value"] is None


def test_percent():
    np.testing.assert_array_equal(percent([1, 0, 3], [2, 0, 3]), [50, np.nan, 100])
    assert np.isnan(percent(0, 0))
