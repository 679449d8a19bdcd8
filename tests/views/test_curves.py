"""The picture of a training log: what it takes, equal bytes, the smoothed line."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsltool.errors import ExtraMissingError, UsageError
from wsltool.views.curves import smoothed, training_curve


def log(num=300):
    records = [
        {"iteration": n, "loss": 2 / (n + 1), "lr": 0.1 ** (1 + n // 100)} for n in range(num)
    ]
    records[-1] |= {"val_map": 80.5, "val_loss": 0.25, "epoch": 3}
    return records


def size(path):
    with Image.open(path) as picture:
        return picture.size


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_equal_records_give_equal_bytes(tmp_path, suffix):
    import matplotlib

    one, two = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    training_curve(log(), one, "a $title$")
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 20}):
        training_curve(log()[::-1], two, "a $title$")
    assert one.read_bytes() == two.read_bytes()
    training_curve(log(299), two, "a $title$")
    assert one.read_bytes() != two.read_bytes()


def test_a_panel_for_each_kind_of_value(tmp_path):
    path = tmp_path / "c.png"
    heights = []
    for keys in ({"loss"}, {"loss", "lr"}, {"loss", "lr", "val_map"}, {*log()[-1]}):
        training_curve(
            [{k: v for k, v in one.items() if k in {"iteration", *keys}} for one in log()],
            path,
            "T",
        )
        heights.append(size(path)[1])
    assert heights == sorted(set(heights))
    with Image.open(path) as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50


@pytest.mark.parametrize(
    "records",
    [
        log(1),
        log(2),
        [{"iteration": 5, "loss": math.nan, "lr": math.nan, "val_map": math.nan}],
        [{"iteration": n, "loss": math.inf if n % 2 else 1.0, "lr": 0.0} for n in range(50)],
        [{"iteration": n, "loss": 3.0, "lr": 0.1} for n in range(50)],
        [{"iteration": n, "loss": None} for n in range(3)],
        [{"iteration": np.int64(n), "val_map": np.float32(n)} for n in range(3)],
        [{"iteration": None, "loss": 1.0}, {"iteration": 1, "loss": 1e300}],
    ],
)
def test_records_that_hold_little(tmp_path, records):
    path = tmp_path / "c.png"
    training_curve(records, path, "T")
    assert size(path)[0] == 960


def test_a_long_log_with_a_spike(tmp_path):
    rng = np.random.default_rng(0)
    records = [
        {"iteration": n, "loss": float(v), "lr": 0.1} for n, v in enumerate(rng.random(30000))
    ]
    records[100]["loss"] = 1e9
    training_curve(records, tmp_path / "c.svg", "T" * 300)
    text = (tmp_path / "c.svg").read_text()
    assert len(text) < 2_000_000
    assert "<dc:date>" not in text


def test_nothing_to_draw_and_other_suffixes(tmp_path):
    with pytest.raises(UsageError, match=r"c\.png: none of 1 records has an iteration to draw\.$"):
        training_curve([{"loss": 1.0}], tmp_path / "c.png", "T")
    with pytest.raises(UsageError, match=r"c\.png: none of 0 records has an iteration to draw\.$"):
        training_curve([], tmp_path / "c.png", "T")
    with pytest.raises(UsageError, match=r"c\.pdf: a curve is a \.png or a \.svg\.$"):
        training_curve(log(), tmp_path / "c.pdf", "T")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        ExtraMissingError,
        match=r"c\.png: curves need matplotlib\. .*pip install 'wsltool\[plots\]'$",
    ):
        training_curve(log(), tmp_path / "c.png", "T")


# The smoothed line


def test_smoothed_by_hand():
    assert smoothed([0, 3, 6, 30], 3).tolist() == [1.5, 3, 13, 18]
    found = smoothed([math.nan, math.nan, math.nan, 4, math.inf], 3)
    np.testing.assert_array_equal(found, [math.nan, math.nan, 4, 4, 4])
    np.testing.assert_array_equal(smoothed([1, math.nan], 1), [1, math.nan])
    assert smoothed([], 5).tolist() == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.integers(0, 9))
def test_smoothed_is_the_mean_of_the_window(values, window):
    half = window // 2
    wanted = [np.mean(values[max(0, n - half) : n + half + 1]) for n in range(len(values))]
    np.testing.assert_allclose(smoothed(values, window), wanted, atol=1e-5, rtol=1e-9)
