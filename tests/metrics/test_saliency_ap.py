"""Saliency AP, by hand."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import ProtocolError
from wsltool.metrics.baselines import centre_heat, flat_heat
from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.saliency_ap import SaliencyPair, SaliencyPairs
from wsltool.metrics.tally import Tally

from .blocks import exact_ap, truth

SALIENCY = PROTOCOLS["saliency-ap"]
TRUTH = truth(*[[]] * 6)


def _pair(row, class_index, heat, mask):
    return SaliencyPair(
        row,
        class_index,
        np.array(mask, np.uint8),
        None if heat is None else np.array(heat, float),
    )


def _result(*pairs, protocol=SALIENCY, **options):
    protocol = protocol.with_options(**options)
    return protocol.result(protocol.count(SaliencyPairs(pairs), TRUTH))


GOOD = _pair(0, 1, [[4, 1]], [[1, 0]])
BAD = _pair(1, 1, [[1, 8]], [[1, 0]])
_TIMES = ((1, 1), (2, 0), (0, 3), (2, 2))


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
    parts = [
        protocol.count(images[n], TRUTH.take(np.array([n]))) for n in rng.permutation(6).tolist()
    ]
    texts = {
        json.dumps(protocol.result(tally).as_dict())
        for tally in (protocol.count(joined, TRUTH), Tally.joined(parts))
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


class TestDrawn:
    """Samples of images, from 1024 bins of each pair."""

    POOLED = dataclasses.replace(SALIENCY, by_image=True)

    def test_by_hand(self):
        tally = self.POOLED.count(SaliencyPairs((GOOD, BAD)), TRUTH)
        value = [self.POOLED.result(tally.drawn([a, b, *[0] * 4])).value for a, b in _TIMES]
        assert value == [pytest.approx(50), 100, 50, pytest.approx(50)]
        assert self.POOLED.result(tally).value == pytest.approx(50)
        assert np.isnan(self.POOLED.result(tally.drawn([0] * 6)).value)

    @settings(deadline=None, max_examples=20)
    @given(st.integers(0, 2**32), st.sampled_from(["pooled", "per-pair"]), st.booleans())
    def test_law_images_occur_so_often(self, seed, pairs, some):
        rng = np.random.default_rng(seed)
        images, times = _random_pairs(rng, 6), rng.integers(0, 4, 6)
        protocol = self.POOLED.with_options(pairs=pairs)
        if some:
            protocol = dataclasses.replace(protocol, class_index=(1, 3))
        joined = SaliencyPairs(tuple(pair for image in images for pair in image.pairs))
        drawn = protocol.result(protocol.count(joined, TRUTH).drawn(times))
        image = np.repeat(np.arange(6), times)
        again = [
            dataclasses.replace(pair, row=row)
            for row, n in enumerate(image)
            for pair in images[n].pairs
        ]
        tally = protocol.count(SaliencyPairs(tuple(again)), truth(*[[]] * len(image)))
        real = protocol.result(tally.drawn(np.ones(len(image), int)))
        assert drawn.value == pytest.approx(real.value, nan_ok=True)
        assert drawn.extra == pytest.approx(real.extra, nan_ok=True)
        for one, other in zip(drawn.per_class, real.per_class, strict=True):
            assert one.value == pytest.approx(other.value, nan_ok=True)
            assert one.counts == other.counts
        if pairs == "per-pair":
            assert drawn.value == pytest.approx(protocol.result(tally).value, nan_ok=True)

    def test_pixels_that_were_added_up(self):
        tally = SALIENCY.count(SaliencyPairs((GOOD, BAD)), TRUTH).drawn([1] * 6)
        line = (
            "saliency-ap: the pixels of all images were added up; expected those of each image, "
            "to draw images. Count with by_image."
        )
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            SALIENCY.result(tally)
        mean = SALIENCY.with_options(pairs="per-pair")
        assert mean.result(tally).value == pytest.approx(75)


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
