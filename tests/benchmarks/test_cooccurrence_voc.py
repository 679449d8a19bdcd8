"""Re-scoring by label co-occurrence on real VOC (Bency et al. 2016, eqs. 2 to 4).

A GAP head for VOC's twenty classes on frozen EfficientNet-Lite0 features at 320 pixels, logistic
loss, trained on ``train``; the weight of pairs is chosen on ``val`` for classification mAP,
figures are of ``test``. This copy of VOC 2007 was selected by class (bus, car, cat, person and
train are plentiful, the others merely come along), so its co-occurrences are not VOC's. Needs
the real pictures; about ten minutes on two idle cores; ``WSLTOOL_BENCHMARK_WORK`` names a folder
that is kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wsltool
from tests.benchmarks.test_heads_on_voc import CLASSES, images

pytestmark = [pytest.mark.benchmark, pytest.mark.real]

NUM_SAMPLES = 1000
MEASURED: dict[str, dict[str, Any]] = {
    "classification": {"protocol": "cls-map"},
    "point, 0 px": {"protocol": "point", "confidence": "cls", "tolerance": 0},
    "point, 18 px": {"protocol": "point", "confidence": "cls"},
}


def test_cooccurrence_on_voc(data_dir: Path, work: Path, record: Callable[..., None]) -> None:
    """Two fifths of the images hold several classes; what pairs add, chosen on other images."""
    train, val, test = (images(data_dir, work, split) for split in ("train", "val", "test"))
    model = wsltool.train_cls(
        train,
        model="efficientnet_lite0",
        loss="logistic",
        freeze="features",
        input_size=320,
        epochs=30,
        schedule="cosine",
        lr=0.004,
        cache=work / "kept",
        output=work / "pairs.safetensors",
    )
    held_out = wsltool.cam(val, model=model, classes="all", output=work / "pairs.val.zarr")
    alone = wsltool.cam(test, model=model, classes="all", output=work / "pairs.test.zarr")
    table: dict[str, Any] = {}
    for objective in ("cls-map", "point"):
        file = work / f"weight.{objective}.json"
        (fit,) = wsltool.fit_cooccurrence(held_out, objective=objective, output=file)["results"]
        together = wsltool.cam(
            test,
            model=model,
            classes="all",
            cooccurrence=file,
            output=work / f"pairs.test.{objective}.zarr",
        )
        table[f"chosen for {objective}"] = {
            name: round(fit[name], 2) for name in ("alpha", "value", "value_at_0")
        }
        for name, how in MEASURED.items():
            for over, classes in (("20 classes", None), ("5 classes", CLASSES)):
                (one,) = wsltool.score(
                    together, compare=alone, bootstrap=NUM_SAMPLES, classes=classes, **how
                )["results"]
                gain = [round(one["compared"][name], 2) for name in ("difference", "low", "high")]
                table[f"{name}, {over}, chosen for {objective}"] = {
                    "without": round(one["compared"]["value"], 2),
                    "with": round(one["value"], 2),
                    "gain": gain,
                }
    sys.stdout.write(json.dumps(table, indent=1))
    record(table=table)
