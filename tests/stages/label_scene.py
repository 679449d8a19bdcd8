"""The scene of `cluster_scene` with pictures, for the label page."""

from __future__ import annotations

import numpy as np

from .cluster_scene import BOXES, CLASSES, scene_clusters, scene_features
from .making import put_picture, rewritten, write_images


def pictured(folder, *, damaged=()):
    """Truth with its pictures, features and clusters; return the path of the clusters."""
    num_bytes = []
    for name in BOXES:
        path = put_picture(folder / f"{name}.png", (40, 20))
        if name in damaged:
            path.write_bytes(path.read_bytes()[:60])
        num_bytes.append(path.stat().st_size)
    bare = write_images(folder / "bare.zarr", BOXES, CLASSES, size=(40, 20))
    truth = rewritten(
        folder / "truth.zarr", bare, "images", image_num_bytes=np.array(num_bytes, np.int64)
    )
    features = scene_features(folder / "found.zarr", truth)
    return scene_clusters(folder / "parts.zarr", features)
