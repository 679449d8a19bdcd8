"""Stage ``view``: a gallery of maps, predicted and true boxes, to look at."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsltool.errors import LineageError, StoreKindError, UsageError
from wsltool.metrics.baselines import CENTRED_FRACTIONS
from wsltool.stages.judged import Judged, Shown, judge
from wsltool.stages.options import PathLike, check_range
from wsltool.stages.pictures import Pictures
from wsltool.stages.report import Reporter
from wsltool.stages.run import open_input, rebased
from wsltool.stages.side_by_side import (
    distance_cases,
    distance_sections,
    distances,
    map_label,
    panel_cases,
    panel_sections,
)
from wsltool.stores.lineage import find_ancestor, fingerprint_store
from wsltool.stores.open import open_store
from wsltool.stores.store import Store
from wsltool.views.comparison import write_comparison
from wsltool.views.gallery import Bar, ClassRow, gallery_identity, write_gallery
from wsltool.views.selection import shown_cases

__all__ = ["view"]

Array = np.ndarray[Any, Any]

_HIT_IOU = 0.5


def view(
    input: PathLike,
    *,
    over: Sequence[PathLike] = (),
    compare: PathLike | None = None,
    truth: PathLike | None = None,
    images: PathLike | None = None,
    num: int = 12,
    samples: int = 4,
    output: PathLike | None = None,
    overwrite: bool = False,
    report: Reporter | None = None,
) -> Path:
    """Write a gallery: the worst cases, the best, and some of each class.

    A case is an image and a class that is present in it; it is judged by the IoU of the
    first predicted box of the class with the nearest true box of the class. Images without
    a prediction count as missed and are not drawn.

    Parameters
    ----------
    input : path
        A ``boxes`` store, or a ``maps`` store, whose boxes are then drawn at 20 % of the
        maximum.
    over : sequence of paths, optional
        Further ``maps`` stores of the same images, such as those of a model's checkpoints
        (Oquab et al. 2015, figure 1): each case shows the maps of all stores in the order
        given, their maxima marked.
    compare : path, optional
        Another ``maps`` store: each case shows the maxima of both on one picture (Kim et
        al. 2017, figure 4); the farthest, those around the median, the nearest, and some of
        each class.
    truth : path, optional
        The ``images`` store; by default the one that `input` was made from.
    images : path, optional
        Folder of the pictures, if not where `ingest` found them.
    num, samples : int
        Cases among the worst and the best (the farthest, the middle, the nearest), and of
        each class.
    output : path, optional
        The folder to write, by default INPUT's stem and ``view`` (``over``, ``compare``)
        beside it.
    overwrite : bool
        Replace a gallery of something else there.
    report : Reporter, optional
        Who hears of warnings.

    Returns
    -------
    Path
        The page, ``index.html``.

    Raises
    ------
    UsageError
        A number is out of its range, or `over` and `compare` are both given.
    StoreKindError
        An input is of another kind.
    StoreExistsError
        Something else stands at the output's place.
    LineageError
        The images are not where they were.
    ProtocolError
        The stores are of other images or classes.
    """
    report = report or Reporter()
    check_range("--num", num, 0, 1000, whole=True)
    check_range("--samples", samples, 0, 1000, whole=True)
    if isinstance(over, (str, os.PathLike)):
        raise UsageError(f"--over must be a sequence of paths, got {over!r}.")
    if over and compare:
        raise UsageError("--over and --compare are both given; expected one of them.")
    with ExitStack() as stack:
        store = stack.enter_context(open_store(Path(input)))
        others = [
            stack.enter_context(open_input(path, "maps", "view"))
            for path in (*over, *([compare] if compare else []))
        ]
        _check_kind(store, maps_alone=bool(others))
        true = open_store(Path(truth)) if truth else find_ancestor(store, "images", "--truth")
        stack.enter_context(true)
        word = "compare" if compare else "over" if over else "view"
        folder = Path(output) if output else store.path.with_name(f"{store.path.stem}.{word}")
        identity = _identity([store, true, *others], word, num, samples)
        page = folder / "index.html"
        known = gallery_identity(folder)
        overwrite = overwrite or known == ""
        if overwrite or known != identity:
            maps = _maps_behind(store)
            if maps is not None:
                stack.enter_context(maps)
            pictures = Pictures(true, None if images is None else Path(images))
            shown = Shown(store, true, maps, pictures)
            about = _Page(folder, num, samples, identity, overwrite, report)
            if compare:
                page = _write_compared(about, shown, others[0])
            elif over:
                page = _write_over(about, shown, [store, *others])
            else:
                page = _write(about, shown)
            report.skipped(shown.num_left_out)
        report.announce(page)
        return page


def _check_kind(store: Store, *, maps_alone: bool) -> None:
    if maps_alone:
        store.require("maps", "view --over or --compare", "Give the maps behind it.")
    elif store.kind not in ("boxes", "maps"):
        raise StoreKindError(
            f'{store.path.name}: kind is "{store.kind}", but view reads "boxes" or "maps". '
            "Run first: wsltool cam … | wsltool boxes"
        )


@dataclass(frozen=True)
class _Page:
    """Where a page goes, and how many cases it shows."""

    folder: Path
    num: int
    samples: int
    identity: str
    overwrite: bool
    report: Reporter

    def identity_of(self, shown: Shown) -> Callable[[], str]:
        """Return what tells the identity once all is drawn: "" where pictures were left out."""
        return lambda: "" if shown.num_left_out else self.identity


def _write(about: _Page, shown: Shown) -> Path:
    """Judge every pair, and write the gallery of the chosen ones."""
    store, judged = shown.store, judge(shown.store, shown.truth)
    return write_gallery(
        about.folder,
        shown.cases(judged, _chosen(judged, about), about.report),
        title=f"{store.path.name}: is what is there found?",
        bars=_bars(judged),
        facts=_facts(store, judged),
        classes=_class_rows(shown.truth, judged),
        provenance=_provenance(store, about.folder),
        hit_iou_frac=_HIT_IOU,
        num_extreme=about.num,
        num_samples=about.samples,
        overwrite=about.overwrite,
        identity=about.identity_of(shown),
    )


def _chosen(judged: Judged, about: _Page) -> Array:
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


def _write_over(about: _Page, shown: Shown, stores: Sequence[Store]) -> Path:
    """Write the maps of several stores side by side, of the cases that the first one chooses."""
    judged = judge(shown.store, shown.truth)
    chosen = _chosen(judged, about)
    names = [store.path.stem for store in stores]
    names = names if len(names) < 5 else [names[0], f"{len(names) - 1} other stores"]
    return write_comparison(
        about.folder,
        panel_cases(stores, shown, judged, chosen, about.report),
        title=f"{', '.join(names[:-1])} and {names[-1]}, side by side",
        facts=[
            ("images", str(len(np.unique(judged.truth_row_M)))),
            ("images and classes", str(len(judged.class_M))),
            ("stores", str(len(stores))),
        ],
        sections=panel_sections(shown.truth, judged, chosen, about.num, about.samples),
        marks=[("first", "maximum")],
        provenance=_provenance_of(stores, about.folder),
        overwrite=about.overwrite,
        identity=about.identity_of(shown),
    )


def _write_compared(about: _Page, shown: Shown, other: Store) -> Path:
    """Write the maxima of two stores on one picture each."""
    first, found = shown.store, distances(shown.store, other, shown.truth)
    sections = distance_sections(shown.truth, found, about.num, about.samples)
    chosen = np.unique([m for part in sections for row in part.rows for m in row.numbers])
    facts = [
        ("images and classes", str(len(found.px_M))),
        ("mean distance", f"{found.px_M.mean():.1f} px"),
        ("median", f"{np.median(found.px_M):.1f} px"),
    ]
    if found.num_without:
        facts.append(("without a map in both", f"{found.num_without}, not counted"))
    return write_comparison(
        about.folder,
        distance_cases(found, shown, chosen.astype(np.int64), about.report),
        title=f"{first.path.stem} and {other.path.stem}: how far apart are their maxima?",
        facts=facts,
        sections=sections,
        marks=[("first", map_label(first)), ("other", map_label(other))],
        provenance=_provenance_of([first, other], about.folder),
        overwrite=about.overwrite,
        identity=about.identity_of(shown),
    )


def _maps_behind(store: Store) -> Store | None:
    """Return the maps that are drawn over the pictures, if they are still there."""
    try:
        return find_ancestor(store, "maps", "INPUT")
    except LineageError:
        return None


def _identity(stores: Sequence[Store], word: str, num: int, samples: int) -> str:
    """Return what a gallery was made from, to know the same one again."""
    prints = [fingerprint_store(one, one.path.parent) for one in stores]
    known = [one.get("id") or one.get("digest") for one in prints]
    return hashlib.sha256(json.dumps([*known, word, num, samples]).encode()).hexdigest()


def _bars(judged: Judged) -> list[Bar]:
    """Return the share of pairs with IoU >= .5, beside the whole image and the best centred box."""
    if not judged.has_boxes or not len(judged.iou_M):
        return []
    prior_F = (judged.prior_MF >= _HIT_IOU).mean(axis=0)
    best = int(prior_F.argmax())
    hits = float((np.nan_to_num(judged.iou_M) >= _HIT_IOU).mean())
    return [
        Bar("boxes", hits),
        Bar("whole image", float(prior_F[-1]), baseline=True),
        Bar(f"centred box, {CENTRED_FRACTIONS[best]:g}", float(prior_F[best]), baseline=True),
    ]


def _facts(store: Store, judged: Judged) -> list[tuple[str, str]]:
    found = f"share with IoU ≥ {_HIT_IOU:g}, class given"
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
            hits = float((iou >= _HIT_IOU).mean())
            rows.append(ClassRow(name, len(iou), float(iou.mean()), hits))
        elif len(iou):
            rows.append(ClassRow(name, len(iou)))
    return rows


def _provenance(store: Store, folder: Path) -> list[tuple[str, str]]:
    meta = store.meta
    found = [("store", rebased(store.path.name, store.path.parent, folder.parent))]
    found.append(("made by", f"wsltool {meta.get('stage', '?')} {meta.get('version', '')}".strip()))
    found += [("--" + k.replace("_", "-"), str(v)) for k, v in meta.get("params", {}).items()]
    for role, record in meta.get("inputs", {}).items():
        found.append((f"from {role}", str(record.get("path", ""))))
    found.append(("digest", str(meta.get("digest", "?"))))
    return found


def _provenance_of(stores: Sequence[Store], folder: Path) -> list[tuple[str, str]]:
    return [pair for store in stores for pair in _provenance(store, folder)]
