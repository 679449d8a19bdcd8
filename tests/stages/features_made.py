"""A features store of any size, made up: patterns of each class around prototypes of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .making import write_store

Array = np.ndarray[Any, Any]


def write_features(
    path: Path,
    class_of_image: Array,
    *,
    num_classes: int | None = None,
    cells: int = 12,
    channels: int = 16,
    dtype: str = "float16",
    seed: int = 0,
    noise: float = 0.3,
    made_from: list[Path] | None = None,
    **changes: Any,
) -> Path:
    """Write images of one class each; most of their cells fire for it, some for the next too."""
    rng = np.random.default_rng(seed)
    num_images = len(class_of_image)
    num_classes = num_classes or int(class_of_image.max()) + 1
    class_N = np.repeat(class_of_image, cells)
    part_N = rng.integers(0, 2, len(class_N))
    prototype_K2C = rng.random((num_classes, 2, channels)) ** 6
    feature = prototype_K2C[class_N, part_N] + noise * rng.random((len(class_N), channels))
    fires_N2 = rng.random((len(class_N), 2)) < (0.8, 0.05)
    cell_P, second_P = np.nonzero(fires_N2)
    pattern_class = (class_N[cell_P] + second_P) % num_classes
    order = np.lexsort((pattern_class, cell_P))
    place = np.arange(cells)
    values = {
        "image_id": [f"image {n}" for n in range(num_images)],
        "image_size": np.full((num_images, 2), 40, np.int32),
        "class_name": [f"class {k}" for k in range(num_classes)],
        "image_status": np.zeros(num_images, np.uint8),
        "image_note": [""] * num_images,
        "map_extent": np.tile(np.array([0, 0, 40, 40], np.float32), (num_images, 1)),
        "cell_start": np.full(num_images, cells, np.int64),
        "cell": np.tile(np.stack([place // 4, place % 4], 1).astype(np.int16), (num_images, 1)),
        "feature": feature.astype(dtype),
        "pattern_cell": cell_P[order],
        "pattern_class": pattern_class[order].astype(np.int32),
    }
    values = {name: value for name, value in (values | changes).items() if value is not None}
    return write_store(
        path,
        "features",
        values,
        made_from=made_from or [],
        layer="features.12",
        grid=[3, 4],
        cells="all",
        threshold=0.2,
        input_size=64,
        fit="warp",
    )
