"""Stage ``view``: a gallery of maps, predicted and true boxes, to look at."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from wsltool.errors import LineageError, StoreKindError
from wsltool.metrics.baselines import CENTRED_FRACTIONS
from wsltool.stages.judged import Judged, Shown, judge
from wsltool.stages.options import PathLike, check_range
from wsltool.stages.pictures import Pictures
from wsltool.stages.report import Reporter
from wsltool.stages.run import rebased
from wsltool.stores.lineage import find_ancestor, fingerprint_store
from wsltool.stores.open import open_store
from wsltool.stores.store import Store
from wsltool.views.gallery import Bar, ClassRow, gallery_identity, write_gallery
from wsltool.views.selection import shown_cases

__all__ = ["view"]

Array = np.ndarray[Any, Any]

_HIT_IOU = 0.5


def view(
    input: PathLike,
    *,
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
    truth : path, optional
        The ``images`` store; by default the one that `input` was made from.
    images : path, optional
        Folder of the pictures, if not where `ingest` found them.
    num, samples : int
        Cases among the worst and the best, and of each class.
    output : path, optional
        The folder to write, by default INPUT's stem and ``view`` beside it.
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
    StoreExistsError
        Something else stands at the output's place.
    LineageError
        The images are not where they were.
    """
    report = report or Reporter()
    check_range("--num", num, 0, 1000, whole=True)
    check_range("--samples", samples, 0, 1000, whole=True)
    with ExitStack() as stack:
        store = stack.enter_context(open_store(Path(input)))
        if store.kind not in ("boxes", "maps"):
            raise StoreKindError(
                f'{store.path.name}: kind is "{store.kind}", but view reads "boxes" or "maps". '
                "Run first: wsltool cam … | wsltool boxes"
            )
        true = open_store(Path(truth)) if truth else find_ancestor(store, "images", "--truth")
        stack.enter_context(true)
        folder = Path(output) if output else store.path.with_name(f"{store.path.stem}.view")
        identity = _identity(store, true, num, samples)
        page = folder / "index.html"
        known = gallery_identity(folder)
        overwrite = overwrite or known == ""
        if overwrite or known != identity:
            maps = _maps_behind(store)
            if maps is not None:
                stack.enter_context(maps)
            shown = Shown(
                store, true, maps, Pictures(true, None if images is None else Path(images))
            )
            page = _write(folder, shown, num, samples, identity, report, overwrite=overwrite)
        report.announce(page)
        return page


def _write(
    folder: Path,
    shown: Shown,
    num: int,
    samples: int,
    identity: str,
    report: Reporter,
    *,
    overwrite: bool,
) -> Path:
    """Judge every pair, and write the gallery of the chosen ones."""
    store, judged = shown.store, judge(shown.store, shown.truth)
    here = np.flatnonzero(judged.row_M >= 0)
    chosen = here[
        shown_cases(judged.iou_M[here], judged.class_M[here], num_extreme=num, num_samples=samples)
    ]
    page = write_gallery(
        folder,
        shown.cases(judged, chosen, report),
        title=f"{store.path.name}: is what is there found?",
        bars=_bars(judged),
        facts=_facts(store, judged),
        classes=_class_rows(shown.truth, judged),
        provenance=_provenance(store, folder),
        hit_iou_frac=_HIT_IOU,
        num_extreme=num,
        num_samples=samples,
        overwrite=overwrite,
        identity=lambda: "" if shown.num_left_out else identity,  # "": not finished
    )
    report.skipped(shown.num_left_out)
    return page


def _maps_behind(store: Store) -> Store | None:
    """Return the maps that are drawn over the pictures, if they are still there."""
    try:
        return find_ancestor(store, "maps", "INPUT")
    except LineageError:
        return None


def _identity(store: Store, true: Store, num: int, samples: int) -> str:
    """Return what a gallery was made from, to know the same one again."""
    prints = [fingerprint_store(one, one.path.parent) for one in (store, true)]
    known = [one.get("id") or one.get("digest") for one in prints]
    return hashlib.sha256(json.dumps([*known, num, samples]).encode()).hexdigest()


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
    threshold = store.meta.get("params", {}).get("threshold")
    if threshold is not None:
        facts.append(("threshold", str(threshold)))
    return facts


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
