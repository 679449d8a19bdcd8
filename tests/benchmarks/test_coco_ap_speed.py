"""``coco-ap`` beside pycocotools and faster-coco-eval, in one process.

Random boxes of the size of COCO's validation: 5000 images, 80 classes, 36 000 true boxes and
100 detections an image. Boxes already stand in memory, for all three; reading JSON is not counted.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.parity.coco_cases import coco_objects
from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.records import Predictions, Truth
from wsltool.metrics.result import Result
from wsltool.metrics.tally import Tally

pytestmark = pytest.mark.benchmark

COCO_AP = PROTOCOLS["coco-ap"]
SIDE, NUM_CLASSES, CLASSES_AN_IMAGE = 640, 80, 3


def _records(
    num_images: int = 5000, num_true: int = 36_000, boxes_an_image: int = 100
) -> tuple[Predictions, Truth]:
    """Return detections of three classes an image, half of them near a true box, and the truth."""
    rng = np.random.default_rng(0)
    num_N = rng.multinomial(num_true, rng.dirichlet(np.ones(num_images)))
    start = np.concatenate([[0], np.cumsum(num_N)])
    classes_NC = rng.integers(0, NUM_CLASSES, (num_images, CLASSES_AN_IMAGE))
    image_B = np.repeat(np.arange(num_images), num_N)
    class_B = classes_NC[image_B, rng.integers(0, CLASSES_AN_IMAGE, num_true)]
    true_B4 = _boxes(rng, num_true)
    crowd_B = rng.random(num_true) < 0.01
    truth = Truth(
        row_N=np.arange(num_images),
        size_wh_N2=np.full((num_images, 2), SIDE, np.int32),
        label_NK=np.zeros((num_images, NUM_CLASSES), np.uint8),
        excluded_N=np.zeros(num_images, bool),
        box_start=start,
        box_xyxy_B4=true_B4,
        box_class_B=class_B.astype(np.int32),
        box_difficult_B=crowd_B,
        box_crowd_B=crowd_B,
        box_area_B=0.6 * (true_B4[:, 2:] - true_B4[:, :2]).prod(axis=1),
    )
    num = num_images * boxes_an_image
    image_D = np.repeat(np.arange(num_images), boxes_an_image)
    box_D4, class_D = _boxes(rng, num), classes_NC[image_D, rng.integers(0, CLASSES_AN_IMAGE, num)]
    near = np.flatnonzero((rng.random(num) < 0.5) & (num_N[image_D] > 0))
    copied = start[image_D[near]] + rng.integers(0, 10**6, len(near)) % num_N[image_D[near]]
    side = np.tile(true_B4[copied, 2:] - true_B4[copied, :2], 2)
    moved = true_B4[copied] + side * rng.normal(0, 0.12, side.shape)
    box_D4[near] = np.hstack([moved[:, :2], np.maximum(moved[:, 2:], moved[:, :2] + 1)])
    class_D[near] = class_B[copied]
    score_D = rng.beta(1, 4, num)
    score_D[near] += 0.2
    predicted = Predictions(
        has_prediction_N=np.ones(num_images, bool),
        map_class_NS=np.full((num_images, 1), -1, np.int32),
        map_score_NS=np.full((num_images, 1), -np.inf, np.float32),
        box_start=np.arange(num_images + 1) * boxes_an_image,
        box_xyxy_B4=np.round(box_D4 * 4) / 4,
        box_class_B=class_D.astype(np.int32),
        box_score_B=score_D.astype(np.float32),
    )
    return predicted, truth


def _boxes(rng: np.random.Generator, num: int) -> np.ndarray[Any, Any]:
    wh_B2 = np.exp(rng.normal(4, 1, (num, 2))).clip(4, 400)
    corner_B2 = rng.random((num, 2)) * (SIDE - wh_B2)
    return np.round(np.hstack([corner_B2, corner_B2 + wh_B2]) * 4) / 4


def _ours(predicted: Predictions, truth: Truth) -> tuple[float, Tally, Result]:
    """Return the seconds, block by block as ``score`` counts, with tally and result."""
    images = np.arange(len(truth))
    start = time.perf_counter()
    tally = Tally.joined(
        COCO_AP.count(predicted.take(block), truth.take(block))
        for block in np.split(images, range(1024, len(images), 1024))
    )
    result = COCO_AP.result(tally)
    return time.perf_counter() - start, tally, result


def _theirs(predicted: Predictions, truth: Truth, coco: Any, evaluator: Any) -> tuple[float, Any]:
    """Return the seconds, without those to load, and the twelve numbers."""
    with contextlib.redirect_stdout(io.StringIO()):
        done = evaluator(*coco_objects(predicted, truth, coco), "bbox")
        start = time.perf_counter()
        done.evaluate()
        done.accumulate()
        done.summarize()
    return time.perf_counter() - start, np.asarray(done.stats)[:12]


def test_coco_ap_against_both_references(record: Callable[..., None]) -> None:
    """At least ten times as fast as pycocotools, and not slower than faster-coco-eval."""
    pycocotools = (
        pytest.importorskip("pycocotools.coco"),
        pytest.importorskip("pycocotools.cocoeval"),
    )
    faster = pytest.importorskip("faster_coco_eval")
    predicted, truth = _records()
    runs = [_ours(predicted, truth) for _ in range(3)]
    ours_s = sorted(seconds for seconds, _, _ in runs)[1]
    faster_s, by_faster = _theirs(predicted, truth, faster.COCO, faster.COCOeval_faster)
    coco_s, by_coco = _theirs(predicted, truth, pycocotools[0].COCO, pycocotools[1].COCOeval)
    _, tally, result = runs[0]
    twelve = np.array(list(_twelve(result)))
    np.testing.assert_allclose(twelve, by_coco, rtol=0, atol=1e-12)
    np.testing.assert_allclose(twelve, by_faster, rtol=0, atol=1e-12)
    times_N = np.bincount(np.random.default_rng(0).integers(0, 5000, 5000), minlength=5000)
    start = time.perf_counter()
    COCO_AP.result(tally.drawn(times_N))
    drawn_s = time.perf_counter() - start
    record(
        num_boxes=len(predicted.box_score_B),
        wsltool_s=round(ours_s, 2),
        faster_coco_eval_s=round(faster_s, 2),
        pycocotools_s=round(coco_s, 2),
        times_faster_coco_eval=round(faster_s / ours_s, 1),
        times_pycocotools=round(coco_s / ours_s, 1),
        one_bootstrap_sample_s=round(drawn_s, 3),
    )
    assert coco_s >= 10 * ours_s
    assert faster_s >= ours_s


def test_coco_ap_of_a_million_boxes(record: Callable[..., None]) -> None:
    """10 000 images of 100 boxes."""
    predicted, truth = _records(10_000, 72_000)
    seconds, tally, _ = _ours(predicted, truth)
    num_bytes = sum(column.nbytes for table in tally.tables.values() for column in table.values())
    record(
        num_boxes=len(predicted.box_score_B),
        wsltool_s=round(seconds, 2),
        tally_mb=round(num_bytes / 1e6),
    )


def _twelve(result: Result) -> list[Any]:
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    recalls = ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    return [result.extra[name] / 100 for name in (*names, *recalls)]
