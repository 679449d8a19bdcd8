"""The table that `fit-cooccurrence` prints."""

from __future__ import annotations

from typing import Any

import pytest

from wsltool.cli import weight_table

RESULT: dict[str, Any] = {
    "alpha": 0.1,
    "objective": "cls-map",
    "unit": "%",
    "value": 81.25,
    "value_at_0": 80.0,
    "curve": {"alpha": [0.0, 0.1], "value": [80.0, 81.25]},
    "images": {
        "scored": 5,
        "with_several_classes": 2,
        "missing": 0,
        "skipped": 1,
        "limit": {"how": "limit", "num_rows": 5, "of": 9},
    },
}


def test_the_best_weight_and_what_each_comes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr("wsltool.cli.tables.write_result", written.append)
    weight_table.write_weight({"results": [RESULT]})
    assert [" ".join(line.split()) for line in written[0].splitlines() if line.strip()] == [
        "alpha 0.1 the best of 2",
        "cls-map 81.25 % +1.25 from alpha 0",
        "images 5 2 with several classes, 1 skipped, first 5 of 9",
        "alpha cls-map",
        "0 80.00",
        "0.1 81.25 best",
    ]
