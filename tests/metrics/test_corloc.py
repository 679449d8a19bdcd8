"""CorLoc in its three meanings, worked by hand."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import ProtocolError, UsageError
from wsltool.metrics.corloc import lost_iou
from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.tally import Tally

from .blocks import predictions, random_predictions, random_truth, truth

WSOD = PROTOCOLS["corloc"]
DISCOVERY = WSOD.with_options(definition="discovery")
NO_HARD = WSOD.with_options(definition="discovery-no-hard")

A, B, FAR = [0, 0, 10, 10], [20, 0, 30, 10], [60, 60, 70, 70]
HALF, LESS = [0, 0, 10, 5], [0, 0, 10, 4.99]


def _result(predicted, true, protocol=WSOD):
    return protocol.result(Tally.joined([protocol.count(predicted, true)]))


def _image(*boxes):
    """One image's prediction of boxes ``(class, box, score)``."""
    return (sorted({class_ for class_, *_ in boxes}), list(boxes))


class TestTheSameBoxes:
    """Three images; class 0 and 1 in the first, 0 in the second, 1 in the third."""

    true = truth([(0, A), (1, B)], [(0, A)], [(1, B)], num_classes=3)
    predicted = predictions(
        _image((0, A, 0.9), (1, FAR, 0.8)),  # 0 right, 1 wrong; the image's box is right
        _image((0, FAR, 0.3), (1, A, 0.7)),  # 0 wrong; the image's box is right by another class
        _image((1, FAR, 0.9), (1, B, 0.8)),  # 1 wrong, the best box is elsewhere
    )

    def test_wsod(self):
        result = _result(self.predicted, self.true)
        # class 0: 1 of 2 images; class 1: 0 of 2; class 2 is nowhere
        assert [row.value for row in result.per_class[:2]] == [50, 0]
        assert math.isnan(result.per_class[2].value)
        assert result.value == 25
        assert dict(result.per_class[0].counts) == {
            "num_images": 2,
            "num_right": 1,
            "num_without_box": 0,
        }
        assert result.extra["num_classes"] == 2
        assert result.warnings == (
            "1 classes have no object to find and are left out of the mean.",
        )
        assert result.mistakes == {
            "right": 1,
            "several instances": 0,
            "only a part": 0,
            "too large": 0,
            "misplaced": 0,
            "background": 3,
            "no box": 0,
        }

    def test_discovery(self):
        result = _result(self.predicted, self.true, DISCOVERY)
        assert result.value == pytest.approx(100 * 2 / 3)
        # class 0 is in images 1 and 2, class 1 in 1 and 3
        assert [row.value for row in result.per_class[:2]] == [100, 50]
        assert (result.extra["num_scored"], result.extra["num_right"]) == (3, 2)
        assert (result.mistakes["right"], result.mistakes["background"]) == (2, 1)

    def test_of_some_classes(self):
        one = dataclasses.replace(WSOD, class_index=(0,))
        assert _result(self.predicted, self.true, one).value == 50
        assert _result(self.predicted, self.true, one).mistakes["right"] == 1
        one = dataclasses.replace(DISCOVERY, class_index=(1,))
        result = _result(self.predicted, self.true, one)
        assert (result.value, result.extra["num_scored"]) == (50, 2)

    def test_an_image_taken_twice(self):
        tally = WSOD.count(self.predicted, self.true)
        assert WSOD.result(tally.drawn([2, 1, 0])).value == pytest.approx((100 * 2 / 3 + 0) / 2)
        tally = DISCOVERY.count(self.predicted, self.true)
        assert DISCOVERY.result(tally.drawn([2, 0, 2])).value == 50


class TestWsod:
    @pytest.mark.parametrize(("box", "value"), [(A, 100), (HALF, 100), (LESS, 0)])
    def test_overlap_of_exactly_half_is_right(self, box, value):
        assert _result(predictions(_image((0, box, 1))), truth([(0, A)])).value == value

    def test_threshold_can_be_chosen(self):
        predicted, true = predictions(_image((0, LESS, 1))), truth([(0, A)])
        assert _result(predicted, true, WSOD.with_options(iou=0.4)).value == 100

    def test_any_instance_will_do(self):
        assert _result(predictions(_image((0, B, 1))), truth([(0, A), (0, B)])).value == 100

    def test_an_instance_of_another_class_will_not(self):
        assert _result(predictions(_image((0, B, 1))), truth([(0, A), (1, B)])).value == 0

    def test_first_of_equal_scores(self):
        true = truth([(0, A)])
        assert _result(predictions(_image((0, A, 0.5), (0, FAR, 0.5))), true).value == 100
        assert _result(predictions(_image((0, FAR, 0.5), (0, A, 0.5))), true).value == 0

    def test_difficult_instances_count(self):
        true = truth([(0, A, "difficult")], [(0, A)])
        predicted = predictions(_image((0, A, 1)), _image((0, FAR, 1)))
        assert _result(predicted, true).value == 50

    def test_a_crowd_does_not(self):
        true = truth([(0, A, "difficult"), (0, B)], [(0, A, "difficult")])
        true = dataclasses.replace(true, box_crowd_B=np.array([1, 0, 1], np.uint8))
        predicted = predictions(_image((0, A, 1)), _image((0, A, 1)))
        result = _result(predicted, true)
        assert (result.value, result.per_class[0].counts["num_images"]) == (0, 1)

    def test_what_is_not_there(self):
        true = truth(
            [(0, A)],
            [(0, A)],
            {"boxes": [], "labels": [0]},
            {"boxes": [(0, A)], "excluded": True},
            num_classes=1,
        )
        predicted = predictions(None, ([0], []), _image((0, A, 1)), _image((0, A, 1)))
        result = _result(predicted, true)
        assert result.value == 0
        assert {name: result.extra[name] for name in result.extra if "class" not in name} == {
            "num_images": 3,
            "num_excluded": 1,
            "num_without_prediction": 1,
            "num_without_box": 2,
            "num_without_true_box": 1,
        }
        assert result.warnings == (
            "2 times a class has no box in an image that shows it; wrong.",
            "1 times a class is present in an image without a true box; left out.",
        )


class TestDiscovery:
    def test_overlap_of_exactly_half_is_right_in_spite_of_the_epsilon(self):
        true = truth([(0, A)])
        assert _result(predictions(_image((0, HALF, 1))), true, DISCOVERY).value == 100
        assert _result(predictions(_image((0, LESS, 1))), true, DISCOVERY).value == 0
        # In double precision the same terms come to less than one half.
        assert 50 / (10 * (10 + 1e-7) + 10 * (5 + 1e-7) - 50 + 1e-7) < 0.5

    def test_true_boxes_are_rounded(self):
        true = truth([(0, [0.4, -0.3, 10.4, 10.5])])
        predicted = predictions(_image((0, HALF, 1)))
        assert _result(predicted, true, DISCOVERY).value == 100
        assert _result(predicted, true).value == 0
        assert _result(predicted, true, DISCOVERY).mistakes["right"] == 1

    def test_misplaced_where_only_rounding_makes_it_wrong(self):
        true = truth([(0, [0, 0, 10, 9.6])])
        predicted = predictions(_image((0, [0, 0, 10, 4.9], 1)))
        result = _result(predicted, true, DISCOVERY)
        assert (result.value, result.mistakes["misplaced"]) == (0, 1)

    def test_first_of_equal_scores_whatever_its_class(self):
        true = truth([(0, A)])
        assert (
            _result(predictions(_image((1, A, 0.5), (0, FAR, 0.5))), true, DISCOVERY).value == 100
        )
        assert _result(predictions(_image((1, FAR, 0.5), (0, A, 0.5))), true, DISCOVERY).value == 0

    def test_hard_instances(self):
        true = truth([(0, A, "difficult")], [(0, A), (0, B)], [(0, A)])
        true = dataclasses.replace(true, box_truncated_B=np.array([0, 1, 0, 1], np.uint8))
        predicted = predictions(*[_image((0, A, 1))] * 3)
        assert _result(predicted, true, DISCOVERY).value == 100
        result = _result(predicted, true, NO_HARD)  # only B of the second image remains
        assert (result.value, result.extra["num_scored"]) == (0, 1)
        assert result.warnings == ("2 images have no object to find and are left out.",)

    def test_what_is_not_there(self):
        true = truth([(0, A)], [], {"boxes": [(0, A)], "excluded": True})
        result = _result(predictions(None, None, None), true, DISCOVERY)
        assert (result.value, result.extra["num_scored"]) == (0, 1)
        assert result.mistakes["no box"] == 1
        assert result.warnings == (
            "1 images have no box; they are wrong.",
            "1 images have no object to find and are left out.",
        )

    def test_nothing_at_all(self):
        result = _result(predictions(None), truth([]), DISCOVERY)
        assert math.isnan(result.value)
        assert math.isnan(_result(predictions(None), truth([])).value)


class TestLostIou:
    def test_by_hand(self):
        assert lost_iou(np.array([A]), np.array([A])).dtype == np.float32
        assert lost_iou(np.array([A, A, A]), np.array([A, HALF, FAR])).tolist() == [1, 0.5, 0]

    def test_box_without_area(self):
        assert lost_iou(np.zeros((1, 4)), np.zeros((1, 4))).tolist() == [0]

    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def test_as_torch_has_it_for_whole_pixels(self, seed):
        torch = pytest.importorskip("torch")
        rng = np.random.default_rng(seed)
        a, b = rng.integers(0, 400, (2, 20, 2, 2))
        a, b = (np.sort(box, axis=1).reshape(-1, 4) for box in (a, b))
        x, y = torch.from_numpy(a).T, torch.from_numpy(b).T
        shared = (torch.min(x[2], y[2]) - torch.max(x[0], y[0])).clamp(0)
        shared = shared * (torch.min(x[3], y[3]) - torch.max(x[1], y[1])).clamp(0)
        whole = (x[2] - x[0]) * (x[3] - x[1] + 1e-7) + (y[2] - y[0]) * (y[3] - y[1] + 1e-7)
        expected = shared / (whole - shared + 1e-7)
        assert lost_iou(a, b).tolist() == expected.tolist()


class TestLaws:
    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.sampled_from([WSOD, DISCOVERY, NO_HARD]))
    def test_blocks_and_repetition(self, seed, protocol):
        rng = np.random.default_rng(seed)
        true = random_truth(rng, 12, 3, one_label=False)
        predicted = random_predictions(rng, true)
        whole = protocol.count(predicted, true)
        parts = [
            protocol.count(predicted.take(part), true.take(part))
            for part in np.array_split(rng.permutation(12), 3)
        ]
        said = protocol.result(Tally.joined([whole])).as_dict()
        assert protocol.result(Tally.joined(parts)).as_dict() == said
        times_N = rng.integers(0, 3, 12)
        image = np.repeat(np.arange(12), times_N)
        again = dataclasses.replace(true.take(image), row_N=np.arange(len(image)))
        repeated = protocol.count(predicted.take(image), again)
        drawn = protocol.result(Tally.joined(parts).drawn(times_N))
        assert drawn.as_dict() == protocol.result(repeated).as_dict()


class TestRefused:
    def test_definition(self):
        line = '--definition must be wsod or discovery or discovery-no-hard, got "both".'
        with pytest.raises(UsageError, match=f"^{re.escape(line)}$"):
            WSOD.with_options(definition="both")

    def test_nan_score(self):
        line = "boxes row 0: a box has score nan; expected a number."
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            WSOD.count(predictions(_image((0, A, math.nan))), truth([(0, A)]))
