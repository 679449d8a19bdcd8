"""Annotators that need nobody at the screen: a file of answers, ground truth, chance."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsltool.errors import ProtocolError
from wsltool.localize.oracle import OracleRule, judged_by_share, shuffled_words
from wsltool.stages.label_oracle import OracleFrom, count_shares, rows_in_truth, truth_kind
from wsltool.stages.report import Reporter
from wsltool.stores.labels import (
    ClassLabels,
    Labels,
    annotation_order,
    check_labels,
    clusters_of_class,
    new_labels,
    read_labels,
)
from wsltool.stores.lineage import fingerprint_file, fingerprint_store
from wsltool.stores.store import Store

__all__ = ["Annotation", "by_answers", "by_chance", "by_person", "by_truth"]

_NAMED = 5  # classes that a message names


@dataclass(frozen=True)
class Annotation:
    """What the output records of its annotator, and the annotator, who may take long.

    Attributes
    ----------
    params, inputs : dict
        See `wsltool.stages.plan.Job`.
    annotate : callable
        Returns the labels; ``made`` is filled in by whoever writes them.
    """

    params: dict[str, Any]
    inputs: dict[str, Any]
    annotate: Callable[[], Labels]


def _params(**given: Any) -> dict[str, Any]:
    return {"oracle": None, "oracle_from": None, "oracle_rule": None, "seed": None} | given


def by_person(clusters: Store, folder: Path) -> Annotation:
    """Return the annotation of a person, which begins without an answer."""
    return Annotation(_params(), {}, lambda: new_labels(clusters, folder, "person", {}))


def by_answers(clusters: Store, folder: Path, answers: Path) -> Annotation:
    """Return the annotation that a file holds; answers to some of the classes will do.

    Raises
    ------
    StoreMissingError, DatasetError, LineageError
        The file cannot be read, or is about other clusters.
    """
    given = read_labels(answers)
    check_labels(given, clusters)
    inputs = {"answers": fingerprint_file(answers, folder, "labels")}

    def annotate() -> Labels:
        return _with_all(clusters, new_labels(clusters, folder, given.annotator, {}), given.classes)

    return Annotation(_params(), inputs, annotate)


def by_chance(clusters: Store, folder: Path, like: Path, seed: int) -> Annotation:
    """Return the control: the words of other labels, shuffled among the clusters of each class.

    Raises
    ------
    StoreMissingError, DatasetError, LineageError
        The file cannot be read, or is about other clusters.
    """
    model = read_labels(like)
    check_labels(model, clusters)
    drawn = [
        ClassLabels(
            one.class_index, one.class_name, shuffled_words(one.words, seed, one.class_index)
        )
        for one in model.classes
    ]
    return Annotation(
        _params(oracle="random", seed=seed),
        {"like": fingerprint_file(like, folder, "labels")},
        lambda: _with_all(clusters, new_labels(clusters, folder, "random", {}), drawn),
    )


def by_truth(
    clusters: Store,
    folder: Path,
    features: Store,
    truth: Store,
    wanted: OracleFrom | None,
    rule: OracleRule,
    report: Reporter,
) -> Annotation:
    """Return the annotation by ground truth (`wsltool.localize.oracle`).

    A class without any truth stays unlabelled, which is told.

    Raises
    ------
    StoreKindError
        The truth has no boxes or masks, or the features do not say what fires where.
    ProtocolError
        The stores do not belong together.
    """
    use = truth_kind(truth, wanted)
    truth_row_N = rows_in_truth(clusters, features, truth)
    inputs = {
        "features": fingerprint_store(features, folder),
        "truth": fingerprint_store(truth, folder),
    }

    def annotate() -> Labels:
        inside_Q, counted_Q = count_shares(clusters, features, truth, truth_row_N, use, report)
        names = clusters.class_names()
        found, without = [], []
        for index, row_q in clusters_of_class(clusters).items():
            words = judged_by_share(inside_Q[row_q], counted_Q[row_q], rule)
            if words is None:
                without.append(names[index])
            else:
                found.append(ClassLabels(index, names[index], words))
        _tell(truth, use, len(found), without, report)
        return _with_all(clusters, new_labels(clusters, folder, f"oracle {use}", {}), found)

    return Annotation(_params(oracle="truth", oracle_from=use, oracle_rule=rule), inputs, annotate)


def _tell(truth: Store, use: str, num_found: int, without: list[str], report: Reporter) -> None:
    if not num_found:
        raise ProtocolError(
            f"{truth.path.name}: no image has true {use} of a class that fires there, so nothing "
            "can be labelled. Give the truth of the images that the clusters were made of."
        )
    if without:
        listed = ", ".join(without[:_NAMED]) + (", …" if len(without) > _NAMED else "")
        report.warn(
            f"{truth.path.name}: classes without true {use} where they fire, which stay "
            f"unlabelled: {len(without)} ({listed})."
        )


def _with_all(clusters: Store, labels: Labels, answers: Iterable[ClassLabels]) -> Labels:
    """Return labels with the answers, in the order of the queue."""
    order_K = annotation_order(clusters)
    for one in answers:
        labels = labels.with_class(one, order_K)
    return labels
