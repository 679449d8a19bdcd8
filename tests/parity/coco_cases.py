"""Random detections for COCO's rules: crowds, difficult boxes, every range of area, many ties.

All coordinates are multiples of 1/4 below 512, so that widths are the same numbers whether a box
is kept by its corners or by a corner and its size.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np

from wsltool.metrics.records import Predictions, Truth


class Case(NamedTuple):
    """What one comparison is made of."""

    seed: int
    num_images: int = 40
    num_classes: int = 4
    max_boxes: int = 12
    num_levels: int = 9


CASES = [
    *(Case(seed) for seed in range(8)),
    Case(100, num_images=6, num_classes=2, max_boxes=400),  # more than 100 of a class
    Case(101, num_images=4, num_classes=1, max_boxes=300, num_levels=3),
    Case(102, num_images=300, num_classes=12, num_levels=1000),
    Case(103, num_images=1, num_classes=3),
    Case(104, max_boxes=1),  # nothing detected
]
WHOLE_CASES = (0, 8)
"""Of these all of precision and recall is compared."""


def coco_case(case: Case) -> tuple[Predictions, Truth]:
    """Return detections, about half of them near a true box, and the truth.

    The last class has no true box; the first image has none, and detections.
    """
    rng = np.random.default_rng(case.seed)
    truth = _truth(rng, case)
    num_N = rng.integers(0, case.max_boxes, case.num_images)
    image_D = np.repeat(np.arange(case.num_images), num_N)
    num = len(image_D)
    box_D4 = _boxes(rng, num)
    class_D = rng.integers(0, case.num_classes, num)
    num_true_D = np.diff(truth.box_start)[image_D]
    near = np.flatnonzero((rng.random(num) < 0.7) & (num_true_D > 0))
    copied = truth.box_start[image_D[near]] + rng.integers(0, 10**6, len(near)) % num_true_D[near]
    moved = rng.integers(-12, 13, (len(near), 4)) / 4 * (rng.random((len(near), 1)) < 0.7)
    box_D4[near] = _ordered(truth.box_xyxy_B4[copied] + moved)
    class_D[near] = truth.box_class_B[copied]
    return (
        Predictions(
            has_prediction_N=np.ones(case.num_images, bool),
            map_class_NS=np.full((case.num_images, 1), -1, np.int32),
            map_score_NS=np.full((case.num_images, 1), -np.inf, np.float32),
            box_start=np.concatenate([[0], np.cumsum(num_N)]),
            box_xyxy_B4=box_D4,
            box_class_B=class_D.astype(np.int32),
            box_score_B=(rng.integers(0, case.num_levels, num) / 1024).astype(np.float32),
        ),
        truth,
    )


def _truth(rng: np.random.Generator, case: Case) -> Truth:
    num_N = rng.integers(0, 7, case.num_images)
    if case.num_images > 1:
        num_N[0] = 0
    num = int(num_N.sum())
    box_B4 = _boxes(rng, num)
    same = np.flatnonzero(rng.random(num) < 0.1)[1:]
    box_B4[same] = box_B4[same - 1]  # equal boxes, mostly in one image
    crowd_B = rng.random(num) < 0.15
    area_B = (box_B4[:, 2] - box_B4[:, 0]) * (box_B4[:, 3] - box_B4[:, 1])
    given = rng.random(num) < 0.4
    area_B[given] = rng.choice([0.0, 1023.0, 1024.0, 1025.0, 9216.0, 20000.0], int(given.sum()))
    return Truth(
        row_N=np.arange(case.num_images),
        size_wh_N2=np.full((case.num_images, 2), 512, np.int32),
        label_NK=np.zeros((case.num_images, case.num_classes), np.uint8),
        excluded_N=np.zeros(case.num_images, bool),
        box_start=np.concatenate([[0], np.cumsum(num_N)]),
        box_xyxy_B4=box_B4,
        box_class_B=rng.integers(0, max(case.num_classes - 1, 1), num).astype(np.int32),
        box_difficult_B=crowd_B | (rng.random(num) < 0.05),
        box_crowd_B=crowd_B,
        box_area_B=area_B,
    )


def _boxes(rng: np.random.Generator, num: int) -> np.ndarray[Any, Any]:
    corner = rng.integers(0, 800, (num, 2)) / 4
    side = rng.choice([6, 32, 40, 96, 130], (num, 1)) + rng.integers(-16, 17, (num, 2)) / 4
    return np.hstack([corner, corner + np.where(rng.random((num, 1)) < 0.2, 32, side)])


def _ordered(box_B4: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    box_B4 = np.clip(box_B4, 0, 511)
    return np.hstack([box_B4[:, :2], np.maximum(box_B4[:, 2:], box_B4[:, :2] + 0.25)])


def fingerprint(predicted: Predictions, truth: Truth) -> str:
    """Return what tells whether two machines made the same case."""
    digest = hashlib.sha256()
    for array in (
        predicted.box_xyxy_B4,
        predicted.box_score_B,
        predicted.box_class_B,
        truth.box_xyxy_B4,
        truth.box_class_B,
        truth.box_area_B,
    ):
        digest.update(np.ascontiguousarray(array, "<f8").tobytes())
    return digest.hexdigest()[:16]


def coco_objects(predicted: Predictions, truth: Truth, coco: Any) -> tuple[Any, Any]:
    """Return truth and results as a reference reads them; `coco` is its class ``COCO``.

    Ids rise in our order, from 1; images and classes are numbered with gaps. pycocotools knows no
    difficult box; an area outside all ranges makes it ignore one in the same way.
    """
    image_B = np.repeat(np.arange(len(truth)), np.diff(truth.box_start))
    image_D = np.repeat(np.arange(len(truth)), np.diff(predicted.box_start))
    difficult_B = truth.box_difficult_B & ~truth.box_crowd_B
    annotations = [
        {
            "id": n + 1,
            "image_id": 7 + 3 * int(image_B[n]),
            "category_id": 1 + 2 * int(truth.box_class_B[n]),
            "bbox": _xywh(truth.box_xyxy_B4[n]),
            "area": 2e10 if difficult_B[n] else float(truth.box_area_B[n]),
            "iscrowd": int(truth.box_crowd_B[n]),
        }
        for n in range(len(image_B))
    ]
    results = [
        {
            "image_id": 7 + 3 * int(image_D[n]),
            "category_id": 1 + 2 * int(predicted.box_class_B[n]),
            "bbox": _xywh(predicted.box_xyxy_B4[n]),
            "score": float(predicted.box_score_B[n]),
        }
        for n in range(len(image_D))
    ]
    true = coco()
    true.dataset = {
        "info": {},
        "images": [{"id": 7 + 3 * n, "width": 512, "height": 512} for n in range(len(truth))],
        "categories": [{"id": 1 + 2 * k, "name": str(k)} for k in range(truth.num_classes)],
        "annotations": annotations,
    }
    true.createIndex()
    return true, true.loadRes(results)


def _xywh(box: np.ndarray[Any, Any]) -> list[float]:
    return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]
