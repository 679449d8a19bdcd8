"""The threshold that serves named images best, chosen for ``boxes`` before it draws.

A pair is an image and a class present in it that has a true box (difficult and crowd boxes
apart). At every threshold of a grid the largest component of the pair's map gives one box, and
its IoU with the nearest true box of the class says how good it is. A pair without a map counts
as not found.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsltool.errors import ProtocolError, UsageError
from wsltool.localize.thresholds import best_threshold, largest_boxes, threshold_grid
from wsltool.metrics.iou import iou_matrix
from wsltool.stages.map_rows import MapRow, map_rows, row_named
from wsltool.stages.options import PathLike, check_choice, check_range
from wsltool.stages.plan import rows_per_block
from wsltool.stages.report import Reporter
from wsltool.stores.lineage import find_input, fingerprint_store, same_fingerprint
from wsltool.stores.open import open_store
from wsltool.stores.store import Store
from wsltool.stores.wip import WorkInProgress, place_file

__all__ = ["FitObjective", "FitWish", "ThresholdFit", "open_truth", "warn_of_misfit"]

Array = np.ndarray[Any, Any]

FitObjective = Literal["gt-known", "mean-iou"]

_LEAST_PAIRS = 10
_LEAST_IOU = 0.5


@dataclass(frozen=True)
class FitWish:
    """How thresholds are to be chosen.

    Attributes
    ----------
    per : {"one", "class"}
        One threshold, or one a class.
    least_pairs : int
        A class with fewer pairs with a map takes the common threshold.
    objective : {"gt-known", "mean-iou"}
        What is made as high as can be: the share of pairs with an IoU of at least .5, or the
        mean IoU.
    step : float
        Between the thresholds that are tried, 0 to .95.
    """

    per: Literal["one", "class"]
    least_pairs: int
    objective: FitObjective
    step: float

    @classmethod
    def of(cls, per: str, objective: str, step: float) -> FitWish:
        """Check the options.

        Raises
        ------
        UsageError
            An option is out of its range.
        """
        word, colon, least = per.partition(":")
        numbered = word == "class" and least.isdecimal() and int(least) > 0
        if word not in ("one", "class") or (colon and not numbered):
            raise UsageError(
                f'--fit-per must be one, class, or class:N with N above 0, got "{per}".'
            )
        check_choice("--fit-objective", objective, FitObjective)
        check_range("--fit-step", step, 0.001, 0.5, open_high=False)
        return cls(
            "one" if word == "one" else "class",
            int(least) if colon else _LEAST_PAIRS,
            "gt-known" if objective == "gt-known" else "mean-iou",
            step,
        )

    def params(self) -> dict[str, Any]:
        """Return the options as they are recorded."""
        per = self.per if self.per == "one" else f"class:{self.least_pairs}"
        return {"fit_per": per, "fit_objective": self.objective, "fit_step": self.step}


def open_truth(fit: Store, given: PathLike | None) -> Store:
    """Open the true boxes of the images of a maps store: `given`, or what it was made from.

    Raises
    ------
    LineageError
        It is not found; the message names ``--fit-truth``.
    StoreKindError
        `given` holds no images.
    ProtocolError
        It has no boxes, or other classes.
    """
    if given is None:
        truth = find_input(fit, "images", "--fit-truth")
    else:
        truth = open_store(Path(given)).require(
            "images", "boxes --fit-truth", "Give an images store."
        )
    if "box" not in truth or "label" not in truth:
        raise ProtocolError(
            f"{truth.path.name}: has no true boxes, so no threshold can be chosen on it. Give an "
            "images store with boxes as --fit-truth."
        )
    if truth.class_names() != fit.class_names():
        raise ProtocolError(
            f"{fit.path.name} and {truth.path.name} have different classes. Give the images that "
            "these maps were made from as --fit-truth."
        )
    return truth


def warn_of_misfit(maps: Store, num_rows: int, fit: Store, report: Reporter) -> int:
    """Return how many of the images that get boxes the threshold is chosen on; warn of them.

    Warns also where both stores name the model that made them and it is not the same.

    Raises
    ------
    ProtocolError
        The classes differ.
    """
    if maps.class_names() != fit.class_names():
        raise ProtocolError(
            f"{fit.path.name}: its classes are others than those of {maps.path.name}. Choose the "
            "threshold on maps of the same classes."
        )
    models = [store.meta.get("inputs", {}).get("model", {}) for store in (maps, fit)]
    if all(models) and not same_fingerprint(*models):
        report.warn(
            f"--fit-threshold {fit.path.name}: made with another model than {maps.path.name}."
        )
    chosen_on = set(fit.whole("image_id").tolist())
    overlap = len(chosen_on & set(maps.rows("image_id", 0, num_rows).tolist()))
    if overlap:
        report.warn(
            f"--fit-threshold {fit.path.name}: holds {overlap} of the {num_rows} images that get "
            "boxes, so what these score says little about others."
        )
    return overlap


@dataclass(frozen=True)
class ThresholdFit:
    """A threshold, or one a class, chosen on the maps `fit` against the boxes of `truth`.

    Attributes
    ----------
    fit, truth : Store
        Maps, and the images that they were made from.
    wish : FitWish
    drawing : dict
        ``of``, ``connectivity`` and ``empty``, as the boxes will be drawn.
    output : Path
        What the thresholds are for; while it is being made they are kept beside its parts.
    overlap : int
        See `warn_of_misfit`.
    report : Reporter
    """

    fit: Store
    truth: Store
    wish: FitWish
    drawing: dict[str, Any]
    output: Path
    overlap: int
    report: Reporter

    @cached_property
    def record(self) -> dict[str, Any]:
        """What is known of the choice, as plain JSON data; chosen once for all shards.

        ``value`` is the threshold, or a list of those of all classes.
        """
        work = WorkInProgress(self.output)
        if work.plan() is None:
            return self._chosen()
        kept = work.beside_parts("thresholds.json")
        if not kept.exists():
            place_file(kept, json.dumps(self._chosen()).encode())
        found: dict[str, Any] = json.loads(kept.read_bytes())
        return found

    def threshold_K(self) -> Array:
        """Return the threshold of every class, float64 (K,)."""
        num_classes = self.fit.shape("class_name")[0]
        return np.broadcast_to(np.array(self.record["value"], np.float64), num_classes)

    def _chosen(self) -> dict[str, Any]:
        threshold_T = threshold_grid(self.wish.step)
        sums = self._sums(threshold_T)
        objective_T = 100 * sums.value_KT.sum(axis=0) / sums.num_pairs_K.sum()
        common = best_threshold(objective_T)
        best_K = np.full(len(sums.value_KT), common)
        too_few_K = sums.num_maps_K < self.wish.least_pairs
        if self.wish.per == "class":
            for index in np.flatnonzero(~too_few_K).tolist():
                best_K[index] = best_threshold(sums.value_KT[index])
            self._warn_of_few(too_few_K, float(threshold_T[common]))
        reached = np.take_along_axis(sums.value_KT, best_K[:, None], axis=1).sum()
        per_class = threshold_T[best_K].tolist()
        return {
            "source": "fitted",
            "value": per_class if self.wish.per == "class" else float(threshold_T[common]),
            "common": float(threshold_T[common]),
            "per": self.wish.per,
            "num_classes_too_few": int(too_few_K.sum()) if self.wish.per == "class" else 0,
            "objective": self.wish.objective,
            "objective_value": 100 * float(reached) / float(sums.num_pairs_K.sum()),
            "curve": {"threshold": threshold_T.tolist(), "objective": objective_T.tolist()},
            "chosen_on": fingerprint_store(self.fit, self.output.parent)
            | {
                "num_images": len(self.fit),
                "num_pairs": int(sums.num_pairs_K.sum()),
                "num_without_map": int((sums.num_pairs_K - sums.num_maps_K).sum()),
            },
            "overlap": self.overlap,
            "fitted_on_scored": self.overlap > 0,
        }

    def _warn_of_few(self, too_few_K: Array, common: float) -> None:
        num = int(too_few_K.sum())
        if num:
            names = [self.fit.class_names()[index] for index in np.flatnonzero(too_few_K)[:5]]
            self.report.warn(
                f"--fit-threshold {self.fit.path.name}: {num} of {len(too_few_K)} classes have "
                f"fewer than {self.wish.least_pairs} pairs of image and class and take the common "
                f"threshold {common:g}: {', '.join(names)}{', …' if num > len(names) else '.'}"
            )

    def _sums(self, threshold_T: Array) -> _Sums:
        """Return what the pairs of every class add up to, one image after the other.

        Raises
        ------
        ProtocolError
            There is no pair, or none has a map.
        StoreCorruptError
            A map is not finite.
        """
        num_classes = self.fit.shape("class_name")[0]
        sums = _Sums(
            np.zeros((num_classes, len(threshold_T))),
            np.zeros(num_classes, np.int64),
            np.zeros(num_classes, np.int64),
        )
        with self.report.progress("boxes: choosing the threshold", len(self.fit), "images") as tick:
            for row, maps_of_image, true_boxes in self._images():
                tick(1)
                for index, box_B4 in true_boxes.items():
                    sums.num_pairs_K[index] += 1
                    slot = None if maps_of_image is None else maps_of_image.slot_of(index)
                    if maps_of_image is None or slot is None:
                        continue
                    sums.num_maps_K[index] += 1
                    with row_named(self.fit, row):
                        heat_HW = maps_of_image.heat(slot)
                        box_T4 = largest_boxes(heat_HW, threshold_T, **self.drawing)
                    sums.value_KT[index] += self._value(iou_matrix(box_T4, box_B4).max(axis=1))
        if not sums.num_maps_K.any():
            raise ProtocolError(
                f"--fit-threshold {self.fit.path.name}: of {int(sums.num_pairs_K.sum())} pairs of "
                f"an image and a class with a true box in {self.truth.path.name}, none has a map. "
                "Make the maps with cam --classes present."
            )
        return sums

    def _value(self, iou_T: Array) -> Array:
        if self.wish.objective == "mean-iou":
            return iou_T
        hit_T: Array = iou_T >= _LEAST_IOU
        return hit_T

    def _images(self) -> Iterator[tuple[int, MapRow | None, dict[int, Array]]]:
        """Yield row, maps and the true boxes of each class of the images that count."""
        truth_row_N = _rows_of(self.fit, self.truth)
        step = rows_per_block(self.fit.row_bytes)
        for start in range(0, len(self.fit), step):
            stop = min(start + step, len(self.fit))
            good_N = truth_row_N[start:stop] >= 0
            if "image_status" in self.fit:
                good_N = good_N & (self.fit.rows("image_status", start, stop) == 0)
            true_boxes = _true_boxes(self.truth, truth_row_N[start:stop][good_N])
            for n, maps_of_image in enumerate(map_rows(self.fit, start, stop)):
                if good_N[n]:
                    yield start + n, maps_of_image, next(true_boxes)


@dataclass(frozen=True)
class _Sums:
    """The objective of all pairs of a class at each threshold, all pairs, those with a map."""

    value_KT: Array
    num_pairs_K: Array
    num_maps_K: Array


def _rows_of(fit: Store, truth: Store) -> Array:
    """Return the row of each image of the maps in the truth, -1 for none."""
    row_of = {name: row for row, name in enumerate(truth.whole("image_id").tolist())}
    row_N = np.array([row_of.get(name, -1) for name in fit.whole("image_id").tolist()], np.int64)
    if (row_N < 0).all():
        raise ProtocolError(
            f"{truth.path.name}: holds none of the {len(fit)} images of {fit.path.name}. Give the "
            "images that these maps were made from as --fit-truth."
        )
    return row_N


def _true_boxes(truth: Store, row_M: Array) -> Iterator[dict[int, Array]]:
    """Yield the true boxes of every class present in some images, an excluded one has none."""
    if not len(row_M):
        return
    names = [name for name in ("label", "image_excluded") if name in truth]
    found = truth.gather(row_M, names, ["box"])
    usable_B = np.ones(len(found["box"]), bool)
    for name in ("box_difficult", "box_crowd"):
        if name in found:
            usable_B &= found[name] == 0
    excluded_M = found.get("image_excluded", np.zeros(len(row_M), np.uint8))
    edge = np.concatenate([[0], np.cumsum(found["box_start"])])
    for m in range(len(row_M)):
        own = np.arange(edge[m], edge[m + 1])[usable_B[edge[m] : edge[m + 1]]]
        class_B = found["box_class"][own]
        present_K = (found["label"][m] == 1) & (excluded_M[m] == 0)
        classes = np.flatnonzero(present_K).tolist()
        boxes = {k: found["box"][own[class_B == k]].astype(np.float64) for k in classes}
        yield {index: box_B4 for index, box_B4 in boxes.items() if len(box_B4)}
