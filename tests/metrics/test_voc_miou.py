"""Mean IoU of label images: by hand, and against VOCevalseg written out in loops."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import ProtocolError
from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.tally import Tally
from wsltool.metrics.voc_miou import LabelMasks

from .blocks import truth

MIOU = PROTOCOLS["voc-miou"]


def _truth(num, num_classes=3, **options):
    images = [{"boxes": [], **options} for _ in range(num)]
    return truth(*images, num_classes=num_classes)


def _masks(predicted, true):
    made = [None if one is None else np.array(one, np.uint8) for one in predicted]
    return LabelMasks(tuple(made), tuple(np.array(one, np.uint8) for one in true))


def _result(predicted, true, num_classes=3, protocol=MIOU):
    masks = _masks(predicted, true)
    return protocol.result(protocol.count(masks, _truth(len(masks), num_classes)))


class TestByHand:
    def test_one_image(self):
        """Background 2 of 3, class 0 one of 3, class 1 one of 2, class 2 nowhere."""
        found = _result([[[0, 0, 1], [1, 2, 2]]], [[[0, 0, 0], [1, 1, 2]]])
        assert found.extra["background_iou"] == pytest.approx(100 * 2 / 3)
        assert [row.value for row in found.per_class[:2]] == pytest.approx([100 / 3, 50])
        assert math.isnan(found.per_class[2].value)
        assert found.value == pytest.approx(100 * (2 / 3 + 1 / 3 + 1 / 2) / 3)
        assert found.per_class[0].counts == {
            "num_right_px": 1,
            "num_true_px": 2,
            "num_predicted_px": 2,
        }
        assert found.extra["num_labels"] == 3
        assert found.extra["num_labels_absent"] == 1
        assert found.extra["pixel_accuracy"] == pytest.approx(100 * 4 / 6)
        assert found.warnings == (
            "1 labels are neither true nor predicted and are left out of the mean.",
        )

    def test_what_the_truth_leaves_out_is_not_looked_at(self):
        """Whatever is predicted there, a class that is nowhere else included."""
        found = _result([[[0, 3, 3]]], [[[0, 255, 255]]])
        assert found.value == 100
        assert math.isnan(found.per_class[2].value)
        assert found.extra["num_left_out_px"] == 2
        assert found.extra["num_px"] == 1

    def test_a_class_that_is_only_predicted_has_0_and_counts(self):
        found = _result([[[0, 3]]], [[[0, 0]]])
        assert found.per_class[2].value == 0
        assert found.value == 25

    def test_a_class_that_is_never_predicted_has_0(self):
        found = _result([[[0, 0]]], [[[0, 1]]])
        assert found.per_class[0].value == 0
        assert found.value == 25

    def test_pixels_of_all_images_are_pooled(self):
        """1 of 1 and 1 of 4 make 2 of 5, not the mean of the two."""
        found = _result([[[1]], [[1, 0, 0, 0]]], [[[1]], [[1, 1, 1, 1]]])
        assert found.per_class[0].value == 40

    def test_sizes_are_any(self):
        rng = np.random.default_rng(0)
        true = [rng.integers(0, 4, shape) for shape in ((1, 1), (7, 3), (1, 13), (31, 17))]
        assert _result(true, true).value == 100

    def test_no_prediction_is_background(self):
        found = _result([None, [[1, 1]]], [[[0, 1, 255]], [[1, 1]]])
        assert found.extra["background_iou"] == 50
        assert found.per_class[0].value == pytest.approx(200 / 3)
        assert found.extra["num_without_prediction"] == 1
        assert found.warnings[0] == (
            "1 images have no predicted mask and count as background throughout."
        )
        zeros = _result([[[0, 0, 0]], [[1, 1]]], [[[0, 1, 255]], [[1, 1]]])
        assert zeros.per_class[0] == found.per_class[0]
        assert zeros.value == found.value

    def test_excluded_images_are_left_out(self):
        masks = _masks([[[1]], [[9, 9]]], [[[1]], [[0]]])
        true = _truth(2)
        true = dataclasses.replace(true, excluded_N=np.array([False, True]))
        found = MIOU.result(MIOU.count(masks, true))
        assert found.value == 100
        assert found.extra["num_images"] == 1
        assert found.extra["num_excluded"] == 1

    def test_chosen_classes_alone(self):
        protocol = MIOU.with_options(classes=("b",)).with_classes(["a", "b", "c"], ["x", "y", "z"])
        found = _result([[[0, 1, 2, 2]]], [[[0, 0, 2, 1]]], protocol=protocol)
        assert found.value == found.per_class[1].value == 50

    def test_nothing_to_compare(self):
        assert math.isnan(_result([[[0, 1]]], [[[255, 255]]]).value)

    def test_254_classes(self):
        label = np.arange(255).reshape(15, 17)
        assert _result([label], [label], 254).value == 100


class TestRefused:
    @pytest.mark.parametrize(
        ("predicted", "true", "line"),
        [
            (
                [[0, 255]],
                [[0, 0]],
                "predictions row 0: the mask holds the label 255; expected 0 to 3.",
            ),
            ([[4]], [[0]], "predictions row 0: the mask holds the label 4; expected 0 to 3."),
            (
                [[0]],
                [[4]],
                "truth row 0: the mask holds the label 4; expected 0 to 3, or 255 for what is "
                "left out.",
            ),
            (
                [[0, 0]],
                [[0], [0]],
                "predictions row 0: the mask is 2x1 pixels, the true one 1x2; expected the same. "
                "Bring it to the size of its image.",
            ),
        ],
    )
    def test_masks(self, predicted, true, line):
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            _result([predicted], [true])

    def test_other_images(self):
        line = (
            "1 images are predicted, but the truth has 2; expected the same images in the same "
            "order."
        )
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            MIOU.count(_masks([[[0]]], [[[0]]]), _truth(2))


def _vocevalseg(predicted, true, num_classes):
    """Return the accuracies of VOCevalseg.m, written out pixel by pixel."""
    num = num_classes + 1
    confcounts = [[0] * num for _ in range(num)]
    for resim, gtim in zip(predicted, true, strict=True):
        for y in range(gtim.shape[0]):
            for x in range(gtim.shape[1]):
                if gtim[y, x] < 255:
                    confcounts[gtim[y, x]][resim[y, x]] += 1
    accuracies = []
    for j in range(num):
        gtj = sum(confcounts[j])
        resj = sum(confcounts[i][j] for i in range(num))
        gtjresj = confcounts[j][j]
        union = gtj + resj - gtjresj
        accuracies.append(100 * gtjresj / union if union else math.nan)
    return accuracies


def _random(seed, num=6, num_classes=4):
    rng = np.random.default_rng(seed)
    shapes = [tuple(rng.integers(1, 15, 2)) for _ in range(num)]
    true = [rng.choice([0, 0, 1, 2, num_classes, 255], shape) for shape in shapes]
    predicted = [
        np.where(rng.random(one.shape) < 0.6, one % 255, rng.integers(0, num_classes, one.shape))
        for one in true
    ]
    return predicted, true


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32))
def test_law_the_same_as_the_devkit(seed):
    predicted, true = _random(seed)
    found = _result(predicted, true, 4)
    ours = [found.extra["background_iou"], *(row.value for row in found.per_class)]
    reference = _vocevalseg(predicted, true, 4)
    np.testing.assert_allclose(ours, reference, rtol=1e-15, atol=0)
    assert found.value == pytest.approx(np.nanmean(reference), rel=1e-14)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32))
def test_law_blocks_in_any_order_and_samples(seed):
    """One block, six in reverse, and with counts by image; a sample is the images repeated."""
    predicted, true = _random(seed)
    masks, images = _masks(predicted, true), _truth(6, 4)
    kept = dataclasses.replace(MIOU, by_image=True)
    whole = MIOU.result(MIOU.count(masks, images))
    for protocol in (MIOU, kept):
        parts = [protocol.count(masks.take([n]), images.take(np.array([n]))) for n in range(6)]
        joined = Tally.joined(parts[::-1])
        np.testing.assert_equal(protocol.result(joined).as_dict(), whole.as_dict())
    times_N = np.random.default_rng(seed).integers(0, 3, 6)
    drawn = np.repeat(np.arange(6), times_N)
    if not len(drawn):
        return
    again = _result([predicted[n] for n in drawn], [true[n] for n in drawn], 4)
    np.testing.assert_equal(kept.result(joined.drawn(times_N)).as_dict(), again.as_dict())
