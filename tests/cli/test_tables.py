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
