"""Training on image-level labels: it learns, and it resumes to the byte, wherever it stopped."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision import models as zoo

from tests.nets.conftest import Squares
from wsltool.errors import BadImageError, Interrupted, ModelError, TrainingError
from wsltool.nets.inference import run_cams
from wsltool.nets.models import Model, load_model, save_model
from wsltool.nets.train_config import TrainConfig
from wsltool.nets.training import (
    Feedback,
    Labelled,
    Place,
    Validated,
    Watcher,
    train_classifier,
)

NUM = 24
LABEL_NK = np.eye(2, dtype=np.uint8)[np.arange(NUM) % 2]
SMALL = TrainConfig(init="none", epochs=3, batch_size=8, input_size=48, augment="mirror,crop=.7")


def data(load: Any = None, **more: Any) -> Labelled:
    return Labelled(load or Squares(), LABEL_NK, class_name=["red", "green"], **more)


def train(
    folder: Path,
    config: TrainConfig = SMALL,
    name: str = "small_gap",
    *,
    load: Any = None,
    workers: int = 0,
    checkpoint_s: float = 0.0,
    cache: Path | None = None,
    **more: Any,
) -> Model:
    place = Place(folder, cache=cache, workers=workers, checkpoint_s=checkpoint_s)
    return train_classifier(name, more.pop("data", data(load)), place, config, **more)


def state(model: Model) -> dict[str, NDArray[Any]]:
    return {name: value.numpy() for name, value in model.network.module.state_dict().items()}


def same(a: Model, b: Model) -> bool:
    own, other = state(a), state(b)
    return all(own[name].tobytes() == other[name].tobytes() for name in own)


def losses(folder: Path) -> list[float]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [one["loss"] for one in map(json.loads, lines) if "loss" in one]


class Stop(Exception):  # noqa: N818
    """Somebody pulls the plug."""


def stop_after(iteration: int) -> Watcher:
    def record(line: dict[str, float | int]) -> None:
        if line["iteration"] == iteration:
            raise Stop

    return Watcher(record=record)


def test_small_network_learns_and_finds_the_square(tmp_path: Path) -> None:
    config = replace(SMALL, epochs=12, batch_size=12, augment="crop", lr=0.003)
    records: list[dict[str, float | int]] = []
    random_before = torch.get_rng_state()
    model = train(tmp_path, config, watcher=Watcher(record=records.append))
    assert torch.equal(torch.get_rng_state(), random_before)
    assert [record["iteration"] for record in records] == list(range(1, 25))
    assert [record["epoch"] for record in records] == [n // 2 for n in range(2, 26)]
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log == records
    assert records[-1]["loss"] < 0.2 < records[0]["loss"]
    save_model(tmp_path / "m.safetensors", model, model.provenance)
    model = load_model(str(tmp_path / "m.safetensors"))
    assert model.class_name == ["red", "green"]

    def own(rows: Any, _score_NK: Any) -> NDArray[np.int64]:
        return np.array(rows)[:, None] % 2

    rows = list(range(100, 120))
    (batch,) = run_cams(model, Squares(), [rows], own, device=torch.device("cpu"))
    assert (batch.class_score_NK.argmax(1) == np.array(rows) % 2).mean() >= 0.9
    hits = 0
    for row, map_HW in zip(rows, batch.map_NSHW[:, 0], strict=True):
        y, x = np.unravel_index(int(map_HW.argmax()), map_HW.shape)
        colour = Squares()(row)[int((y + 0.5) / 6 * 40), int((x + 0.5) / 6 * 56)]
        hits += int(colour[row % 2] == 250 and colour.min() == 20)
    assert hits >= 16


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "sgd", "schedule": "step=4:.5,warmup=2"},
        {"optimizer": "adamw", "augment": "crop,balance", "schedule": "cosine"},
        {"accumulate": 3, "lr_multiplier": "head=10", "iterations": 8, "epochs": None},
        {"augment": "mirror,scale=.7:1.4,rotate=10,noise=5", "pool": "lse:3"},
        {"precision": "bf16"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_resumed_in_the_middle_of_an_epoch_is_the_same_to_the_byte(
    tmp_path: Path, one_thread: object, change: dict[str, Any]
) -> None:
    config = replace(SMALL, **change)
    whole = train(tmp_path / "a", config, checkpoint_s=1e9)
    for iteration in (2, 5, 8):  # epochs end after 3, 6 and 9
        with pytest.raises(Stop):
            train(tmp_path / "b", config, watcher=stop_after(iteration))
    resumed = train(tmp_path / "b", config, workers=1)
    assert same(whole, resumed)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert same(whole, train(tmp_path / "b", config))
    other = train(tmp_path / "c", replace(config, seed=1))
    assert not same(whole, other)


def test_a_signal_is_heard_between_two_steps(tmp_path: Path, one_thread: object) -> None:
    def ask(done: int, _total: int) -> None:
        if done == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as caught:
        train(tmp_path / "b", checkpoint_s=1e9, watcher=Watcher(step=ask))
    assert caught.value.exit_code == 143
    assert torch.load(tmp_path / "b" / "checkpoint.pt", weights_only=True)["iteration"] == 5
    assert same(train(tmp_path / "b"), train(tmp_path / "a"))


def test_a_model_on_the_way_is_kept_though_a_signal_came(tmp_path: Path) -> None:
    kept: list[int] = []

    def ask(done: int, _total: int) -> None:
        if done == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    watcher = Watcher(step=ask, keep_at=[5], keep=lambda iteration, _model: kept.append(iteration))
    with pytest.raises(Interrupted):
        train(tmp_path, checkpoint_s=1e9, watcher=watcher)
    train(tmp_path, watcher=replace(watcher, step=lambda _done, _total: None))
    assert kept == [5]


def test_pieces_of_a_batch_add_up(tmp_path: Path, one_thread: object) -> None:
    """A network without batch normalisation, with dropout: pieces take the same steps."""
    config = TrainConfig(
        init="none", iterations=3, batch_size=7, input_size=64, optimizer="sgd", lr=1e-4
    )
    train(tmp_path / "a", config, "squeezenet1_1")
    train(tmp_path / "b", replace(config, accumulate=3), "squeezenet1_1")
    assert losses(tmp_path / "a") == pytest.approx(losses(tmp_path / "b"), rel=1e-5)


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    torch.save(zoo.mobilenet_v2(num_classes=9).state_dict(), tmp_path / "backbone.pt")
    return tmp_path / "backbone.pt"


class Counting:
    """Counts how often pictures are read."""

    def __init__(self, last: int = 1 << 30) -> None:
        self.num, self.last = 0, last

    def __call__(self, row: int) -> NDArray[np.uint8]:
        self.num += 1
        if self.num == self.last:
            raise Stop
        return Squares()(row)


@pytest.mark.parametrize("pool", ["gap", "gmp"])
def test_frozen_features_are_computed_once(
    tmp_path: Path, backbone: Path, one_thread: object, pool: str
) -> None:
    config = TrainConfig(
        loss="logistic",
        pool=pool,
        init=str(backbone),
        freeze="features",
        augment="mirror",
        epochs=4,
        batch_size=2,
        input_size=64,
        optimizer="sgd",
    )
    cache = tmp_path / "cache"
    plain = Counting()
    whole = train(tmp_path / "a", config, "mobilenet_v2", load=plain, cache=cache)
    assert plain.num == NUM
    with pytest.raises(Stop):
        train(
            tmp_path / "b", config, "mobilenet_v2", cache=cache, watcher=stop_after(20), load=plain
        )
    again = Counting()
    assert same(whole, train(tmp_path / "b", config, "mobilenet_v2", load=again, cache=cache))
    assert (plain.num, again.num) == (NUM, 0)
    before, after = torch.load(backbone, weights_only=True), state(whole)
    changed = [
        n for n in after if n not in before or after[n].tobytes() != before[n].numpy().tobytes()
    ]
    assert changed == ["classifier.1.weight", "classifier.1.bias"]
    assert whole.provenance["initialised"] == changed
    (kept,) = cache.glob("*.value.npy")
    shape = (1, 1) if pool == "gap" else (2, 2)
    assert np.load(kept).shape == (NUM, 2, 1280, *shape)


@pytest.mark.parametrize("freeze", ["features", "features.14"])
def test_kept_features_and_pictures_take_the_same_steps(
    tmp_path: Path, backbone: Path, one_thread: object, monkeypatch: pytest.MonkeyPatch, freeze: str
) -> None:
    config = TrainConfig(
        loss="logistic",
        pool="gwrp:.9",
        init=str(backbone),
        freeze=freeze,
        augment="mirror",
        iterations=6,
        batch_size=6,
        input_size=64,
        fit="letterbox",
    )
    kept = train(tmp_path / "a", config, "mobilenet_v2")
    from wsltool.nets import source_choice

    monkeypatch.setattr(source_choice, "find_cut", lambda *args, **more: None)
    plain = train(tmp_path / "b", config, "mobilenet_v2")
    assert not list((tmp_path / "b").glob("*.npy"))
    assert list((tmp_path / "a").glob("*.npy"))
    assert losses(tmp_path / "a") == pytest.approx(losses(tmp_path / "b"), rel=1e-4)
    own, other = state(kept), state(plain)
    for name in own:
        assert np.allclose(own[name], other[name], atol=1e-4), name


def test_features_go_on_where_they_stopped(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch, one_thread: object
) -> None:
    from wsltool.nets import kept_arrays

    monkeypatch.setattr(kept_arrays, "_FLUSH_EVERY", 2)
    config = TrainConfig(
        init=str(backbone),
        freeze="features",
        epochs=1,
        batch_size=4,
        input_size=32,
        augment="none",
    )
    with pytest.raises(Stop):  # at the 17th picture: 16 are done and noted
        train(tmp_path / "a", config, "mobilenet_v2", load=Counting(17))
    rest = Counting()
    resumed = train(tmp_path / "a", config, "mobilenet_v2", load=rest)
    assert rest.num == NUM - 16
    assert same(resumed, train(tmp_path / "b", config, "mobilenet_v2"))


def test_a_disk_without_room_is_no_obstacle(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsltool.nets import kept_arrays

    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(kept_arrays.shutil, "disk_usage", lambda folder: usage)
    config = TrainConfig(
        init=str(backbone), freeze="features", iterations=1, input_size=32, augment="none"
    )
    train(tmp_path / "a", config, "mobilenet_v2")
    assert not list((tmp_path / "a").glob("*.npy"))


def test_freezing_leaves_batch_statistics_alone(tmp_path: Path) -> None:
    """A backbone that fills a part of a network: the rest learns, the part stays."""
    first = state(train(tmp_path / "f", replace(SMALL, iterations=1, epochs=None)))
    part = {n: torch.tensor(v) for n, v in first.items() if n.split(".")[1] in "01"}
    torch.save(part, tmp_path / "part.pt")
    config = replace(SMALL, init=str(tmp_path / "part.pt"), freeze="features", epochs=1)
    after = state(train(tmp_path / "w", config))
    for name, value in part.items():
        assert after[name].tobytes() == value.numpy().tobytes(), name
    assert after["features.4.running_mean"].any()


def test_squeezenet_trained_here_has_scores_of_both_signs(tmp_path: Path) -> None:
    config = TrainConfig(
        loss="logistic", init="none", epochs=1, batch_size=12, input_size=64, lr=1e-4
    )
    model = train(tmp_path, config, "squeezenet1_1")
    save_model(tmp_path / "m.safetensors", model, {})
    model = load_model(str(tmp_path / "m.safetensors"))
    assert not model.network.rectified
    x_NCHW = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        feature_NCHW, logit_NK = model.network(x_NCHW)
        map_NKHW = model.network.class_maps(feature_NCHW, torch.tensor([[0, 1]] * 2))
    assert torch.allclose(map_NKHW.mean((2, 3)) + model.network.class_bias, logit_NK, atol=1e-5)
    assert float(map_NKHW.min()) < 0


def test_the_second_phase_looks_elsewhere(tmp_path: Path, one_thread: object) -> None:
    """A second network that was shown nothing where the first fires, learns the rest."""
    config = replace(SMALL, loss="logistic", epochs=10, batch_size=12, lr=0.003, augment="mirror")
    first = train(tmp_path / "1", config)
    second = train(tmp_path / "2", config, feedback=Feedback([first]))
    third = train(tmp_path / "3", config, feedback=Feedback([first, second], [0.5], "features"))
    assert losses(tmp_path / "1") != losses(tmp_path / "2") != losses(tmp_path / "3")
    # hiding the square's cells makes the task harder
    assert losses(tmp_path / "1")[-1] < losses(tmp_path / "2")[-1]
    with pytest.raises(TrainingError, match="holds a training with suppress"):
        train(tmp_path / "2", config, feedback=Feedback([third]))
    with pytest.raises(Stop):
        train(tmp_path / "4", config, feedback=Feedback([first]), watcher=stop_after(7))
    assert same(second, train(tmp_path / "4", config, feedback=Feedback([first])))


def test_suppression_on_kept_features_is_that_on_pictures(
    tmp_path: Path, backbone: Path, one_thread: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(
        loss="logistic",
        init=str(backbone),
        freeze="features.14",
        augment="mirror",
        iterations=4,
        batch_size=6,
        input_size=64,
    )
    first = train(tmp_path / "1", config, "mobilenet_v2")
    kept = train(tmp_path / "2", config, "mobilenet_v2", feedback=Feedback([first]))
    assert list((tmp_path / "2").glob("*.mask.npy"))
    from wsltool.nets import source_choice

    monkeypatch.setattr(source_choice, "find_cut", lambda *args, **more: None)
    plain = train(tmp_path / "3", config, "mobilenet_v2", feedback=Feedback([first]))
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "3"), rel=1e-4)
    assert losses(tmp_path / "2") != losses(tmp_path / "1")
    assert state(kept).keys() == state(plain).keys()


def test_validation_on_the_way(tmp_path: Path, one_thread: object) -> None:
    seen: list[tuple[int, ...]] = []

    def measure(score_NK: NDArray[Any], label_NK: NDArray[Any]) -> dict[str, float]:
        seen.append(score_NK.shape)
        return {"right": float((score_NK.argmax(1) == label_NK.argmax(1)).mean())}

    validated = Validated(Labelled(Squares(), LABEL_NK[:10]), measure, every=2)
    model = train(tmp_path / "a", validated=validated)
    lines = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    found = [line for line in lines if "val_right" in line]
    assert [line["iteration"] for line in found] == [2, 4, 6, 8, 9]
    assert seen == [(10, 2)] * 5
    assert all(0 <= line["val_right"] <= 1 and line["val_loss"] > 0 for line in found)
    assert same(model, train(tmp_path / "b"))  # measuring changes nothing
    with pytest.raises(Stop):
        train(tmp_path / "c", validated=validated, watcher=stop_after(4))
    train(tmp_path / "c", validated=validated)
    again = [json.loads(line) for line in (tmp_path / "c" / "log.jsonl").read_text().splitlines()]
    for line in (*lines, *again):
        line.pop("seconds", None)
    assert lines == again


def test_validation_on_kept_features_is_that_on_pictures(
    tmp_path: Path, backbone: Path, one_thread: object
) -> None:
    def measure(score_NK: NDArray[Any], _label_NK: NDArray[Any]) -> dict[str, float]:
        return {"sum": float(score_NK.sum())}

    config = TrainConfig(
        init=str(backbone), freeze="features", augment="none", epochs=1, input_size=32
    )
    validated = Validated(Labelled(Squares(), LABEL_NK, rows=range(50, 50 + NUM)), measure)
    model = train(tmp_path / "a", config, "mobilenet_v2", validated=validated)
    last = json.loads((tmp_path / "a" / "log.jsonl").read_text().splitlines()[-1])

    def top(rows: Any, _score_NK: Any) -> NDArray[np.int64]:
        return np.zeros((len(rows), 1), np.int64)

    rows = list(range(50, 50 + NUM))
    (batch,) = run_cams(model, Squares(), [rows], top, device=torch.device("cpu"))
    assert last["val_sum"] == pytest.approx(float(batch.class_score_NK.sum()), rel=1e-4)


def test_models_on_the_way_are_kept(tmp_path: Path, backbone: Path, one_thread: object) -> None:
    config = TrainConfig(
        init=str(backbone), freeze="features", augment="none", iterations=5, input_size=32
    )
    kept: dict[int, dict[str, NDArray[Any]]] = {}

    def keep(iteration: int, model: Model) -> None:
        assert model.provenance["iteration"] == iteration
        kept[iteration] = {name: value.copy() for name, value in state(model).items()}

    watcher = Watcher(keep_at=[2, 5], keep=keep)
    model = train(tmp_path / "a", config, "mobilenet_v2", watcher=watcher)
    assert sorted(kept) == [2, 5]
    assert kept[5].keys() == state(model).keys()
    assert all((kept[5][name] == value).all() for name, value in state(model).items())
    changed = {name for name in kept[2] if (kept[2][name] != kept[5][name]).any()}
    assert changed == {"classifier.1.weight", "classifier.1.bias"}


def test_masked_pooling_learns_from_boxes(tmp_path: Path) -> None:
    config = replace(SMALL, loss="logistic", pool="gmp", masked_pooling="inside-outside")
    with pytest.raises(TrainingError, match="--masked-pooling inside-outside: the images have no"):
        train(tmp_path / "a", config)

    def boxes(row: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        random = np.random.default_rng(row)
        random.integers(60, 200, (40, 56, 3))
        top, left = float(random.integers(0, 20)), float(random.integers(0, 36))
        return np.array([[left, top, left + 20, top + 20]]), np.array([row % 2])

    train(tmp_path / "b", replace(config, epochs=8), data=data(boxes=boxes))
    found = losses(tmp_path / "b")
    assert found[-1] < found[0]


def test_loss_that_is_not_finite(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError,
        match=r"epoch \d step \d: the loss is (nan|inf) at learning rate 1e\+30. Pass a smaller",
    ):
        train(tmp_path, replace(SMALL, optimizer="sgd", lr=1e30))


def test_bad_picture_is_named(tmp_path: Path) -> None:
    for workers in (0, 1):
        with pytest.raises(BadImageError, match=r"^row 7: JPEG is truncated at byte 7\.$"):
            train(tmp_path, load=Squares(bad_rows=(7,)), workers=workers)


def test_folder_of_another_training(tmp_path: Path) -> None:
    train(tmp_path, replace(SMALL, epochs=1))
    with pytest.raises(TrainingError, match=r"holds a training with epochs 1, not 2. Use the same"):
        train(tmp_path, replace(SMALL, epochs=2))
    (tmp_path / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match=r"checkpoint.pt: not a checkpoint of train-cls"):
        train(tmp_path, replace(SMALL, epochs=1))


@pytest.mark.parametrize("freeze", ["features", "features.3"])
def test_nothing_to_freeze(tmp_path: Path, freeze: str) -> None:
    with pytest.raises(TrainingError, match=r'nothing of small_gap was .* \(init is "none"\)'):
        train(tmp_path, replace(SMALL, freeze=freeze))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("alexnet_adapted", {"input_size": 224, "augment": "scale=.7:1.4"}, "Leave --input-size"),
        (
            "alexnet_sliding",
            {"input_size": 300, "augment": "scale=.5:1"},
            "picture of 150x150: fai",
        ),
    ],
)
def test_a_size_that_the_network_cannot_take(
    tmp_path: Path, name: str, change: dict[str, Any], message: str
) -> None:
    config = TrainConfig(init="none", iterations=1, **change)
    with pytest.raises(ModelError, match=message):
        train(tmp_path / "a", config, name)
