"""Labels of clusters and the clusters store that they are about (`wsltool.stores.label_file`)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsltool.errors import DatasetError, LineageError, StoreError
from wsltool.stores.label_file import (
    WORDS,
    ClassLabels,
    Labels,
    LabelWord,
    read_labels,
    write_labels,
)
from wsltool.stores.open import open_store
from wsltool.stores.store import Store

__all__ = [
    "WORDS",
    "ClassLabels",
    "LabelWord",
    "Labels",
    "annotation_order",
    "check_labels",
    "cluster_labels",
    "clusters_of_class",
    "find_clusters",
    "new_labels",
    "read_labels",
    "write_labels",
]


def new_labels(clusters: Store, folder: Path, annotator: str, made: dict[str, Any]) -> Labels:
    """Return labels of a clusters store without any answer, for a file in `folder`."""
    path = Path(os.path.relpath(clusters.path.resolve(), folder.resolve())).as_posix()
    return Labels(path, _digest(clusters), annotator, made=made)


def check_labels(labels: Labels, clusters: Store) -> None:
    """Check that labels are about these clusters.

    The digest of the arrays decides, so an equal store made anew takes the same labels.

    Raises
    ------
    LineageError
        They are about other clusters; the message says what differs.
    DatasetError
        The digest is right, but a class is none of the store's, or has another name or another
        number of clusters (as after a change by hand).
    """
    misfit = _misfit(labels, clusters)
    if labels.clusters_digest != _digest(clusters):
        reason = misfit or "their arrays have another digest"
        raise LineageError(
            f"{labels.origin}: was made for {labels.clusters_path}, which {clusters.path.name} is "
            f"not: {reason}. Label these: wsltool label {clusters.path.name}"
        )
    if misfit:
        raise DatasetError(
            f"{labels.origin}: {misfit}. Correct it, or run wsltool label {clusters.path.name} "
            "again."
        )


def _digest(clusters: Store) -> str:
    return str(clusters.meta.get("digest") or clusters.compute_digest())


def _misfit(labels: Labels, clusters: Store) -> str | None:
    """Return the first class whose answer these clusters cannot have, in words, or None."""
    names = clusters.class_names()
    num_K = np.bincount(clusters.whole("cluster_class"), minlength=len(names))
    for one in labels.classes:
        index, title = one.class_index, f"class {one.class_index} {json.dumps(one.class_name)}"
        if index >= len(names):
            return f"{title} is none of the {len(names)} classes of {clusters.path.name}"
        if one.class_name != names[index]:
            return f"{title} is {json.dumps(names[index])} in {clusters.path.name}"
        if len(one.words) != num_K[index]:
            there = f"clusters in {clusters.path.name} {num_K[index]}"
            return f"{title}: {there}, answers {len(one.words)}"
    return None


def annotation_order(clusters: Store) -> npt.NDArray[np.intp]:
    """Return the classes in the order in which to ask for them, intp (K',).

    By rising second eigenvalue, the paper's order of expected gain (Kolesnikov and Lampert
    2016, section 4: 15 % of the classes gave half of it); ties by class number. A class without
    clusters is left out; one with clusters but without a second eigenvalue comes last.
    """
    num_classes = clusters.shape("class_name")[0]
    num_K = np.bincount(clusters.whole("cluster_class"), minlength=num_classes)
    second_K = np.full(num_classes, np.inf)
    if clusters.shape("eigenvalue")[1] > 1:
        second_K = np.nan_to_num(clusters.whole("eigenvalue")[:, 1], nan=np.inf)
    order_K: npt.NDArray[np.intp] = np.argsort(second_K, kind="stable")
    return order_K[num_K[order_K] > 0]


def clusters_of_class(clusters: Store) -> dict[int, npt.NDArray[np.intp]]:
    """Return the rows of the clusters of every class that has some, by class number."""
    class_Q = clusters.whole("cluster_class")
    return {int(index): np.flatnonzero(class_Q == index) for index in np.unique(class_Q)}


def cluster_labels(labels: Labels, clusters: Store) -> list[str | None]:
    """Return the word of every cluster, in the rows of the store; None of a class without answer.

    Raises
    ------
    LineageError, DatasetError
        As `check_labels`.
    """
    check_labels(labels, clusters)
    rows_of = clusters_of_class(clusters)
    found: list[str | None] = [None] * clusters.shape("cluster_class")[0]
    for one in labels.classes:
        for row, word in zip(rows_of[one.class_index].tolist(), one.words, strict=True):
            found[row] = word
    return found


def find_clusters(path: Path, labels: Labels, option: str) -> Store:
    """Open the clusters that the labels in the file `path` are about.

    Looked for where the labels say, then beside the file under the same name, and taken only if
    the digest fits.

    Raises
    ------
    LineageError
        They are not there, or have changed; the message names `option`.
    """
    seen = ""
    for place in (
        path.parent / labels.clusters_path,
        path.parent / Path(labels.clusters_path).name,
    ):
        try:
            found = open_store(Path(os.path.normpath(place)))
        except StoreError:
            continue
        if found.kind == "clusters" and _digest(found) == labels.clusters_digest:
            return found
        found.close()
        seen = f" {found.path} is another store now (its digest differs)."
    raise LineageError(
        f"{path.name}: its clusters {labels.clusters_path} are not there.{seen} Say where with "
        f"{option}."
    )
