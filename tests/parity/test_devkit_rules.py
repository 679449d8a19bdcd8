"""Protocols against the devkits' rules, transcribed in slow loops.

The transcriptions share no code with the protocols and work on what the devkits read: boxes of
whole pixels, 1-based and inclusive, with ``+ 1`` on every width. They follow the text of the
rules (``eval_clsloc.m``, ``compute_overlap.m``, ``VOCevaldet.m``, ``VOCap.m``), line by line.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.records import Predictions, Truth
from wsltool.metrics.tally import Tally


def _overlap(a, b):
    """Intersection over union of inclusive boxes; -1 where they share no pixel."""
    xmin, ymin = max(a[0], b[0]), max(a[1], b[1])
    xmax, ymax = min(a[2], b[2]), min(a[3], b[3])
    width, height = xmax - xmin + 1, ymax - ymin + 1
    if width <= 0 or height <= 0:
        return -1
    union = (a[2] - a[0] + 1) * (a[3] - a[1] + 1)
    union += (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - width * height
    return width * height / union


def _reference_clsloc(images, max_k=5):
    """Localization and classification error at k = 1 … 5, in per cent."""
    loc_sum, cls_sum = [0] * max_k, [0] * max_k
    num_counted = sum(not image["blacklisted"] for image in images)
    for image in images:
        guesses = image["guesses"][:max_k]
        boxes = [box for class_, box, _ in image["truth"] if class_ == image["label"]]
        loc_errors, cls_errors = [], []
        for class_, box in guesses:
            d = 0 if class_ == image["label"] else 1
            errors = [1]  # of an empty minimum
            for true_box in boxes:
                f = 1 if box is None or _overlap(box, true_box) < 0.5 else 0
                errors.append(max(f, d))
            loc_errors.append(min(errors))
            cls_errors.append(d)
        for k in range(1, max_k + 1):
            if not image["blacklisted"]:
                loc_sum[k - 1] += min(loc_errors[:k], default=1)
            cls_sum[k - 1] += min(cls_errors[:k], default=1)
    return [100 * e / num_counted for e in loc_sum], [100 * e / len(images) for e in cls_sum]


def _reference_gt_known(images):
    """Share of images localized with the label given, in per cent."""
    counted = [image for image in images if not image["blacklisted"]]
    known = []
    for image in counted:
        first = next((box for class_, box, _ in image["boxes"] if class_ == image["label"]), None)
        known.append({**image, "guesses": [(image["label"], first)]})
    loc, _ = _reference_clsloc(known)
    return 100 - loc[0]


def _reference_ranked(images, class_):
    """VOCevaldet.m: true and false positives of a class, ranked; number of positives."""
    truth, positives = {}, 0
    for number, image in enumerate(images):
        mine = [(box, hard) for c, box, hard in image["truth"] if c == class_]
        truth[number] = {"box": mine, "found": [False] * len(mine)}
        positives += sum(not hard for _, hard in mine)
    detections = [
        (number, box, score)
        for number, image in enumerate(images)
        for c, box, score in image["boxes"]
        if c == class_
    ]
    detections.sort(key=lambda detection: -detection[2])  # stable
    true, false = [], []
    for number, box, _ in detections:
        ovmax, jmax = -math.inf, None
        for j, (true_box, _) in enumerate(truth[number]["box"]):
            overlap = _overlap(box, true_box)
            if overlap > 0 and overlap > ovmax:
                ovmax, jmax = overlap, j
        tp = fp = 0
        if ovmax >= 0.5:
            if not truth[number]["box"][jmax][1]:
                if not truth[number]["found"][jmax]:
                    tp = 1
                    truth[number]["found"][jmax] = True
                else:
                    fp = 1
        else:
            fp = 1
        true.append(tp)
        false.append(fp)
    return true, false, positives


def _reference_curve(true, false, positives):
    recall, precision, tp, fp = [], [], 0, 0
    for t, f in zip(true, false, strict=True):
        tp, fp = tp + t, fp + f
        recall.append(tp / positives)
        precision.append(tp / (tp + fp) if tp + fp else math.nan)
    return recall, precision


def _matlab_max(a, b):
    if math.isnan(a):
        return b
    return a if math.isnan(b) else max(a, b)


def _reference_area_ap(recall, precision):
    mrec, mpre = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = _matlab_max(mpre[i], mpre[i + 1])
    return sum(
        (mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)) if mrec[i] != mrec[i - 1]
    )


def _reference_eleven_point_ap(recall, precision):
    ap = 0.0
    for t in (0, 0.1, 0.2, 0.1 * 3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1):
        best = math.nan
        for r, p in zip(recall, precision, strict=True):
            if r >= t:
                best = _matlab_max(p, best)
        ap += 0 if math.isnan(best) else best / 11
    return ap


def _reference_voc(images, num_classes, average):
    """AP of each class in per cent, NaN without positives; and their mean."""
    values = []
    for class_ in range(num_classes):
        true, false, positives = _reference_ranked(images, class_)
        if positives == 0:
            values.append(math.nan)
            continue
        values.append(100 * average(*_reference_curve(true, false, positives)))
    known = [value for value in values if not math.isnan(value)]
    return values, sum(known) / len(known)


def _random_box(rng, side=30):
    x, y = sorted(rng.integers(1, side + 1, 2)), sorted(rng.integers(1, side + 1, 2))
    return [int(x[0]), int(y[0]), int(x[1]), int(y[1])]


def _near(rng, box):
    moved = [edge + int(rng.integers(-2, 3)) for edge in box]
    return moved if moved[0] <= moved[2] and moved[1] <= moved[3] else list(box)


def _random_image(rng, num_classes, num_levels):
    """One image as the devkits see it; the n-th guess of a class has its n-th box."""
    label = int(rng.integers(num_classes))
    truth = [
        (label if rng.random() < 0.6 else int(rng.integers(num_classes)), _random_box(rng), bool(h))
        for h in rng.random(rng.integers(0, 5)) < 0.3
    ]
    if truth and rng.random() < 0.3:  # equal overlaps
        truth.append((*truth[0][:2], bool(rng.random() < 0.5)))
    boxes = []
    for _ in range(rng.integers(0, 9)):
        if truth and rng.random() < 0.75:
            class_, box, _ = truth[rng.integers(len(truth))]
            box = _near(rng, box)
        else:
            class_, box = int(rng.integers(num_classes)), _random_box(rng)
        boxes.append((class_, box, float(rng.integers(num_levels))))
    ranked = rng.permutation(num_classes)[: rng.integers(0, num_classes + 1)].tolist()
    ranked = [ranked[0], *ranked] if ranked and rng.random() < 0.3 else ranked
    guesses = []
    for place, class_ in enumerate(ranked):
        mine = [box for c, box, _ in boxes if c == class_]
        nth = ranked[:place].count(class_)
        guesses.append((class_, mine[nth] if nth < len(mine) else None))
    blacklisted = bool(rng.random() < 0.15)
    return {
        "label": label,
        "truth": truth,
        "boxes": boxes,
        "guesses": guesses,
        "blacklisted": blacklisted,
    }


def _half_open(boxes):
    box_B4 = np.array([box for _, box, _ in boxes], np.float64).reshape(-1, 4)
    return box_B4 - [1, 1, 0, 0]


def _records(images, num_classes, *, excluded):
    num_slots = num_classes + 1
    map_class_NS = np.full((len(images), num_slots), -1, np.int32)
    for n, image in enumerate(images):
        map_class_NS[n, : len(image["guesses"])] = [class_ for class_, _ in image["guesses"]]
    score = np.arange(num_slots, 0, -1, dtype=np.float32)
    boxes = [box for image in images for box in image["boxes"]]
    true = [box for image in images for box in image["truth"]]
    label_NK = np.eye(num_classes, dtype=np.uint8)[[image["label"] for image in images]]
    return Predictions(
        has_prediction_N=np.ones(len(images), bool),
        map_class_NS=map_class_NS,
        map_score_NS=np.where(map_class_NS >= 0, score, -np.inf),
        box_start=np.cumsum([0, *(len(image["boxes"]) for image in images)]),
        box_xyxy_B4=_half_open(boxes),
        box_class_B=np.array([class_ for class_, _, _ in boxes], np.int32),
        box_score_B=np.array([score for _, _, score in boxes], np.float32),
    ), Truth(
        row_N=np.arange(len(images)),
        size_wh_N2=np.full((len(images), 2), 30, np.int32),
        label_NK=label_NK,
        excluded_N=np.array([image["blacklisted"] and excluded for image in images]),
        box_start=np.cumsum([0, *(len(image["truth"]) for image in images)]),
        box_xyxy_B4=_half_open(true),
        box_class_B=np.array([class_ for class_, _, _ in true], np.int32),
        box_difficult_B=np.array([hard for _, _, hard in true], bool),
    )


def _random_images(seed, num_classes):
    rng = np.random.default_rng(seed)
    return [_random_image(rng, num_classes, (2, 5, 100)[seed % 3]) for _ in range(60)]


def _result(name, predicted, true):
    """By blocks of 16 images, to be sure."""
    protocol = PROTOCOLS[name]
    blocks = [np.arange(start, min(start + 16, len(true))) for start in range(0, len(true), 16)]
    parts = [protocol.count(predicted.take(block), true.take(block)) for block in blocks]
    return protocol.result(Tally.joined(parts))


@pytest.mark.parametrize("seed", range(30))
def test_ilsvrc_clsloc(seed):
    num_classes = (4, 6, 9)[seed % 3]
    images = _random_images(seed, num_classes)
    predicted, true = _records(images, num_classes, excluded=True)
    loc, cls = _reference_clsloc(images)
    for name, k in (("ilsvrc-top1", 1), ("ilsvrc-top5", 5)):
        result = _result(name, predicted, true)
        np.testing.assert_allclose(result.extra["loc_error"], loc, rtol=0, atol=1e-12)
        np.testing.assert_allclose(result.extra["cls_error"], cls, rtol=0, atol=1e-12)
        assert result.value == pytest.approx(loc[k - 1], abs=1e-12)
    assert len(set(loc)) > 2, "the data must tell the ranks apart"


@pytest.mark.parametrize("seed", range(30))
def test_gt_known(seed):
    images = _random_images(seed, 4)
    predicted, true = _records(images, 4, excluded=True)
    expected = _reference_gt_known(images)
    assert 0 < expected < 100
    assert _result("gt-known", predicted, true).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "average"),
    [("voc-ap", _reference_area_ap), ("voc07-ap", _reference_eleven_point_ap)],
)
@pytest.mark.parametrize("seed", range(30))
def test_voc_detection(seed, name, average):
    num_classes = (2, 4, 20)[seed % 3]
    images = _random_images(seed, num_classes)
    predicted, true = _records(images, num_classes, excluded=False)
    values, mean = _reference_voc(images, num_classes, average)
    result = _result(name, predicted, true)
    ours = [row.value for row in result.per_class]
    np.testing.assert_allclose(ours, values, rtol=0, atol=1e-12 * 100)
    assert result.value == pytest.approx(mean, abs=1e-12 * 100)
    assert 0 < mean < 100
