"""What ``view --over`` and ``view --compare`` show: maps of several stores of the same images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsltool.errors import ProtocolError
from wsltool.stages.judged import Judged, Shown, judge
from wsltool.stages.map_rows import MapRow, map_rows, row_named
from wsltool.stages.model_behind import iteration_behind
from wsltool.stages.report import Reporter
from wsltool.stages.scored import join_images
from wsltool.stages.scored_records import truths
from wsltool.stages.view_found import chosen_pairs
from wsltool.stages.view_page import Page, provenance_of
from wsltool.stores.store import Store
from wsltool.views.comparison import CaseRow, Section, write_comparison
from wsltool.views.gallery import Case
from wsltool.views.overlay import PeakMark
from wsltool.views.selection import NUM_CLASSES, sample_class, select_cases

__all__ = [
    "Distances",
    "distance_cases",
    "distance_sections",
    "distances",
    "map_label",
    "panel_cases",
    "panel_sections",
    "write_compared",
    "write_over",
]

Array = np.ndarray[Any, Any]


def map_label(store: Store) -> str:
    """Return the name of a maps store, with its model's training iteration where it is known."""
    iteration = iteration_behind(store)
    return store.path.stem + ("" if iteration is None else f" · iteration {iteration:,}")


def _row_of(store: Store, truth: Store) -> dict[int, int]:
    """Return the row in a store of each row of the truth that it has."""
    images = join_images(store, truth, given=store, without_skipped=True)
    pairs = zip(images.truth_row_N.tolist(), images.row_N.tolist(), strict=True)
    return {true: row for true, row in pairs if row >= 0}


def _maps_at(store: Store, row: int | None) -> MapRow | None:
    return None if row is None else next(map_rows(store, row, row + 1))


# ---------------------------------------------------------------- panels of several stores


def panel_cases(
    stores: Sequence[Store], shown: Shown, judged: Judged, chosen: Array, report: Reporter
) -> Iterator[tuple[int, Case]]:
    """Yield for each chosen pair a panel of every store, in the order of the stores."""
    names, labels = shown.truth.class_names(), [map_label(store) for store in stores]
    rows = [_row_of(store, shown.truth) for store in stores]
    for index, image_id, picture in shown.readable(judged.truth_row_M, chosen, report):
        true_row, class_index = int(judged.truth_row_M[index]), int(judged.class_M[index])
        true_box_B4 = shown.true_boxes(true_row, class_index)
        for store, label, row_of in zip(stores, labels, rows, strict=True):
            heat, peak, score = _panel(store, row_of.get(true_row), class_index)
            yield (
                index,
                Case(
                    image_id=image_id,
                    class_name=names[class_index],
                    picture_HWC=picture,
                    heat_HW=heat,
                    true_box_B4=true_box_B4,
                    class_score=score,
                    peaks=() if peak is None else (peak,),
                    caption=label,
                    verdict=_peak_verdict(peak, true_box_B4),
                ),
            )


def _panel(
    store: Store, row: int | None, class_index: int
) -> tuple[Array | None, PeakMark | None, float | None]:
    """Return heat, its maximum and the class's score; None without a map."""
    maps = _maps_at(store, row)
    slot = None if maps is None else maps.slot_of(class_index)
    if maps is None or row is None or slot is None:
        return None, None, None
    with row_named(store, row):
        heat, peak = maps.heat(slot), PeakMark(*maps.peak(slot))
    return heat, peak, float(store.rows("map_score", row, row + 1)[0, slot])


def _peak_verdict(peak: PeakMark | None, box_B4: Array | None) -> tuple[str, str]:
    """Return whether a maximum lies in a true box, ``x0 <= x < x1``, as class and words."""
    if peak is None:
        return "none", "no map"
    if box_B4 is None or not len(box_B4):
        return "none", ""
    return ("hit", "✓ inside") if _is_inside(peak, box_B4) else ("miss", "✗ outside")


def _is_inside(peak: PeakMark, box_B4: Array) -> bool:
    point = np.array([peak.x_px, peak.y_px])
    return bool(((box_B4[:, :2] <= point) & (point < box_B4[:, 2:])).all(axis=1).any())


def panel_sections(
    truth: Store,
    judged: Judged,
    here: Array,
    num: int,
    samples: int,
    *,
    whose: str = "the first store's box",
    legend: str = "✓ marks a maximum inside a true box of the class.",
) -> list[Section]:
    """Return the page of the pairs `here`: the worst, the best, some of each class.

    `whose` box they are judged by, and a `legend`, are told on top.
    """
    names, iou_M, class_M = truth.class_names(), judged.iou_M[here], judged.class_M[here]
    ids = truth.whole("image_id")

    def rows(places: Array) -> list[CaseRow]:
        numbers = here[places].tolist()
        return [
            CaseRow(names[judged.class_M[m]], str(ids[judged.truth_row_M[m]]), [m]) for m in numbers
        ]

    by_class = _samples(np.nan_to_num(iou_M), class_M, samples)
    judged_by = f"by the IoU of {whose} with a true box"
    best = select_cases(iou_M, class_M, num, best=True)
    return [
        Section(
            "worst",
            "Worst cases",
            f"Worst first, {judged_by}. {legend}",
            rows(select_cases(iou_M, class_M, num)),
        ),
        Section("best", "Best cases", f"Best first, {judged_by}.", rows(best)),
        Section(
            "classes",
            "Classes",
            "Of each class its worst and best cases.",
            [row for place_S in by_class.values() for row in rows(place_S)],
        ),
    ]


def _samples(value_M: Array, class_M: Array, samples: int) -> dict[int, Array]:
    """Return for each class the places of its lowest and highest values, lowest mean first."""
    classes = np.unique(class_M).tolist()
    classes.sort(key=lambda k: float(value_M[class_M == k].mean()))
    return {
        k: np.flatnonzero(class_M == k)[sample_class(value_M[class_M == k], samples)]
        for k in classes[:NUM_CLASSES]
    }


# ---------------------------------------------------------------- maxima of two stores


@dataclass(frozen=True)
class Distances:
    """M pairs of an image and a class that is present, of which both stores have a map.

    Attributes
    ----------
    truth_row_M, class_M : int64 ndarrays
        The image, a row of the truth, and the class.
    first_M2, other_M2 : float64 ndarrays
        Centre x, y of each map's hottest pixel, in pixels.
    num_without : int
        Pairs of which a store has no map.
    """

    truth_row_M: Array
    class_M: Array
    first_M2: Array
    other_M2: Array
    num_without: int

    @property
    def px_M(self) -> Array:
        """Euclidean distances, in pixels (Kim et al. 2017, section 6.2)."""
        distance_M: Array = np.hypot(*(self.first_M2 - self.other_M2).T)
        return distance_M


def distances(first: Store, other: Store, truth: Store) -> Distances:
    """Find the maxima of both stores for every class present in every image of `first`.

    Raises
    ------
    ProtocolError
        The stores do not belong together, or have no map of the same image and class.
    StoreCorruptError
        A map is not finite.
    """
    both = ((first, _row_of(first, truth)), (other, _row_of(other, truth)))
    images = join_images(first, truth, given=first, without_skipped=True)
    found, num_without = [], 0
    for true in truths(truth, images):
        for row, label_K in zip(true.row_N.tolist(), true.label_NK, strict=True):
            classes = np.flatnonzero(label_K == 1).tolist()
            one, two = (_peaks(store, row_of.get(row), classes) for store, row_of in both)
            pairs = [(row, k, one[k], two[k]) for k in classes if k in one and k in two]
            num_without += len(classes) - len(pairs)
            found += pairs
    if not found:
        raise ProtocolError(
            f"{first.path.name} and {other.path.name}: no image has a map of the same class "
            "present in both. Give maps of the same images, made with cam --classes present or "
            "all."
        )
    row_M, class_M, first_M2, other_M2 = (np.array(part) for part in zip(*found, strict=True))
    return Distances(row_M, class_M, first_M2, other_M2, num_without)


def _peaks(store: Store, row: int | None, classes: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Return the maximum of each class that has a map."""
    maps = _maps_at(store, row)
    if maps is None or row is None:
        return {}
    slots = {k: maps.slot_of(k) for k in classes}
    with row_named(store, row):
        return {k: maps.peak(slot) for k, slot in slots.items() if slot is not None}


def distance_cases(
    found: Distances, shown: Shown, chosen: Array, report: Reporter
) -> Iterator[tuple[int, Case]]:
    """Yield a picture with both maxima for each chosen pair."""
    names, px_M = shown.truth.class_names(), found.px_M
    for index, image_id, picture in shown.readable(found.truth_row_M, chosen, report):
        class_index = int(found.class_M[index])
        first, other = found.first_M2[index].tolist(), found.other_M2[index].tolist()
        yield (
            index,
            Case(
                image_id=image_id,
                class_name=names[class_index],
                picture_HWC=picture,
                true_box_B4=shown.true_boxes(int(found.truth_row_M[index]), class_index),
                peaks=(PeakMark(first[0], first[1]), PeakMark(other[0], other[1], "other")),
                verdict=("none", f"{px_M[index]:.0f} px"),
            ),
        )


def distance_sections(truth: Store, found: Distances, num: int, samples: int) -> list[Section]:
    """Return the page: the farthest pairs of maxima, the middle, the nearest, each class."""
    px_M, names = found.px_M, truth.class_names()
    order_M = np.argsort(px_M, kind="stable")
    start = max(0, (len(order_M) - num) // 2)
    parts = (
        ("farthest", "Farthest apart", "Largest distance first.", order_M[::-1][:num]),
        ("median", "Around the median", "Smaller distances first.", order_M[start : start + num]),
        ("nearest", "Nearest", "Smallest distance first.", order_M[:num]),
    )
    by_class = _samples(-px_M, found.class_M, samples)
    rows = [
        CaseRow(names[k], _class_words(px_M[found.class_M == k]), place_S.tolist())
        for k, place_S in by_class.items()
    ]
    lead = "Largest mean distance first; of each class its farthest and nearest cases."
    return [
        *(Section(a, name, text, [CaseRow("", "", m.tolist())]) for a, name, text, m in parts),
        Section("classes", "Classes", lead, rows),
    ]


def _class_words(px_M: Array) -> str:
    return f"{len(px_M)} case{'s'[: len(px_M) != 1]}, {px_M.mean():.0f} px on average"


# ---------------------------------------------------------------- pages


def write_over(about: Page, shown: Shown, stores: Sequence[Store]) -> Path:
    """Write the maps of several stores side by side, of the cases that the first one chooses."""
    judged = judge(shown.store, shown.truth)
    chosen = chosen_pairs(judged, about)
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
        provenance=provenance_of(stores, about.folder),
        overwrite=about.overwrite,
        identity=about.identity_of(shown),
    )


def write_compared(about: Page, shown: Shown, other: Store) -> Path:
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
        provenance=provenance_of([first, other], about.folder),
        overwrite=about.overwrite,
        identity=about.identity_of(shown),
    )
