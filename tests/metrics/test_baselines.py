"""The trivial predictions beside a result."""

from __future__ import annotations

import numpy as np
import pytest

from wsltool.errors import ProtocolError, UsageError
from wsltool.metrics.baselines import (
    CENTRED_FRACTIONS,
    centre_peaks,
    centred_boxes,
    fit_centred,
    whole_boxes,
)
from wsltool.metrics.protocols import PROTOCOLS

from .blocks import peaks, predictions, random_predictions, random_truth, truth

SIZE = np.array([[100, 80], [40, 60], [7, 7]], np.int32)


def _predictions():
    return predictions(([2, 0], [(2, [1, 1, 2, 2], 9)]), None, ([1], []))


def test_whole_image_for_every_ranked_class():
    predicted = _predictions()
    found = whole_boxes(predicted, SIZE)
    assert found.box_start.tolist() == [0, 2, 2, 3]
    assert found.box_xyxy_B4.tolist() == [[0, 0, 100, 80], [0, 0, 100, 80], [0, 0, 7, 7]]
    assert found.box_class_B.tolist() == [2, 0, 1]
    assert found.box_score_B.tolist() == [1, 0.5, 1]
    assert found.map_class_NS is predicted.map_class_NS
    assert found.has_prediction_N.tolist() == [True, False, True]
    assert predicted.box_xyxy_B4.tolist() == [[1, 1, 2, 2]]


def test_centred():
    found = centred_boxes(_predictions(), SIZE, 0.5)
    assert found.box_xyxy_B4.tolist() == [
        [25, 20, 75, 60],
        [25, 20, 75, 60],
        [1.75, 1.75, 5.25, 5.25],
    ]
    with pytest.raises(UsageError, match=r"fraction must be in \(0, 1\], got 0\."):
        centred_boxes(_predictions(), SIZE, 0)


def test_centre_peaks():
    predicted = peaks([(2, (1, 1)), (0, (2, 2))], None, [(1, (3, 3))])
    found = centre_peaks(predicted, SIZE)
    assert found.peak_xy_NS2[0, :2].tolist() == [[50, 40], [50, 40]]
    assert found.peak_xy_NS2[2, 0].tolist() == [3.5, 3.5]
    assert predicted.peak_xy_NS2[0, 0].tolist() == [1, 1]
    result = PROTOCOLS["peak-in-box"].result(
        PROTOCOLS["peak-in-box"].count(
            found, truth([(2, [40, 30, 60, 50])], [], [(1, [0, 0, 3, 3])])
        )
    )
    assert result.value == 50


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if PROTOCOLS[name].record == "boxes"])
def test_every_protocol_of_boxes_takes_them(name):
    protocol, rng = PROTOCOLS[name], np.random.default_rng(0)
    true = random_truth(rng, 30, 5, one_label="voc" not in name)
    found = centred_boxes(random_predictions(rng, true), true.size_wh_N2, 0.6)
    assert 0 <= protocol.result(protocol.count(found, true)).value <= 100


def test_fractions():
    assert CENTRED_FRACTIONS[0] == 0.05
    assert CENTRED_FRACTIONS[13] == 0.7
    assert CENTRED_FRACTIONS[-1] == 1
    assert len(CENTRED_FRACTIONS) == 20


def test_fit_finds_the_first_best():
    fit = fit_centred(lambda fraction: min(fraction, 0.6))
    assert (fit.fraction, fit.value) == (0.6, 0.6)
    assert fit.fractions == CENTRED_FRACTIONS
    assert fit.values[0] == 0.05
    error = fit_centred(lambda fraction: abs(fraction - 0.3), higher_is_better=False)
    assert error.fraction == pytest.approx(0.3)
    assert fit_centred(lambda _: 1.0).fraction == 0.05


def test_fit_on_boxes_of_known_size():
    protocol = PROTOCOLS["gt-known"]
    true = truth(*[[(1, [15, 12, 85, 68])]] * 3)  # 70 % of 100 x 80, centred
    predicted = predictions(*[([1], [])] * 3)

    def evaluate(fraction):
        found = centred_boxes(predicted, true.size_wh_N2, fraction)
        return (
            protocol.with_options(iou=0.95)
            .result(protocol.with_options(iou=0.95).count(found, true))
            .value
        )

    fit = fit_centred(evaluate)
    assert (fit.fraction, fit.value) == (0.7, 100)
    assert sum(fit.values) == 100


def test_nothing_to_fit():
    assert fit_centred(lambda fraction: 3 if fraction == 0.5 else np.nan).fraction == 0.5
    with pytest.raises(
        ProtocolError, match="scores nan at all 20 fractions; expected at least one"
    ):
        fit_centred(lambda _: np.nan)
