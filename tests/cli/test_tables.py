"""The table that `score` prints."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from wsltool.cli.tables import _score_parts, _short


def _printed(**more: Any) -> list[str]:
    result = {
        "protocol": "point",
        "value": 81.25,
        "unit": "%",
        "higher_is_better": True,
        "parameters": {"tolerance": 18.0, "metric": "chebyshev", "classes": ["bus", "car"]},
        "baselines": [{"name": "image centre", "value": 60.0, "difference": 21.25}],
        "images": {"scored": 5, "missing": 0, "skipped": 1, "limit": None},
        "extra": {"num_classes": 2, "pooled_difference_95": [-1.0, 2.5], "median": None},
        "per_class": [
            {"class_name": "bus", "value": 81.25, "num_positives": 3},
            {"class_name": "hen", "value": None, "num_positives": 0},
        ],
    } | more
    text = io.StringIO()
    console = Console(file=text, width=120, highlight=False)
    for part in _score_parts(result):
        console.print(part)
    return [" ".join(line.split()) for line in text.getvalue().splitlines() if line.strip()]


def test_parameters_of_every_type_and_the_difference_to_a_baseline() -> None:
    assert _printed() == [
        "point 81.2 % higher is better, tolerance 18, metric chebyshev, classes bus,car",
        "image centre 60.0 % baseline, the result is +21.2 from it",
        "images 5 0 missing, 1 skipped",
        "num classes 2",
        "pooled difference 95 -1.0 2.5",
        "median –",
        "class % positives",
        "bus 81.2 3",
    ]


def test_names_are_no_markup() -> None:
    other = "/data/[b]/x[/b/maps.zarr"
    line, *_ = _printed(parameters={"other": other})
    assert line == f"point 81.2 % higher is better, other {other}"


def test_a_distance() -> None:
    line, *_ = _printed(
        protocol="peak-distance", value=71.0, unit="px", higher_is_better=None, parameters={}
    )
    assert line == "peak-distance 71.0 px a distance"


def test_nothing_to_score() -> None:
    first, *_ = _printed(value=None, higher_is_better=False, parameters={"iou": 0.5})
    assert first == "point – % error, lower is better, iou 0.5"
    unknown = [{"name": "image centre", "value": None, "difference": None}]
    assert "image centre – % baseline" in _printed(baselines=unknown)


def test_a_threshold_keeps_its_digits() -> None:
    """At steps of .001 one digit would be another threshold."""
    lines = _printed(extra={"iou_0.5": 45.04, "threshold_0.5": 0.161, "threshold_0.7": None})
    assert lines[3:6] == ["iou 0.5 45.0", "threshold 0.5 0.161", "threshold 0.7 –"]


def test_a_curve_is_told_by_its_length() -> None:
    told = {"value": [0.1, 0.2], "curve": {"threshold": [0.01 * n for n in range(96)]}}
    assert _short(told) == {"value": [0.1, 0.2], "curve": {"threshold": "96 values"}}


def test_where_a_threshold_was_chosen() -> None:
    given = {"source": "given", "chosen_on": None, "value": 0.2}
    assert _printed(thresholds=given)[2] == "threshold 0.2 as given"
    rule = {"source": "rule", "chosen_on": None, "value": [20, 100, 110], "of": 255}
    assert _printed(thresholds=rule)[2] == "threshold 20, 100, 110 of the rule"
    where = {"path": "[a]/val.cam.zarr", "num_images": 267}
    fitted = {"source": "fitted", "objective": "gt-known", "chosen_on": where, "value": 0.31}
    words = "threshold 0.31 chosen by gt-known on [a]/val.cam.zarr, 267 images"
    assert _printed(thresholds=fitted | {"overlap": 0})[2] == words
    several = fitted | {"overlap": 3, "value": [0.1, 0.2]}
    line = words.replace("0.31", "one a class") + ", 3 of them scored here"
    assert _printed(thresholds=several)[2] == line


def test_what_stands_beside_the_value() -> None:
    more = {
        "interval": {"low": 70.04, "high": 90.0},
        "runs": {"values": [81.25, 80.0, None], "mean": 80.6, "sd": 0.88},
        "compared": {
            "value": 75.0,
            "difference": 6.25,
            "low": 1.0,
            "high": 11.5,
            "inputs": {"maps": {"path": "b/[x].zarr"}},
        },
        "mistakes": {"right": 3, "background": 1, "too large": 0},
    }
    lines = _printed(**more)
    assert lines[0].startswith("point 81.2 % [70.0, 90.0] higher is better")
    assert lines[1] == "3 runs 80.6 % mean of 81.2, 80.0, –; standard deviation 0.88"
    assert lines[2] == "compared with 75.0 % difference +6.25 [1.00, 11.50], b/[x].zarr"
    assert lines[8:10] == ["mistake: right 3", "mistake: background 1"]
