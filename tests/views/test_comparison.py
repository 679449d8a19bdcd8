"""Several maps side by side as a page: panels, maxima, links, bytes."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from wsltool.errors import BadImageError, StoreExistsError
from wsltool.views.comparison import CaseRow, Section, write_comparison
from wsltool.views.gallery import MARKER_NAME, gallery_identity
from wsltool.views.overlay import FIRST_RGB, OTHER_RGB, PeakMark, draw_overlay

from .test_gallery import EVIL, make_case, read

NO_BOX = {"predicted_box_B4": None, "iou": None, "contour_level": None}


def panel(name="a", number=0, **more):
    peak = PeakMark(10.5, 20.5)
    return number, make_case(name, **(NO_BOX | {"peaks": (peak,), "verdict": ("hit", "✓")} | more))


def write(folder, cases, rows=None, **more):
    rows = [CaseRow("cat", "a", [0])] if rows is None else rows
    about = {
        "title": "T",
        "facts": [("images", "1")],
        "sections": [Section("worst", "Worst", "By hand.", rows)],
        "marks": [("first", "maximum")],
        "identity": lambda: "made of this",
    }
    return write_comparison(folder, cases, **(about | more))


def test_panels_of_one_picture_share_its_photo(tmp_path):
    cases = [panel(caption=f"store {n}", heat_HW=np.eye(40)[:30] + n) for n in range(3)]
    page = read(write(tmp_path / "g", cases))
    photos = [a["src"] for a in page.with_class("photo")]
    assert len(photos) == 3
    assert len(set(photos)) == 1
    assert len(page.with_class("heat")) == 3
    files = {file.name for file in (tmp_path / "g/pictures").iterdir()}
    assert len(files) == 1 + 2 * 3
    linked = {link.split("/")[1] for link in page.links() if link.startswith("pictures/")}
    assert linked == files
    texts = "".join(page.texts)
    assert [texts.index(f"store {n}") for n in range(3)] == sorted(
        texts.index(f"store {n}") for n in range(3)
    )
    assert page.with_class("panels")
    assert json.loads((tmp_path / "g" / MARKER_NAME).read_text())["num_cases"] == 3
    assert gallery_identity(tmp_path / "g") == "made of this"


def test_a_grid_of_cards_and_a_row_with_a_title(tmp_path):
    cases = [panel("a", 3), panel("b", 5, true_box_B4=None, heat_HW=None)]
    rows = [CaseRow("", "", [5, 3, 4]), CaseRow("dog", "nothing", [4]), CaseRow("cat", "", [3])]
    page = read(write(tmp_path / "g", cases, rows))
    assert len(page.with_class("grid")) == 1
    assert len(page.with_class("strip")) == 1
    assert [a["id"] for a in page.with_class("card")] == ["worst-1-1", "worst-1-2", "worst-3-1"]
    assert not page.with_class("panels")
    assert "dog" not in page.texts


def test_a_page_without_cases(tmp_path):
    page = read(write(tmp_path / "g", []))
    assert "No cases." in page.texts
    assert not [a for _, a in page.tags if a.get("data-toggle")]


def test_a_row_that_stays_and_a_section_that_is_not_listed(tmp_path):
    rows = [CaseRow("dog", "nothing", [], stays=True), CaseRow("cat", "", [0])]
    sections = [Section("a", "First", "", rows), Section("b", "Second", "", [], listed=False)]
    page = read(write(tmp_path / "g", [panel()], sections=sections))
    assert {"dog", "nothing", "cat", "Second"} <= set(page.texts)
    assert "#a" in page.links()
    assert "#b" not in page.links()


def test_boxes_before_and_after(tmp_path):
    box = np.array([[1.0, 2, 10, 12]])
    cases = [panel(predicted_box_B4=box + 1, former_box_B4=box, true_box_B4=box + 2)]
    text = write(tmp_path / "g", cases).read_text()
    for css, x in (("latter", 2), ("former", 1), ("true", 3)):
        assert f'<g class="{css}"><rect class="dark" x="{x}.00"' in text
    assert 'class="predicted"' not in text
    assert text.index('class="latter"><rect') < text.index('class="former"><rect')
    assert "before</dt><dd>1, 2, 10, 12</dd><dt>after</dt><dd>2, 3, 11, 13</dd>" in text
    assert 'class="sign former"' in text
    none = write(tmp_path / "h", [panel(former_box_B4=np.zeros((0, 4)))]).read_text()
    assert "<dt>before</dt><dd>–</dd><dt>after</dt><dd>–</dd>" in none


def test_heat_that_is_hidden_at_first_and_what_it_is_called(tmp_path):
    text = write(tmp_path / "g", [panel()], map_name="like <it>", starts_bare=True).read_text()
    assert '<body class="no-map">' in text
    assert 'data-toggle="map" aria-pressed="false"><i class="sign map"></i>like &lt;it&gt;' in text
    assert "<body>" in write(tmp_path / "h", [panel()]).read_text()


def test_a_region_is_outlined(tmp_path):
    region = np.zeros((30, 40), bool)
    region[5:10, 20:30] = True
    text = write(tmp_path / "g", [panel(region_HW=region)]).read_text()
    assert re.search(r'class="contour"><path d="M20\.5,5\.5', text)


def test_maxima_are_points_of_a_fixed_size(tmp_path):
    marks = (PeakMark(10.5, 20.5), PeakMark(1, 2, "other"))
    text = write(tmp_path / "g", [panel(peaks=marks)]).read_text()
    assert text.count('d="M10.50 20.50l0 0"') == text.count('d="M1.00 2.00l0 0"') == 3
    assert text.index('class="peak other"') < text.index('class="peak first"')  # red is on top
    assert "first maximum</dt><dd>10.5, 20.5<" in text


def test_untrusted_text_stays_text(tmp_path):
    rows = [CaseRow(EVIL, EVIL, [0])]
    page = read(
        write(
            tmp_path / "g",
            [panel(EVIL, caption=EVIL, verdict=("none", EVIL), class_name=EVIL)],
            title=EVIL,
            facts=[(EVIL, EVIL)],
            sections=[Section("a", EVIL, EVIL, rows)],
            marks=[("first", EVIL)],
            provenance=[(EVIL, EVIL)],
        )
    )
    assert [tag for tag, _ in page.tags if tag == "script"] == ["script"]
    assert page.texts.count(EVIL) >= 12


def test_equal_cases_give_equal_bytes(tmp_path):
    for name in "ab":
        write(tmp_path / name, [panel(), panel("b", 1)])
    files = sorted(file.relative_to(tmp_path / "a") for file in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 2 + 2 * 3
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_what_is_there_stays_unless_it_is_a_gallery_to_replace(tmp_path):
    write(tmp_path / "g", [panel()])
    with pytest.raises(StoreExistsError, match=r"g: a gallery is already there; .*--overwrite"):
        write(tmp_path / "g", [])
    with pytest.raises(BadImageError, match=r"heat has shape \(3, 3\)"):
        write(tmp_path / "g", [panel(heat_HW=np.zeros((3, 3)))], overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["g"]
    assert len(list((tmp_path / "g/pictures").iterdir())) == 3
    (tmp_path / "mine").mkdir()
    with pytest.raises(StoreExistsError, match=r"mine: exists, and is no gallery"):
        write(tmp_path / "mine", [], overwrite=True)


def test_links_are_relative(tmp_path):
    text = write(tmp_path / "g", [panel(), panel("b", 1)]).read_text()
    assert not re.search(r"https?:|//[a-z]|url\(|@import", text)


# The same on the flat overlay


def test_a_disc_and_a_square_around_their_points():
    grey = np.full((100, 200, 3), 128, np.uint8)
    marks = (PeakMark(50.5, 40.5), PeakMark(150.5, 60.5, "other"))
    drawn = draw_overlay(grey, peaks=marks, longest_px=200)
    assert tuple(drawn[40, 50]) == FIRST_RGB
    assert tuple(drawn[60, 150]) == OTHER_RGB
    first = (drawn == FIRST_RGB).all(axis=2)
    other = (drawn == OTHER_RGB).all(axis=2)
    rows, cols = np.nonzero(first)
    assert (rows.mean(), cols.mean()) == (40, 50)
    assert first.sum() < (np.ptp(rows) + 1) * (np.ptp(cols) + 1)  # round
    rows, cols = np.nonzero(other)
    assert (rows.mean(), cols.mean()) == (60, 150)
    assert other.sum() == (np.ptp(rows) + 1) * (np.ptp(cols) + 1)  # square
    assert (drawn[:20] == 128).all()


def test_the_first_lies_over_the_other_and_scales_with_the_picture():
    grey = np.full((50, 100, 3), 128, np.uint8)
    marks = (PeakMark(25, 25), PeakMark(25, 25, "other"))
    drawn = draw_overlay(grey, peaks=marks, longest_px=400)
    assert tuple(drawn[100, 100]) == FIRST_RGB


def test_a_point_at_the_edge_is_cut_off():
    grey = np.full((50, 100, 3), 128, np.uint8)
    drawn = draw_overlay(grey, peaks=(PeakMark(99.5, 0.5),), longest_px=100)
    assert tuple(drawn[0, 99]) == FIRST_RGB
