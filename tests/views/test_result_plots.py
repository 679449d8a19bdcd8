"""Pictures of results: a panel for each thing there is to see, equal bytes, odd values."""

from __future__ import annotations

import pytest
from PIL import Image

from wsltool.errors import UsageError
from wsltool.views.result_plots import result_plot


def entry(protocol="voc-ap", values=(80.0, None, 20.0), **more):
    rows = [
        {"class_index": k, "class_name": f"class {k}", "value": value}
        for k, value in enumerate(values)
    ]
    inputs = {"boxes": {"path": "folder/val.cam.boxes.zarr"}}
    found = {"protocol": protocol, "value": 50.0, "unit": "%", "parameters": {"iou": 0.5}}
    return found | {"per_class": rows, "inputs": inputs} | more


CURVE = {"threshold": [0.0, 0.25, 0.5], "iou 0.5": [10.0, 30.0, None]}
COMPARED = {
    "value": 40.0,
    "difference": 10.0,
    "low": None,
    "high": None,
    "per_class": [70.0, None, 10.0],
    "inputs": {"boxes": {"path": "other.boxes.zarr"}},
}
FITTED = {"curve": CURVE, "objective": "gt-known", "chosen_on": {"path": "a.zarr"}}


def height(path, results):
    result_plot(results, path)
    with Image.open(path) as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
        return picture.size[1]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_equal_results_give_equal_bytes(tmp_path, suffix):
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        result_plot([entry(curve=CURVE, compared=COMPARED)], path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    result_plot([entry(curve=CURVE)], paths[1])
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_a_panel_for_the_curve_for_a_fitted_threshold_and_for_the_classes(tmp_path):
    path = tmp_path / "p.png"
    bars = height(path, [entry()])
    curve = height(path, [entry(curve=CURVE)])
    fitted = height(path, [entry(curve=CURVE, thresholds=FITTED)])
    assert bars < curve < fitted
    assert height(path, [entry(values=())]) == bars  # the value alone


def test_two_results_and_a_compared_one_share_a_panel(tmp_path):
    path = tmp_path / "p.png"
    bars = height(path, [entry()])
    assert height(path, [entry("cls-map"), entry("point")]) == bars
    assert height(path, [entry(compared=COMPARED)]) == bars
    three = [entry(parameters={"iou": iou}, curve=CURVE) for iou in (0.1, 0.3, 0.5)]
    assert height(path, three) < 1.1 * height(path, three[:1])
    assert height(path, [entry("a"), entry("b"), entry("c")]) > 2 * bars


@pytest.mark.parametrize(
    "results",
    [
        [entry(values=[None, None])],
        [entry(values=[float(k % 7) for k in range(1000)])],
        [entry(values=[3.0] * 1000)],
        [entry(value=None, curve={"threshold": [0.0], "iou 0.5": [None]})],
        [entry(curve={"recall": [0.0, 1.0], "precision": [100.0, 0.0]})],
        [entry(interval={"low": 40.0, "high": 60.0}, values=[0.0])],
        [entry(interval={"low": None, "high": None}, protocol="$x_1$ & <b>")],
        [entry(compared=COMPARED | {"inputs": {"boxes": {"path": "a$_{$.zarr"}}})],
        [entry(curve={"recall": [0.0, 1.0], "$_{$": [1.0, 0.0], "threshold": [0.5, 0.0]})],
    ],
)
def test_odd_results_are_drawn(tmp_path, results):
    assert height(tmp_path / "p.png", results) > 100


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"p\.jpg: a curve is a \.png or a \.svg\.$"):
        result_plot([entry()], tmp_path / "p.jpg")
