"""The page of ``view`` that says whether what is there is found: worst, best, each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wsltool.metrics.baselines import CENTRED_FRACTIONS
from wsltool.stages.judged import HIT_IOU, Judged, Shown, judge
from wsltool.stages.view_page import Page, provenance
from wsltool.stores.store import Store
from wsltool.views.gallery import Bar, ClassRow, write_gallery
from wsltool.views.selection import shown_cases

__all__ = ["chosen_pairs", "write_found"]

Array = np.ndarray[Any, Any]


def write_found(about: Page, shown: Shown) -> Path:
    """Judge every pair, and write the gallery of the chosen ones."""
    store, judged = shown.store, judge(shown.store, shown.truth)
    return write_gallery(
        about.folder,
        shown.cases(judged, chosen_pairs(judged, about), about.report),
        title=f"{store.path.name}: is what is there found?",
        bars=_bars(judged),
        facts=_facts(store, judged),
        classes=_class_rows(shown.truth, judged),
        provenance=provenance(store, about.folder),
        hit_iou_frac=HIT_IOU,
        num_extreme=about.num,
        num_samples=about.samples,
        overwrite=about.overwrite,
        identity=about.identity_of(shown),
    )


def chosen_pairs(judged: Judged, about: Page) -> Array:
    """Return the numbers of the pairs to draw, among those that have a prediction."""
    here = np.flatnonzero(judged.row_M >= 0)
    places = shown_cases(
        judged.iou_M[here],
        judged.class_M[here],
        num_extreme=about.num,
        num_samples=about.samples,
    )
    chosen: Array = here[places]
    return chosen


def _bars(judged: Judged) -> list[Bar]:
    """Return the share of pairs with IoU >= .5, beside the whole image and the best centred box."""
    if not judged.has_boxes or not len(judged.iou_M):
        return []
    prior_F = (judged.prior_MF >= HIT_IOU).mean(axis=0)
    best = int(prior_F.argmax())
    hits = float((np.nan_to_num(judged.iou_M) >= HIT_IOU).mean())
    return [
        Bar("boxes", hits),
        Bar("whole image", float(prior_F[-1]), baseline=True),
        Bar(f"centred box, {CENTRED_FRACTIONS[best]:g}", float(prior_F[best]), baseline=True),
    ]


def _facts(store: Store, judged: Judged) -> list[tuple[str, str]]:
    found = f"share with IoU ≥ {HIT_IOU:g}, class given"
    facts = [
        ("images", str(len(np.unique(judged.truth_row_M)))),
        ("images and classes", str(len(judged.class_M))),
        ("found", found if judged.has_boxes else "unknown, there are no true boxes"),
    ]
    num_without = int((judged.row_M < 0).sum())
    if num_without:
        facts.append(("without prediction", f"{num_without}, counted as missed, not shown"))
    limit = store.meta.get("limit")
    if limit:
        facts.append(("rows", f"{limit['num_rows']} of {limit['of']} ({limit['how']})"))
    return facts + _threshold_facts(store)


def _threshold_facts(store: Store) -> list[tuple[str, str]]:
    """Return at which threshold boxes were drawn, and on what it was chosen."""
    told = store.attributes.get("thresholds")
    if not told:
        return []
    if told["source"] == "rule":
        values = ", ".join(str(level) for level in told["value"])
        return [("thresholds", f"{values} of {told['of']}, no outline")]
    value = "one a class" if isinstance(told["value"], list) else f"{told['value']:g}"
    on = f", chosen on {told['chosen_on']['path']}" if told["chosen_on"] else ""
    return [("threshold", value + on)]


def _class_rows(true: Store, judged: Judged) -> list[ClassRow]:
    rows = []
    for index, name in enumerate(true.class_names()):
        iou = np.nan_to_num(judged.iou_M[judged.class_M == index])
        if len(iou) and judged.has_boxes:
            hits = float((iou >= HIT_IOU).mean())
            rows.append(ClassRow(name, len(iou), float(iou.mean()), hits))
        elif len(iou):
            rows.append(ClassRow(name, len(iou)))
    return rows
