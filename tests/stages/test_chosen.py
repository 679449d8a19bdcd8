"""Which classes get a map: the words, and how many maps that is at most."""

from __future__ import annotations

import re

import pytest

from wsltool.errors import UsageError
from wsltool.stages.chosen import parse_choice
from wsltool.stores.open import open_store

from .making import write_images


@pytest.mark.parametrize(
    ("text", "top", "present", "above"),
    [
        ("present", 0, True, None),
        ("top3", 3, False, None),
        ("above:0.25", 0, False, 0.25),
        ("above:0", 0, False, 0.0),
        ("top5+present", 5, True, None),
        ("present, top5, above:.5", 5, True, 0.5),
        ("top7+top2", 7, False, None),
    ],
)
def test_words(text, top, present, above):
    choice = parse_choice(text)
    assert (choice.top, choice.present, choice.above) == (top, present, above)


def test_all_is_more_than_any_number():
    assert parse_choice("all").top > 10**6


def test_the_text_is_kept_once_joined_by_plus():
    assert parse_choice("top5 , present,top5").text == "top5+present"


@pytest.mark.parametrize(
    "text", ["", "top", "top0", "top-1", "top1.5", "every", "present+", "TOP5"]
)
def test_other_words(text):
    line = f'--classes must be present, topK, above:P, all, or several joined by +, got "{text}".'
    with pytest.raises(UsageError, match=f"^{re.escape(line)}$"):
        parse_choice(text)


@pytest.mark.parametrize("text", ["1", "1.5", "-0.1", "nan"])
def test_probability_out_of_range(text):
    line = f"--classes above:P must be in [0, 1), got {float(text)}."
    with pytest.raises(UsageError, match=f"^{re.escape(line)}$"):
        parse_choice(f"above:{text}")


def test_probability_that_is_no_number():
    with pytest.raises(UsageError, match=r'^--classes above:P needs a probability, got "x"\.$'):
        parse_choice("above:x")


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("present", 2),
        ("top1", 1),
        ("top3", 3),
        ("top99", 4),
        ("all", 4),
        ("above:0.9", 4),
        ("top1+present", 3),
        ("top3+present", 4),
    ],
)
def test_most_slots(tmp_path, text, most):
    listed = {"a": {"labels": {0: 1}}, "b": {"labels": {0: 1, 1: 255, 3: 1}}, "c": {}}
    path = write_images(tmp_path / "s.zarr", listed, ["p", "q", "r", "s"], boxes=False)
    with open_store(path) as images:
        assert parse_choice(text).most_slots(images, 4) == most


def test_one_slot_where_nothing_is_present(tmp_path):
    path = write_images(tmp_path / "s.zarr", {"a": {}}, ["p", "q"], boxes=False)
    with open_store(path) as images:
        assert parse_choice("present").most_slots(images, 2) == 1
