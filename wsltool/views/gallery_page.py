"""The gallery's HTML: pure text from records, everything escaped, links relative."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wsltool.views.gallery_case import Bar, ClassRow, ShownCase
from wsltool.views.gallery_style import SCRIPT, STYLE
from wsltool.views.overlay import (
    CURRENT_RGB,
    EARLIER_RGB,
    FIRST_RGB,
    FORMER_RGB,
    LATTER_RGB,
    OTHER_RGB,
    PREDICTED_RGB,
    TRUE_RGB,
    heat_palette,
)
from wsltool.views.selection import sample_class, select_cases

__all__ = [
    "PageText",
    "escape",
    "page_head",
    "pairs_list",
    "provenance_footer",
    "render_card",
    "render_dialog",
    "render_page",
]

Pairs = Sequence[tuple[str, str]]

TOGGLES: Final = (
    '<button data-toggle="map" aria-pressed="true"><i class="sign map"></i>score map'
    " <kbd>M</kbd></button>"
    '<button data-toggle="boxes" aria-pressed="true"><i class="sign predicted"></i>predicted'
    '<i class="sign true"></i>true <kbd>B</kbd></button>'
)
_DIALOG: Final = """<dialog aria-label="Enlarged picture">
<div class="head"><span class="place"></span><span class="keys">TOGGLES
<a class="flat plate" href="#" target="_blank">as one picture</a>
<button class="back" aria-label="previous">← <kbd>←</kbd></button>
<button class="next" aria-label="next">→ <kbd>→</kbd></button>
<button class="close" aria-label="close">✕ <kbd>Esc</kbd></button></span></div>
<div class="stage"></div><div class="side"></div>
</dialog>
"""


@dataclass(frozen=True, slots=True)
class PageText:
    """What the page says beside its cases; see `wsltool.views.gallery.write_gallery`."""

    title: str
    bars: Sequence[Bar]
    facts: Pairs
    classes: Sequence[ClassRow]
    provenance: Pairs
    hit_iou_frac: float
    num_extreme: int
    num_samples: int


def escape(text: str) -> str:
    """Escape untrusted text for HTML, attributes included.

    Control characters and characters that UTF-8 cannot hold become U+FFFD.
    """
    shown = "".join(
        "\N{REPLACEMENT CHARACTER}" if ord(sign) < 32 or 0xD800 <= ord(sign) < 0xE000 else sign
        for sign in text
    )
    return html.escape(shown, quote=True)


def render_page(text: PageText, cases: Sequence[ShownCase]) -> str:
    """Render the whole page.

    Parameters
    ----------
    text
        Title, numbers and provenance.
    cases
        What there is to show; the sections choose from them by `select_cases`.

    Returns
    -------
    str
        An HTML document that needs nothing but the pictures it links to.
    """
    iou_M = np.array([case.iou for case in cases], dtype=np.float64)
    names = sorted({case.class_name for case in cases})
    class_M = np.array([names.index(case.class_name) for case in cases], dtype=np.int64)
    worst = [cases[row] for row in select_cases(iou_M, class_M, text.num_extreme)]
    best = [cases[row] for row in select_cases(iou_M, class_M, text.num_extreme, best=True)]
    hit = text.hit_iou_frac
    legend = (
        f"✓ marks an IoU of at least {hit:.2f}, ✗ one below. Map colours are stretched to "
        "each picture's own range. "
    )
    return "".join(
        [
            page_head(text.title),
            _summary(text),
            _tools(bool(text.classes or names), bool(text.provenance)),
            "<main>",
            _extreme("worst", "Worst cases", legend + "No box counts as worst.", worst, hit),
            _extreme("best", "Best cases", "The highest IoU with a true box.", best, hit),
            _classes(text, cases, names, iou_M),
            provenance_footer(text.provenance),
            f"</main>{render_dialog(TOGGLES)}</body></html>\n",
        ]
    )


def render_dialog(toggles: str) -> str:
    """Return the enlarged view with its `toggles`, and the script of the page."""
    return f"{_DIALOG.replace('TOGGLES', toggles)}<script>{SCRIPT}</script>"


def page_head(title: str, body_css: str = "") -> str:
    """Return the page up to its body, the colours of `wsltool.views.overlay` included."""
    body = f'<body class="{body_css}">' if body_css else "<body>"
    stops = ",".join(f"rgb({r} {g} {b})" for r, g, b, _ in heat_palette()[::51].tolist())
    colours = (
        f":root{{--heat:linear-gradient(90deg,{stops});--true:rgb{TRUE_RGB};"
        f"--predicted:rgb{PREDICTED_RGB};--first:rgb{FIRST_RGB};--other:rgb{OTHER_RGB};"
        f"--former:rgb{FORMER_RGB};--latter:rgb{LATTER_RGB};"
        f"--earlier:rgb{EARLIER_RGB};--current:rgb{CURRENT_RGB}}}"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,">'
        f"<style>{STYLE}{colours}</style></head>{body}"
    )


def _number(value_frac: float | None, digits: int = 1) -> str:
    missing = value_frac is None or math.isnan(value_frac)
    return "–" if missing else f"{100 * (value_frac or 0.0):.{digits}f} %"


def _bar(value_frac: float | None, css: str) -> str:
    missing = value_frac is None or math.isnan(value_frac)
    width = 0.0 if missing else 100 * (value_frac or 0.0)
    return (
        f'<svg class="bar {css}" viewBox="0 0 100 10" preserveAspectRatio="none" '
        f'aria-hidden="true"><rect width="{width:.2f}" height="10"/></svg>'
    )


def _bar_row(label: str, value_frac: float | None, css: str = "") -> str:
    return (
        f'<dt class="{css}">{escape(label)}</dt><dd>{_bar(value_frac, css)}'
        f'<span class="number">{_number(value_frac)}</span></dd>'
    )


def pairs_list(pairs: Pairs) -> str:
    """Return names and values as items of a list of definitions."""
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs
    )


def _summary(text: PageText) -> str:
    """Title, facts, the first score in large figures, all bars."""
    scores = [bar for bar in text.bars if not bar.baseline]
    floors = [bar for bar in text.bars if bar.baseline]
    parts = [f"<header><div><h1>{escape(text.title)}</h1>"]
    if text.facts:
        parts.append(f'<dl class="facts">{pairs_list(text.facts)}</dl>')
    if text.bars:
        rows = "".join(_bar_row(bar.label, bar.value_frac) for bar in scores)
        rows += "".join(_bar_row(bar.label, bar.value_frac, "floor") for bar in floors)
        hero = _hero(scores, floors) if scores else ""
        parts.append(f'<div class="scores">{hero}<dl class="bars">{rows}</dl></div>')
    return "".join([*parts, "</div></header>"])


def _hero(scores: Sequence[Bar], floors: Sequence[Bar]) -> str:
    """Show the first score; of a single one, how far above the best baseline it is."""
    first = scores[0]
    lines = escape(first.label)
    known = [bar for bar in floors if bar.value_frac is not None and not math.isnan(bar.value_frac)]
    if len(scores) == 1 and known and _number(first.value_frac) != "–":
        floor = max(known, key=lambda bar: bar.value_frac or 0.0)
        gap = 100 * ((first.value_frac or 0.0) - (floor.value_frac or 0.0))
        side = "above" if gap >= 0 else "below"
        lines += f"<br>{abs(gap):.1f} points {side} the best baseline ({escape(floor.label)})"
    figure = _number(first.value_frac).replace(" %", "<small>%</small>")
    return f'<div class="hero"><b>{figure}</b><span>{lines}</span></div>'


def _tools(has_classes: bool, has_provenance: bool) -> str:
    links = [("worst", "Worst"), ("best", "Best")]
    links += [("classes", "Classes")] * has_classes + [("made", "Made by")] * has_provenance
    nav = "".join(f'<a href="#{target}">{name}</a>' for target, name in links)
    return (
        f'<div class="tools"><div><nav>{nav}</nav><span class="keys">{TOGGLES}'
        '<span class="plate"><i class="sign contour"></i>threshold</span>'
        "</span></div></div>"
    )


def _extreme(
    anchor: str, name: str, lead: str, cases: Sequence[ShownCase], hit_iou_frac: float
) -> str:
    cards = "".join(
        render_card(case, f"{anchor}-{number}", hit_iou_frac)
        for number, case in enumerate(cases, 1)
    )
    body = f'<div class="grid">{cards}</div>' if cards else '<p class="empty">No cases.</p>'
    return (
        f'<section id="{anchor}" data-name="{name}"><h2>{name}</h2>'
        f'<p class="lead">{lead}</p>{body}</section>'
    )


def _classes(
    text: PageText,
    cases: Sequence[ShownCase],
    names: Sequence[str],
    iou_M: NDArray[np.float64],
) -> str:
    """One row a class, worst mean IoU first; classes without images are only named."""
    given = {row.class_name for row in text.classes}
    rows = [*text.classes, *(ClassRow(name, -1) for name in names if name not in given)]
    rows.sort(key=lambda row: (_last_if_missing(row.mean_iou_frac), row.class_name))
    if not rows:
        return ""
    parts = []
    for number, row in enumerate((row for row in rows if row.num_images), 1):
        mine = [index for index, case in enumerate(cases) if case.class_name == row.class_name]
        sample = [cases[mine[place]] for place in sample_class(iou_M[mine], text.num_samples)]
        parts.append(_class_row(row, sample, f"class-{number}", text.hit_iou_frac))
    absent = ", ".join(escape(row.class_name) for row in rows if not row.num_images)
    note = f'<p class="absent">Classes without images: {absent}.</p>' if absent else ""
    return (
        '<section id="classes" data-name="Classes"><h2>Classes</h2>'
        '<p class="lead">Lowest mean IoU first; of each class its worst and best cases.</p>'
        f"{''.join(parts)}{note}</section>"
    )


def _last_if_missing(value_frac: float | None) -> float:
    return math.inf if value_frac is None or math.isnan(value_frac) else value_frac


def _class_row(row: ClassRow, sample: Sequence[ShownCase], anchor: str, hit: float) -> str:
    cards = "".join(
        render_card(case, f"{anchor}-{number}", hit) for number, case in enumerate(sample, 1)
    )
    count = "" if row.num_images < 0 else f"{row.num_images:,} image{'s'[: row.num_images != 1]}"
    bars = _bar_row("mean IoU", row.mean_iou_frac) + _bar_row("hits", row.hit_frac)
    return (
        f'<div class="class"><div><h3>{escape(row.class_name)}</h3>'
        f'<div class="count">{count}</div><dl class="bars">{bars}</dl></div>'
        f'<div class="strip">{cards}</div></div>'
    )


def provenance_footer(pairs: Pairs) -> str:
    """Return the end of the page: what it was made from."""
    if not pairs:
        return ""
    return f'<footer id="made"><h2>Made by</h2><dl>{_detail_rows(pairs)}</dl></footer>'


def _verdict(case: ShownCase, hit_iou_frac: float) -> tuple[str, str]:
    """CSS class and words for how the case went."""
    if case.verdict is not None:
        return case.verdict
    if not math.isnan(case.iou):
        hit = case.iou >= hit_iou_frac
        return ("hit" if hit else "miss"), f"{'✓' if hit else '✗'} {case.iou:.2f}"
    if not case.present:
        return "none", "not in picture"
    if not len(case.predicted_box_B4):
        return "none", "no box"
    return "none", "no IoU" if len(case.true_box_B4) else "no true box"


def render_card(case: ShownCase, anchor: str, hit_iou_frac: float) -> str:
    """Return one case: picture, map and boxes in layers, then its numbers."""
    css, words = _verdict(case, hit_iou_frac)
    meter = ""
    if case.verdict is None:
        known = not math.isnan(case.iou)
        bar = f'<i style="width:{100 * case.iou:.1f}%"></i>' if known else ""
        meter = f'<div class="meter">{bar}<s style="left:{100 * hit_iou_frac:.1f}%"></s></div>'
    score = "" if case.class_score is None else f"score {case.class_score:.3g}"
    remark = f'<div class="remark">{escape(case.note)}</div>' if case.note else ""
    caption = escape(case.caption or case.class_name)
    return (
        f'<figure class="card {css}" id="{anchor}">'
        f'<a class="tile" href="{case.overlay_href}">{_frame(case, words)}</a>{meter}'
        f'<figcaption><div class="first"><span class="name" title="{caption}">{caption}</span>'
        f'<span class="chip">{escape(words)}</span></div>'
        f'<div class="second"><span class="id" title="{escape(case.image_id)}">'
        f'{escape(case.image_id)}</span><span class="score">{score}</span></div>'
        f"{remark}{_details(case)}</figcaption></figure>"
    )


def _frame(case: ShownCase, words: str) -> str:
    width_px, height_px = case.size_wh
    alt = (
        f"{case.image_id}: {case.class_name}, {words}; {len(case.predicted_box_B4)} predicted "
        f"and {len(case.true_box_B4)} true boxes"
    )
    heat = ""
    if case.heat_href is not None:
        heat = f'<img class="heat" loading="lazy" alt="" src="{case.heat_href}">'
    return (
        f'<span class="frame" style="--ratio:{width_px / height_px:.5f}">'
        f'<img class="photo" loading="lazy" alt="{escape(alt)}" src="{case.picture_href}">{heat}'
        f'<svg viewBox="0 0 {width_px} {height_px}" preserveAspectRatio="none" '
        f'aria-hidden="true">{case.marks}</svg></span>'
    )


def _details(case: ShownCase) -> str:
    """All that is known of the case, shown in the enlarged view."""
    if case.told:
        pairs = [("image", case.image_id), ("class", case.class_name), *case.told]
        return f'<dl class="more">{_detail_rows(pairs)}</dl>'
    pairs = [
        ("image", case.image_id),
        ("class", case.class_name + ("" if case.present else " (not in picture)")),
        ("class score", "–" if case.class_score is None else f"{case.class_score:.5g}"),
        ("size", f"{case.size_wh[0]} × {case.size_wh[1]} px"),
    ]
    if case.verdict is None:
        pairs.insert(2, ("IoU", "–" if math.isnan(case.iou) else f"{case.iou:.4f}"))
    pairs += [(f"{which} maximum", f"{x:g}, {y:g}") for x, y, which in case.peaks]
    rows = _detail_rows(pairs)
    if case.former_box_B4 is not None:
        rows += f"<dt>before</dt><dd>{_box_lines(case.former_box_B4)}</dd>"
        rows += f"<dt>after</dt><dd>{_box_lines(case.predicted_box_B4)}</dd>"
    elif case.verdict is None:
        rows += f"<dt>predicted</dt><dd>{_box_lines(case.predicted_box_B4)}</dd>"
    rows += f"<dt>true</dt><dd>{_box_lines(case.true_box_B4)}</dd>"
    rows += f"<dt>note</dt><dd>{escape(case.note)}</dd>" if case.note else ""
    return f'<dl class="more">{rows}</dl>'


def _detail_rows(pairs: Pairs) -> str:
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)


def _box_lines(box_B4: Iterable[Iterable[float]]) -> str:
    lines = (", ".join(f"{edge:.6g}" for edge in box) for box in box_B4)
    return "\n".join(lines) or "–"
