"""Clusters and features written by hand, for the tests of ``effort`` and ``view``."""

from __future__ import annotations

import numpy as np

from wsltool.stores.labels import ClassLabels, annotation_order, new_labels, write_labels
from wsltool.stores.open import open_store

from .making import write_store


def write_clusters(path, class_name, clusters, *, made_from=()):
    """Write a clusters store.

    `clusters` is a dict: class to (second eigenvalue, [(mean pattern, size), …]).
    """
    num_classes = len(class_name)
    eigenvalue = np.full((num_classes, 4), np.nan)
    num = np.zeros(num_classes, np.int64)
    rows = []
    for k, (second, found) in sorted(clusters.items()):
        eigenvalue[k, 0], eigenvalue[k, 1] = 0, second
        num[k] = sum(size for _, size in found)
        rows += [(k, mean, size) for mean, size in found]
    values = {
        "class_name": list(class_name),
        "class_note": ["" if k in clusters else "no patterns" for k in range(num_classes)],
        "num_patterns": num,
        "num_zero": np.zeros(num_classes, np.int64),
        "eigenvalue": eigenvalue,
        "centroid": np.array([mean for _, mean, _ in rows], np.float32),
        "cluster_class": np.array([k for k, _, _ in rows], np.int32),
        "cluster_size": np.array([size for _, _, size in rows], np.int64),
    }
    return write_store(path, "clusters", values, made_from=made_from, layer="last")


def write_words(path, clusters, words, *, seconds=2.0):
    """Write labels of a clusters store; `words` is a dict: class to a letter a cluster (o d u)."""
    letters = {"o": "object", "d": "distractor", "u": "unsure"}
    with open_store(clusters) as store:
        names, labels = store.class_names(), new_labels(store, path.parent, "person", {})
        for k, text in words.items():
            said = tuple(letters[letter] for letter in text)
            one = ClassLabels(k, names[k], said, seconds=seconds)
            labels = labels.with_class(one, annotation_order(store))
    write_labels(path, labels)
    return path


def write_features(path, images, class_name, found, *, grid=(2, 4), size=(20, 10), made_from=()):
    """Write a features store.

    `found` is a dict: image id to [(row, col, pattern, classes), …], cells row by row.
    """
    cells = [cell for of_image in found.values() for cell in of_image]
    pairs = [(n, k) for n, (_, _, _, classes) in enumerate(cells) for k in classes]
    num = len(found)
    values = {
        "image_id": list(found),
        "image_size": np.array([size] * num, np.int32),
        "class_name": list(class_name),
        "map_extent": np.array([(0, 0, *size)] * num, np.float32),
        "cell_start": [len(of_image) for of_image in found.values()],
        "cell": np.array([cell[:2] for cell in cells], np.int16).reshape(-1, 2),
        "feature": np.array([cell[2] for cell in cells], np.float16),
        "pattern_cell": np.array([n for n, _ in pairs], np.int64),
        "pattern_class": np.array([k for _, k in pairs], np.int32),
    }
    return write_store(
        path, "features", values, made_from=[images, *made_from], grid=list(grid), cells="firing"
    )
