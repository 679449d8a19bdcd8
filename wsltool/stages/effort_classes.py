"""What ``effort`` says: the classes before and after, beside their clusters and labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsltool.errors import ProtocolError
from wsltool.metrics.bootstrap import Interval
from wsltool.metrics.effort import (
    EffortCurve,
    class_parts,
    class_weights,
    effort_curve,
    gain_of,
    has_changed,
)
from wsltool.metrics.protocols import ScoreProtocol
from wsltool.metrics.result import Result
from wsltool.stores.labels import annotation_order, cluster_labels, read_labels
from wsltool.stores.store import Store

__all__ = ["Annotation", "effort_record", "read_annotation"]

Array = np.ndarray[Any, Any]

_SHARES = (0.5, 0.85)
_ROUNDING = 1e-6  # points
_MANY = 2
_MOST_NAMED = 3


@dataclass(frozen=True)
class Annotation:
    """The classes of the truth as the annotator meets them.

    Attributes
    ----------
    class_name : list of str
        Of all K classes of the truth.
    order_Q : int ndarray
        The classes that have clusters, in the order of annotation.
    second_K : float64 ndarray
        The second eigenvalue, NaN where a class has none.
    num_clusters_K : int64 ndarray
    num_distractors_K : int64 ndarray
        Clusters that are labelled distractors.
    labelled_K : bool ndarray or None
        Which classes are labelled; None without labels.
    seconds : float or None
        How long the labelling took, where the file says.
    """

    class_name: list[str]
    order_Q: Array
    second_K: Array
    num_clusters_K: Array
    num_distractors_K: Array
    labelled_K: Array | None
    seconds: float | None


def read_annotation(clusters: Store, truth: Store, labels: Path | None) -> Annotation:
    """Read what is known of the classes of the truth from clusters and labels.

    Classes are matched by number where the lists agree, else by name.

    Raises
    ------
    ProtocolError
        The clusters are of other classes.
    LineageError, DatasetError, StoreMissingError
        The labels are about other clusters, cannot be read, or are not there.
    """
    names = truth.class_names()
    place_J = _places(clusters, truth)  # of the J classes of the clusters
    here_J = place_J >= 0
    class_Q = place_J[clusters.whole("cluster_class")]
    second_K = np.full(len(names), np.nan)
    if clusters.shape("eigenvalue")[1] > 1:
        second_K[place_J[here_J]] = clusters.whole("eigenvalue")[here_J, 1]
    labelled_K, seconds = None, None
    distractor_Q = np.zeros(len(class_Q), bool)
    if labels is not None:
        read = read_labels(labels)
        words = cluster_labels(read, clusters)
        distractor_Q = np.array([word == "distractor" for word in words], bool)
        told_Q = np.array([word is not None for word in words], bool)
        labelled_K = _num_by(class_Q[told_Q], len(names)) > 0
        spent = [one.seconds for one in read.classes if one.seconds is not None]
        seconds = math.fsum(spent) if spent else None
    order_J = annotation_order(clusters)
    return Annotation(
        class_name=names,
        order_Q=place_J[order_J[here_J[order_J]]],
        second_K=second_K,
        num_clusters_K=_num_by(class_Q, len(names)),
        num_distractors_K=_num_by(class_Q[distractor_Q], len(names)),
        labelled_K=labelled_K,
        seconds=seconds,
    )


def _num_by(class_Q: Array, num_classes: int) -> Array:
    """Return how often each class stands there; -1 is none."""
    return np.bincount(class_Q[class_Q >= 0], minlength=num_classes)


def _places(clusters: Store, truth: Store) -> Array:
    """Return the number that each class of the clusters has in the truth, -1 for none."""
    names, own = truth.class_names(), clusters.class_names()
    if own == names[: len(own)]:
        return np.arange(len(own))
    place = {name: index for index, name in enumerate(names)}
    found = np.array([place.get(name, -1) for name in own], np.int64)
    if (found < 0).all() or len(place) < len(names) or len(set(own)) < len(own):
        why = "none is in both" if (found < 0).all() else "a name stands twice"
        raise ProtocolError(
            f"{clusters.path.name} and {truth.path.name} have different classes ({len(own)}: "
            f"{_few(own)} and {len(names)}: {_few(names)}), and {why}. Give the clusters of these "
            "classes."
        )
    return found


def effort_record(
    protocol: ScoreProtocol,
    after: Result,
    before: Result,
    interval: Interval,
    annotation: Annotation,
    *,
    min_change: float,
    seed: int,
) -> dict[str, Any]:
    """Return the effort as plain data.

    ``gain`` (what the value rose by, or an error fell by) with ``low`` and ``high``; ``counts``
    (the paper's numbers of classes); ``mean_change_with_distractors``; ``classes``, a row for
    each scored class, the largest gain first; ``curve`` (``fraction`` of the classes annotated,
    ``gain`` in points, ``share`` of the curve's total or None), ``area`` and
    ``fraction_for_share``, None where the total is not above 0; ``warnings``.

    Raises
    ------
    ProtocolError
        None of the scored classes can be annotated.
    """
    value_K2 = np.array(
        [[a.value, b.value] for a, b in zip(after.per_class, before.per_class, strict=True)]
    ).reshape(-1, 2)
    gain_K: Array = gain_of(protocol, value_K2[:, 0], value_K2[:, 1])
    outside_K = np.ones(len(gain_K), bool)
    outside_K[protocol.chosen] = False
    gain_K[outside_K] = np.nan
    order_Q = _order(annotation, gain_K)
    part_K = class_parts(gain_K, class_weights(after))
    curve = effort_curve(part_K[order_Q])
    gain = gain_of(protocol, after.value, before.value)
    rows = _class_rows(annotation, value_K2, gain_K, interval, order_Q)
    return {
        "gain": _number(gain),
        "low": _number(interval.low),
        "high": _number(interval.high),
        "level": 95,
        "num_samples": interval.num_samples,
        "seed": seed,
        "min_change": min_change,
        "counts": _counts(annotation, gain_K, min_change),
        "seconds": annotation.seconds,
        "mean_change_with_distractors": _mean(gain_K[annotation.num_distractors_K > 0]),
        "num_annotated": len(order_Q),
        "curve": {
            "fraction": list(curve.fraction),
            "gain": list(curve.gain),
            "share": None if curve.share is None else list(curve.share),
        },
        "area": curve.area,
        "fraction_for_share": {f"{one:g}": curve.fraction_for(one) for one in _SHARES},
        "classes": rows,
        "warnings": list(_warnings(annotation, gain_K, order_Q, curve, gain)),
    }


def _order(annotation: Annotation, gain_K: Array) -> Array:
    """Return the classes of the curve: in the queue, labelled where labels are given, scored."""
    open_K = ~np.isnan(gain_K)
    if annotation.labelled_K is not None:
        open_K = open_K & annotation.labelled_K
    order_Q: Array = annotation.order_Q[open_K[annotation.order_Q]]
    if not len(order_Q):
        said = "labelled clusters" if annotation.labelled_K is not None else "clusters"
        raise ProtocolError(
            f"none of the {int((~np.isnan(gain_K)).sum())} scored classes has {said}, so there is "
            "no order of annotation. Give the clusters (and labels) of these classes."
        )
    return order_Q


def _counts(annotation: Annotation, gain_K: Array, min_change: float) -> dict[str, int | None]:
    """Return the paper's numbers of classes; those of labels are None without labels."""
    labelled_K = annotation.labelled_K
    changed_K = has_changed(gain_K, min_change)
    known_K = np.nan_to_num(gain_K)
    return {
        "classes": len(gain_K),
        "scored": int((~np.isnan(gain_K)).sum()),
        "with_clusters": int((annotation.num_clusters_K > 0).sum()),
        "with_more_than_two_clusters": int((annotation.num_clusters_K > _MANY).sum()),
        "labelled": None if labelled_K is None else int(labelled_K.sum()),
        "with_distractors": (
            None if labelled_K is None else int((annotation.num_distractors_K > 0).sum())
        ),
        "changed": int(changed_K.sum()),
        "changed_up": int((changed_K & (known_K > 0)).sum()),
        "changed_down": int((changed_K & (known_K < 0)).sum()),
    }


def _class_rows(
    annotation: Annotation, value_K2: Array, gain_K: Array, interval: Interval, order_Q: Array
) -> list[dict[str, Any]]:
    """Return a row for each scored class, the largest gain first."""
    place_of = {int(index): place for place, index in enumerate(order_Q, 1)}
    return [
        {
            "class_index": index,
            "class_name": annotation.class_name[index],
            "before": float(value_K2[index, 1]),
            "after": float(value_K2[index, 0]),
            "gain": float(gain_K[index]),
            "low": _number(interval.low_K[index]),
            "high": _number(interval.high_K[index]),
            "second_eigenvalue": _number(float(annotation.second_K[index])),
            "num_clusters": int(annotation.num_clusters_K[index]),
            "num_distractors": (
                None
                if annotation.labelled_K is None or not annotation.labelled_K[index]
                else int(annotation.num_distractors_K[index])
            ),
            "place": place_of.get(index),
        }
        for index in np.argsort(-gain_K, kind="stable").tolist()
        if not math.isnan(gain_K[index])
    ]


def _warnings(
    annotation: Annotation, gain_K: Array, order_Q: Array, curve: EffortCurve, gain: float
) -> Iterator[str]:
    """Yield what a reader of the curve must know."""
    if not curve.has_shares:
        yield (
            f"the classes of the curve gain {curve.total:+.2f} points together, not more than 0, "
            "so shares of the gain have no meaning and the curve is given in points"
        )
    apart_K = ~np.isnan(gain_K) & (np.abs(np.nan_to_num(gain_K)) > _ROUNDING)
    apart_K[order_Q] = False
    if apart_K.any():
        names = [annotation.class_name[index] for index in np.flatnonzero(apart_K)]
        yield (
            f"{len(names)} classes changed though they could not be annotated "
            f"({_few(names)}); they are not in the curve"
        )
    elif abs(gain - curve.total) > _ROUNDING:
        yield (
            f"the classes of the curve gain {curve.total:+.2f} points together, the value "
            f"{gain:+.2f}: it is not made of the classes alone"
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")


def _mean(value_K: Array) -> float | None:
    """Return the mean of what has a value, None of nothing."""
    known = value_K[~np.isnan(value_K)]
    return float(known.mean()) if len(known) else None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
