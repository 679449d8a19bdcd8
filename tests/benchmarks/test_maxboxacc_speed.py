"""MaxBoxAcc and PxAP beside wsolevaluation's evaluators, from heat in memory to the number.

The reference is looked for in ``$WSLTOOL_WSOLEVALUATION``, a checkout of clovaai/wsolevaluation.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.parity.make_wsolevaluation import IOUS, imported_reference
from tests.parity.test_wsolevaluation import cub, image_truth  # noqa: F401
from tests.parity.wsolevaluation_cases import generated_heat, kind_of
from wsltool.metrics.grid_heats import GridHeats
from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.tally import Tally

pytestmark = [pytest.mark.benchmark, pytest.mark.real]

KINDS = ("bump", "ring", "grid", "peaks", "constant", "noise")
NUM_OF_A_KIND = {0.01: 12, 0.001: 3}
AT_ONCE = 8


@pytest.fixture
def evaluation(monkeypatch):
    place = os.environ.get("WSLTOOL_WSOLEVALUATION")
    if place is None:
        pytest.skip("set WSLTOOL_WSOLEVALUATION to a checkout of clovaai/wsolevaluation")
    monkeypatch.setattr(np, "float", float, raising=False)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield imported_reference(Path(place))
    cv2.setNumThreads(threads)


def _evaluator(evaluation, data_dir, interval, multi):
    return evaluation.BoxEvaluator(
        metadata=evaluation.configure_metadata(str(data_dir / "wsol-metadata" / "CUB" / "test")),
        dataset_name="CUB",
        split="test",
        cam_threshold_list=list(np.arange(0, 1, interval)),
        iou_threshold_list=IOUS,
        mask_root="",
        multi_contour_eval=multi,
    )


def _reference_s(evaluator, rows, heats):
    start = time.process_time()
    for row, heat_HW in zip(rows, heats, strict=True):
        evaluator.accumulate(heat_HW, evaluator.image_ids[row])
    return time.process_time() - start


def _ours_s(protocol, images, rows, heats):
    """Count in blocks, as the stage does; the arrays are there already."""
    blocks = []
    for first in range(0, len(rows), AT_ONCE):
        few = rows[first : first + AT_ONCE]
        heat_NHW = np.array(heats[first : first + AT_ONCE])
        record = GridHeats(has_map_N=np.ones(len(few), bool), heat_NHW=heat_NHW)
        blocks.append((record, image_truth([images[row] for row in few], few)))
    start = time.process_time()
    tally = Tally.joined([protocol.count(*block) for block in blocks])
    return time.process_time() - start, tally


@pytest.mark.parametrize("interval", [0.01, 0.001])
@pytest.mark.parametrize("name", ["maxboxacc", "maxboxacc-v2"])
def test_maxboxacc_against_wsolevaluation(
    evaluation: object,
    data_dir: Path,
    cub: list[object],  # noqa: F811
    record: Callable[..., None],
    name: str,
    interval: float,
) -> None:
    """The same counts; V2 at least ten times as fast over all maps together, in processor time."""
    multi = name == "maxboxacc-v2"
    protocol = PROTOCOLS[name].with_options(interval=interval)
    evaluator = _evaluator(evaluation, data_dir, interval, multi)
    num = NUM_OF_A_KIND[interval]
    rows_of = {kind: [row for row in range(5794) if kind_of(row) == kind][:num] for kind in KINDS}
    reference_s, ours_s, tallies = {}, {}, []
    for kind, rows in rows_of.items():
        heats = [generated_heat(row) for row in rows]
        _ours_s(protocol, cub, rows, heats)  # warm
        ours_s[kind], tally = _ours_s(protocol, cub, rows, heats)
        reference_s[kind] = _reference_s(evaluator, rows, heats)
        tallies.append(tally)
    found = protocol.result(Tally.joined(tallies)).curve
    for iou in (0.3, 0.5, 0.7) if multi else (0.5,):
        right = np.array(found[f"iou {iou:g}"]) * num * len(KINDS) / 100
        np.testing.assert_array_equal(np.rint(right), evaluator.num_correct[round(100 * iou)])
    total = sum(reference_s.values()), sum(ours_s.values())
    record(
        protocol=name,
        interval=interval,
        num_images_of_a_kind=num,
        reference_images_per_s={kind: round(num / reference_s[kind], 1) for kind in KINDS},
        images_per_s={kind: round(num / ours_s[kind], 1) for kind in KINDS},
        times_as_fast=round(total[0] / total[1], 1),
        times_by_kind={kind: round(reference_s[kind] / ours_s[kind], 1) for kind in KINDS},
    )
    assert total[0] / total[1] >= (10 if multi else 5)
