"""What ``--augment`` takes, and what it is written as."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsltool.errors import TrainingError
from wsltool.nets.augment import Augment


@pytest.mark.parametrize(
    ("text", "wanted", "canonical", "num_views"),
    [
        ("none", Augment(), "none", 1),
        ("mirror", Augment(mirror=True), "mirror", 2),
        ("crop", Augment(mirror=True, crop_area=0.5), "mirror,crop=0.5", None),
        ("crop=.3", Augment(crop_area=0.3), "crop=0.3", None),
        ("crop,balance", Augment(True, 0.5, balance=True), "mirror,crop=0.5,balance", None),
        ("scale=.7:1.4", Augment(scale=(0.7, 1.4)), "scale=0.7:1.4", None),
        ("balance", Augment(balance=True), "balance", 1),
        ("balance,mirror", Augment(mirror=True, balance=True), "mirror,balance", 2),
        (
            " balance, noise=10 ,rotate=30",
            Augment(rotate_deg=30, noise_std=10, balance=True),
            "rotate=30,noise=10,balance",
            None,
        ),
        ("crop=1,scale=1:1,rotate=0,noise=0", Augment(), "none", 1),
    ],
)
def test_what_is_understood(
    text: str, wanted: Augment, canonical: str, num_views: int | None
) -> None:
    augment = Augment.parse(text)
    assert augment == wanted
    assert augment.text == canonical
    assert augment.num_views == num_views


@given(
    st.booleans(),
    st.floats(0, 1, exclude_min=True),
    st.tuples(st.floats(0.01, 16), st.floats(0.01, 16)).map(lambda pair: tuple(sorted(pair))),
    st.floats(0, 180),
    st.floats(0, 255),
    st.booleans(),
)
def test_text_is_read_back_as_the_same(
    mirror: bool,
    crop_area: float,
    scale: tuple[float, float],
    rotate_deg: float,
    noise_std: float,
    balance: bool,
) -> None:
    augment = Augment(mirror, crop_area, scale, rotate_deg, noise_std, balance)
    assert Augment.parse(augment.text) == augment


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flip", r'^--augment flip: "flip" is not understood; expected mirror, crop, crop=AREA, '),
        ("", r'^--augment : "" is not understood'),
        ("mirror,", r'^--augment mirror,: "" is not understood'),
        ("none,mirror", r'"none" is not understood; expected .* or none\.$'),
        ("mirror=1", '"mirror=1" is not understood'),
        ("crop=", '"crop=" is not understood'),
        ("crop=half", '"crop=half" is not understood'),
        ("rotate", '"rotate" is not understood'),
        ("scale=2", '"scale=2" is not understood'),
        ("scale=1:2:3", '"scale=1:2:3" is not understood'),
        ("crop,crop=.3", r'^--augment crop,crop=.3: "crop" is given twice\.$'),
        ("mirror,crop=0", r"^--augment mirror,crop=0: crop must be in \(0, 1\], got 0\.$"),
        ("crop=nan", r"crop must be in \(0, 1\], got nan\.$"),
        ("scale=2:1", r"scale must be LOW:HIGH with 0 < LOW <= HIGH <= 16, got 2:1\.$"),
        ("scale=0:1", "with 0 < LOW <= HIGH <= 16, got 0:1"),
        ("scale=1:inf", "with 0 < LOW <= HIGH <= 16, got 1:inf"),
        ("rotate=181", r"rotate must be in \[0, 180\], got 181\.$"),
        ("noise=-1", r"noise must be in \[0, 255\], got -1\.$"),
    ],
)
def test_what_is_not(text: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        Augment.parse(text)
