"""PxAP: worked by hand, and against ``numpy.histogram`` and the rule in plain loops."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import ProtocolError
from wsltool.metrics.grid_heats import GridHeats, centred_gaussian
from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.tally import Tally

from .blocks import truth

SIDE = 224
PXAP = PROTOCOLS["pxap"]


def _heats(maps, masks):
    masks = np.array(masks, np.uint8)
    return GridHeats(
        has_map_N=np.ones(len(maps), bool), heat_NHW=np.array(maps), masks=lambda: masks
    )


def _true(num):
    return truth(*[[(0, (0, 0, 9, 9))]] * num, size_wh=(SIDE, SIDE))


def _counted(maps, masks, **options):
    protocol = PXAP.with_options(**options)
    return protocol, protocol.count(_heats(maps, masks), _true(len(maps)))


def _value(maps, masks, **options):
    protocol, tally = _counted(maps, masks, **options)
    return protocol.result(tally)


def _rule(heats, masks, interval):
    """The rule in plain steps: two histograms of all pixels, the area right to left."""
    edges = np.append(np.arange(0, 1, interval), [1.0, 2.0, 3.0])
    true, false = (
        np.histogram(
            np.concatenate([h[m == one] for h, m in zip(heats, masks, strict=True)]), edges
        )[0]
        for one in (1, 0)
    )
    tp = fp = 0
    value, before = 0.0, 0.0
    for one, other in zip(true[::-1].tolist(), false[::-1].tolist(), strict=True):
        tp, fp = tp + one, fp + other
        if tp + fp:
            value += tp / (tp + fp) * (tp / true.sum() - before)
            before = tp / true.sum()
    return 100 * value, np.array([true, false])


def test_worked_by_hand():
    """Hottest: 1 of the object; then 1 of the object and 2 others; then the rest."""
    heat_HW, mask_HW = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    heat_HW[0, :4] = 1, 0.5, 0.5, 0.5
    mask_HW[0, :2] = 1
    result = _value([heat_HW], [mask_HW], interval=0.1)
    assert result.value == pytest.approx(100 * (1 * 0.5 + 2 / 4 * 0.5))
    assert result.extra["num_object_px"] == 2
    assert list(result.curve) == ["recall", "precision", "threshold"]
    assert result.curve["threshold"][:3] == [1.0, 0.9, 0.8]
    assert result.curve["recall"][:2] == [0.5, 0.5]
    assert result.curve["precision"][:2] == [100, 100]


def test_left_out_pixels_are_in_neither_histogram():
    heat_HW, mask_HW = np.zeros((SIDE, SIDE)), np.full((SIDE, SIDE), 255)
    heat_HW[0, 0] = 1
    mask_HW[0, :2] = 1, 0
    _, tally = _counted([heat_HW], [mask_HW])
    assert tally.sums["pixels"].sum() == 2


def test_exactly_one_has_a_bin_of_its_own():
    heat_HW = np.full((SIDE, SIDE), 1.0)
    heat_HW[0, 0] = np.nextafter(1, 0)
    _, tally = _counted([heat_HW], [np.ones((SIDE, SIDE))], interval=0.25)
    assert tally.sums["pixels"][0].tolist() == [0, 0, 0, 1, SIDE**2 - 1, 0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.001, 0.01, 0.1, 0.3, 1 / 3, 0.07]))
def test_as_numpy_has_it(seed, interval):
    """On the edges of bins and right beside them, too."""
    rng = np.random.default_rng(seed)
    edges = np.append(np.arange(0, 1, interval), 1.0)
    heat_HW = rng.random((SIDE, SIDE))
    some = rng.choice(edges, (30, SIDE))
    heat_HW[:30] = some
    heat_HW[30:60] = np.nextafter(some, 0)
    heat_HW[60:90] = np.minimum(np.nextafter(some, 1), 1)
    masks = rng.choice([0, 1, 255], (SIDE, SIDE))
    value, pixels = _rule([heat_HW], [masks], interval)
    protocol, tally = _counted([heat_HW], [masks], interval=interval)
    np.testing.assert_array_equal(tally.sums["pixels"], pixels)
    assert protocol.result(tally).value == pytest.approx(value, abs=1e-9)


def test_pixels_of_all_images_are_pooled_and_can_be_resampled():
    rng = np.random.default_rng(0)
    maps = rng.random((4, SIDE, SIDE)) ** np.arange(1, 5)[:, None, None]
    masks = rng.choice([0, 1, 255], (4, SIDE, SIDE), p=[0.6, 0.3, 0.1])
    protocol = replace(PXAP.with_options(interval=0.01), by_image=True)
    whole = protocol.count(_heats(maps, masks), _true(4))
    assert protocol.result(whole).value == pytest.approx(_rule(maps, masks, 0.01)[0], abs=1e-9)
    parts = [
        protocol.count(_heats(maps, masks).take(np.array([n])), _true(4).take(np.array([n])))
        for n in (2, 0, 3, 1)
    ]
    assert protocol.result(Tally.joined(parts)).as_dict() == protocol.result(whole).as_dict()
    times_N = np.array([0, 2, 1, 0])
    rows = [1, 1, 2]
    expected = _rule(maps[rows], masks[rows], 0.01)[0]
    assert protocol.result(whole.drawn(times_N)).value == pytest.approx(expected, abs=1e-9)


def test_a_sum_cannot_be_resampled():
    protocol, tally = _counted([np.ones((SIDE, SIDE))], [np.ones((SIDE, SIDE))])
    line = "pxap: pixels were added up over all images and cannot be resampled; expected those of "
    with pytest.raises(ProtocolError, match=f"^{re.escape(line)}"):
        protocol.result(tally.drawn(np.ones(1)))


def test_an_image_without_a_map_is_zero_throughout():
    mask_HW = np.zeros((SIDE, SIDE))
    mask_HW[:112] = 1
    heats = replace(_heats([np.zeros((SIDE, SIDE))], [mask_HW]), has_map_N=np.array([False]))
    result = PXAP.result(PXAP.count(heats, _true(1)))
    assert result.value == 50
    assert result.warnings == ("1 images have no map of their class and count as 0 throughout",)


def test_no_object_anywhere():
    result = _value([centred_gaussian()], [np.zeros((SIDE, SIDE))])
    assert np.isnan(result.value)
    assert result.warnings == ("no pixel of any mask shows the object: there is nothing to find",)


def test_masks_lack():
    heats = replace(_heats([centred_gaussian()], [0]), masks=None)
    with pytest.raises(
        ProtocolError, match=r"^1 images have no masks; pxap expects one for each\.$"
    ):
        PXAP.count(heats, _true(1))
    heats = _heats([centred_gaussian()], np.zeros((1, 5, 5)))
    line = "masks have shape (1, 5, 5); expected that of heat, (1, 224, 224)."
    with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
        PXAP.count(heats, _true(1))
