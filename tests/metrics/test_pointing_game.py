"""The pointing game, by hand. Against TorchRay itself: ``tests/parity/test_torchray.py``."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import ProtocolError
from wsltool.metrics.point import best_box_points
from wsltool.metrics.pointing_game import GamePoints, MaskGaps, centre_points, squared_gap
from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.tally import Tally

from .blocks import peaks, predictions, random_peaks, random_truth, truth

GAME = PROTOCOLS["pointing-game"]
BOX = [40, 40, 60, 60]  # pixels 40 to 59
IN, OUT = (50.5, 50.5), (5.5, 5.5)


def _result(predicted, true, protocol=GAME, masks=None):
    return protocol.result(protocol.count(GamePoints(peaks=predicted, masks=masks), true))


def _hits(point, box=BOX, **options):
    protocol = GAME.with_options(**options)
    found = _result(peaks([(1, point)]), truth([(1, box)]), protocol)
    return found.per_class[1].counts["num_hits"] == 1


class TestTolerance:
    @pytest.mark.parametrize(
        ("pixel", "hit"),
        [
            ((26, 50), True),  # 14 to the left of pixel 40
            ((25, 50), False),  # 15: not less than the tolerance
            ((73, 50), True),  # 14 to the right of pixel 59
            ((74, 50), False),
            ((50, 73), True),
            ((50, 74), False),
            ((31, 28), False),  # 9 and 12: exactly 15
            ((31, 29), True),
            ((68, 71), False),
            ((68, 70), True),
            ((40, 40), True),
            ((59, 59), True),
        ],
    )
    def test_of_15(self, pixel, hit):
        assert _hits(np.add(pixel, 0.5)) == hit
        assert _hits(np.add(pixel, 0.999)) == hit  # a continuous point lies in its pixel

    def test_1_is_inside(self):
        """The smallest whole tolerance; 0 can never be undercut."""
        assert _hits((40.5, 59.5), tolerance=1)
        assert not _hits((39.5, 59.5), tolerance=1)
        assert not _hits(IN, tolerance=0)

    def test_a_box_of_broken_pixels_holds_those_that_it_touches(self):
        box = [40.2, 40.0, 40.3, 41.0]
        assert _hits((40.5, 40.5), box, tolerance=1)
        assert not _hits((41.5, 40.5), box, tolerance=1)

    def test_a_box_ends_with_the_image(self):
        """Of 100 x 80 pixels: those beyond do not count."""
        box = [90, 70, 300, 300]
        assert _hits((99.5, 79.5), box, tolerance=1)
        assert not _hits((99.5, 94.5), [0, 95, 300, 300])

    @pytest.mark.parametrize("box", [[40, 40, 40, 60], [200, 10, 220, 20], [-9, 10, 0, 20]])
    def test_a_box_without_pixels_is_a_miss(self, box):
        found = _result(peaks([(1, (40.5, 40.5))]), truth([(1, box)]))
        assert found.per_class[1].counts == {"num_hits": 0, "num_misses": 1}
        assert found.extra["num_without_region_px"] == 1
        assert "1 pairs have a region without any pixel and count as missed." in found.warnings


class TestPairs:
    def test_any_box_of_the_class_but_of_no_other(self):
        true = truth([(1, BOX), (1, [0, 0, 9, 9]), (2, [80, 0, 99, 9])])
        found = _result(peaks([(1, OUT), (2, OUT)]), true)
        assert [row.value for row in found.per_class[1:3]] == [100, 0]

    def test_difficult(self):
        """All difficult: skipped. One that is not: the others are as good as that one."""
        only = truth([(1, BOX, "difficult")])
        found = _result(peaks([(1, IN)]), only)
        assert math.isnan(found.value)
        assert found.extra["num_difficult"] == 1
        assert found.extra["num_pairs"] == 0
        both = truth([(1, BOX, "difficult"), (1, [0, 0, 1, 1])])
        assert _result(peaks([(1, IN)]), both).per_class[1].value == 100

    def test_absent_classes_are_not_played(self):
        found = _result(peaks([(0, IN), (1, IN), (2, IN)]), truth([(1, BOX)]))
        assert found.extra["num_pairs"] == 1

    def test_a_crowd_is_played_if_it_has_a_point(self):
        """A crowd is difficult, its class undecided."""
        true = truth([(1, BOX, "difficult")], [(1, BOX, "difficult")])
        true = dataclasses.replace(true, box_crowd_B=np.array([1, 1], np.uint8))
        found = _result(peaks([(1, IN)], [(0, IN)]), true)
        assert found.per_class[1].counts == {"num_hits": 1, "num_misses": 0}
        assert found.extra["num_crowd_without_point"] == 1
        assert (
            "1 pairs of only crowds have no map (or box) and are left out; TorchRay plays them."
        ) in found.warnings

    def test_without_a_point(self):
        found = _result(peaks([(0, IN)], None), truth([(1, BOX)], [(1, BOX)]))
        assert found.per_class[1].counts == {"num_hits": 0, "num_misses": 2}
        assert found.extra["num_without_point"] == 2
        assert "2 pairs have no map (or box) and count as missed." in found.warnings

    def test_without_a_box(self):
        true = truth({"boxes": [], "labels": [1]}, [(1, BOX)])
        found = _result(peaks([(1, IN)], [(1, IN)]), true)
        assert found.extra["num_undrawn"] == 1
        assert found.extra["num_pairs"] == 1
        assert "1 pairs have no region in the truth and are left out." in found.warnings

    def test_excluded(self):
        true = truth({"boxes": [(1, BOX)], "excluded": True}, [(1, BOX)])
        found = _result(peaks([(1, OUT)], [(1, IN)]), true)
        assert found.per_class[1].value == 100
        assert found.extra["num_excluded"] == 1

    def test_no_slots_at_all(self):
        found = _result(peaks([], num_slots=0), truth([(1, BOX)]))
        assert found.extra["num_without_point"] == 1

    def test_nan(self):
        line = "maps row 0: slot 0 peaks at (nan, 3.0); expected pixels."
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            _result(peaks([(1, (math.nan, 3.0))]), truth([(1, BOX)]))


class TestValue:
    TRUTH = truth([(0, BOX)], [(0, BOX)], [(1, BOX)])
    POINTS = peaks([(0, IN)], [(0, OUT)], [(1, IN)])

    def test_mean_over_all_classes(self):
        """50, 100, and two classes that are never played."""
        found = _result(self.POINTS, self.TRUTH)
        assert found.value == 37.5
        assert found.extra["mean_over_played"] == 75
        assert found.extra["num_classes_played"] == 2
        assert found.warnings == (
            "2 classes are never played and count as 0, as in TorchRay; mean_over_played leaves "
            "them out.",
        )
        assert math.isnan(found.per_class[2].value)

    def test_chosen_classes(self):
        protocol = GAME.with_options(classes=("a", "b")).with_classes("abcd", "wxyz")
        found = _result(self.POINTS, self.TRUTH, protocol)
        assert found.value == 75
        assert found.warnings == ()
        assert found.extra["num_pairs"] == 3

    def test_parameters(self):
        assert _result(self.POINTS, self.TRUTH).parameters == {
            "tolerance": 15.0,
            "regions": "auto",
        }


class TestMasks:
    TRUTH = truth([(1, BOX)], [(1, BOX)], [(1, BOX)])

    def _masks(self, *gaps, drawn=(True, True, True)):
        gap_NS = np.tile(np.array(gaps, float)[:, None], (1, 3))
        return MaskGaps(drawn_N=np.array(drawn), gap_NS=gap_NS, centre_gap_NS=np.zeros((3, 3)))

    def test_by_hand(self):
        points = peaks([(1, IN)], [(1, IN)], [(1, IN)])
        found = _result(points, self.TRUTH, masks=self._masks(224, 225, math.inf))
        assert found.per_class[1].counts == {"num_hits": 1, "num_misses": 2}
        assert found.extra["num_without_region_px"] == 1
        assert found.extra["num_pairs_on_masks"] == 3

    def test_boxes_though_there_are_masks(self):
        protocol = GAME.with_options(regions="boxes")
        points = peaks([(1, IN)], [(1, IN)], [(1, OUT)])
        found = _result(points, self.TRUTH, protocol, self._masks(900, 900, 0))
        assert found.per_class[1].counts == {"num_hits": 2, "num_misses": 1}
        assert found.extra["num_pairs_on_masks"] == 0

    def test_images_that_nobody_drew_are_left_out(self):
        points = peaks([(1, IN)], [(1, IN)], None)
        masks = self._masks(0, 0, 0, drawn=(True, False, False))
        found = _result(points, self.TRUTH, masks=masks)
        assert found.per_class[1].counts == {"num_hits": 1, "num_misses": 0}
        assert found.extra["num_undrawn"] == 2

    def test_the_centre(self):
        points = GamePoints(
            peaks=peaks([(1, OUT)], [(1, OUT)], [(1, OUT)]), masks=self._masks(900, 900, 900)
        )
        centred = centre_points(points, self.TRUTH.size_wh_N2)
        assert GAME.result(GAME.count(centred, self.TRUTH)).per_class[1].value == 100
        boxes = centre_points(dataclasses.replace(points, masks=None), self.TRUTH.size_wh_N2)
        assert boxes.peaks.peak_xy_NS2[0, 0].tolist() == [50, 40]

    def test_none_where_they_are_asked_for(self):
        line = (
            "--regions masks: the truth has no masks; expected files or those of boxes. Pass "
            "--regions boxes."
        )
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            _result(peaks([(1, IN)]), truth([(1, BOX)]), GAME.with_options(regions="masks"))


class TestGap:
    @settings(deadline=None, max_examples=80)
    @given(st.integers(0, 2**32))
    def test_law_the_nearest_of_all(self, seed):
        rng = np.random.default_rng(seed)
        mask_HW = rng.random(rng.integers(1, 120, 2)) < rng.choice([0, 0.001, 0.05, 0.9])
        column, row = rng.integers(-20, 130, 2).tolist()
        gaps = [(x - column) ** 2 + (y - row) ** 2 for y, x in np.argwhere(mask_HW).tolist()]
        assert squared_gap(mask_HW, column, row) == min(gaps, default=math.inf)

    def test_beyond_the_corner_of_the_near_window(self):
        """(32, 32) is in the window of 32 pixels, (0, 33) is not, but nearer."""
        mask_HW = np.zeros((80, 80), bool)
        mask_HW[32, 32] = mask_HW[33, 0] = True
        assert squared_gap(mask_HW, 0, 0) == 33**2


def test_boxes_of_a_detector():
    """The pixel that holds the centre of the best box of each class; the first of equals."""
    near, far = [20, 40, 34, 60], [0, 0, 4, 4]  # centres 27, 50 and 2, 2
    true = truth([(1, BOX), (2, BOX)])
    found = predictions(([1, 2], [(1, far, 0.2), (1, near, 0.9), (2, far, 0.9), (2, near, 0.9)]))
    result = _result(best_box_points(found, true), true)
    assert [row.value for row in result.per_class[1:3]] == [100, 0]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
def test_law_blocks_in_any_order_and_samples(seed):
    rng = np.random.default_rng(seed)
    true = random_truth(rng, 20, 3, one_label=False)
    points = GamePoints(peaks=random_peaks(rng, true, num_slots=3))
    whole = GAME.count(points, true)
    blocks = np.split(rng.permutation(20), [3, 11])
    joined = Tally.joined(GAME.count(points.take(one), true.take(one)) for one in blocks)
    np.testing.assert_equal(GAME.result(joined).as_dict(), GAME.result(whole).as_dict())
    drawn = rng.integers(0, 20, 20)
    again = dataclasses.replace(true.take(drawn), row_N=np.arange(20))
    sample = joined.drawn(np.bincount(drawn, minlength=20))
    np.testing.assert_equal(
        GAME.result(sample).as_dict(), GAME.result(GAME.count(points.take(drawn), again)).as_dict()
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
def test_law_boxes_are_as_good_as_the_masks_that_they_cover(seed):
    rng = np.random.default_rng(seed)
    true = random_truth(rng, 12, 3, one_label=False)
    points = random_peaks(rng, true, num_slots=3)
    gap_NS = np.full(points.map_class_NS.shape, np.inf)
    for n, slot in np.argwhere(points.map_class_NS >= 0).tolist():
        mask_HW = np.zeros(true.size_wh_N2[n][::-1], bool)
        for b in range(true.box_start[n], true.box_start[n + 1]):
            if true.box_class_B[b] == points.map_class_NS[n, slot]:
                x0, y0, x1, y1 = true.box_xyxy_B4[b].astype(int)
                mask_HW[y0:y1, x0:x1] = True
        column, row = np.floor(points.peak_xy_NS2[n, slot]).astype(int).tolist()
        gap_NS[n, slot] = squared_gap(mask_HW, column, row)
    masks = MaskGaps(drawn_N=np.ones(12, bool), gap_NS=gap_NS, centre_gap_NS=gap_NS)
    protocol = GAME.with_options(tolerance=4)
    boxes, masked = (_result(points, true, protocol, one) for one in (None, masks))
    np.testing.assert_equal(
        [row.counts for row in boxes.per_class], [row.counts for row in masked.per_class]
    )
