"""Beam search beside class activation maps on real VOC (Bency et al. 2016).

One frozen backbone, EfficientNet-Lite0 at 224 pixels (7×7 cells, as VGG-16), under two heads:
fully connected layers on the whole grid for the search, GAP and one layer for the maps; VOC 2007
cut to the five classes that this copy has plenty of. Heads are trained on ``train``, thresholds
are fitted on two fifths of ``val``, one a class, for the AP at IoU .5, figures are of ``test``.
Every method gives maps of the two most probable classes of an image. A search by crops takes
seconds an image, so it is measured on the list ``small_test`` and half of the images that
thresholds are fitted on, and all others there too. Needs the real pictures; about fifty minutes on
two idle cores; ``WSLTOOL_BENCHMARK_WORK`` names a folder that is kept, so that the test goes on
where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import wsltool
from tests.benchmarks.test_heads_on_voc import CLASSES
from wsltool.metrics.iou import iou_matrix
from wsltool.stores.open import open_store

pytestmark = [pytest.mark.benchmark, pytest.mark.real]

SEARCHES: dict[str, dict[str, Any]] = {
    "grid, beam 8": {"mode": "grid", "beam": 8},
    "grid, greedy": {"mode": "grid", "beam": 1},
    "grid, all kept": {"mode": "grid", "beam": "all"},
    "grid, all scored, 8 kept": {"mode": "grid", "beam": "all:8"},
    "recrop, greedy": {"mode": "recrop", "beam": 1},
    "recrop, beam 8": {"mode": "recrop", "beam": 8},
}
FIT = {"fit_per": "class", "fit_objective": "voc-ap"}
NUM_SAMPLES = 1000
DRAWINGS: dict[str, dict[str, str]] = {
    "several": {"components": "all", "box_score": "box-mean"},
    "largest": {"box_score": "class"},
}


def five_classes(data_dir: Path, work: Path) -> Path:
    """Copy the devkit's lists and annotations, objects of other classes left out."""
    source, root = data_dir / "VOCdevkit" / "VOC2007", work / "VOC5"
    if root.is_dir():
        return root
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "JPEGImages").symlink_to(os.path.relpath(source / "JPEGImages", root))
    for file in (source / "Annotations").glob("*.xml"):
        tree = ElementTree.parse(file)
        for one in tree.getroot().findall("object"):
            if one.findtext("name") not in CLASSES:
                tree.getroot().remove(one)
        tree.write(root / "Annotations" / file.name)
    for split in ("train", "val", "test", "small_test"):
        text = (source / "ImageSets" / "Main" / f"{split}.txt").read_text()
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(text)
    (work / "five.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    return root


class Study:
    """The stores of one folder."""

    def __init__(self, work: Path, data_dir: Path) -> None:
        self.work = work
        root = five_classes(data_dir, work)
        self.train, self.val, self.test = (
            wsltool.ingest_voc(
                root, split=split, classes=work / "five.txt", output=work / f"{split}.zarr"
            )
            for split in ("train", "val", "test")
        )
        self.fit = wsltool.select(self.val, fraction=0.4, output=work / "fit.zarr")
        cut = root / "ImageSets" / "Main" / "small_test.txt"
        self.small_test = wsltool.select(self.test, ids=cut, output=work / "small_test.zarr")
        self.small_fit = wsltool.select(self.fit, fraction=0.5, output=work / "small_fit.zarr")
        shared = {"loss": "logistic", "freeze": "features", "cache": work / "kept"}
        self.gap = wsltool.train_cls(
            self.train,
            model="efficientnet_lite0",
            epochs=30,
            schedule="cosine",
            lr=0.004,
            output=work / "gap.safetensors",
            **shared,
        )
        self.fc = wsltool.train_cls(
            self.train,
            model="efficientnet_lite0_fc",
            epochs=8,
            schedule="cosine",
            lr=0.0003,
            weight_decay=0.1,
            output=work / "fc.safetensors",
            **shared,
        )

    def maps(self, method: str, images: Path) -> Path:
        """Return the maps of a method."""
        stem = method.replace(", ", "-").replace(" ", "-")
        output = self.work / f"{images.stem}.{stem}.zarr"
        whole = {self.small_test: self.test, self.small_fit: self.fit}.get(images)
        if whole is not None and "recrop" not in method:
            return wsltool.select(self.maps(method, whole), ids=_ids(images), output=output)
        if method == "CAM":
            return wsltool.cam(images, model=self.gap, classes="top2", output=output)
        if method == "CAM, 320 pixels":
            return wsltool.cam(
                images, model=self.gap, classes="top2", input_size=320, output=output
            )
        return wsltool.beam_search(
            images, model=self.fc, classes="top2", output=output, **SEARCHES[method]
        )

    def boxes(self, method: str, images: Path, **drawn: Any) -> Path:
        """Return the boxes of images of test, drawn at thresholds that were fitted on val."""
        maps = self.maps(method, images)
        output = maps.with_name(f"{maps.stem}.{'-'.join(map(str, drawn.values()))}.boxes.zarr")
        fit = self.maps(method, self.fit if images == self.test else self.small_fit)
        return wsltool.boxes(maps, fit_threshold=fit, output=output, **FIT, **drawn)


def _ids(images: Path) -> Path:
    """Write a list of a store's images beside it."""
    path = images.with_suffix(".txt")
    with open_store(images) as store:
        path.write_text("".join(f"{name}\n" for name in store.whole("image_id").tolist()))
    return path


def value(store: Path, protocol: str, **options: Any) -> dict[str, Any]:
    """Return one result."""
    (found,) = wsltool.score(store, protocol=protocol, **options)["results"]
    return found


def points(maps: Path) -> dict[str, Any]:
    """Return point mAP at tolerance 0, by both rankings, and the centre's."""
    found = {}
    for at in ("region", "peak"):
        for confidence in ("map", "cls"):
            one = value(maps, "point", tolerance=0, point_at=at, confidence=confidence)
            found[f"{at}, by {confidence}"] = round(one["value"], 1)
            found[f"centre, by {confidence}"] = round(one["baselines"][0]["value"], 1)
    return found


def gains(study: Study, images: Path, method: str, other: str) -> dict[str, list[float]]:
    """Return what a method gains over another: difference and its 95 % interval, paired."""
    pairs: dict[str, tuple[Path, Path, dict[str, Any]]] = {}
    maps = study.maps(method, images), study.maps(other, images)
    for confidence in ("map", "cls"):
        how = {"protocol": "point", "tolerance": 0, "confidence": confidence}
        pairs[f"point, by {confidence}"] = (*maps, how | {"point_at": "region"})
    for name, drawn in DRAWINGS.items():
        boxes = study.boxes(method, images, **drawn), study.boxes(other, images, **drawn)
        for iou in (0.5, 0.3):
            pairs[f"AP at {iou}, {name}"] = (*boxes, {"protocol": "voc-ap", "iou": iou})
    found = {}
    for name, (ours, theirs, how) in pairs.items():
        (one,) = wsltool.score(ours, compare=theirs, bootstrap=NUM_SAMPLES, **how)["results"]
        found[name] = [round(one["compared"][key], 1) for key in ("difference", "low", "high")]
    return found


def instances(boxes: Path, images: Path, name: str) -> tuple[int, int, int]:
    """Count images with several instances of a class, the instances, and those found at .3.

    Each box finds the true one that it overlaps most, in falling order of IoU, one each.
    """
    num_images = num_true = num_found = 0
    with open_store(boxes) as drawn, open_store(images) as truth:
        k = truth.class_names().index(name)
        for row in range(len(truth)):
            _, where = truth.ragged("box", row, row + 1)
            real = truth.rows("box_class", where.start, where.stop) == k
            real &= truth.rows("box_difficult", where.start, where.stop) == 0
            true_B4 = truth.rows("box", where.start, where.stop)[real]
            if len(true_B4) < 2:
                continue
            _, where = drawn.ragged("box", row, row + 1)
            ours = drawn.rows("box_class", where.start, where.stop) == k
            box_B4 = drawn.rows("box", where.start, where.stop)[ours]
            num_images, num_true = num_images + 1, num_true + len(true_B4)
            iou = iou_matrix(box_B4, true_B4) if len(box_B4) else np.zeros((1, len(true_B4)))
            while iou.size and iou.max() >= 0.3:
                one, other = np.unravel_index(iou.argmax(), iou.shape)
                iou[one], iou[:, other] = -1, -1
                num_found += 1
    return num_images, num_true, num_found


def measured(study: Study, images: Path, method: str) -> dict[str, Any]:
    """Return all figures of one method."""
    maps = study.maps(method, images)
    row: dict[str, Any] = {"cls": round(value(maps, "cls-map")["value"], 1)} | points(maps)
    for name, drawn in DRAWINGS.items():
        boxes = study.boxes(method, images, **drawn)
        for iou in (0.5, 0.3):
            found = value(boxes, "voc-ap", iou=iou)
            row[f"AP at {iou}, {name}"] = round(found["value"], 1)
            for one in found["baselines"]:
                row[f"AP at {iou}, {one['name']}"] = round(one["value"], 1)
        if name == "several":
            for class_name in ("car", "person"):
                num_images, num, num_found = instances(boxes, images, class_name)
                row[f"{class_name}, {num} in {num_images} images, found"] = num_found
    return row


def test_beam_search_on_voc(data_dir: Path, work: Path, record: Callable[..., None]) -> None:
    """Beam search points better than the maps of the same features (Bency et al., table 1)."""
    study = Study(work, data_dir)
    only = os.environ.get("WSLTOOL_BENCHMARK_METHODS", "")
    methods = [one for one in ("CAM", "CAM, 320 pixels", *SEARCHES) if only in one]
    tables: dict[str, dict[str, Any]] = {}
    for images in (study.small_test, study.test):
        table = tables.setdefault(images.stem, {})
        for method in methods:
            if "recrop" in method and images == study.test:
                continue
            table[method] = measured(study, images, method)
            if method in SEARCHES:
                for other in ("CAM", "CAM, 320 pixels"):
                    table[f"{method} over {other}"] = gains(study, images, method, other)
            (work / f"table{only}.json").write_text(json.dumps(tables, indent=1))
    record(**tables)
