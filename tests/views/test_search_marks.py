"""A level of a search, drawn over a picture and written for the page."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from wsltool.errors import BadImageError
from wsltool.views.gallery_case import Case
from wsltool.views.gallery_files import new_gallery, write_case
from wsltool.views.gallery_page import render_card
from wsltool.views.overlay import (
    CURRENT_RGB,
    EARLIER_RGB,
    OUTLINE_RGB,
    SearchMarks,
    draw_overlay,
)

GREY = (100, 100, 100)
NONE = np.zeros((0, 4))
MARKS = SearchMarks(
    np.array([[5.0, 5, 55, 35]]), np.array([[10.0, 10, 40, 30], [30.0, 12, 50, 26]])
)


def picture(height_px=40, width_px=60):
    return np.full((height_px, width_px, 3), 100, np.uint8)


def line_of(canvas, row, start, stop):
    return [tuple(canvas[row, column].tolist()) for column in range(start, stop)]


def is_colour(canvas, colour):
    return (canvas == colour).all(axis=2)


def test_a_red_rectangle_is_where_the_candidate_says():
    canvas = draw_overlay(
        picture(), search=SearchMarks(NONE, np.array([[10.0, 10, 40, 30]])), longest_px=60
    )
    rows, columns = np.nonzero(is_colour(canvas, CURRENT_RGB))
    assert (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1) == (10, 40, 10, 30)
    # The best one of a level is two pixels wide, inwards from its edge, between dark lines.
    bare, dark, red = GREY, OUTLINE_RGB, CURRENT_RGB
    assert line_of(canvas, 20, 8, 15) == [bare, dark, red, red, dark, bare, bare]
    assert line_of(canvas, 20, 36, 42) == [bare, dark, red, red, dark, bare]
    assert not is_colour(canvas, EARLIER_RGB).any()


def test_earlier_ones_are_blue_and_thin_others_of_the_level_red_and_thin():
    canvas = draw_overlay(picture(), search=MARKS, longest_px=60)
    assert line_of(canvas, 8, 3, 8) == [GREY, GREY, EARLIER_RGB, GREY, GREY]  # no dark line
    bare, dark, red = GREY, OUTLINE_RGB, CURRENT_RGB
    assert line_of(canvas, 20, 47, 52) == [bare, dark, red, dark, bare]
    assert line_of(canvas, 20, 38, 41) == [red, red, dark]  # the best one lies on top
    assert (is_colour(canvas, EARLIER_RGB).sum()) == 2 * 50 + 2 * 28


def test_a_level_lies_on_those_before():
    one = np.array([[10.0, 10, 40, 30]])
    canvas = draw_overlay(picture(), search=SearchMarks(one, one), longest_px=60)
    assert not is_colour(canvas, EARLIER_RGB).any()


def test_blue_and_red_differ_in_blue_for_every_colour_vision():
    assert EARLIER_RGB[2] - CURRENT_RGB[2] > 200


def test_an_empty_level_draws_nothing_and_a_bad_box_is_refused():
    canvas = draw_overlay(picture(), search=SearchMarks(NONE, NONE), longest_px=60)
    assert (canvas == 100).all()
    with pytest.raises(BadImageError, match=r"^box 0 is \[3\.0, 1\.0, 3\.0, 2\.0\]; expected fini"):
        draw_overlay(picture(), search=SearchMarks(NONE, np.array([[3.0, 1, 3, 2]])))


def test_the_page_has_a_path_for_each_sort(tmp_path):
    case = Case(
        image_id="a",
        class_name="cat",
        picture_HWC=picture(),
        search=MARKS,
        caption="level 2",
        verdict=("none", "0.875"),
        told=(("best score", "0.875"), ("<b>", "&")),
    )
    with new_gallery(tmp_path / "g", overwrite=False) as draft:
        shown = write_case(draft, 0, case, 720)
    assert shown.is_search
    groups = dict(re.findall(r'<g class="([a-z ]+)">(.*?)</g>', shown.marks))
    assert groups == {
        "earlier": '<path class="lit" d="M5.00 5.00H55.00V35.00H5.00Z"/>',
        "current": '<path class="dark" d="M30.00 12.00H50.00V26.00H30.00Z"/>'
        '<path class="lit" d="M30.00 12.00H50.00V26.00H30.00Z"/>',
        "current best": '<path class="dark" d="M10.00 10.00H40.00V30.00H10.00Z"/>'
        '<path class="lit" d="M10.00 10.00H40.00V30.00H10.00Z"/>',
    }
    card = render_card(shown, "one", 0.5)
    assert '<span class="chip">0.875</span>' in card
    assert "<dt>best score</dt><dd>0.875</dd><dt>&lt;b&gt;</dt><dd>&amp;</dd>" in card
    assert "class score" not in card
    with Image.open(tmp_path / "g" / shown.overlay_href) as flat:
        assert np.asarray(flat)[:, :, 0].max() > 200  # red
