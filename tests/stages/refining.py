"""Features, clusters and labels written by hand, for the tests of ``refine``."""

from __future__ import annotations

import secrets

import numpy as np

from wsltool.stores.labels import ClassLabels, clusters_of_class, new_labels, write_labels
from wsltool.stores.lineage import fingerprint_store
from wsltool.stores.open import open_store
from wsltool.stores.schema import string_array

from ..stores.examples import write_store
from .making import arrays

MODEL = {"path": "net.safetensors", "kind": "model", "digest": "sha256:" + "a" * 64}


def write_features(
    path, images, cells, /, *, extents=None, model=MODEL, dtype=np.float32, **changes
):
    """Write a features store with every cell of some images of the images store.

    `cells` is a dict: id to an array (rows, cols, channels), or None for an image left out.
    """
    truth = arrays(images)
    row_of = {name: row for row, name in enumerate(truth["image_id"].tolist())}
    row_N = [row_of.get(name, 0) for name in cells]
    size = truth["image_size"][row_N]
    grid = next(one.shape[:2] for one in cells.values() if one is not None)
    here = [one for one in cells.values() if one is not None]
    count = [0 if one is None else one.shape[0] * one.shape[1] for one in cells.values()]
    extent = np.concatenate([np.zeros_like(size), size], axis=1).astype(np.float32)
    for n, name in enumerate(cells):
        if name in (extents or {}):
            extent[n] = extents[name]
    place = [np.indices(one.shape[:2]).reshape(2, -1).T for one in here]
    values = {
        "image_id": string_array(list(cells)),
        "image_size": size,
        "class_name": truth["class_name"],
        "image_status": np.array([one is None for one in cells.values()], np.uint8),
        "image_note": string_array(["it is bad" if one is None else "" for one in cells.values()]),
        "map_extent": extent,
        "cell_start": np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
        "cell": np.concatenate(place).astype(np.int16),
        "feature": np.concatenate([one.reshape(-1, one.shape[2]) for one in here]).astype(dtype),
    }
    values |= {name: changes.pop(name) for name in set(changes) & set(values)}
    told = {"layer": "conv", "grid": list(grid), "cells": "all", "threshold": None}
    told |= {"input_size": 8, "fit": "warp"} | changes
    with open_store(images) as store:
        inputs = {"images": fingerprint_store(store, path.parent)}
    meta = {"id": secrets.token_hex(8), "inputs": inputs | ({"model": model} if model else {})}
    return write_store(path, "features", values, meta, **told)


def write_clusters(path, class_name, centroids, *, model=MODEL, **changes):
    """Write a clusters store; `centroids` is a dict: class number to an array (Q, channels)."""
    class_Q = np.repeat(list(centroids), [len(one) for one in centroids.values()])
    num = len(class_name)
    values = {
        "class_name": string_array(class_name),
        "class_note": string_array(["" if k in centroids else "no patterns" for k in range(num)]),
        "num_patterns": np.full(num, 9, np.int64),
        "num_zero": np.zeros(num, np.int64),
        "eigenvalue": np.tile([0, 0.5, 0.8, 0.9], (num, 1)),
        "centroid": np.concatenate([np.array(one, np.float32) for one in centroids.values()]),
        "cluster_class": class_Q.astype(np.int32),
        "cluster_size": np.full(len(class_Q), 3, np.int64),
    }
    told = {"layer": "conv", "centroid": "mean", "input_size": 8, "fit": "warp"} | changes
    meta = {"id": secrets.token_hex(8), "inputs": {"model": model} if model else {}}
    return write_store(path, "clusters", values, meta, num_classes_without=0, **told)


def label(clusters, words, path=None):
    """Write the labels of some classes: a dict, name to a string of o, d and u."""
    path = path or clusters.with_name(f"{clusters.stem}.labels.json")
    spelled = {"o": "object", "d": "distractor", "u": "unsure"}
    with open_store(clusters) as store:
        names, rows = store.class_names(), clusters_of_class(store)
        labels = new_labels(store, path.parent, "person", {})
        for name, letters in words.items():
            index = names.index(name)
            assert len(letters) == len(rows[index])
            answer = ClassLabels(index, name, tuple(spelled[letter] for letter in letters))
            labels = labels.with_class(answer, list(rows))
    write_labels(path, labels)
    return path
