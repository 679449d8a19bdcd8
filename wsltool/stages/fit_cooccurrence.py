"""Command ``fit-cooccurrence``: what pairs of labels should weigh, chosen on named images."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsltool.errors import ModelError, ProtocolError, UsageError
from wsltool.localize.cooccurrence import pair_probability, pair_scores
from wsltool.metrics.protocols import ScoreProtocol, find_protocol
from wsltool.metrics.tally import Tally
from wsltool.stages.class_columns import match_classes
from wsltool.stages.cooccurrence import COMBINED, used_pair_count
from wsltool.stages.merge_inputs import recorded_choice
from wsltool.stages.model_behind import UsedModel, given_model, model_behind, model_record
from wsltool.stages.options import PathLike, check_choice, check_range
from wsltool.stages.report import Reporter
from wsltool.stages.run import open_input
from wsltool.stages.score_shards import check_places, write_result
from wsltool.stages.score_tasks import Task, make_task
from wsltool.stages.scored_records import records
from wsltool.stores.lineage import find_ancestor, fingerprint_store
from wsltool.stores.open import open_store
from wsltool.stores.store import Store

__all__ = ["ALPHAS", "fit_cooccurrence"]

Array = np.ndarray[Any, Any]

Objective = Literal["cls-map", "point"]

ALPHAS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
"""The weights that are tried unless others are named."""

_SEVERAL = 2
_TABLES = {"cls-map": "image", "point": "detection"}


def fit_cooccurrence(
    input: PathLike,
    *,
    model: PathLike | None = None,
    objective: Objective = "cls-map",
    alphas: Sequence[float] | None = None,
    tolerance: float | None = None,
    point_at: str | None = None,
    truth: PathLike | None = None,
    output: PathLike | None = None,
    report: Reporter | None = None,
) -> dict[str, Any]:
    """Choose what pairs of labels weigh in the scores of classes (Bency et al. 2016, eq. 2).

    Parameters
    ----------
    input : path
        A ``maps`` store with class scores that nothing was combined in. It says on which images
        the weight is chosen.
    model : path, optional
        The model file that the maps were made with, by default looked for where they say: its
        counts of label pairs are used.
    objective : {"cls-map", "point"}
        What is made as high as can be: the mean AP of the class scores, or that of the points of
        all classes, ranked by class score (`wsltool.metrics.protocols`, ``confidence`` "cls").
    alphas : sequence of float, optional
        The weights that are tried, finite and not below 0; by default `ALPHAS`. 0 always is.
    tolerance : float, optional
        ``point``: how many pixels a point may lie from an object, 18 by default.
    point_at : str, optional
        ``point``: where a map's point lies, its hottest pixel, ``peak`` (default), or the centre
        of its ``region`` of maximal response.
    truth : path, optional
        The ``images`` store with the truth; by default the one that the maps were made from.
    output : path, optional
        Also write the result here, as JSON; an older result there is replaced.
    report : Reporter, optional
        Who hears of warnings.

    Returns
    -------
    dict
        ``results``, of one entry: ``alpha``, the smallest of those with the highest ``value``,
        ``value_at_0``, the ``curve`` of all, what it was ``fitted_on``, and the ``inputs``.

    Raises
    ------
    UsageError
        An option has a value that it cannot have.
    ProtocolError
        The scores are combined, unknown or not of all classes, or the truth does not suit them.
    ModelError
        The model has no counts of label pairs, or is not the one that made the maps.
    LineageError
        The truth or the model is not where it was; pass `truth` or `model`.
    StoreExistsError
        Something stands at `output` that is no result.
    """
    check_choice("--objective", objective, Objective)
    protocol = _protocol(objective, tolerance, point_at)
    alpha_T = _checked(ALPHAS if alphas is None else alphas)
    check_places(output, None, "score, effort or fit-cooccurrence")
    report = report or Reporter()
    folder = Path.cwd() if output is None else Path(output).parent
    with ExitStack() as stack:
        maps = stack.enter_context(open_input(input, "maps", "fit-cooccurrence"))
        _check_maps(maps, objective)
        true = open_store(Path(truth)) if truth else find_ancestor(maps, "images", "--truth")
        stack.enter_context(true)
        task = make_task(
            protocol, maps, true, stack, measured_to=None, others=(), without_skipped=False
        )
        used = _model(maps, model)
        fit = _Fit(task, used, match_classes(used.model, true))
        result = fit.result(alpha_T, folder, report)
    found = {"format": 1, "version": metadata.version("wsltool"), "results": [result]}
    for line in result["warnings"]:
        report.warn(f"fit-cooccurrence: {line}")
    if output is not None:
        write_result(Path(output), found)
    return found


def _protocol(objective: str, tolerance: float | None, point_at: str | None) -> ScoreProtocol:
    given: dict[str, Any] = {"tolerance": tolerance, "point_at": point_at}
    if objective == "point":
        given["confidence"] = "cls"
    return find_protocol(objective).with_options(**given)


def _checked(alphas: Any) -> list[float]:
    """Return the weights in rising order, 0 among them."""
    if isinstance(alphas, str):
        raise UsageError(f"--alphas must be a sequence of numbers, got {alphas!r}.")
    if not len(alphas):
        raise UsageError("--alphas must be numbers with commas between, got none.")
    for alpha in alphas:
        check_range("--alphas", alpha, 0, float("inf"))
    return sorted({0.0, *map(float, alphas)})


def _check_maps(maps: Store, objective: str) -> None:
    """Refuse maps whose scores are combined or unknown, or that lack the maps of classes."""
    kind = str(maps.attributes.get("score_kind", ""))
    if kind == COMBINED:
        raise ProtocolError(
            f"{maps.path.name}: its scores are combined already, expected those of the model. "
            "Make it again without --cooccurrence."
        )
    if kind not in ("logit", "probability"):
        raise ProtocolError(
            f'{maps.path.name}: score_kind is "{kind}", expected logit or probability: the scores '
            "of the model. Make the maps with wsltool cam or beam-search."
        )
    choice = recorded_choice(maps)
    if objective == "point" and (choice is None or choice.top < maps.shape("class_name")[0]):
        raise ProtocolError(
            f"{maps.path.name}: holds the classes {maps.attributes.get('classes')}, expected a map "
            "of every class: another weight chooses other classes. Make it again with --classes "
            "all."
        )


def _model(maps: Store, given: PathLike | None) -> UsedModel:
    """Return the model that the maps were made with."""
    if given is None:
        return model_behind(maps)
    held = maps.meta.get("params", {}) | maps.attributes
    used = given_model(given, None, input_size=held.get("input_size"), fit=held.get("fit"))
    recorded = str(model_record(maps).get("digest", used.digest))
    if recorded != used.digest:
        raise ModelError(
            f"--model {given}: is another model ({used.digest[:12]}…) than the one that "
            f"{maps.path.name} was made with ({recorded[:12]}…). Give that one."
        )
    return used


@dataclass(frozen=True)
class _Fit:
    """What is scored, with the model and its class for each of the images'."""

    task: Task
    used: UsedModel
    columns: Array

    def result(self, alpha_T: list[float], folder: Path, report: Reporter) -> dict[str, Any]:
        """Return the entry of the result; `folder` is where its paths start."""
        source, protocol = self.task.source, self.task.protocol
        count_KK = used_pair_count(self.used, self.columns)
        value_T = self._values(alpha_T, pair_probability(count_KK), report)
        best = int(np.argmax(value_T))
        label_NK = source.truth.gather(source.join.truth_row_N, ["label"])["label"]
        num_several = int(((label_NK == 1).sum(axis=1) >= _SEVERAL).sum())
        maps = fingerprint_store(source.store, folder)
        num_images = int((source.join.row_N >= 0).sum())
        return {
            "alpha": alpha_T[best],
            "objective": protocol.name,
            "parameters": protocol.parameters,
            "unit": protocol.unit,
            "value": value_T[best],
            "value_at_0": value_T[0],
            "curve": {"alpha": alpha_T, "value": value_T},
            "fitted_on": maps | {"num_images": num_images, "objective": protocol.name},
            "images": self._image_counts() | {"with_several_classes": num_several},
            "inputs": {
                "maps": maps,
                "images": fingerprint_store(source.truth, folder),
                "model": self.used.record(folder),
            },
            "warnings": _warnings(count_KK, num_several, len(label_NK), best, alpha_T),
        }

    def _image_counts(self) -> dict[str, Any]:
        join = self.task.source.join
        return {
            "scored": len(join.row_N),
            "missing": join.num_missing,
            "skipped": join.num_skipped,
            "limit": self.task.given.meta.get("limit"),
        }

    def _values(self, alpha_T: list[float], p_KK: Array, report: Reporter) -> list[float]:
        """Return what the objective comes to at each weight."""
        chance_NK = self._probabilities()
        pair_NK = pair_scores(chance_NK, p_KK)
        tally = self._tally(report)
        value_T = [
            self.task.protocol.result(self._scored(tally, chance_NK + alpha * pair_NK)).value
            for alpha in alpha_T
        ]
        if np.isnan(value_T).any():
            raise ProtocolError(
                f"{self.task.source.truth.path.name}: no class is present in any of the "
                f"{len(chance_NK)} images, so no weight is better than another. Choose it on "
                "others."
            )
        return value_T

    def _probabilities(self) -> Array:
        """Return the probability of each class in each scored image, 0 where it has no scores.

        Float32 (N, K): the very numbers that ``cam`` combines.
        """
        maps, row_N = self.task.source.store, self.task.source.join.row_N
        chance_NK = np.zeros((len(row_N), len(self.columns)), np.float32)
        row_M = row_N[row_N >= 0]
        if not len(row_M):
            raise ProtocolError(
                f"{maps.path.name}: none of its {len(row_N)} images has scores, all were skipped. "
                "Choose the weight on others."
            )
        score_MK = maps.gather(row_M, ["class_score"])["class_score"]
        is_chance = maps.attributes["score_kind"] == "probability"
        odd_MK = ~np.isfinite(score_MK) | (is_chance & ~((score_MK >= 0) & (score_MK <= 1)))
        if odd_MK.any():
            m, k = (int(axis[0]) for axis in np.nonzero(odd_MK))
            kind = "probability in [0, 1]" if is_chance else "logit"
            raise ProtocolError(
                f"{maps.path.name} row {row_M[m]}: the score of class "
                f'"{maps.class_names()[k]}" is {score_MK[m, k]}; expected the {kind} of every '
                "class. Make the maps again."
            )
        chance_NK[row_N >= 0] = score_MK if is_chance else self._of_logits(score_MK)
        return chance_NK

    def _of_logits(self, logit_MK: Array) -> Array:
        """Return the probabilities of logits, as the maps say and their model computes them."""
        from wsltool.nets.models import probability64

        maps, model = self.task.source.store, self.used.model
        own = "sigmoid" if model.loss == "logistic" else "softmax"
        link = maps.attributes.get("probability") or own
        if link == "softmax" and len(self.columns) != model.num_classes:
            raise ProtocolError(
                f"{maps.path.name}: holds logits of {len(self.columns)} of its model's "
                f"{model.num_classes} classes, so their softmax is not known. Make it again with "
                "--scores probability."
            )
        order_K = np.argsort(self.columns)  # the model's own, whose sums are the same
        loss: Literal["logistic", "softmax"] = "logistic" if link == "sigmoid" else "softmax"
        chance_MK = np.empty_like(logit_MK)
        chance_MK[:, order_K] = probability64(loss, logit_MK[:, order_K])
        return chance_MK

    def _tally(self, report: Reporter) -> Tally:
        """Return what the objective counts, with the scores as they are stored."""
        with report.progress("fit-cooccurrence", self.task.num_images, "images") as advance:

            def counted(predicted: Any, true: Any) -> Tally:
                advance(len(true))
                return self.task.protocol.count(predicted, true)

            source, protocol = self.task.source, self.task.protocol
            return Tally.joined(counted(*pair) for pair in records(source, protocol))

    def _scored(self, tally: Tally, score_NK: Array) -> Tally:
        """Return the same counts with other class scores of the scored images."""
        name = _TABLES[self.task.protocol.name]
        table, score_NK = dict(tally.tables[name]), score_NK.astype(np.float32)
        if name == "image":
            table["score"] = np.where(table["predicted"][:, None], score_NK, -np.inf)
        else:
            image_D = np.searchsorted(tally.row_N, table["row"])
            table["score"] = score_NK[image_D, table["class"]]
        return Tally(tally.num_classes, {**tally.tables, name: table}, tally.sums)


def _warnings(
    count_KK: Array, num_several: int, num_images: int, best: int, alpha_T: list[float]
) -> list[str]:
    """Return what a reader must know of the weight."""
    lines = []
    if not (count_KK - np.diag(np.diagonal(count_KK))).any():
        lines.append(
            "no training image of the model shows two of these classes, so no weight changes "
            "anything"
        )
    if not num_several:
        lines.append(
            f"none of the {num_images} images shows two classes, so they cannot say what pairs are "
            "worth; choose the weight on images with several labels"
        )
    if best == len(alpha_T) - 1 and best:
        lines.append(
            f"the best weight, {alpha_T[best]:g}, is the largest that was tried; try larger ones "
            "with --alphas"
        )
    return lines
