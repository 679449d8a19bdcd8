"""Saliency AP, by hand."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import ProtocolError
from wsltool.metrics.baselines import centre_heat, flat_heat
from wsltool.metrics.protocols import PROTOCOLS, sum_counts
from wsltool.metrics.saliency_ap import SaliencyPair, SaliencyPairs

from .blocks import exact_ap, truth

SALIENCY = PROTOCOLS["saliency-ap"]
TRUTH = truth([])


def _pair(row, class_index, heat, mask, other=None):
    return SaliencyPair(
        row,
        class_index,
        np.array(mask, np.uint8),
        None if heat is None else np.array(heat, float),
        None if other is None else np.array(other, float),
    )


def _result(*pairs, protocol=SALIENCY, **options):
    protocol = protocol.with_options(**options)
    return protocol.result(protocol.count(SaliencyPairs(pairs), TRUTH))


GOOD = _pair(0, 1, [[4, 1]], [[1, 0]])
BAD = _pair(1, 1, [[1, 8]], [[1, 0]])


def test_pooled_by_hand():
    """Hot: one of the object, one other; 1/4: other; 1/8: object. 1/2 up to 1/2, 1/2 up to 1."""
    result = _result(GOOD, BAD)
    assert result.value == pytest.approx(50)
    assert result.parameters == {"pairs": "pooled"}
    assert result.per_class[1].value == result.value
    assert result.per_class[1].counts == {"num_pairs": 2, "num_object_px": 2, "num_other_px": 2}
    assert np.isnan(result.per_class[0].value)
    assert result.extra["exact_at_most"] >= result.value


def test_per_pair_by_hand():
    """The first pair is right, 100; in the second the object comes last, 50."""
    result = _result(GOOD, BAD, pairs="per-pair")
    assert result.value == pytest.approx(75)
    assert result.parameters == {"pairs": "per-pair"}
    assert "exact_at_most" not in result.extra


def test_what_is_left_out():
    """The hottest other pixel is ignored; a class without a pixel is no pair."""
    ignored = _pair(0, 1, [[9, 4, 1]], [[255, 1, 0]])
    absent = _pair(0, 2, [[9, 4, 1]], [[0, 255, 0]])
    result = _result(ignored, absent)
    assert result.value == 100
    assert result.extra["num_pairs"] == 1
    assert result.extra["num_classes"] == 1
    assert result.extra["num_other_px"] == 1
    assert result.warnings == ("1 pairs have no pixel of the class in the mask and are left out.",)


def test_maximum_is_of_the_whole_map():
    """The ignored pixel holds the maximum 10, so the object's 5 is 1/2, below another's 3/4."""
    result = _result(_pair(0, 1, [[10, 5, 0]], [[255, 1, 0]]), _pair(1, 2, [[4, 3]], [[1, 0]]))
    assert result.value == pytest.approx(50 + 50 * 2 / 3)


def test_without_a_map_it_counts_as_zeros():
    result = _result(_pair(0, 1, None, [[1, 0, 0, 0]]))
    assert result.value == 25
    assert result.extra["num_pairs_without_map"] == 1
    assert result.warnings == ("1 pairs have no map and count as zeros.",)


def test_all_negative_map_is_zeros():
    assert _result(_pair(0, 1, [[-1, -5, -9, -2]], [[1, 0, 0, 0]])).value == 25


def test_of_the_chosen_classes():
    other = _pair(0, 3, [[1, 8]], [[1, 0]])
    protocol = dataclasses.replace(SALIENCY, classes=("b",), class_index=(1,))
    for pairs in ("pooled", "per-pair"):
        result = _result(GOOD, other, protocol=protocol, pairs=pairs)
        assert result.value == 100
        assert result.extra["num_pairs"] == 1
        assert result.per_class[3].value == pytest.approx(50)


def test_nothing():
    for pairs in ("pooled", "per-pair"):
        assert np.isnan(_result(pairs=pairs).value)


def test_nan():
    with pytest.raises(ProtocolError, match=r"^heat is nan somewhere; expected finite values, or"):
        _result(_pair(0, 1, [[np.nan, 1]], [[1, 0]]))


def _random_pairs(rng, num_images):
    return [
        SaliencyPairs(
            tuple(
                _pair(row, int(index), rng.normal(size=(4, 6)), rng.choice([0, 1, 255], (4, 6)))
                for index in rng.permutation(4)[: rng.integers(0, 4)]
            )
        )
        for row in range(num_images)
    ]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.sampled_from(["pooled", "per-pair"]))
def test_any_division_into_blocks_in_any_order_counts_the_same(seed, pairs):
    rng = np.random.default_rng(seed)
    images = _random_pairs(rng, 6)
    protocol = SALIENCY.with_options(pairs=pairs)
    joined = SaliencyPairs(tuple(pair for image in images for pair in image.pairs))
    parts = [protocol.count(images[n], TRUTH) for n in rng.permutation(6)]
    texts = {
        json.dumps(protocol.result(counts).as_dict())
        for counts in (protocol.count(joined, TRUTH), sum_counts(parts))
    }
    assert len(texts) == 1


def test_pooled_is_the_exact_value_to_its_bound():
    rng = np.random.default_rng(3)
    images = _random_pairs(rng, 30)
    pairs = [pair for image in images for pair in image.pairs]
    heat = np.concatenate([pair.heat_HW.ravel() / pair.heat_HW.max() for pair in pairs])
    exact = exact_ap(heat, np.concatenate([pair.mask_HW.ravel() for pair in pairs]))
    result = _result(*pairs)
    assert result.value <= exact + 1e-9
    assert exact <= result.extra["exact_at_most"] + 1e-9
    assert result.extra["exact_at_most"] - result.value < 0.1


class TestOther:
    """Beside another store."""

    def test_difference(self):
        better = [dataclasses.replace(GOOD, row=row, other_HW=BAD.heat_HW) for row in range(3)]
        result = _result(*better, other="b.zarr")
        assert result.value == 100
        assert result.extra["pooled_difference_to_other"] == 50
        assert result.extra["pooled_difference_95"] == [50, 50]
        assert result.extra["num_images_compared"] == 3
        assert result.extra["num_pairs_compared"] == 3
        assert result.parameters["other"] == "b.zarr"

    def test_of_the_chosen_classes(self):
        protocol = dataclasses.replace(SALIENCY, classes=("b",), class_index=(1,))
        pairs = [
            dataclasses.replace(GOOD, other_HW=GOOD.heat_HW),
            _pair(5, 2, [[1, 8]], [[1, 0]], [[8, 1]]),
        ]
        result = _result(*pairs, protocol=protocol, other="b.zarr")
        assert result.extra["pooled_difference_to_other"] == 0
        assert result.extra["num_images_compared"] == 1

    def test_only_pairs_that_both_have_a_map_of(self):
        """Neither the other's lack of a map nor the first's is a difference."""
        both = dataclasses.replace(GOOD, other_HW=GOOD.heat_HW)
        lacking = _pair(2, 1, None, [[1, 0]], [[1, 8]])
        result = _result(both, BAD, lacking, other="b.zarr")
        assert result.extra["pooled_difference_to_other"] == 0
        assert result.extra["num_pairs"] == 3
        assert result.extra["num_pairs_compared"] == 1
        assert result.extra["num_images_compared"] == 1
        assert result.warnings[1:] == (
            "2 pairs have no map in one of the stores and are not compared.",
        )

    def test_nothing_to_compare(self):
        result = _result(GOOD, other="b.zarr")
        assert result.extra["num_pairs_compared"] == 0
        assert np.isnan(result.extra["pooled_difference_to_other"])
        assert np.isnan(result.extra["pooled_difference_95"]).tolist() == [True, True]

    def test_order_of_blocks_makes_no_difference(self):
        protocol = SALIENCY.with_options(other="b.zarr")
        parts = [
            protocol.count(SaliencyPairs((dataclasses.replace(one, other_HW=BAD.heat_HW),)), TRUTH)
            for one in (GOOD, BAD)
        ]
        one, other = (protocol.result(sum_counts(order)) for order in (parts, parts[::-1]))
        assert one.extra == other.extra


class TestBaselines:
    def test_flat_is_the_share_of_the_object(self):
        pair = _pair(0, 1, [[5, 1, 2, 3]], [[1, 0, 255, 0]])
        assert _result(*flat_heat(SaliencyPairs((pair,))).pairs).value == pytest.approx(100 / 3)

    def test_centre_falls_to_the_corners(self):
        pair = _pair(0, 1, np.zeros((3, 5)), np.zeros((3, 5)))
        heat = centre_heat(SaliencyPairs((pair,))).pairs[0].heat_HW
        assert heat[1, 2] == heat.max() == 1
        assert heat[0, 0] == heat.min() > 0
        np.testing.assert_allclose(heat, heat[::-1, ::-1])
        assert heat[1, 4] == pytest.approx(1 - 0.8 / np.sqrt(2))
        assert heat[0, 2] == pytest.approx(1 - 2 / 3 / np.sqrt(2))

    def test_without_a_map_stays_without(self):
        pairs = SaliencyPairs((_pair(0, 1, None, [[1, 0]]),))
        assert flat_heat(pairs).pairs[0].heat_HW is None
        assert centre_heat(pairs).pairs[0].heat_HW is None
