"""Stage ``view``: a gallery of maps, predicted and true boxes, to look at."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wsltool.errors import BadImageError, LineageError, StoreKindError
from wsltool.localize.boxes import boxes_from_heat, heat_level
from wsltool.localize.priors import centred_box
from wsltool.metrics.baselines import CENTRED_FRACTIONS
from wsltool.metrics.iou import iou_matrix
from wsltool.stages.map_rows import MapRow, map_rows
from wsltool.stages.options import PathLike, check_range
from wsltool.stages.pictures import Pictures
from wsltool.stages.report import Reporter
from wsltool.stages.run import rebased
from wsltool.stores.lineage import find_ancestor, fingerprint_store
from wsltool.stores.open import open_store
from wsltool.stores.store import Store
from wsltool.views.gallery import Bar, Case, ClassRow, gallery_identity, write_gallery
from wsltool.views.selection import shown_cases

__all__ = ["view"]

Array = np.ndarray[Any, Any]

_BLOCK_ROWS = 256
_HIT_IOU = 0.5
_DEFAULT_THRESHOLD = 0.2


@dataclass
class _Pairs:
    """Every pair of an image and a class present in it.

    row_M, class_M say which; iou_M is the best IoU of the class's first box with its true
    boxes, NaN without one; prior_MF the same of centred boxes, by fraction.
    """

    row_M: list[int] = field(default_factory=list)
    class_M: list[int] = field(default_factory=list)
    iou_M: list[float] = field(default_factory=list)
    prior_MF: list[Array] = field(default_factory=list)


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
    first predicted box of the class with the nearest true box of the class.

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
    check_range("--num", num, 0, 1000)
    check_range("--samples", samples, 0, 1000)
    with ExitStack() as stack:
        store = stack.enter_context(open_store(Path(input)))
        if store.kind not in ("boxes", "maps"):
            raise StoreKindError(
                f'{store.path.name}: kind is "{store.kind}", but view reads "boxes" or "maps". '
                "Run first: wsltool cam … | wsltool boxes"
            )
        true = open_store(Path(truth)) if truth else find_ancestor(store, "images", "--truth")
        stack.enter_context(true)
        maps = _maps_behind(store)
        folder = Path(output) if output else store.path.with_name(f"{store.path.stem}.view")
        identity = _identity(store, true, num, samples)
        if not overwrite and gallery_identity(folder) == identity:
            report.announce(folder / "index.html")
            return folder / "index.html"
        pairs = _judge(store, true)
        iou_M, class_M = np.array(pairs.iou_M), np.array(pairs.class_M, np.int64)
        rows_of = _row_of(store, true)
        pictures = Pictures(true, None if images is None else Path(images))
        shown = shown_cases(iou_M, class_M, num_extreme=num, num_samples=samples)
        page = write_gallery(
            folder,
            _cases(store, true, maps, pairs, shown, rows_of, pictures, report),
            title=_title(store),
            bars=_bars(pairs),
            facts=_facts(store, pairs),
            classes=_class_rows(true, iou_M, class_M),
            provenance=_provenance(store, folder),
            hit_iou_frac=_HIT_IOU,
            num_extreme=num,
            num_samples=samples,
            overwrite=overwrite,
            identity=identity,
        )
        report.announce(page)
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


def _row_of(store: Store, true: Store) -> dict[int, int]:
    """Return the row in `store` of each row of the truth that it holds."""
    where = {name: row for row, name in enumerate(store.whole("image_id").tolist())}
    ids = true.whole("image_id").tolist()
    return {row: where[name] for row, name in enumerate(ids) if name in where}


def _first_boxes(store: Store, start: int, stop: int) -> Iterator[dict[int, Array]]:
    """Yield for each image the first predicted box of every class, float64 (4,)."""
    if store.kind == "maps":
        for maps_of_image in map_rows(store, start, stop):
            yield {} if maps_of_image is None else _drawn(maps_of_image)
        return
    found = store.ragged_rows("box", start, stop)
    edge = np.concatenate([[0], np.cumsum(found["box_start"])])
    for low, high in itertools.pairwise(edge):
        first: dict[int, Array] = {}
        for box, class_index in zip(
            found["box"][low:high], found["box_class"][low:high], strict=True
        ):
            first.setdefault(int(class_index), box)
        yield first


def _drawn(maps_of_image: MapRow) -> dict[int, Array]:
    """Return a box for each map, at the default threshold."""
    first = {}
    for slot in maps_of_image.slots():
        found = boxes_from_heat(maps_of_image.heat(slot), threshold=_DEFAULT_THRESHOLD)
        if len(found):
            first[int(maps_of_image.class_S[slot])] = found.box_xyxy_B4[0]
    return first


def _judge(store: Store, true: Store) -> _Pairs:
    """Judge every pair of an image and a class present in it."""
    pairs = _Pairs()
    true_row = {row: n for n, row in _row_of(store, true).items()}
    for start in range(0, len(store), _BLOCK_ROWS):
        stop = min(len(store), start + _BLOCK_ROWS)
        for row, first in enumerate(_first_boxes(store, start, stop), start):
            if row in true_row:
                _judge_image(pairs, true, true_row[row], first)
    return pairs


def _judge_image(pairs: _Pairs, true: Store, row: int, first: dict[int, Array]) -> None:
    label_K = true.rows("label", row, row + 1)[0]
    size_wh = true.rows("image_size", row, row + 1)[0]
    boxes = _true_boxes(true, row)
    prior_F4 = np.array([centred_box(size_wh, f) for f in CENTRED_FRACTIONS]).reshape(-1, 4)
    for class_index in np.flatnonzero(label_K == 1):
        box_B4 = boxes.get(int(class_index), np.zeros((0, 4)))
        predicted = first.get(int(class_index))
        iou = np.nan
        if predicted is not None:
            iou = iou_matrix(predicted[None], box_B4).max(initial=0)
        pairs.row_M.append(row)
        pairs.class_M.append(int(class_index))
        pairs.iou_M.append(float(iou))
        pairs.prior_MF.append(iou_matrix(prior_F4, box_B4).max(axis=1, initial=0))


def _true_boxes(true: Store, row: int) -> dict[int, Array]:
    """Return the true boxes of an image by class."""
    if "box" not in true:
        return {}
    found = true.ragged_rows("box", row, row + 1)
    return {int(k): found["box"][found["box_class"] == k] for k in np.unique(found["box_class"])}


def _cases(
    store: Store,
    true: Store,
    maps: Store | None,
    pairs: _Pairs,
    shown: Array,
    rows_of: dict[int, int],
    pictures: Pictures,
    report: Reporter,
) -> Iterator[Case]:
    """Yield the chosen cases, one at a time; a picture that cannot be read is left out."""
    names = true.class_names()
    maps_row = {} if maps is None else _row_of(maps, true)
    with report.progress("view", len(shown), "pictures") as advance:
        for index in shown:
            row, class_index = pairs.row_M[index], pairs.class_M[index]
            advance(1)
            try:
                picture = pictures(row)
            except BadImageError as error:
                report.warn(f"{true.path.name} row {row}: {error} Left out.")
                continue
            box = next(_first_boxes(store, rows_of[row], rows_of[row] + 1)).get(class_index)
            heat, level, score = _heat(maps, maps_row.get(row), class_index, store)
            yield Case(
                image_id=str(true.rows("image_id", row, row + 1)[0]),
                class_name=names[class_index],
                picture_HWC=picture,
                heat_HW=heat,
                predicted_box_B4=None if box is None else box[None],
                true_box_B4=_true_boxes(true, row).get(class_index),
                iou=pairs.iou_M[index],
                class_score=score,
                note="" if maps is None or heat is not None else "no map of this class",
                contour_level=level,
            )


def _heat(
    maps: Store | None, row: int | None, class_index: int, store: Store
) -> tuple[Array | None, float | None, float | None]:
    """Return the heat of a class in an image, the level of its boxes, and the class's score."""
    if maps is None or row is None:
        return None, None, None
    maps_of_image = next(iter(map_rows(maps, row, row + 1)))
    if maps_of_image is None:
        return None, None, None
    params = store.meta.get("params", {}) if store.kind == "boxes" else {}
    for slot in maps_of_image.slots():
        if maps_of_image.class_S[slot] == class_index:
            heat = maps_of_image.heat(slot)
            threshold = float(params.get("threshold", _DEFAULT_THRESHOLD))
            level = heat_level(heat, threshold, params.get("threshold_of", "max"))
            return heat, level, float(maps.rows("map_score", row, row + 1)[0, slot])
    return None, None, None


def _title(store: Store) -> str:
    return f"{store.path.name}: is what is there found?"


def _bars(pairs: _Pairs) -> list[Bar]:
    """Return the share of pairs with IoU >= .5, beside the whole image and the best centred box."""
    if not pairs.iou_M:
        return []
    prior_F = (np.array(pairs.prior_MF) >= _HIT_IOU).mean(axis=0)
    best = int(prior_F.argmax())
    hits = float((np.nan_to_num(pairs.iou_M) >= _HIT_IOU).mean())
    return [
        Bar("boxes", hits),
        Bar("whole image", float(prior_F[-1]), baseline=True),
        Bar(f"centred box, {CENTRED_FRACTIONS[best]:g}", float(prior_F[best]), baseline=True),
    ]


def _facts(store: Store, pairs: _Pairs) -> list[tuple[str, str]]:
    facts = [
        ("images", str(len(set(pairs.row_M)))),
        ("images and classes", str(len(pairs.row_M))),
        ("found", f"share with IoU ≥ {_HIT_IOU:g}, class given"),
    ]
    limit = store.meta.get("limit")
    if limit:
        facts.append(("rows", f"{limit['num_rows']} of {limit['of']} ({limit['how']})"))
    params = store.meta.get("params", {})
    facts += [
        (name.replace("_", " "), str(params[name])) for name in ("threshold",) if name in params
    ]
    return facts


def _class_rows(true: Store, iou_M: Array, class_M: Array) -> list[ClassRow]:
    rows = []
    for index, name in enumerate(true.class_names()):
        iou = np.nan_to_num(iou_M[class_M == index])
        if len(iou):
            rows.append(
                ClassRow(name, len(iou), float(iou.mean()), float((iou >= _HIT_IOU).mean()))
            )
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
