"""Which clusters of which classes of a maps store are distractors, by somebody's labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from wsltool.errors import ProtocolError
from wsltool.stages.report import Reporter
from wsltool.stores.labels import Labels, cluster_labels, clusters_of_class
from wsltool.stores.store import Store

__all__ = ["Judged", "Unsure", "judged_classes"]

Array = np.ndarray[Any, Any]

Unsure = Literal["keep", "suppress"]


@dataclass(frozen=True)
class Judged:
    """The clusters of a class at least one of which is a distractor.

    Attributes
    ----------
    centroid_QC : float32 ndarray of shape (Q, C)
        Their mean patterns.
    distractor_Q : bool ndarray of shape (Q,)
    """

    centroid_QC: Array
    distractor_Q: Array


def judged_classes(
    maps: Store, clusters: Store, labels: Labels, unsure: Unsure, report: Reporter
) -> dict[int, Judged]:
    """Return the classes that have a distractor, by their number in the maps.

    A class that nobody judged, or whose clusters are all kept, is not among them. Says so where
    none is left, and where a class has no map for want of its name among the maps' classes.

    Parameters
    ----------
    unsure : {"keep", "suppress"}
        Whether a cluster that is labelled unsure counts as a distractor.

    Raises
    ------
    LineageError, DatasetError
        The labels are about other clusters.
    ProtocolError
        None of the judged classes is one of the maps', or a name stands for several.
    """
    gone = ("distractor", "unsure") if unsure == "suppress" else ("distractor",)
    word_Q = cluster_labels(labels, clusters)
    centroid_QC = clusters.whole("centroid")
    found = {}
    for index, row_Q in clusters_of_class(clusters).items():
        distractor_Q = np.array([word_Q[row] in gone for row in row_Q.tolist()], bool)
        if distractor_Q.any():
            found[index] = Judged(centroid_QC[row_Q], distractor_Q)
    if not found:
        report.warn(
            f"{labels.origin}: no cluster of its {len(labels.classes)} classes is a distractor, "
            "so every map passes unchanged."
        )
    return _by_class_of(maps, clusters, found, report)


def _by_class_of(
    maps: Store, clusters: Store, judged: dict[int, Judged], report: Reporter
) -> dict[int, Judged]:
    """Return `judged` by the numbers that classes have in the maps, matched by name."""
    theirs, ours = clusters.class_names(), maps.class_names()
    if theirs == ours or not judged:
        return judged
    times = Counter(theirs), Counter(ours)
    place = {name: index for index, name in enumerate(ours)}
    wanted = {theirs[index]: one for index, one in judged.items() if theirs[index] in place}
    twice = [name for name in wanted if max(count[name] for count in times) > 1]
    if twice:
        raise ProtocolError(
            f'{clusters.path.name} and {maps.path.name}: the class "{twice[0]}" stands twice in '
            "one of them and their classes differ, so it is not known which is meant. Make the "
            "maps with the classes of the clusters."
        )
    if not wanted:
        first = theirs[next(iter(judged))]
        raise ProtocolError(
            f'{maps.path.name}: none of the {len(judged)} classes with a distractor ("{first}", …) '
            f'is one of its {len(ours)} ("{ours[0]}", …). Give maps of the same classes.'
        )
    if len(wanted) < len(judged):
        report.note(
            f"{maps.path.name}: lacks {len(judged) - len(wanted)} of the {len(judged)} classes "
            f"with a distractor in {clusters.path.name}."
        )
    return {place[name]: one for name, one in wanted.items()}
