"""What ``view --before`` shows: boxes that were wrong and are right now, and the other way round.

Kolesnikov and Lampert 2016, figure 7: the old box red, the new one green, the truth beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wsltool.errors import ProtocolError
from wsltool.stages.judged import HIT_IOU, Judged, Shown, judge
from wsltool.stages.report import Reporter
from wsltool.stages.view_page import Page, provenance_of
from wsltool.stores.store import Store
from wsltool.views.comparison import CaseRow, Section, write_comparison
from wsltool.views.gallery import Case
from wsltool.views.selection import NUM_CLASSES, sample_class, select_cases

__all__ = ["Mended", "judge_both", "mended_cases", "mended_sections", "write_mended"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Mended:
    """M pairs of an image and a class that is present in it, judged before and after.

    Attributes
    ----------
    before, after : Judged
        The same pairs, in the same order, each with a true box of the class.
    num_without : int
        Pairs without a true box, which nobody can judge.
    """

    before: Judged
    after: Judged
    num_without: int = 0

    @property
    def change_M(self) -> Array:
        """What the IoU with the nearest true box rose by, in [-1, 1]; no box is an IoU of 0."""
        change_M: Array = np.nan_to_num(self.after.iou_M) - np.nan_to_num(self.before.iou_M)
        return change_M

    @property
    def outcome_M(self) -> Array:
        """1 mended (the IoU rose to .5 or more), -1 spoilt (it fell below), 0 unchanged."""
        now_M, then_M = (_is_right(one).astype(np.int64) for one in (self.after, self.before))
        outcome_M: Array = now_M - then_M
        return outcome_M


def _is_right(judged: Judged) -> Array:
    right_M: Array = np.nan_to_num(judged.iou_M) >= HIT_IOU
    return right_M


def judge_both(after: Store, before: Store, truth: Store) -> Mended:
    """Judge every pair that both stores are judged by.

    Raises
    ------
    ProtocolError
        A store does not belong to the truth, that has no boxes, or no pair is in both.
    """
    if "box" not in truth:
        raise ProtocolError(
            f"{truth.path.name}: has no true boxes, so nobody knows what was mended. Ingest them "
            "(ingest folder --boxes …) or pass --truth."
        )
    now, then = judge(after, truth), judge(before, truth)
    num_classes = len(truth.class_names())
    one_M, two_M = (one.truth_row_M * num_classes + one.class_M for one in (now, then))
    _, now_M, then_M = np.intersect1d(one_M, two_M, assume_unique=True, return_indices=True)
    # The whole image has an IoU above 0 with every true box, so 0 means that there is none.
    known_M = now.prior_MF[now_M, -1] > 0
    if not known_M.any():
        raise ProtocolError(
            f"{after.path.name} and {before.path.name}: no image that both hold has a true box of "
            "its class. Give boxes or maps of the same images."
        )
    return Mended(then.take(then_M[known_M]), now.take(now_M[known_M]), int((~known_M).sum()))


def mended_cases(
    found: Mended, shown: Shown, chosen: Array, report: Reporter
) -> Iterator[tuple[int, Case]]:
    """Yield a picture with both boxes for each chosen pair, the heat that of the store after."""
    outcome_M = found.outcome_M
    for index, case in shown.numbered(found.after, chosen, report):
        old_4 = found.before.box_M4[index]
        ious = (found.before.iou_M[index], found.after.iou_M[index])
        words = " → ".join(map(_told, ious))
        css, sign = {1: ("hit", "✓ "), -1: ("miss", "✗ "), 0: ("none", "")}[int(outcome_M[index])]
        yield (
            index,
            replace(
                case,
                former_box_B4=np.zeros((0, 4)) if np.isnan(old_4).any() else old_4[None],
                iou=None,
                verdict=(css, sign + words),
            ),
        )


def _told(iou: float) -> str:
    """Return an IoU in words that agree with whether it is right."""
    if np.isnan(iou):
        return "no box"
    return f"<{HIT_IOU:.2f}" if HIT_IOU - 0.005 <= iou < HIT_IOU else f"{iou:.2f}"


def mended_sections(truth: Store, found: Mended, num: int, samples: int) -> list[Section]:
    """Return the page: the most mended, the most spoilt, and the counts of each class."""
    outcome_M, change_M = found.outcome_M, found.change_M
    # Shares in [0, 1], so that one class does not fill a list: see `select_cases`.
    share_M, class_M = (1 + change_M) / 2, found.after.class_M
    parts = []
    for outcome, anchor, name, lead in (
        (1, "mended", "Mended", "Wrong before and right now; the largest rise of the IoU first."),
        (-1, "spoilt", "Spoilt", "Right before and wrong now; the largest fall of the IoU first."),
    ):
        here = np.flatnonzero(outcome_M == outcome)
        places = select_cases(share_M[here], class_M[here], num, best=outcome > 0)
        parts.append(Section(anchor, name, lead, [CaseRow("", "", here[places].tolist())]))
    lead = "Most mended first; of each class what changed most, for the better and the worse."
    rows = _class_rows(truth.class_names(), found, samples)
    return [*parts, Section("classes", "Classes", lead, rows)]


def _class_rows(names: list[str], found: Mended, samples: int) -> list[CaseRow]:
    """Return the counts of every class, the first ones with cases."""
    outcome_M, change_M, class_M = found.outcome_M, found.change_M, found.after.class_M
    classes = np.unique(class_M).tolist()
    classes.sort(key=lambda k: -int(outcome_M[class_M == k].sum()))
    rows = []
    for place, k in enumerate(classes):
        changed = np.flatnonzero((class_M == k) & (change_M != 0))
        chosen = sample_class((1 + change_M[changed]) / 2, samples)[::-1]
        numbers = changed[chosen].tolist() if place < NUM_CLASSES else []
        rows.append(CaseRow(names[k], _counts(outcome_M[class_M == k]), numbers, stays=True))
    return rows


def _counts(outcome_M: Array) -> str:
    mended, spoilt = int((outcome_M > 0).sum()), int((outcome_M < 0).sum())
    return f"{mended} mended, {spoilt} spoilt, {len(outcome_M) - mended - spoilt} unchanged"


def write_mended(about: Page, shown: Shown, before: Store) -> Path:
    """Write the page of what was mended and what was spoilt."""
    after = shown.store
    found = judge_both(after, before, shown.truth)
    sections = mended_sections(shown.truth, found, about.num, about.samples)
    chosen = np.unique([m for part in sections for row in part.rows for m in row.numbers])
    right_M, was_M = _is_right(found.after), _is_right(found.before)
    facts = [
        ("images and classes", str(len(found.change_M))),
        ("mended", str(int((right_M & ~was_M).sum()))),
        ("spoilt", str(int((was_M & ~right_M).sum()))),
        ("right in both", str(int((right_M & was_M).sum()))),
        ("wrong in both", str(int((~right_M & ~was_M).sum()))),
        ("IoU changed", str(int((found.change_M != 0).sum()))),
    ]
    if found.num_without:
        facts.append(("without a true box", f"{found.num_without}, not counted"))
    return write_comparison(
        about.folder,
        mended_cases(found, shown, chosen.astype(np.int64), about.report),
        title=f"{before.path.stem} → {after.path.stem}: what was mended, what was spoilt?",
        facts=facts,
        sections=sections,
        marks=[("contour", "threshold")] if shown.maps is not None else [],
        starts_bare=True,
        provenance=provenance_of([after, before], about.folder),
        overwrite=about.overwrite,
        identity=about.identity_of(shown),
    )
