"""Pooling heads on real VOC (Oquab et al. 2015): what each knows, and where it points.

Heads on frozen EfficientNet-Lite0 features at 320 pixels, all twenty classes, logistic loss.
Learning rate, head and confidence are chosen on ``val`` (training on ``train``); then each head
is trained on ``trainval`` with three seeds and ``test`` is scored. Values are means over the five
classes that this cut of VOC has plenty of. About twenty minutes on two idle cores;
``WSLTOOL_BENCHMARK_WORK`` names a folder that is kept, so that the test goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wsltool
from wsltool.metrics.baselines import centre_peaks
from wsltool.metrics.protocols import ScoreProtocol, find_protocol
from wsltool.metrics.records import Peaks, Truth
from wsltool.metrics.tally import Tally
from wsltool.stages.scored import join_images, usable_slots
from wsltool.stages.scored_records import Source, records
from wsltool.stores.lineage import find_ancestor
from wsltool.stores.open import open_store

pytestmark = [pytest.mark.benchmark, pytest.mark.real]

CLASSES = ("bus", "car", "cat", "person", "train")
POOLS = ("gap", "gmp", "lse:1", "gwrp:.996")
RATES = (0.001, 0.004)
SEEDS = (0, 1, 2)
NUM_SAMPLES = 1000


def images(data_dir: Path, work: Path, split: str) -> Path:
    """Return the images store of a split."""
    return wsltool.ingest_voc(
        data_dir / "VOCdevkit" / "VOC2007", split=split, output=work / f"{split}.zarr"
    )


def maps(work: Path, learn: Path, test: Path, pool: str, rate: float, seed: int = 0) -> Path:
    """Train a head on `learn`; return its maps of all classes of `test`."""
    stem = f"{learn.stem}-{pool.replace(':', '')}-{rate}-{seed}"
    model = wsltool.train_cls(
        learn,
        model="efficientnet_lite0",
        pool=pool,
        loss="logistic",
        freeze="features",
        input_size=320,
        epochs=30,
        schedule="cosine",
        lr=rate,
        seed=seed,
        cache=work / "features",
        output=work / f"{stem}.safetensors",
    )
    output = work / f"{stem}.{test.stem}.zarr"
    return wsltool.cam(test, model=model, classes="all", map_dtype="float16", output=output)


def measured(store: Path) -> dict[str, float]:
    """Return classification mAP and, for both confidences, point mAP and the centre's."""
    found = {}
    (cls,) = wsltool.score(store, protocol="cls-map", classes=CLASSES)["results"]
    found["cls"] = cls["value"]
    for confidence in ("map", "cls"):
        (point,) = wsltool.score(store, protocol="point", confidence=confidence, classes=CLASSES)[
            "results"
        ]
        found[f"point_{confidence}"] = point["value"]
        found[f"centre_{confidence}"] = point["baselines"][0]["value"]
    return found


def point_records(path: Path, confidence: str) -> tuple[ScoreProtocol, list[tuple[Any, Truth]]]:
    """Return the protocol, and peaks and truth block by block."""
    with open_store(path) as store, find_ancestor(store, "images", "--truth") as truth:
        protocol = find_protocol("point").with_options(confidence=confidence, classes=CLASSES)
        protocol = protocol.with_classes(truth.class_names(), truth.whole("class_id").tolist())
        join = join_images(store, truth, given=store, without_skipped=False)
        source = Source(store, truth, join, usable_slots(store, protocol))
        return protocol, list(records(source, protocol))


def differences(
    found_records: list[tuple[ScoreProtocol, list[tuple[Peaks, Truth]]]], count_N: Any
) -> float:
    """Return point mAP minus the centre's, mean over seeds, with image n taken count_N[n] times."""
    found = []
    for protocol, blocks in found_records:
        totals: list[list[Any]] = [[], []]
        start = row = 0
        for peaks, truth in blocks:
            place = np.repeat(np.arange(len(truth)), count_N[start : start + len(truth)])
            start += len(truth)
            taken, true = peaks.take(place), truth.take(place)
            true.row_N[:] = np.arange(row, row + len(place))
            row += len(place)
            totals[0].append(protocol.count(taken, true))
            totals[1].append(protocol.count(centre_peaks(taken, true.size_wh_N2), true))
        point, centre = (protocol.result(Tally.joined(total)).value for total in totals)
        found.append(point - centre)
    return float(np.mean(found))


def test_heads_on_voc(
    data_dir: Path, work: Path, record: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """The best head, chosen on val, points far better than the centre of the image."""
    train, val, trainval, test = (
        images(data_dir, work, split) for split in ("train", "val", "trainval", "test")
    )
    tried = {
        (pool, rate): measured(maps(work, train, val, pool, rate))
        for pool in POOLS
        for rate in RATES
    }
    rate_of = {pool: max(RATES, key=lambda r, p=pool: max_point(tried[p, r])) for pool in POOLS}
    best = max(POOLS, key=lambda pool: max_point(tried[pool, rate_of[pool]]))
    chosen = tried[best, rate_of[best]]
    confidence = max(("map", "cls"), key=lambda one: chosen[f"point_{one}"])
    table, stores = {}, {}
    for pool in POOLS:
        stores[pool] = [maps(work, trainval, test, pool, rate_of[pool], seed) for seed in SEEDS]
        runs = [measured(store) for store in stores[pool]]
        table[pool] = {
            name: [round(float(np.mean(values)), 1), round(float(np.std(values, ddof=1)), 1)]
            for name in runs[0]
            if (values := [run[name] for run in runs])
        }
    seen = [point_records(store, confidence) for store in stores[best]]
    num = sum(len(truth) for _, truth in seen[0][1])
    mean = differences(seen, np.ones(num, int))
    random = np.random.default_rng(0)
    samples = [
        differences(seen, np.bincount(random.integers(0, num, num), minlength=num))
        for _ in range(NUM_SAMPLES)
    ]
    low, high = np.percentile(samples, [2.5, 97.5])
    with capsys.disabled():
        record(
            val={
                f"{p} lr {r}": {k: round(v, 1) for k, v in t.items()} for (p, r), t in tried.items()
            },
            chosen=f"{best}, lr {rate_of[best]}, confidence {confidence}",
            test_mean_and_sd_of_three_seeds=table,
            point_minus_centre=round(mean, 1),
            interval_95=[round(float(low), 1), round(float(high), 1)],
        )
    assert table[best]["cls"][0] >= 94
    assert mean >= 15
    assert low >= 11


def max_point(values: dict[str, float]) -> float:
    """Return the point mAP at the better confidence."""
    return max(values["point_map"], values["point_cls"])
