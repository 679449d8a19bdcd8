"""Pictures with several labels, and model files that know which labels occur together."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from wsltool.nets.architectures import SmallGap
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.closed_form import find_closed_form
from wsltool.nets.models import Model, save_model
from wsltool.nets.preprocess import Preprocess

from .making import noise, put_picture, rewritten, write_images

CLASSES = ["person", "motorbike", "chair"]
COUNT = np.array([[4, 2, 1], [2, 3, 0], [1, 0, 1]])
LABELS: list[dict[int, int]] = [{0: 1, 1: 1}, {1: 1}, {0: 1, 2: 1}, {2: 1}, {0: 1}, {0: 255}]


def write_pictures(
    path: Path, labels: list[dict[int, int]] | None = None, *, classes: list[str] | None = None
) -> Path:
    """Write an images store, with pictures of noise beside it that its name tells apart."""
    listed: dict[str, Any] = {}
    num_bytes = []
    for n, label in enumerate(LABELS if labels is None else labels):
        name = f"{path.stem}{n}"
        picture = put_picture(path.with_name(f"{name}.png"), noise(16, 16, n))
        num_bytes.append(picture.stat().st_size)
        boxes = [(k, 2 + k, 2, 10 + k, 12) for k, value in label.items() if value == 1]
        listed[name] = {"labels": label, "boxes": boxes}
    draft = write_images(
        path.with_name(f"{path.stem}-draft.zarr"), listed, classes or CLASSES, size=(16, 16)
    )
    return rewritten(path, draft, "images", image_num_bytes=np.array(num_bytes))


def write_model(
    path: Path,
    *,
    count: Any = COUNT,
    classes: list[str] | None = None,
    loss: Literal["logistic", "softmax"] = "logistic",
    seed: int = 0,
) -> Path:
    """Write a model file of random weights whose scores are well apart."""
    names = classes or CLASSES
    torch.manual_seed(seed)
    module = SmallGap(len(names))
    with torch.no_grad():
        module.fc.weight.mul_(60)
    model = Model(
        network=CamNetwork(module, find_closed_form(module, "small_gap")).eval(),
        arch="small_gap",
        class_name=names,
        class_id=None,
        preprocess=Preprocess(32),
        loss=loss,
        fingerprint="",
        label_pair_count_KK=None if count is None else np.array(count, np.int64),
    )
    save_model(path, model, {})
    return path
