"""What ``view --search`` shows: how a beam search came to its heat map, level by level.

Bency et al. 2016, figures 3 and 5: earlier candidates blue, those of the level red.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wsltool.errors import StoreError
from wsltool.stages.judged import HIT_IOU, Judged, Shown, judge
from wsltool.stages.report import Reporter
from wsltool.stages.side_by_side import panel_sections
from wsltool.stages.view_found import chosen_pairs
from wsltool.stages.view_page import Page, provenance_of
from wsltool.stores.store import Store
from wsltool.views.comparison import write_comparison
from wsltool.views.gallery import Case
from wsltool.views.overlay import SearchMarks

__all__ = ["check_candidates", "search_cases", "write_search"]

Array = np.ndarray[Any, Any]

_PARAMS = ("mode", "beam", "levels", "children")


def check_candidates(maps: Store) -> None:
    """Refuse maps that do not hold the candidates of their search.

    Raises
    ------
    StoreError
        They were not kept, or the maps are not those of a search.
    """
    if "candidate" not in maps:
        raise StoreError(
            f"{maps.path.name}: holds no candidates of a search, expected those that beam-search "
            "kept. Make it with wsltool beam-search --keep-candidates."
        )


def search_cases(
    shown: Shown, maps: Store, judged: Judged, chosen: Array, report: Reporter
) -> Iterator[tuple[int, Case]]:
    """Yield for each chosen pair a panel of every level, then its heat map and boxes."""
    row_of = {str(name): row for row, name in enumerate(maps.whole("image_id").tolist())}
    for index, case in shown.numbered(judged, chosen, report):
        row, class_index = row_of.get(case.image_id), int(judged.class_M[index])
        if row is not None:
            for panel in _levels(case, *_candidates(maps, row, class_index)):
                yield index, panel
        yield index, replace(case, caption="heat map")


def _candidates(maps: Store, row: int, class_index: int) -> tuple[Array, Array, Array]:
    """Return boxes, levels and scores of what was kept for a class, by level and rank."""
    found = maps.ragged_rows("candidate", row, row + 1)
    class_S = maps.rows("map_class", row, row + 1)[0]
    mine_B = np.isin(found["candidate_slot"], np.flatnonzero(class_S == class_index))
    names = ("candidate", "candidate_level", "candidate_score")
    box_B4, level_B, score_B = (found[name][mine_B] for name in names)
    return box_B4, level_B, score_B


def _levels(case: Case, box_B4: Array, level_B: Array, score_B: Array) -> Iterator[Case]:
    """Yield a panel of each level: what was found before blue, what is found there red."""
    for level in np.unique(level_B).tolist():
        now_B4, score_N = box_B4[level_B == level], score_B[level_B == level]
        best = ", ".join(f"{edge:.6g}" for edge in now_B4[0])
        yield Case(
            image_id=case.image_id,
            class_name=case.class_name,
            picture_HWC=case.picture_HWC,
            search=SearchMarks(box_B4[level_B < level], now_B4),
            caption=f"level {level}",
            verdict=("none", f"{score_N[0]:.3f}"),
            told=(
                ("level", f"{level} of {level_B.max()}"),
                ("candidates", str(len(score_N))),
                ("best score", f"{score_N[0]:.5g}"),
                ("lowest score", f"{score_N[-1]:.5g}"),
                ("best box", best),
            ),
        )


def write_search(about: Page, shown: Shown, maps: Store) -> Path:
    """Write the search of the chosen cases, a strip of levels each."""
    store, judged = shown.store, judge(shown.store, shown.truth)
    chosen = chosen_pairs(judged, about)
    legend = (
        "A panel is a level of the search: the candidates kept there are red, the best one "
        "thicker, those of earlier levels blue; the number is the best one's score."
    )
    return write_comparison(
        about.folder,
        search_cases(shown, maps, judged, chosen, about.report),
        title=f"{store.path.stem}: the search, level by level",
        facts=_facts(maps, judged),
        sections=panel_sections(
            shown.truth,
            judged,
            chosen,
            about.num,
            about.samples,
            whose="the first box of the class",
            legend=legend,
        ),
        marks=[("contour", "threshold")],
        map_name="heat map",
        hit_iou_frac=HIT_IOU,
        provenance=provenance_of([store] if store.kind == "maps" else [store, maps], about.folder),
        overwrite=about.overwrite,
        identity=about.identity_of(shown),
    )


def _facts(maps: Store, judged: Judged) -> list[tuple[str, str]]:
    params = maps.meta.get("params", {})
    facts = [
        ("images and classes", str(len(judged.class_M))),
        ("candidates", f"{maps.shape('candidate')[0]:,}"),
        *((name, str(params[name])) for name in _PARAMS if name in params),
    ]
    if judged.has_boxes and len(judged.iou_M):
        share = 100 * float((np.nan_to_num(judged.iou_M) >= HIT_IOU).mean())
        facts.append((f"IoU ≥ {HIT_IOU:g}", f"{share:.1f} %"))
    return facts
