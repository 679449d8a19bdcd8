"""MaxBoxAcc V1 to V3: worked by hand, and against the rule in plain loops."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from wsltool.errors import ProtocolError
from wsltool.metrics.grid_heats import GridHeats, centre_grid_heat
from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.tally import Tally

from .blocks import truth
from .evaluator_rule import boxes_at, overlap, right_at

SIDE = 224
V1, V2, V3 = (PROTOCOLS[f"maxboxacc{one}"].with_options(interval=0.1) for one in ("", "-v2", "-v3"))


def _heats(*maps, has=None):
    has_N = np.ones(len(maps), bool) if has is None else np.array(has)
    return GridHeats(has_map_N=has_N, heat_NHW=np.array(maps, np.float64))


def _blocks(*blocks):
    """A map of 0 with blocks ``(x0, y0, x1, y1)``, inclusive, and perhaps their heat."""
    heat_HW = np.zeros((SIDE, SIDE))
    for x0, y0, x1, y1, *heat in blocks:
        heat_HW[y0 : y1 + 1, x0 : x1 + 1] = heat[0] if heat else 1
    return heat_HW


def _truth(*images, size_wh=(SIDE, SIDE)):
    """Images of class 0 with true boxes."""
    return truth(*([(0, box) for box in boxes] for boxes in images), size_wh=size_wh)


def _result(protocol, heats, true):
    return protocol.result(Tally.joined([protocol.count(heats, true)]))


@pytest.mark.parametrize(("side", "iou"), [(1, 0.25), (5, 0.694), (20, 0.907), (100, 0.980)])
def test_the_best_iou_of_a_perfect_block(side, iou):
    """Boxes are a pixel too large: k² against (k + 1)²."""
    heats = _heats(_blocks((50, 50, 49 + side, 49 + side)))
    true = _truth([(50, 50, 49 + side, 49 + side)])
    at = side**2 / (side + 1) ** 2
    assert at == pytest.approx(iou, abs=5e-4)
    for threshold, value in ((at, 100.0), (math.nextafter(at, 1), 0.0)):
        assert _result(V1.with_options(iou=threshold), heats, true).value == value


def test_equal_to_the_iou_is_right():
    """10 x 20 pixels of a box of 10 x 10 and nothing else."""
    heats, true = _heats(_blocks((30, 30, 38, 48))), _truth([(30, 30, 39, 39)])
    assert overlap((30, 30, 39, 49), (30, 30, 39, 39)) == 0.5
    assert _result(V1, heats, true).value == 100
    assert _result(V1.with_options(iou=0.5000001), heats, true).value == 0


def test_true_boxes_are_scaled_and_truncated():
    """100 of 300 pixels is 74.67 on the grid, hence 74."""
    heats = _heats(_blocks((74, 37, 148, 73)))
    true = _truth([(100, 50.4, 200, 99.9)], size_wh=(300, 300))
    exact = overlap((74, 37, 149, 74), (74, 37, 149, 74))
    assert exact == 1
    assert _result(V1.with_options(iou=1.0), heats, true).value == 100


def test_boxes_of_every_class_count_in_an_image_that_is_not_square():
    """x by 224 / 448, y by 224 / 112; the box is of another class than the image."""
    true = truth(
        {"boxes": [(1, (20, 30, 120, 60)), (0, (400, 0, 410, 5))], "labels": [0]},
        size_wh=(448, 112),
    )
    heats = _heats(_blocks((10, 60, 59, 119)))
    assert _result(V1.with_options(iou=1.0), heats, true).value == 100


def test_threshold_is_chosen_for_each_iou():
    """A hot small block in a cool large one; the true box is as large as either."""
    heat_HW = _blocks((20, 20, 119, 119, 0.35), (20, 20, 59, 59))
    result = _result(V2, _heats(heat_HW, heat_HW), _truth([(20, 20, 120, 120)], [(20, 20, 60, 60)]))
    assert result.value == 50
    assert result.extra["threshold_0.7"] == 0.0
    assert result.curve["iou 0.7"] == [50.0] * 10
    assert _result(V2, _heats(heat_HW), _truth([(20, 20, 60, 60)])).extra["threshold_0.5"] == 0.4


def test_curve_and_warning():
    result = _result(V1, _heats(_blocks((20, 20, 59, 59))), _truth([(20, 20, 59, 59)]))
    assert list(result.curve) == ["threshold", "iou 0.5"]
    assert result.curve["threshold"] == pytest.approx(np.arange(10) / 10)
    assert result.warnings == (
        "the threshold was chosen on the scored images, as MaxBoxAcc is defined",
    )
    assert result.parameters == {"iou": 0.5, "interval": 0.1}
    assert result.extra["num_images"] == 1


def test_only_the_largest_counts_in_v1():
    heats = _heats(_blocks((10, 10, 29, 29), (100, 100, 149, 149)))
    true = _truth([(10, 10, 30, 30)])
    assert _result(V1, heats, true).value == 0
    assert _result(V2, heats, true).value == 100


def test_a_hole_is_a_box_in_v2():
    heat_HW = _blocks((10, 10, 200, 200))
    heat_HW[50:71, 50:71] = 0
    assert _result(V2, _heats(heat_HW), _truth([(49, 49, 72, 72)])).value == 100


@pytest.mark.parametrize(("iou", "value"), [(0.5, 0.0), (1e-9, 0.0)])
def test_image_without_a_map_is_wrong(iou, value):
    """Even where the box at the corner, of a map that is 0, would be right."""
    heats = _heats(_blocks(), has=[False])
    result = _result(V1.with_options(iou=iou), heats, _truth([(0, 0, 0, 0)]))
    assert result.value == value
    assert "1 images have no map of their class and count as wrong" in result.warnings


def test_map_of_nothing_has_a_box_at_the_corner():
    """Two degenerate boxes at the same place are equal, as in the evaluator."""
    result = _result(V1, _heats(_blocks()), _truth([(0, 0, 0, 0)]))
    assert result.value == 100
    line = "1 maps are the same everywhere, or NaN, and count as 0 throughout"
    assert line in result.warnings


def test_image_without_a_true_box_is_wrong():
    true = truth([(0, (20, 20, 59, 59))], {"boxes": [], "labels": [0]}, size_wh=(SIDE, SIDE))
    heat_HW = _blocks((20, 20, 59, 59))
    for protocol in (V1, V2):
        result = _result(protocol, _heats(heat_HW, heat_HW), true)
        assert result.value == 50
        assert "1 images have no true box and count as wrong" in result.warnings
    assert _result(V3, _heats(heat_HW, heat_HW), true).value == 100


def test_one_to_one():
    """Two true boxes and one box that is as good for both: one of them is found."""
    heats = _heats(_blocks((20, 20, 58, 58)))
    true = _truth([(20, 20, 59, 59), (20, 20, 59, 59)])
    assert _result(V3, heats, true).value == 50
    heats = _heats(_blocks((20, 20, 58, 58), (100, 20, 138, 58)))
    true = _truth([(20, 20, 59, 59), (100, 20, 139, 59), (0, 0, 5, 5)])
    result = _result(V3, heats, true)
    assert result.value == pytest.approx(200 / 3)
    assert result.extra["num_true_boxes"] == 3


def test_the_largest_iou_is_assigned_first():
    """The box goes to the true box that it fits best, and the other is left with the worse."""
    boxes = ((20, 20, 58, 58), (20, 20, 118, 33))
    true = [(20, 20, 59, 59), (20, 20, 59, 45)]
    found = boxes_at(_blocks(*boxes), 0.0, largest=False)
    assert len(found) == 1  # the two blocks touch: one box for two true ones
    assert _result(V3, _heats(_blocks(*boxes)), _truth(true)).value <= 50


def test_per_class_at_the_common_threshold():
    right, wrong = _blocks((20, 20, 59, 59)), _blocks((120, 120, 159, 159))
    box = (20, 20, 59, 59)
    true = truth([(0, box)], [(2, box)], [(2, box)], size_wh=(SIDE, SIDE))
    for protocol in (V1, V2):
        rows = _result(protocol, _heats(right, right, wrong), true).per_class
        assert [row.value for row in rows] == pytest.approx([100, np.nan, 50, np.nan], nan_ok=True)
        assert rows[2].counts["num_images"] == 2
        assert rows[2].counts["num_found_0.5"] == 1


def test_blocks_in_any_order_and_samples():
    rng = np.random.default_rng(3)
    heats, true = _random(rng, 7)
    for protocol in (V1, V2, V3):
        whole = protocol.count(heats, true)
        parts = [protocol.count(heats.take(at), true.take(at)) for at in np.split(np.arange(7), 7)]
        joined = Tally.joined(parts[::-1])
        assert protocol.result(joined).as_dict() == protocol.result(whole).as_dict()
        times_N = np.array([2, 0, 1, 0, 3, 1, 0])
        rows = np.repeat(np.arange(7), times_N)
        again = replace(true.take(rows), row_N=np.arange(len(rows)))
        sample = protocol.result(joined.drawn(times_N))
        apart = protocol.result(protocol.count(heats.take(rows), again))
        assert sample.value == apart.value
        assert sample.as_dict() == apart.as_dict()


def _random(rng, num):
    heat_NHW = np.zeros((num, SIDE, SIDE))
    heat_NHW[:, 30:90, 50:110] = rng.integers(0, 5, (num, 60, 60)) / 4
    heat_NHW[0] = 0
    boxes = [
        [(x, y, x + w, y + h) for x, y, w, h in rng.integers(20, 70, (rng.integers(1, 4), 4))]
        for _ in range(num)
    ]
    return _heats(*heat_NHW), _truth(*boxes, size_wh=(250, 180))


def _on_grid(box):
    x0, y0, x1, y1 = box
    return int(x0 * 224 / 250), int(y0 * 224 / 180), int(x1 * 224 / 250), int(y1 * 224 / 180)


@pytest.mark.parametrize("seed", range(3))
def test_as_the_rule_has_it_in_plain_loops(seed):
    heats, true = _random(np.random.default_rng(seed), 4)
    for protocol in (V1, V2):
        curve = _result(protocol, heats, true).curve
        for iou in (0.5,) if protocol is V1 else (0.3, 0.5, 0.7):
            for place, threshold in enumerate(np.arange(0, 1, 0.1)):
                right = [
                    right_at(
                        heats.heat_NHW[n],
                        threshold,
                        [_on_grid(box) for box in true.take(np.array([n])).box_xyxy_B4.tolist()],
                        iou,
                        largest=protocol is V1,
                    )
                    for n in range(4)
                ]
                assert curve[f"iou {iou:g}"][place] == 100 * sum(right) / 4


@pytest.mark.parametrize("seed", range(3))
def test_one_to_one_as_the_rule_has_it_in_plain_loops(seed):
    heats, true = _random(np.random.default_rng(seed), 3)
    curve = _result(V3, heats, true).curve
    for place, threshold in enumerate(np.arange(0, 1, 0.1)):
        found = {0.3: 0, 0.5: 0, 0.7: 0}
        for n in range(3):
            boxes = boxes_at(heats.heat_NHW[n], threshold, largest=False)
            trues = [_on_grid(box) for box in true.take(np.array([n])).box_xyxy_B4.tolist()]
            iou_BG = np.array([[overlap(box, one) for one in trues] for box in boxes])
            for _ in trues:
                at = np.unravel_index(iou_BG.argmax(), iou_BG.shape)
                for iou in found:
                    found[iou] += iou_BG[at] >= iou
                iou_BG[at[0]], iou_BG[:, at[1]] = 0, 0
        for iou, num in found.items():
            assert curve[f"iou {iou:g}"][place] == pytest.approx(100 * num / len(true.box_class_B))


def test_centre_baseline():
    heats = _heats(_blocks((0, 0, 5, 5)), _blocks(), has=[True, False])
    centred = centre_grid_heat(heats)
    true = _truth([(67, 67, 157, 157)], [(67, 67, 157, 157)])
    assert _result(V1, centred, true).value == 50


def _spoilt(kind):
    heats, true = _heats(_blocks((20, 20, 59, 59))), _truth([(20, 20, 59, 59)])
    heat_NHW = heats.heat_NHW.copy()
    if kind == "box":
        return heats, _truth([(20, 20, 59, 59), (-1, 0, 5, 5)])
    if kind == "turned":
        return heats, _truth([(20, 20, 19, 59)])
    if kind == "nan":
        heat_NHW[0, 3, 3] = np.nan
    elif kind == "range":
        heat_NHW[0, 3, 3] = 1.5
    elif kind == "shape":
        heat_NHW = heat_NHW[:, :100]
    elif kind == "dtype":
        heat_NHW = heat_NHW.astype(np.float32)
    elif kind == "labels":
        true = replace(true, label_NK=np.array([[1, 1, 0, 0]], np.uint8))
    return replace(heats, heat_NHW=heat_NHW), true


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (
            "box",
            "truth row 0: a box is [-1.0, 0.0, 5.0, 5.0]; expected 0 <= x0 <= x1 and 0 <= y0 <= "
            "y1.",
        ),
        (
            "turned",
            "truth row 0: a box is [20.0, 20.0, 19.0, 59.0]; expected 0 <= x0 <= x1 and 0 <= y0 "
            "<= y1.",
        ),
        ("nan", "maps row 0: heat is between nan and nan; expected values in [0, 1]."),
        ("range", "maps row 0: heat is between 0.0 and 1.5; expected values in [0, 1]."),
        (
            "shape",
            "heat has shape (1, 100, 224); expected (1, 224, 224): 1 images on the grid of "
            "224x224.",
        ),
        ("dtype", "heat is float32; expected float64."),
        (
            "labels",
            "truth row 0: 2 classes are present (0, 1); maxboxacc expects exactly one in every "
            "image. For images with several classes use --protocol voc-ap or peak-in-box.",
        ),
    ],
)
def test_unusable(kind, line):
    with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
        V1.count(*_spoilt(kind))
