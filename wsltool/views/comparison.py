"""Write a gallery that sets several maps of the same pictures side by side.

Two layouts: a row for each picture and class with a panel for each map (Oquab et al. 2015,
figure 1) or level of a search (Bency et al. 2016, figure 3), or a card for each with the maxima
of two maps (Kim et al. 2017, figure 4). Files, look and safety are those of
`wsltool.views.gallery`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsltool.views.gallery_case import Case, ShownCase
from wsltool.views.gallery_files import PAGE_NAME, finish_gallery, new_gallery, write_case
from wsltool.views.gallery_page import (
    escape,
    page_head,
    pairs_list,
    provenance_footer,
    render_card,
    render_dialog,
)

__all__ = ["CaseRow", "Section", "write_comparison"]

Pairs = Sequence[tuple[str, str]]

_MAP = (
    '<button data-toggle="map" aria-pressed="{}"><i class="sign map"></i>{} <kbd>M</kbd></button>'
)
_BOXES = (
    '<button data-toggle="boxes" aria-pressed="true"><i class="sign true"></i>true box'
    " <kbd>B</kbd></button>"
)
_CHANGED = (
    '<button data-toggle="boxes" aria-pressed="true"><i class="sign former"></i>before'
    '<i class="sign latter"></i>after<i class="sign true"></i>true <kbd>B</kbd></button>'
)
_SEARCHED = (
    '<button data-toggle="boxes" aria-pressed="true"><i class="sign earlier"></i>earlier'
    '<i class="sign current"></i>this level<i class="sign predicted"></i>predicted'
    '<i class="sign true"></i>true <kbd>B</kbd></button>'
)


@dataclass(frozen=True, slots=True)
class CaseRow:
    """Cases that stand in one line.

    Attributes
    ----------
    title, detail
        What stands beside them; a row without a title is a grid of cards.
    numbers
        Numbers of cases, as `write_comparison` is given them; those that were left out are
        not shown.
    stays
        Whether title and detail are shown where there is no case.
    """

    title: str
    detail: str
    numbers: Sequence[int]
    stays: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: its anchor, heading, a sentence, and rows of cases.

    `listed` says whether the bar on top leads there.
    """

    anchor: str
    name: str
    lead: str
    rows: Sequence[CaseRow]
    listed: bool = True


def write_comparison(
    folder: Path,
    cases: Iterable[tuple[int, Case]],
    *,
    title: str,
    facts: Pairs,
    sections: Sequence[Section],
    marks: Pairs = (),
    map_name: str = "score map",
    starts_bare: bool = False,
    hit_iou_frac: float = 0.0,
    provenance: Pairs = (),
    longest_px: int = 720,
    overwrite: bool = False,
    identity: Callable[[], str],
) -> Path:
    """Write the page and its pictures into a new folder.

    Parameters
    ----------
    folder
        Where; see `wsltool.views.gallery.write_gallery` for when it appears and what is
        replaced.
    cases
        (number, case), read once; several may have the same number: panels of one picture,
        which follow each other and share the photo.
    title, facts
        The head of the page.
    sections
        What is shown where; a case may stand in several.
    marks
        The legend beside maps and boxes: (``first`` or ``other``, whose maximum it is), or
        (``contour``, what is outlined).
    map_name
        What the heat over the pictures is.
    starts_bare
        Whether the heat is hidden until somebody asks for it.
    hit_iou_frac
        From this IoU on a case without a verdict is marked as a hit.
    provenance
        (name, value) at the end.
    longest_px
        Longer side of the pictures at most.
    overwrite
        Replace an older gallery in the same place.
    identity
        Tells what it is made from, once all cases are drawn.

    Returns
    -------
    pathlib.Path
        The page, ``folder/index.html``.

    Raises
    ------
    StoreExistsError
        If something is at `folder` that is no gallery, or is one without `overwrite`.
    BadImageError
        If a picture, map or box cannot be drawn; nothing is left behind.
    """
    shown: dict[int, list[ShownCase]] = {}
    num_cases = 0
    with new_gallery(folder, overwrite=overwrite) as draft:
        for number, case in cases:
            panels = shown.setdefault(number, [])
            photo = panels[0].picture_href if panels else None
            panels.append(write_case(draft, num_cases, case, longest_px, photo))
            num_cases += 1
        cases_shown = [case for panels in shown.values() for case in panels]
        toggles = _toggles(cases_shown, map_name, "false" if starts_bare else "true")
        css = "panels" if any(len(panels) > 1 for panels in shown.values()) else ""
        css += " levels" * any(case.is_search for case in cases_shown)
        body = "".join(_section(section, shown, hit_iou_frac) for section in sections)
        head = page_head(title, "no-map" if starts_bare else "")
        page = (
            f"{head}<header><div><h1>{escape(title)}</h1>"
            f'<dl class="facts">{pairs_list(facts)}</dl></div></header>'
            f"{_tools(sections, marks, toggles, has_provenance=bool(provenance))}"
            f'<main class="{css}">{body}{provenance_footer(provenance)}</main>'
            f"{render_dialog(toggles)}</body></html>\n"
        )
        finish_gallery(draft, page, num_cases, identity())
    return folder / PAGE_NAME


def _toggles(cases: Sequence[ShownCase], map_name: str, map_is_on: str) -> str:
    heat = _MAP.format(map_is_on, escape(map_name)) * any(case.heat_href for case in cases)
    if any(case.is_search for case in cases):
        return heat + _SEARCHED
    if any(case.former_box_B4 is not None for case in cases):
        return heat + _CHANGED
    return heat + _BOXES * any(len(case.true_box_B4) for case in cases)


def _tools(sections: Sequence[Section], marks: Pairs, toggles: str, *, has_provenance: bool) -> str:
    links = [(section.anchor, section.name) for section in sections if section.listed]
    links += [("made", "Made by")] * has_provenance
    nav = "".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, name in links)
    legend = "".join(
        f'<span class="plate"><i class="sign {css}"></i>{escape(name)}</span>'
        for css, name in marks
    )
    return (
        f'<div class="tools"><div><nav>{nav}</nav>'
        f'<span class="keys">{toggles}{legend}</span></div></div>'
    )


def _section(section: Section, shown: dict[int, list[ShownCase]], hit_iou_frac: float) -> str:
    body = "".join(
        _row(row, f"{section.anchor}-{place}", shown, hit_iou_frac)
        for place, row in enumerate(section.rows, 1)
    )
    return (
        f'<section id="{section.anchor}" data-name="{escape(section.name)}">'
        f'<h2>{escape(section.name)}</h2><p class="lead">{escape(section.lead)}</p>'
        f"{body or '<p class=empty>No cases.</p>'}</section>"
    )


def _row(row: CaseRow, anchor: str, shown: dict[int, list[ShownCase]], hit_iou_frac: float) -> str:
    cases = [case for number in row.numbers for case in shown.get(number, [])]
    cards = "".join(
        render_card(case, f"{anchor}-{n}", hit_iou_frac) for n, case in enumerate(cases, 1)
    )
    if not row.title:
        return f'<div class="grid">{cards}</div>' if cards else ""
    head = f'<h3>{escape(row.title)}</h3><div class="count id">{escape(row.detail)}</div>'
    strip = f'<div class="strip">{cards}</div>' if cards else ""
    shown_row = f'<div class="class"><div>{head}</div>{strip}</div>'
    return shown_row if cards or row.stays else ""
