"""COCO detection as pycocotools and faster-coco-eval count it, on random boxes.

What they said is kept (``make_coco_ap.py``); where pycocotools is installed, it is asked again.
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from wsltool.metrics.coco_curves import precision_and_recall
from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.tally import Tally

from .coco_cases import CASES, WHOLE_CASES, Case, coco_case, coco_objects, fingerprint

COCO_AP = PROTOCOLS["coco-ap"]
FOLDER = Path(__file__).parent / "data"
TWELVE = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@pytest.fixture(scope="module")
def kept():
    return json.loads((FOLDER / "coco_ap.json").read_text())["cases"]


def _tally(predicted, truth):
    return Tally.joined([COCO_AP.count(predicted, truth)])


def _twelve(tally):
    """The twelve numbers as fractions, -1 where there is none."""
    extra = COCO_AP.result(tally).extra
    return np.nan_to_num([extra[name] / 100 for name in TWELVE], nan=-1.0)


def _arrays(tally):
    """``precision`` (T, R, K, A, M) and ``recall`` (T, K, A, M)."""
    by_most = [precision_and_recall(tally, most) for most in (1, 10, 100)]
    return [
        np.nan_to_num(np.stack(array, axis=-1), nan=-1.0) for array in zip(*by_most, strict=True)
    ]


@pytest.mark.parametrize("index", range(len(CASES)))
def test_twelve_numbers(kept, index):
    predicted, truth = coco_case(CASES[index])
    assert kept[index]["fingerprint"] == fingerprint(predicted, truth)
    twelve = _twelve(_tally(predicted, truth))
    if kept[index]["pycocotools"] is None:  # they refuse an empty list of results
        assert set(twelve[np.isfinite(twelve)]) <= {0, -1}
        return
    np.testing.assert_allclose(twelve, kept[index]["pycocotools"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(twelve, kept[index]["faster-coco-eval"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("index", WHOLE_CASES)
def test_all_of_precision_and_recall(index):
    whole = np.load(FOLDER / "coco_ap.npz")
    precision, recall = _arrays(_tally(*coco_case(CASES[index])))
    np.testing.assert_allclose(precision, whole[f"precision_{index}"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(recall, whole[f"recall_{index}"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(200, 206))
def test_pycocotools_itself(seed):
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    case = Case(seed, num_images=30, max_boxes=(12, 250)[seed % 3 == 0])
    predicted, truth = coco_case(case)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = cocoeval.COCOeval(*coco_objects(predicted, truth, coco.COCO), "bbox")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    tally = _tally(predicted, truth)
    precision, recall = _arrays(tally)
    np.testing.assert_allclose(precision, reference.eval["precision"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(recall, reference.eval["recall"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(_twelve(tally), reference.stats, rtol=0, atol=1e-12)
