"""Micro-annotation of ten real ILSVRC classes at its page (Kolesnikov and Lampert 2016).

Patterns are those of 1500 training images, labels are what an annotator said at the page
(``docs/benchmarks/micro-annotation``), figures are of the 300 validation images: GT-known and
top-1 and top-5 localization accuracy at 20 % of the maximum, and at a threshold fitted on one
half of the images and scored on the other, both ways. The control draws as many distractors at
random, five times. Needs the real pictures; about a quarter of an hour on two idle cores;
``WSLTOOL_BENCHMARK_WORK`` names a folder that is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wsltool
from tests.benchmarks.conftest import ROOT
from tests.benchmarks.micro_annotation import halves, interval, pair_hits, top_hits
from wsltool.stores.labels import clusters_of_class, read_labels

pytestmark = [pytest.mark.benchmark, pytest.mark.real]

ANSWERS = ROOT / "docs" / "benchmarks" / "micro-annotation"
NETWORKS: dict[str, dict[str, Any]] = {
    "squeezenet1_0": {"weights": "weights/squeezenet1_0.safetensors"},
    "efficientnet_lite0": {"input_size": 320},
}
FIT = {"fit_objective": "gt-known"}
NUM_CONTROLS = 5

Hits = dict[tuple[str, int], bool]


class Study:
    """The stores of one network."""

    def __init__(self, work: Path, data_dir: Path, network: str) -> None:
        self.work, self.network = work / network, network
        self.work.mkdir(exist_ok=True)
        lists = {"classes": data_dir / "weights" / "imagenet_classes.txt"}
        real = data_dir / "imagenette"
        box_list = real / "metadata" / "test" / "localization.txt"
        self.train = wsltool.ingest_folder(real / "train", output=work / "train.zarr", **lists)
        self.val = wsltool.ingest_folder(
            real / "test", boxes=box_list, output=work / "val.zarr", **lists
        )
        options = dict(NETWORKS[network])
        if "weights" in options:
            options["weights"] = data_dir / options["weights"]
        self.options = options

    def maps(self, images: Path, classes: str) -> Path:
        """Return the network's maps of some images."""
        output = self.work / f"{images.stem}.cam.zarr"
        return wsltool.cam(
            images, model=self.network, classes=classes, output=output, workers=0, **self.options
        )

    def clusters(self, least: int) -> Path:
        """Return the clusters of the training images' patterns."""
        maps = self.maps(self.train, "present")
        patterns = wsltool.extract_features(maps, output=self.work / "patterns.zarr", workers=0)
        return wsltool.cluster(patterns, min_clusters=least, output=self.work / f"k{least}.zarr")

    def labels(self, least: int) -> Path:
        """Return the annotator's labels of these clusters."""
        clusters = self.clusters(least)
        answers = _about(clusters, ANSWERS / f"{self.network}-{least}.json", self.work)
        return wsltool.label(clusters, answers=answers, output=self.work / f"k{least}.page.json")

    def refined(self, labels: Path) -> Path:
        """Return the validation maps refined by labels, on features of every cell."""
        cells = wsltool.extract_features(
            self.val,
            model=self.network,
            cells="all",
            output=self.work / "val.cells.zarr",
            workers=0,
            **self.options,
        )
        output = self.work / f"{labels.stem}.cam.zarr"
        maps = self.maps(self.val, "top5+present")
        return wsltool.refine(maps, labels=labels, features=cells, output=output)


def _about(clusters: Path, answers: Path, work: Path) -> Path:
    """Return the answers as a file about these clusters.

    On another machine a feature may differ in its last digit, and so the digest; nobody who
    looks at the page would see it. The sizes of the clusters must agree to one in a hundred.
    """
    held = json.loads(answers.read_text())
    with wsltool.open_store(clusters) as store:
        sizes = store.whole("cluster_size")
        for one in held["labels"]["classes"]:
            row_q = clusters_of_class(store)[one["class"]]
            np.testing.assert_allclose(sizes[row_q], held["sizes"][one["name"]], rtol=0.01, atol=3)
        held["labels"]["clusters"]["digest"] = store.meta["digest"]
    path = work / answers.name
    path.write_text(json.dumps(held["labels"]))
    return path


def at_default(study: Study, maps: Path) -> dict[str, Hits]:
    """Return the hits at 20 % of the maximum."""
    boxes = wsltool.boxes(maps, output=maps.with_suffix(".boxes.zarr"))
    return {
        "gt-known": pair_hits(boxes, study.val),
        "top-1": top_hits(boxes, study.val, 1),
        "top-5": top_hits(boxes, study.val, 5),
    }


def fitted(study: Study, maps: Path) -> dict[str, Hits]:
    """Return the hits where each half's threshold is chosen on the other half."""
    found: dict[str, Hits] = {"gt-known": {}, "top-1": {}, "top-5": {}}
    both = halves(maps, study.work)
    for scored, chosen_on in (both, both[::-1]):
        boxes = wsltool.boxes(
            scored, fit_threshold=chosen_on, output=scored.with_suffix(".fit.zarr"), **FIT
        )
        found["gt-known"] |= pair_hits(boxes, study.val)
        found["top-1"] |= top_hits(boxes, study.val, 1)
        found["top-5"] |= top_hits(boxes, study.val, 5)
    return found


def percent(hits: Hits, class_index: int | None = None) -> float:
    """Return the share of hits, of one class or of all."""
    values = [hit for (_, k), hit in hits.items() if class_index in (None, k)]
    return round(100 * float(np.mean(values)), 1)


def gain(before: Hits, after: Hits) -> list[float]:
    """Return the difference and its interval."""
    keys = sorted(before)
    names = np.array([name for name, _ in keys])
    return interval([before[one] for one in keys], [after[one] for one in keys], names)


@pytest.mark.parametrize("least", [2, 3])
@pytest.mark.parametrize("network", NETWORKS)
def test_micro_annotation_of_ilsvrc(
    data_dir: Path, work: Path, record: Callable[..., None], network: str, least: int
) -> None:
    """What the labels gain, beside as many distractors drawn at random."""
    study = Study(work, data_dir, network)
    labels = study.labels(least)
    before, after = study.maps(study.val, "top5+present"), study.refined(labels)
    controls = [
        study.refined(
            wsltool.label(
                study.clusters(least),
                oracle="random",
                like=labels,
                seed=seed,
                output=study.work / f"k{least}.random{seed}.json",
            )
        )
        for seed in range(NUM_CONTROLS)
    ]
    names = wsltool.open_store(study.val).class_names()
    said = {one.class_name: " ".join(one.words) for one in read_labels(labels).classes}
    values: dict[str, Any] = {}
    for rule, hits_of in (("at .2", at_default), ("fitted", fitted)):
        old, new = hits_of(study, before), hits_of(study, after)
        random = [hits_of(study, one) for one in controls]
        for measure in old:
            drawn = [percent(one[measure]) for one in random]
            values[f"{measure} {rule}"] = {
                "before": percent(old[measure]),
                "after": percent(new[measure]),
                "gain": gain(old[measure], new[measure]),
                "random": [round(float(np.mean(drawn)), 1), round(float(np.std(drawn, ddof=1)), 1)],
            }
        classes = sorted({k for _, k in old["gt-known"]})
        values[f"by class, gt-known {rule}"] = {
            names[k]: f"{percent(old['gt-known'], k)} to {percent(new['gt-known'], k)}"
            for k in classes
        }
    record(network=network, min_clusters=least, labels=said, **values)
