"""Micro-annotation on real VOC with an oracle (Kolesnikov and Lampert 2016).

SqueezeNet as ImageNet made it at 320 pixels with a GAP head for VOC's twenty classes, logistic
loss; patterns of trainval, labels by an oracle that sees trainval's boxes, figures of test: per
image and class, does the class's box hit (IoU .5), and the IoU of what is hot with the class's
mask. At 20 % of the maximum, and at thresholds fitted on trainval, one a class, before and after.
Five classes, the only ones this cut has plenty of. Needs the real pictures; about twenty minutes
on two idle cores; ``WSLTOOL_BENCHMARK_WORK`` names a folder that is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wsltool
from tests.benchmarks.micro_annotation import interval, mask_ious, pair_hits
from tests.benchmarks.test_heads_on_voc import CLASSES, images
from wsltool.stores.labels import annotation_order, read_labels

pytestmark = [pytest.mark.benchmark, pytest.mark.real]

FIT = {"fit_per": "class", "fit_objective": "gt-known"}
DEFAULT = 0.2


class Study:
    """The stores of one folder."""

    def __init__(self, work: Path, data_dir: Path) -> None:
        self.work = work
        self.trainval, self.test = (images(data_dir, work, split) for split in ("trainval", "test"))
        self.model = wsltool.train_cls(
            self.trainval,
            model="squeezenet1_0",
            init=data_dir / "weights" / "squeezenet1_0.safetensors",
            loss="logistic",
            freeze="features",
            input_size=320,
            epochs=12,
            output=self.work / "sqv.safetensors",
        )

    def maps(self, split: Path) -> Path:
        """Return the maps of the classes that are present."""
        output = self.work / f"{split.stem}.cam.zarr"
        return wsltool.cam(split, model=self.model, classes="present", output=output)

    def cells(self, split: Path) -> Path:
        """Return the features of every cell."""
        output = self.work / f"{split.stem}.cells.zarr"
        return wsltool.extract_features(self.maps(split), cells="all", output=output)

    def clusters(self, num: int) -> Path:
        """Return so many clusters a class of trainval's patterns."""
        maps, output = self.maps(self.trainval), self.work / f"k{num}.zarr"
        patterns = wsltool.extract_features(maps, output=self.work / "pat.zarr")
        return wsltool.cluster(patterns, min_clusters=num, max_clusters=num, output=output)

    def labels(self, num: int) -> Path:
        """Return what the oracle says of them."""
        output = self.work / f"lab.mean.k{num}.json"
        return wsltool.label(self.clusters(num), oracle=self.trainval, output=output)

    def refined(self, split: Path, num: int, fill: str) -> Path:
        """Return refined maps."""
        return wsltool.refine(
            self.maps(split),
            labels=self.labels(num),
            features=self.cells(split),
            fill=fill,
            output=self.work / f"{split.stem}.mean.k{num}.{fill}.zarr",
        )


def boxes_of(maps: Path, chosen_on: Path | None) -> Path:
    """Return boxes at the default threshold, or at those fitted on other maps."""
    if chosen_on is None:
        return wsltool.boxes(maps, output=maps.with_suffix(".def.zarr"))
    return wsltool.boxes(maps, fit_threshold=chosen_on, output=maps.with_suffix(".fit.zarr"), **FIT)


def thresholds(boxes: Path, num_classes: int) -> Any:
    """Return the threshold of every class."""
    with wsltool.open_store(boxes) as store:
        return np.broadcast_to(store.attributes["thresholds"]["value"], num_classes)


def measured(study: Study, maps: Path, chosen_on: Path | None) -> tuple[dict, dict, Path]:
    """Return hits and mask IoU of pairs of image and class, and the boxes."""
    boxes = boxes_of(maps, chosen_on)
    with wsltool.open_store(maps) as store:
        threshold_K = thresholds(boxes, len(store.class_names()))
    return pair_hits(boxes, study.test), mask_ious(maps, study.test, threshold_K), boxes


def curve_of(effort: dict[str, Any]) -> dict[str, Any]:
    """Return the queue with the share of the gain that each class completes, and the area."""
    (result,) = effort["results"]
    curve = result["effort"]["curve"]
    shares = curve["share"] or curve["gain"]
    return {
        "gain in points": [round(result["effort"][name], 1) for name in ("gain", "low", "high")],
        "fraction annotated": [round(one, 2) for one in curve["fraction"]],
        "share of the gain" if curve["share"] else "gain so far": [round(one, 2) for one in shares],
        "area": result["effort"]["area"],
    }


def compared(before: dict, after: dict, class_index: int | None, chosen: list[int]) -> dict:
    """Return values before and after, and the paired difference, of a class or of all chosen."""
    wanted = chosen if class_index is None else [class_index]
    keys = sorted(one for one in before if one[1] in wanted)
    old, new = ([float(values[one]) for one in keys] for values in (before, after))
    names = np.array([name for name, _ in keys])
    return {
        "before": round(100 * float(np.mean(old)), 1),
        "after": round(100 * float(np.mean(new)), 1),
        "gain": interval(old, new, names),
    }


@pytest.mark.parametrize("fill", ["masked", "floor", "zero"])
@pytest.mark.parametrize("num", [2, 3, 4])
def test_micro_annotation_of_voc(
    data_dir: Path, work: Path, record: Callable[..., None], num: int, fill: str
) -> None:
    """What an oracle's labels gain, class by class."""
    study = Study(work, data_dir)
    with wsltool.open_store(study.test) as truth:
        names = truth.class_names()
    chosen = [names.index(name) for name in CLASSES]
    values: dict[str, Any] = {}
    for rule in ("at .2", "fitted"):
        fit = rule == "fitted"
        old = measured(study, study.maps(study.test), study.maps(study.trainval) if fit else None)
        new = measured(
            study,
            study.refined(study.test, num, fill),
            study.refined(study.trainval, num, fill) if fit else None,
        )
        for measure, before, after in (("boxes", old[0], new[0]), ("masks", old[1], new[1])):
            for k in (*chosen, None):
                name = "all five" if k is None else names[k]
                values[f"{measure} {rule}: {name}"] = compared(before, after, k, chosen)
        if fill == "masked":
            effort = wsltool.effort(
                new[2],
                before=old[2],
                clusters=study.clusters(num),
                labels=study.labels(num),
                protocol="corloc",
                classes=CLASSES,
            )
            values[f"effort {rule}"] = curve_of(effort)
    with wsltool.open_store(study.clusters(num)) as clusters:
        queue = [names[k] for k in annotation_order(clusters) if k in chosen]
        eigenvalue = clusters.whole("eigenvalue")[:, 1]
    said = read_labels(study.labels(num)).classes
    record(
        clusters=num,
        fill=fill,
        queue={name: round(float(eigenvalue[names.index(name)]), 3) for name in queue},
        labels={one.class_name: " ".join(one.words) for one in said if one.class_index in chosen},
        **values,
    )
