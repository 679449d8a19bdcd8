"""Blocks of images for tests: a few words in, records out; and random ones."""

from __future__ import annotations

import numpy as np

from wsltool.metrics.average_precision import area_ap
from wsltool.metrics.peak_distance import PeakPairs
from wsltool.metrics.records import ClassScores, Peaks, Predictions, Truth


def truth(*images, num_classes=4, size_wh=(100, 80)):
    """Make a truth of images: each a list of ``(class, box)`` or ``(class, box, "difficult")``.

    The labels are those of the boxes (undecided where all are difficult), unless an image is
    a dict with ``boxes`` and ``labels``, ``undecided``, ``excluded``.
    """
    images = [image if isinstance(image, dict) else {"boxes": image} for image in images]
    label_NK = np.zeros((len(images), num_classes), np.uint8)
    for n, image in enumerate(images):
        for difficult in (True, False):
            for class_, _, *flags in image["boxes"]:
                if ("difficult" in flags) == difficult:
                    label_NK[n, class_] = 255 if difficult else 1
        if "labels" in image:
            label_NK[n] = 0
            label_NK[n, list(image["labels"])] = 1
        label_NK[n, list(image.get("undecided", []))] = 255
    boxes = [box for image in images for box in image["boxes"]]
    return Truth(
        row_N=np.arange(len(images)),
        size_wh_N2=np.tile(np.array(size_wh, np.int32), (len(images), 1)),
        label_NK=label_NK,
        excluded_N=np.array([image.get("excluded", False) for image in images], bool),
        box_start=np.cumsum([0, *(len(image["boxes"]) for image in images)]).astype(np.int64),
        box_xyxy_B4=np.array([box[1] for box in boxes], np.float64).reshape(-1, 4),
        box_class_B=np.array([box[0] for box in boxes], np.int32),
        box_difficult_B=np.array(["difficult" in box for box in boxes], bool),
    )


def predictions(*images, num_slots=5):
    """Make predictions of images: each ``(ranked classes, [(class, box, score), ...])`` or None.

    The score may be left out; the class scores are 1, 1/2, 1/3, …
    """
    has = np.array([image is not None for image in images], bool)
    images = [([], []) if image is None else image for image in images]
    map_class_NS = np.full((len(images), num_slots), -1, np.int32)
    map_score_NS = np.full((len(images), num_slots), -np.inf, np.float32)
    for n, (ranked, _) in enumerate(images):
        map_class_NS[n, : len(ranked)] = ranked
        map_score_NS[n, : len(ranked)] = 1 / np.arange(1, len(ranked) + 1)
    boxes = [box for _, boxes in images for box in boxes]
    return Predictions(
        has_prediction_N=has,
        map_class_NS=map_class_NS,
        map_score_NS=map_score_NS,
        box_start=np.cumsum([0, *(len(boxes) for _, boxes in images)]).astype(np.int64),
        box_xyxy_B4=np.array([box[1] for box in boxes], np.float64).reshape(-1, 4),
        box_class_B=np.array([box[0] for box in boxes], np.int32),
        box_score_B=np.array([box[2] if len(box) > 2 else 1 for box in boxes], np.float32),
    )


def peaks(*images, num_slots=3):
    """Make peaks of images: each a list of ``(class, (x, y))`` and perhaps a value, or None.

    The class scores are 0, −1, −2, …; the value is 1 if left out.
    """
    has = np.array([image is not None for image in images], bool)
    map_class_NS = np.full((len(images), num_slots), -1, np.int32)
    map_score_NS = np.full((len(images), num_slots), -np.inf, np.float32)
    peak_xy_NS2 = np.full((len(images), num_slots, 2), np.nan)
    peak_value_NS = np.full((len(images), num_slots), np.nan)
    for n, image in enumerate(images):
        for slot, (class_, point, *value) in enumerate(image or []):
            map_class_NS[n, slot], map_score_NS[n, slot] = class_, -slot
            peak_xy_NS2[n, slot] = point
            peak_value_NS[n, slot] = value[0] if value else 1
    return Peaks(
        has_prediction_N=has,
        map_class_NS=map_class_NS,
        map_score_NS=map_score_NS,
        peak_xy_NS2=peak_xy_NS2,
        peak_value_NS=peak_value_NS,
    )


def random_boxes(rng, num, side=40):
    """Return boxes of whole pixels that overlap often, of at least one pixel."""
    corner = rng.integers(0, side - 1, (num, 2))
    return np.hstack([corner, np.minimum(corner + rng.integers(1, side // 2, (num, 2)), side)])


def random_truth(rng, num_images, num_classes, *, one_label):
    """Return a random truth; with `one_label` as ILSVRC has it, else as VOC."""
    num_N = rng.integers(0 if not one_label else 1, 5, num_images)
    num_N[rng.random(num_images) < 0.1] = 0
    label_N = rng.integers(0, num_classes, num_images)
    image_B = np.repeat(np.arange(num_images), num_N)
    box_class_B = rng.integers(0, num_classes, len(image_B))
    difficult_B = rng.random(len(image_B)) < 0.3
    label_NK = np.zeros((num_images, num_classes), np.uint8)
    if one_label:
        label_NK[np.arange(num_images), label_N] = 1
        box_class_B = np.where(rng.random(len(image_B)) < 0.8, label_N[image_B], box_class_B)
    else:
        label_NK[image_B[difficult_B], box_class_B[difficult_B]] = 255
        label_NK[image_B[~difficult_B], box_class_B[~difficult_B]] = 1
    return Truth(
        row_N=np.arange(num_images),
        size_wh_N2=np.full((num_images, 2), 40, np.int32),
        label_NK=label_NK,
        excluded_N=(rng.random(num_images) < 0.15) & one_label,
        box_start=np.concatenate([[0], np.cumsum(num_N)]),
        box_xyxy_B4=random_boxes(rng, len(image_B)).astype(np.float64),
        box_class_B=box_class_B.astype(np.int32),
        box_difficult_B=difficult_B,
    )


def random_predictions(rng, true, *, num_slots=5, num_levels=7):
    """Return random predictions near the truth, with many equal scores."""
    num_images, num_classes = true.label_NK.shape
    has_N = rng.random(num_images) < 0.9
    num_slots = min(num_slots, num_classes)
    map_class_NS = np.argsort(rng.random((num_images, num_classes)), axis=1)[:, :num_slots]
    map_class_NS = np.where(has_N[:, None], map_class_NS, -1).astype(np.int32)
    map_score_NS = -np.sort(-rng.integers(0, num_levels, map_class_NS.shape)).astype(np.float32)
    num_N = rng.integers(0, 9, num_images) * has_N
    image_B = np.repeat(np.arange(num_images), num_N)
    box_B4 = random_boxes(rng, len(image_B)).astype(np.float64)
    num_true_B = np.diff(true.box_start)[image_B]
    near_B = (rng.random(len(image_B)) < 0.7) & (num_true_B > 0)
    copied_B = true.box_start[image_B] + rng.integers(0, 100, len(image_B)) % np.maximum(
        num_true_B, 1
    )
    copied_B = copied_B[near_B]
    box_B4[near_B] = true.box_xyxy_B4[copied_B]
    box_B4[near_B, 2:] += rng.integers(0, 4, (near_B.sum(), 2))
    box_class_B = rng.integers(0, num_classes, len(image_B))
    box_class_B[near_B] = true.box_class_B[copied_B]
    return Predictions(
        has_prediction_N=has_N,
        map_class_NS=map_class_NS,
        map_score_NS=map_score_NS,
        box_start=np.concatenate([[0], np.cumsum(num_N)]),
        box_xyxy_B4=box_B4,
        box_class_B=box_class_B.astype(np.int32),
        box_score_B=rng.integers(0, num_levels, len(image_B)).astype(np.float32),
    )


def random_peaks(rng, true, *, num_slots=3):
    """Return peaks at random pixels of classes at random."""
    num_images, num_classes = true.label_NK.shape
    has_N = rng.random(num_images) < 0.9
    num_slots = min(num_slots, num_classes)
    map_class_NS = np.argsort(rng.random((num_images, num_classes)), axis=1)[:, :num_slots]
    return Peaks(
        has_prediction_N=has_N,
        map_class_NS=np.where(has_N[:, None], map_class_NS, -1).astype(np.int32),
        map_score_NS=-np.sort(-rng.random((num_images, num_slots))).astype(np.float32),
        peak_xy_NS2=rng.integers(0, 40, (num_images, num_slots, 2)) + 0.5,
        peak_value_NS=rng.integers(0, 7, (num_images, num_slots)).astype(np.float64),
    )


def random_class_scores(rng, true, *, num_levels=7):
    """Return class scores with many equals, of which some images have none."""
    shape = true.label_NK.shape
    return ClassScores(
        has_prediction_N=rng.random(len(true)) < 0.9,
        class_score_NK=rng.integers(0, num_levels, shape).astype(np.float32),
    )


def random_peak_pairs(rng, true):
    """Return peaks of two stores."""
    return PeakPairs(random_peaks(rng, true), random_peaks(rng, true))


def exact_ap(heat, mask):
    """The exact AP of pixels in per cent: one point of the curve for each heat that occurs."""
    heat, mask = np.asarray(heat, float).ravel(), np.asarray(mask).ravel()
    heat, mask = np.maximum(heat, 0)[mask != 255], mask[mask != 255]
    order = np.argsort(-heat)
    true = np.cumsum(mask[order] == 1)
    last = np.append(np.flatnonzero(np.diff(heat[order])), len(heat) - 1)
    return 100 * area_ap(true[last] / (last + 1), true[last] / true[-1])
