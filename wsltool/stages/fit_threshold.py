"""The threshold that serves named images best, chosen for ``boxes`` before it draws.

What makes one better than another is in `fit_pairs` and `fit_voc_ap`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsltool.errors import ProtocolError, UsageError
from wsltool.localize.thresholds import best_threshold, threshold_grid
from wsltool.stages.fit_pairs import Reached, reached_by_pairs
from wsltool.stages.fit_voc_ap import reached_by_voc_ap
from wsltool.stages.options import PathLike, check_choice, check_range
from wsltool.stages.report import Reporter
from wsltool.stores.lineage import find_input, fingerprint_store, same_fingerprint
from wsltool.stores.open import open_store
from wsltool.stores.store import Store
from wsltool.stores.wip import WorkInProgress, place_file

__all__ = ["FitObjective", "FitWish", "ThresholdFit", "open_truth", "warn_of_misfit"]

Array = np.ndarray[Any, Any]

FitObjective = Literal["gt-known", "mean-iou", "voc-ap"]

_LEAST_PAIRS = 10
_STEP = 0.01
_STEP_VOC_AP = 0.05  # all boxes of all classes are drawn at each threshold


@dataclass(frozen=True)
class FitWish:
    """How thresholds are to be chosen.

    Attributes
    ----------
    per : {"one", "class"}
        One threshold, or one a class.
    least_pairs : int
        A class with fewer pairs with a map takes the common threshold.
    objective : {"gt-known", "mean-iou", "voc-ap"}
        What is made as high as can be: the share of pairs with an IoU of at least .5, the mean
        IoU, or the average precision.
    step : float
        Between the thresholds that are tried, 0 to .95.
    """

    per: Literal["one", "class"]
    least_pairs: int
    objective: FitObjective
    step: float

    @classmethod
    def of(cls, per: str, objective: FitObjective, step: float | None) -> FitWish:
        """Check the options; a `step` of None is .01, and .05 of "voc-ap".

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
        if step is None:
            step = _STEP_VOC_AP if objective == "voc-ap" else _STEP
        check_range("--fit-step", step, 0.001, 0.5, open_high=False)
        return cls(
            "one" if word == "one" else "class",
            int(least) if colon else _LEAST_PAIRS,
            objective,
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
        ``of``, ``components``, ``connectivity``, ``empty`` and ``box_score``, as the boxes will
        be drawn.
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
        reached = self._reached(threshold_T)
        objective_T = 100 * reached.value_KT.sum(axis=0) / reached.num_judged
        common = best_threshold(objective_T)
        best_K = np.full(len(reached.value_KT), common)
        too_few_K = reached.num_maps_K < self.wish.least_pairs
        if self.wish.per == "class":
            for index in np.flatnonzero(~too_few_K).tolist():
                best_K[index] = best_threshold(reached.value_KT[index])
            self._warn_of_few(too_few_K, float(threshold_T[common]))
        value = np.take_along_axis(reached.value_KT, best_K[:, None], axis=1).sum()
        per_class = threshold_T[best_K].tolist()
        return {
            "source": "fitted",
            "value": per_class if self.wish.per == "class" else float(threshold_T[common]),
            "common": float(threshold_T[common]),
            "per": self.wish.per,
            "num_classes_too_few": int(too_few_K.sum()) if self.wish.per == "class" else 0,
            "objective": self.wish.objective,
            "objective_value": 100 * float(value) / float(reached.num_judged),
            "curve": {"threshold": threshold_T.tolist(), "objective": objective_T.tolist()},
            "chosen_on": fingerprint_store(self.fit, self.output.parent)
            | {
                "num_images": len(self.fit),
                "num_pairs": int(reached.num_pairs_K.sum()),
                "num_without_map": int((reached.num_pairs_K - reached.num_maps_K).sum()),
            },
            "overlap": self.overlap,
            "fitted_on_scored": self.overlap > 0,
        }

    def _reached(self, threshold_T: Array) -> Reached:
        """Return what every threshold reaches.

        Raises
        ------
        ProtocolError
            There is no pair, or none has a map; the maps do not suit the objective.
        StoreCorruptError
            A map is not finite.
        """
        ap = self.wish.objective == "voc-ap"
        with self.report.progress("boxes: choosing the threshold", len(self.fit), "images") as tick:
            given = (self.fit, self.truth, threshold_T, self.drawing)
            if ap:
                reached = reached_by_voc_ap(*given, self.output.parent, tick)
            else:
                reached = reached_by_pairs(*given, self.wish.objective == "gt-known", tick)
        if not reached.num_maps_K.any():
            raise ProtocolError(
                f"--fit-threshold {self.fit.path.name}: of {int(reached.num_pairs_K.sum())} pairs "
                f"of an image and a class with a true box in {self.truth.path.name}, none has a "
                f"map. Make the maps with cam --classes {'all' if ap else 'present'}."
            )
        return reached

    def _warn_of_few(self, too_few_K: Array, common: float) -> None:
        num = int(too_few_K.sum())
        if num:
            names = [self.fit.class_names()[index] for index in np.flatnonzero(too_few_K)[:5]]
            self.report.warn(
                f"--fit-threshold {self.fit.path.name}: {num} of {len(too_few_K)} classes have "
                f"fewer than {self.wish.least_pairs} pairs of image and class and take the common "
                f"threshold {common:g}: {', '.join(names)}{', …' if num > len(names) else '.'}"
            )
