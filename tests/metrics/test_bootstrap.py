"""The bootstrap over images, by arithmetic."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re

import numpy as np
import pytest

from wsltool.errors import ProtocolError, UsageError
from wsltool.metrics.bootstrap import Runs, bootstrap, bootstrap_difference, over_runs
from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.tally import Tally

from .blocks import predictions, random_predictions, random_truth, truth

GT_KNOWN, VOC = PROTOCOLS["gt-known"], PROTOCOLS["voc-ap"]
BOX, FAR = [0, 0, 10, 10], [50, 50, 60, 60]


def _known(*hits, excluded=()):
    """Count images of class 1 that are localized or not."""
    images = [{"boxes": [(1, BOX)], "excluded": n in excluded} for n in range(len(hits))]
    found = predictions(*[([1], [(1, BOX if hit else FAR)]) for hit in hits])
    return GT_KNOWN.count(found, truth(*images))


def _random(seed, num_images=40):
    rng = np.random.default_rng(seed)
    true = random_truth(rng, num_images, 4, one_label=False)
    return random_predictions(rng, true), true


class TestInterval:
    def test_equal_images_leave_nothing_to_chance(self):
        found = bootstrap(GT_KNOWN, _known(1, 1, 1), 50)
        assert (found.low, found.high, found.sd) == (100, 100, 0)
        assert (found.num_samples, found.num_without_value) == (50, 0)
        assert found.low_K[1] == found.high_K[1] == 100
        assert np.isnan([found.low_K[0], found.high_K[0]]).all()

    def test_ends_are_percentiles_of_what_can_be_drawn(self):
        """The number of hits among 100 draws is binomial: 50 % with a deviation of 5."""
        found = bootstrap(GT_KNOWN, _known(*[0, 1] * 50), 4000)
        assert found.sd == pytest.approx(5, rel=0.05)
        assert (found.low, found.high) == (40, 60)

    def test_excluded_images_are_not_drawn(self):
        tally = _known(1, 0, 0, 1, excluded=(1, 2))
        found = bootstrap(GT_KNOWN, tally, 200)
        assert (found.low, found.high, found.num_without_value) == (100, 100, 0)

    def test_samples_without_anything_to_score(self):
        """The one image with an object is missed by (1/2)**2 of the samples."""
        tally = VOC.count(predictions(([1], [(1, BOX)]), ([1], [])), truth([(1, BOX)], []))
        found = bootstrap(VOC, tally, 2000)
        assert found.num_without_value == pytest.approx(500, abs=80)
        assert (found.low, found.high, found.sd) == (100, 100, 0)

    def test_nothing_to_score_at_all(self):
        found = bootstrap(VOC, VOC.count(predictions(), truth()), 20)
        assert np.isnan([found.low, found.high, found.sd]).all()
        assert found.num_without_value == 20

    def test_the_seed_decides_and_not_the_blocks(self):
        predicted, true = _random(0)
        whole = bootstrap(VOC, VOC.count(predicted, true), 60, seed=7)
        blocks = np.array_split(np.random.default_rng(1).permutation(len(true)), 5)
        parts = [VOC.count(predicted.take(block), true.take(block)) for block in blocks]
        assert bootstrap(VOC, Tally.joined(parts), 60, seed=7) == whole
        assert bootstrap(VOC, Tally.joined(parts), 60, seed=8) != whole
        value = VOC.result(Tally.joined(parts)).value
        assert whole.low < value < whole.high

    def test_no_samples(self):
        line = "--bootstrap must be at least 1 sample, got 0."
        with pytest.raises(UsageError, match=f"^{re.escape(line)}$"):
            bootstrap(GT_KNOWN, _known(1), 0)
        with pytest.raises(UsageError, match=r"at least 1 sample, got -3\.$"):
            bootstrap_difference(GT_KNOWN, _known(1), _known(1), -3)


class TestDifference:
    def test_with_itself(self):
        tally = VOC.count(*_random(1))
        found = bootstrap_difference(VOC, tally, tally, 50)
        assert (found.difference, found.low, found.high) == (0, 0, 0)

    def test_ends_are_of_what_can_be_drawn(self):
        """Two images, four draws of equal chance: the first twice, the second twice, or each."""
        a, b = _known(1, 1), _known(0, 1)
        values = {100 - 50 * sum(draw) for draw in itertools.product((0, 1), repeat=2)}
        assert values == {0, 50, 100}
        found = bootstrap_difference(GT_KNOWN, a, b, 500)
        assert (found.difference, found.low, found.high) == (50, 0, 100)
        back = bootstrap_difference(GT_KNOWN, b, a, 500)
        assert (back.difference, back.low, back.high) == (-50, -100, 0)

    def test_the_same_images_are_drawn_for_both(self):
        """Each fails on one other image of 40: paired, a constant difference has no spread."""
        hits = np.arange(40) % 3 == 0
        a, b = _known(*hits), _known(*hits)
        found = bootstrap_difference(GT_KNOWN, a, b, 200)
        assert (found.low, found.high) == (0, 0)
        assert bootstrap(GT_KNOWN, a, 200).sd > 5

    def test_samples_without_anything_to_score(self):
        true = truth([(1, BOX)], [])
        a = VOC.count(predictions(([1], [(1, BOX)]), ([1], [])), true)
        b = VOC.count(predictions(([1], []), ([1], [])), true)
        found = bootstrap_difference(VOC, a, b, 400)
        assert (found.difference, found.low, found.high) == (100, 100, 100)
        assert 50 < found.num_without_value < 150

    @pytest.mark.parametrize(
        "other", [_known(1, 0), _known(1, 1, 1, excluded=(0,))], ids=["rows", "excluded"]
    )
    def test_other_images(self, other):
        line = (
            "3 and 2 images are compared, which are not the same; expected the same images of "
            "both. Score them with one truth."
        )
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            bootstrap_difference(GT_KNOWN, _known(1, 1, 1), other)


class TestEveryProtocol:
    @pytest.mark.parametrize("name", ["voc-ap", "voc07-ap", "gt-known", "ilsvrc-top5"])
    def test_of_blocks(self, name):
        rng = np.random.default_rng(4)
        true = random_truth(rng, 50, 6, one_label="voc" not in name)
        protocol = PROTOCOLS[name]
        tally = protocol.count(random_predictions(rng, true), true)
        found = bootstrap(protocol, tally, 60)
        assert 0 <= found.low <= protocol.result(tally).value <= found.high <= 100
        assert len(found.low_K) == 6
        assert dataclasses.asdict(found)["num_samples"] == 60


def test_over_runs():
    assert over_runs([1.0, 2.0, 6.0]) == Runs(3, pytest.approx(math.sqrt(7)), 3)
    assert over_runs([5.0])[::2] == (5, 1)
    assert math.isnan(over_runs([5.0]).sd)
    assert np.isnan(over_runs([])[:2]).all()
    assert np.isnan(over_runs([1.0, float("nan")])[:2]).all()
