"""Figure 6: a bar for each changed class, the curve, and what is drawn without a gain."""

from __future__ import annotations

import pytest
from PIL import Image

from wsltool.errors import UsageError
from wsltool.views.effort_plot import effort_plot


def entry(gains=(20.0, 6.0, -7.0, 0.0), *, share=True, min_change=5.0):
    rows = [
        {
            "class_name": f"class {k} $x$",
            "before": 40.0,
            "after": 40.0 + gain,
            "gain": gain,
            "low": gain - 3 if k else None,
            "high": gain + 4 if k else None,
        }
        for k, gain in enumerate(gains)
    ]
    num = len(gains)
    curve = {
        "fraction": [n / num for n in range(num + 1)],
        "gain": [0.0, *gains],
        "share": [0.0, 0.5, 0.9, 0.9, 1.0][: num + 1] if share else None,
    }
    effort = {
        "gain": 4.75,
        "low": 1.0,
        "high": 8.0,
        "min_change": min_change,
        "classes": rows,
        "curve": curve,
        "area": 0.7 if share else None,
        "fraction_for_share": {"0.5": 0.25 if share else None, "0.85": None},
    }
    compared = {"value": 40.0}
    found = {"protocol": "gt-known", "value": 44.75, "unit": "%"}
    return found | {"compared": compared, "effort": effort}


def height(path, one):
    effort_plot(one, path)
    with Image.open(path) as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
        return picture.size[1]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_equal_numbers_give_equal_bytes(tmp_path, suffix):
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        effort_plot(entry(), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    effort_plot(entry(min_change=6.5), paths[1])
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_what_the_picture_says(tmp_path):
    path = tmp_path / "p.svg"
    effort_plot(entry(), path)
    text = path.read_text()
    for said in (
        "gt-known: 40.0 → 44.8 %, gain +4.8 [+1.0, +8.0]",
        "3 of 4 classes changed by at least 5 points",
        "class 0 $x$   40.0 → 60.0",
        "class 2 $x$   40.0 → 33.0",
        "ascending second eigenvalue: area 0.70",
        "a random order, expected: area 0.50",
        "50 % of the gain after 25 %",
        "% of 4 classes annotated",
    ):
        assert f"<!-- {said} -->" in text
    assert "class 3" not in text
    assert "85 % of the gain" not in text


def test_without_a_gain_the_curve_is_in_points(tmp_path):
    path = tmp_path / "p.svg"
    effort_plot(entry(share=False), path)
    text = path.read_text()
    assert "<!-- order of annotation: the gain is not above 0, so it has no shares -->" in text
    assert "<!-- gain in points -->" in text
    assert "area" not in text


def test_many_classes_and_none(tmp_path):
    path = tmp_path / "p.png"
    few = height(path, entry())
    assert height(path, entry((0.0, 1.0))) <= few  # none has changed
    many = [10.0 + n for n in range(100)]
    one = entry(many)
    one["effort"]["curve"]["share"] = [n / 100 for n in range(101)]
    assert height(path, one) == height(path, one | {"value": None}) > few
    effort_plot(one, tmp_path / "p.svg")
    text = (tmp_path / "p.svg").read_text()
    assert "100 of 100 classes changed by at least 5 points, the 80 that changed most" in text
    assert "class 19 " not in text
    assert "class 20 " in text


def test_other_suffixes(tmp_path):
    with pytest.raises(UsageError, match=r"p\.gif: a curve is a \.png or a \.svg"):
        effort_plot(entry(), tmp_path / "p.gif")
