"""A small set of images, features and clusters, worked out by hand, for labels.

Images are 40 x 20 pixels, the grid is 2 x 4: cells of 10 x 10 pixels with centres at
x 5, 15, 25, 35 and y 5, 15. A pattern is one of four unit vectors ("dog", "grass", "road",
"wheel"), so the best cluster of a cell is that of its vector.
"""

from __future__ import annotations

import numpy as np

from .making import write_images, write_store

CLASSES = ["dog", "car", "idle", "cat"]
DOG, GRASS, ROAD, WHEEL, NOTHING = range(5)
VECTORS = np.concatenate([np.eye(4), np.zeros((1, 4))])

# image id -> (row, column, vector, classes that fire)
CELLS = {
    "a": [
        (0, 0, DOG, [0]),
        (0, 1, DOG, [0]),
        (1, 0, GRASS, [0]),
        (1, 1, GRASS, [0, 1]),
        (1, 2, ROAD, [1]),
        (1, 3, WHEEL, []),
    ],
    "b": [(0, 3, DOG, [0]), (1, 3, GRASS, [0]), (1, 2, NOTHING, [0])],
    "c": [(0, 0, WHEEL, [1]), (0, 1, WHEEL, [1]), (1, 0, ROAD, [1]), (1, 1, GRASS, [1])],
    "unread": [],
    "d": [(0, 0, DOG, [3]), (0, 1, GRASS, [3])],
}
BOXES = {
    "a": {"boxes": [(0, 0, 0, 20, 10), (1, 0, 10, 40, 20)]},
    "b": {"boxes": [(0, 30, 0, 40, 10)]},
    "c": {"boxes": [(1, 0, 0, 20, 10)]},
    "unread": {"labels": {}, "status": 1},
    "d": {"labels": {3: 1}},
}
# By the boxes (inside, counted), in the rows of the clusters store.
SHARES = [(3, 3), (0, 3), (2, 2), (1, 2), (1, 2), (0, 0), (0, 0)]


def scene_truth(path):
    return write_images(path, BOXES, CLASSES, size=(40, 20))


def scene_features(path, truth, *, cells=CELLS, extent=(0, 0, 40, 20), **changes):
    num = len(cells)
    flat = [cell for of_image in cells.values() for cell in of_image]
    patterns = [(n, index) for n, cell in enumerate(flat) for index in cell[3]]
    values = {
        "image_id": list(cells),
        "image_size": np.tile(np.array([[40, 20]], np.int32), (num, 1)),
        "class_name": CLASSES,
        "map_extent": np.tile(np.array([extent], np.float32), (num, 1)),
        "cell_start": [len(of_image) for of_image in cells.values()],
        "cell": np.array([cell[:2] for cell in flat], np.int16),
        "feature": (3 * VECTORS[[cell[2] for cell in flat]]).astype(np.float16),
        "pattern_cell": np.array([pattern[0] for pattern in patterns], np.int64),
        "pattern_class": np.array([pattern[1] for pattern in patterns], np.int32),
    }
    values = {name: value for name, value in (values | changes).items() if value is not None}
    about = {"layer": "last", "grid": [2, 4], "cells": "firing", "threshold": 0.2}
    return write_store(path, "features", values, made_from=[truth], **about)


def scene_clusters(path, features, **changes):
    """dog: dog, grass; car: wheel, road, grass; idle: none; cat: dog, grass."""
    values = {
        "class_name": CLASSES,
        "class_note": ["", "", "no pattern fired", ""],
        "num_patterns": np.array([6, 7, 0, 2]),
        "num_zero": np.array([1, 0, 0, 0]),
        "eigenvalue": np.array(
            [[0, 0.5, 0.9, 1], [0, 0.25, 0.6, 1], [np.nan] * 4, [0, 0.5, 1, 1]], np.float64
        ),
        "centroid": 0.8 * VECTORS[[DOG, GRASS, WHEEL, ROAD, GRASS, DOG, GRASS]].astype(np.float32),
        "cluster_class": np.array([0, 0, 1, 1, 1, 3, 3], np.int32),
        "cluster_size": np.array([3, 3, 3, 2, 2, 1, 1]),
    }
    return write_store(path, "clusters", values | changes, made_from=[features], layer="last")


def scene(folder, suffix=".zarr"):
    """Truth, features and clusters of the scene."""
    truth = scene_truth(folder / f"truth{suffix}")
    features = scene_features(folder / f"found{suffix}", truth)
    return truth, features, scene_clusters(folder / f"parts{suffix}", features)
