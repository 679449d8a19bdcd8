"""MaxBoxAcc and PxAP against what wsolevaluation's own evaluators counted.

The frozen counts are those of ``make_wsolevaluation.py``: how many images are right at each
threshold and IoU, on the boxes of CUB's 5794 test images, and both histograms of PxAP on
OpenImages' masks; the heat maps are made here again, from the seed.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from wsltool.metrics.grid_heats import GridHeats
from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.records import Truth
from wsltool.metrics.tally import Tally

from .wsolevaluation_cases import generated_heat

FROZEN = np.load(Path(__file__).parent / "data" / "wsolevaluation.npz")
NAMES = {"maxboxacc": 0, "maxboxacc-v2": 1}


@pytest.fixture(scope="module")
def cub(data_dir):
    """The sizes and boxes of CUB's test images, in the order of the list."""
    folder = data_dir / "wsol-metadata" / "CUB" / "test"
    listed = {name: _lines(folder / f"{name}.txt") for name in ("image_sizes", "localization")}
    boxes = {}
    for name, *numbers in listed["localization"]:
        boxes.setdefault(name, []).append([float(number) for number in numbers])
    sizes = {name: [int(width), int(height)] for name, width, height in listed["image_sizes"]}
    return [(sizes[name], boxes[name]) for (name,) in _lines(folder / "image_ids.txt")]


def _lines(path):
    return [line.split(",") for line in path.read_text().splitlines()]


def image_truth(images, rows):
    boxes = [box for _, of_image in images for box in of_image]
    return Truth(
        row_N=np.array(rows),
        size_wh_N2=np.array([size for size, _ in images], np.int32),
        label_NK=np.ones((len(images), 1), np.uint8),
        excluded_N=np.zeros(len(images), bool),
        box_start=np.cumsum([0, *(len(of_image) for _, of_image in images)]),
        box_xyxy_B4=np.array(boxes),
        box_class_B=np.zeros(len(boxes), np.int32),
        box_difficult_B=np.zeros(len(boxes), bool),
    )


def _heats(rows, masks=None):
    heat_NHW = np.array([generated_heat(row) for row in rows])
    return GridHeats(has_map_N=np.ones(len(rows), bool), heat_NHW=heat_NHW, masks=masks)


def _counted(cub, rows, wanted):
    """Return the joined tally of each (protocol, interval), counted in blocks of 20 images."""
    protocols = {one: PROTOCOLS[one[0]].with_options(interval=one[1]) for one in wanted}
    tallies = {one: [] for one in wanted}
    for first in range(0, len(rows), 20):
        few = rows[first : first + 20]
        truth, heats = image_truth([cub[row] for row in few], few), _heats(few)
        for one, protocol in protocols.items():
            tallies[one].append(protocol.count(heats, truth))
    return {one: Tally.joined(tallies[one]) for one in wanted}


def _num_right(protocol, tally):
    curve = protocol.result(tally).curve
    share_DT = np.array([curve[name] for name in curve if name != "threshold"])
    return np.rint(share_DT * len(tally.row_N) / 100).astype(int)


def _check(cub, rows, which, intervals):
    wanted = [(name, interval) for name in NAMES for interval in intervals]
    for (name, interval), tally in _counted(cub, rows, wanted).items():
        frozen_DT = FROZEN[f"boxes_{which}_{interval:g}"][NAMES[name]]
        protocol = PROTOCOLS[name].with_options(interval=interval)
        if name == "maxboxacc":
            frozen_DT = frozen_DT[1:2]
        np.testing.assert_array_equal(_num_right(protocol, tally), frozen_DT, err_msg=name)
        best_D = frozen_DT.max(axis=1) * 100.0 / len(rows)
        assert protocol.result(tally).value == pytest.approx(best_D.mean(), abs=1e-12)


@pytest.mark.real
def test_every_tenth_image_at_every_threshold(cub):
    _check(cub, list(range(0, len(cub), 10)), "tenth", (0.01, 0.001))


@pytest.mark.real
@pytest.mark.benchmark
def test_all_images_at_every_threshold(cub):
    _check(cub, list(range(len(cub))), "all", (0.01,))


@pytest.mark.real
@pytest.mark.parametrize("interval", [0.01, 0.001])
def test_pixels_of_openimages(data_dir, interval):
    folder = data_dir / "wsol-metadata" / "OpenImages"
    names = json.loads(str(FROZEN["about"]))["images with masks"]
    assert len(names) == 5
    lines = [line for line in _lines(folder / "val" / "localization.txt") if line[0] in names]
    masks = np.array([_mask(folder / "masks", name, lines) for name in names])
    assert {int(value) for value in np.unique(masks)} == {0, 1, 255}
    protocol = PROTOCOLS["pxap"].with_options(interval=interval)
    truth = image_truth([([500, 375], [[0.0, 0.0, 1.0, 1.0]])] * 5, range(5))
    tally = protocol.count(_heats(range(5), lambda: masks), truth)
    np.testing.assert_array_equal(tally.sums["pixels"], FROZEN[f"pixels_{interval:g}"])
    frozen = float(FROZEN[f"pxap_{interval:g}"])
    assert protocol.result(tally).value == pytest.approx(frozen, abs=1e-9)


def _mask(folder, name, lines):
    """The masks of an image on the grid, made as the evaluator does, file by file."""
    of_image = [line for line in lines if line[0] == name]

    def on_grid(file):
        grey = np.array(Image.open(folder / file).convert("L"))
        return cv2.resize(grey, (224, 224), interpolation=cv2.INTER_NEAREST) > 0

    shown = np.any([on_grid(line[1]) for line in of_image], axis=0)
    left_out = np.any([on_grid(line[2]) for line in of_image if line[2]], axis=0)
    return np.where(shown, 1, np.where(left_out, 255, 0)).astype(np.uint8)
