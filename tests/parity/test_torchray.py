"""The pointing game, pair by pair as TorchRay's own code plays it (``make_torchray.py``)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from wsltool.localize.grid import peak_px
from wsltool.metrics.pointing_game import GamePoints, MaskGaps, squared_gap
from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.records import Peaks, Truth
from wsltool.metrics.tally import Tally

from .torchray_cases import coco_images, voc_images

GAME = PROTOCOLS["pointing-game"]
SAID = "-+0"


@pytest.fixture(scope="module")
def reference():
    return json.loads((Path(__file__).parent / "data" / "torchray.json").read_text())


def _truth(images, num_classes):
    boxes = [one for image in images for one in image.instances]
    hard_B = np.array([one.difficult or one.crowd for one in boxes])
    label_NK = np.zeros((len(images), num_classes), np.uint8)
    for n, image in enumerate(images):
        for one in image.instances:
            if label_NK[n, one.class_index] != 1:
                label_NK[n, one.class_index] = 255 if one.difficult or one.crowd else 1
    return Truth(
        row_N=np.arange(len(images)),
        size_wh_N2=np.array([image.size_wh for image in images], np.int32),
        label_NK=label_NK,
        excluded_N=np.zeros(len(images), bool),
        box_start=np.cumsum([0, *(len(image.instances) for image in images)]),
        box_xyxy_B4=np.array([one.box for one in boxes], np.float64) - [1, 1, 0, 0],
        box_class_B=np.array([one.class_index for one in boxes], np.int32),
        box_difficult_B=hard_B,
        box_crowd_B=np.array([one.crowd for one in boxes]),
    )


def _peaks(images):
    shape = (len(images), max(len(image.map_of) for image in images))
    map_class_NS = np.full(shape, -1, np.int32)
    peak_xy_NS2 = np.zeros((*shape, 2))
    for n, image in enumerate(images):
        for slot, (index, map_HW) in enumerate(image.map_of.items()):
            map_class_NS[n, slot] = index
            peak_xy_NS2[n, slot] = peak_px(map_HW, (0, 0, *image.size_wh), image.size_wh)
    return Peaks(
        has_prediction_N=np.ones(len(images), bool),
        map_class_NS=map_class_NS,
        map_score_NS=np.where(map_class_NS >= 0, 0.0, -np.inf),
        peak_xy_NS2=peak_xy_NS2,
        peak_value_NS=np.zeros(shape),
    )


def _gaps(images, peaks):
    gap_NS = np.full(peaks.map_class_NS.shape, np.inf)
    for n, slot in np.argwhere(peaks.map_class_NS >= 0).tolist():
        index = peaks.map_class_NS[n, slot]
        masks = [one.mask_HW for one in images[n].instances if one.class_index == index]
        column, row = np.floor(peaks.peak_xy_NS2[n, slot]).astype(int).tolist()
        gap_NS[n, slot] = squared_gap(np.any(masks, axis=0), column, row)
    return MaskGaps(drawn_N=np.ones(len(images), bool), gap_NS=gap_NS, centre_gap_NS=gap_NS)


def _compare(reference, tally, peaks):
    filled_NS = peaks.map_class_NS >= 0
    points = [f"{int(u)},{int(v)}" for u, v in peaks.peak_xy_NS2[filled_NS]]
    assert " ".join(points) == reference["points"]
    ours = "".join(SAID[one] for one in tally.column("pair", "outcome"))
    assert ours == reference["outcomes"].replace(" ", "")
    result = GAME.result(tally)
    assert [row.counts["num_hits"] for row in result.per_class] == reference["hits"]
    assert [row.counts["num_misses"] for row in result.per_class] == reference["misses"]
    values = np.nan_to_num([row.value for row in result.per_class])
    np.testing.assert_allclose(
        values, 100 * np.array(reference["class_accuracies"]), rtol=1e-14, atol=0
    )
    assert result.value == pytest.approx(100 * reference["accuracy"], rel=1e-13)


def test_voc(reference):
    """Boxes, difficult ones among them; in two blocks."""
    images = voc_images()
    true, peaks = _truth(images, 20), _peaks(images)
    points = GamePoints(peaks=peaks)
    blocks = np.split(np.arange(len(images)), [60])
    tally = Tally.joined(GAME.count(points.take(block), true.take(block)) for block in blocks)
    _compare(reference["voc"], tally, peaks)
    assert "0" in reference["voc"]["outcomes"]


def test_coco(reference):
    """Masks, crowds among them: a class of crowds only is played."""
    images = coco_images()
    true, peaks = _truth(images, 80), _peaks(images)
    points = GamePoints(peaks=peaks, masks=_gaps(images, peaks))
    _compare(reference["coco"], GAME.count(points, true), peaks)
    assert (true.label_NK == 255).any()
    assert GAME.count(points, true).column("pair", "empty").any()


def test_around_one_pixel(reference):
    """Every point of a 40 x 40 image around the one pixel (20, 20): 15 away is a miss."""
    mask_HW = np.zeros((40, 40), bool)
    mask_HW[20, 20] = True
    rows = [
        "".join("+" if squared_gap(mask_HW, u, v) < GAME.tolerance**2 else "-" for u in range(40))
        for v in range(40)
    ]
    assert rows == reference["around_one_pixel"]["rows"]
    assert rows[20][5] == "-"
    assert rows[20][6] == "+"
