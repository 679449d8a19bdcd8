"""Training on image-level labels: it learns, it resumes to the byte, it says what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision import models as zoo

from tests.nets.conftest import Squares
from wsltool.errors import BadImageError, ModelError, TrainingError, WeightsMissingError
from wsltool.nets.inference import run_cams
from wsltool.nets.initial import start_network
from wsltool.nets.losses import check_labels, logistic, softmax
from wsltool.nets.models import Model, load_model, save_model
from wsltool.nets.train_config import TrainConfig
from wsltool.nets.training import train_classifier
from wsltool.nets.training_data import epoch_batches

NUM = 24
LABEL_NK = np.eye(2, dtype=np.uint8)[np.arange(NUM) % 2]
SMALL = TrainConfig(init="none", epochs=3, batch_size=8, input_size=48, crop_area=0.7)


def train(
    work_dir: Path, config: TrainConfig = SMALL, name: str = "small_gap", **more: Any
) -> Model:
    load = more.pop("load", Squares())
    label_NK = more.pop("label_NK", LABEL_NK)
    return train_classifier(name, load, label_NK, work_dir, config, **more)


def state(model: Model) -> dict[str, NDArray[Any]]:
    return {name: value.numpy() for name, value in model.network.module.state_dict().items()}


def same(a: Model, b: Model) -> bool:
    own, other = state(a), state(b)
    return all(own[name].tobytes() == other[name].tobytes() for name in own)


def test_softmax_by_hand() -> None:
    logit_NK = torch.tensor([[0.0, np.log(3.0)], [0.0, 0.0]])
    label_NK = torch.tensor([[0, 1], [1, 255]], dtype=torch.uint8)
    wanted = (np.log(4 / 3) + np.log(2)) / 2
    assert float(softmax(logit_NK, label_NK)) == pytest.approx(wanted)


def test_logistic_by_hand() -> None:
    logit_NK = torch.tensor([[0.0, np.log(3.0), 5.0], [0.0, 0.0, -200.0]])
    label_NK = torch.tensor([[0, 1, 255], [1, 255, 0]], dtype=torch.uint8)
    wanted = (np.log(2) + np.log(4 / 3) + np.log(2)) / 2
    assert float(logistic(logit_NK, label_NK)) == pytest.approx(wanted)


def test_undecided_labels_have_no_gradient() -> None:
    logit_NK = torch.zeros((1, 2), requires_grad=True)
    logistic(logit_NK, torch.tensor([[255, 0]], dtype=torch.uint8)).backward()
    assert logit_NK.grad is not None
    assert logit_NK.grad.tolist() == [[0.0, 0.5]]


@pytest.mark.parametrize(
    ("label", "loss", "message"),
    [
        ([[0, 0], [0, 0]], "softmax", "none of the 2 images has a class; training needs at"),
        ([[0, 255], [0, 255]], "logistic", "none of the 2 images has a class; training needs at"),
        ([[1, 0], [0, 1], [0, 0]], "softmax", r"row 12: has 0 classes \(none\); softmax needs"),
        ([[1, 0], [1, 1]], "softmax", r"row 11: has 2 classes \(cat, dog\); .* --loss logistic"),
        ([[1, 2], [0, 1]], "logistic", "labels must be 0, 1 or 255, got 2"),
        (np.zeros((0, 2)), "softmax", r"labels are \(0, 2\), expected \(0, 2\) with at least"),
    ],
)
def test_labels_that_teach_nothing(label: Any, loss: str, message: str) -> None:
    label_NK = np.asarray(label, np.uint8)
    with pytest.raises(TrainingError, match=message):
        check_labels(label_NK, loss, rows=range(10, 10 + len(label_NK)), class_name=["cat", "dog"])


def test_small_network_learns_and_finds_the_square(tmp_path: Path) -> None:
    config = replace(SMALL, epochs=12, batch_size=12, mirror=True, lr=0.003)
    records: list[dict[str, float | int]] = []
    random_before = torch.get_rng_state()
    model = train(tmp_path, config, class_name=["red", "green"], on_epoch=records.append)
    assert torch.equal(torch.get_rng_state(), random_before)
    assert [record["epoch"] for record in records] == list(range(1, 13))
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


class Stop(Exception):  # noqa: N818
    """Somebody pulls the plug."""


def stop_after(epoch: int) -> Any:
    def on_epoch(record: dict[str, float | int]) -> None:
        if record["epoch"] == epoch:
            raise Stop

    return on_epoch


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resumed_is_the_same_to_the_byte(
    tmp_path: Path, one_thread: object, optimizer: Any
) -> None:
    config = replace(SMALL, optimizer=optimizer)
    whole = train(tmp_path / "a", config)
    with pytest.raises(Stop):
        train(tmp_path / "b", config, on_epoch=stop_after(2))
    resumed = train(tmp_path / "b", config, workers=1)
    assert same(whole, resumed)
    assert same(whole, train(tmp_path / "b", config))
    logs = [
        [
            json.loads(line)["loss"]
            for line in (tmp_path / part / "log.jsonl").read_text().split("\n")[:-1]
        ]
        for part in "ab"
    ]
    assert logs[0] == logs[1]
    other = train(tmp_path / "c", replace(config, seed=1))
    assert not same(whole, other)


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    torch.save(zoo.mobilenet_v2(num_classes=9).state_dict(), tmp_path / "backbone.pt")
    return tmp_path / "backbone.pt"


class Counting:
    """Counts how often pictures are read."""

    def __init__(self) -> None:
        self.num = 0

    def __call__(self, row: int) -> NDArray[np.uint8]:
        self.num += 1
        if self.num == 17:
            raise Stop
        return Squares()(row)


def test_frozen_features_are_computed_once(
    tmp_path: Path, backbone: Path, one_thread: object
) -> None:
    config = TrainConfig(
        loss="logistic",
        init=str(backbone),
        freeze="features",
        epochs=4,
        batch_size=2,
        input_size=64,
        optimizer="sgd",
    )
    plain = Counting()
    plain.num = 17
    whole = train(tmp_path / "a", config, "mobilenet_v2", load=plain)
    assert plain.num == 17 + NUM
    with pytest.raises(Stop):
        train(tmp_path / "b", config, "mobilenet_v2", on_epoch=stop_after(2))
    again = Counting()
    again.num = 17
    assert same(whole, train(tmp_path / "b", config, "mobilenet_v2", load=again))
    assert again.num == 17
    before, after = torch.load(backbone, weights_only=True), state(whole)
    changed = [
        n for n in after if n not in before or after[n].tobytes() != before[n].numpy().tobytes()
    ]
    assert changed == ["classifier.1.weight", "classifier.1.bias"]
    assert whole.provenance["initialised"] == changed
    assert np.load(tmp_path / "a" / "features.npy").shape == (NUM, 2, 1280)


def test_features_go_on_where_they_stopped(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch, one_thread: object
) -> None:
    from wsltool.nets import training_data

    monkeypatch.setattr(training_data, "_FLUSH_EVERY", 2)
    config = TrainConfig(
        init=str(backbone), freeze="features", epochs=1, batch_size=4, input_size=32, mirror=False
    )
    with pytest.raises(Stop):  # at the 17th picture: 16 are done and noted
        train(tmp_path / "a", config, "mobilenet_v2", load=Counting())
    rest = Counting()
    rest.num = 17
    resumed = train(tmp_path / "a", config, "mobilenet_v2", load=rest)
    assert rest.num == 17 + NUM - 16
    assert same(resumed, train(tmp_path / "b", config, "mobilenet_v2"))


def test_freezing_leaves_batch_statistics_alone(tmp_path: Path) -> None:
    """A backbone that fills a part of a network: the rest learns, the part stays."""
    torch.manual_seed(0)
    first = start_network("small_gap", 2, init="none").network.module.state_dict()
    part = {name: value for name, value in first.items() if name.startswith("features.0.")}
    part |= {name: value for name, value in first.items() if name.startswith("features.1.")}
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


def test_nothing_to_freeze(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r'nothing of small_gap was .* \(init is "none"\)'):
        train(tmp_path, replace(SMALL, freeze="features"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "hinge"}, 'loss must be one of softmax, logistic, got "hinge"'),
        ({"precision": "fp16"}, 'precision must be one of float32, tf32, bf16, got "fp16"'),
        ({"epochs": 0}, "epochs is out of range, got 0"),
        ({"lr": float("nan")}, "lr is out of range, got nan"),
        ({"crop_area": 0.0}, "crop_area is out of range, got 0.0"),
    ],
)
def test_impossible_settings(values: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        TrainConfig(**values)


def test_vgg_gap_starts_from_published_vgg16(no_network: Path) -> None:
    with pytest.raises(
        WeightsMissingError, match=r"vgg16: weights .*or pass --init FILE, or --ini"
    ):
        start_network("vgg_gap", 20)
    torch.manual_seed(0)
    vgg = zoo.vgg16(init_weights=False)
    torch.save(vgg.state_dict(), no_network / "vgg16-397923af.pth")
    start = start_network("vgg_gap", 20)
    assert len(start.matched) == 26
    assert all(name.startswith("features.") for name in start.matched)
    assert start.initialised == ("cam_conv.weight", "cam_conv.bias", "fc.weight", "fc.bias")
    assert start.unused[0] == "classifier.0.weight"
    x_NCHW = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():  # torchvision's without pool5
        wanted, ours = vgg.features[:-1](x_NCHW), start.network.module.features(x_NCHW)
    assert torch.equal(wanted, ours)
    assert start.network.eval()(torch.zeros(1, 3, 224, 224)).feature_NCHW.shape == (1, 1024, 14, 14)


def test_weights_of_something_else(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"w.pt: shares no array with small_gap"):
        start_network("small_gap", 2, init=str(tmp_path / "w.pt"))


def test_a_model_file_as_start(tmp_path: Path) -> None:
    model = train(tmp_path / "a", replace(SMALL, epochs=1))
    save_model(tmp_path / "m.safetensors", model, {})
    start = start_network(str(tmp_path / "m.safetensors"), 2)
    assert (start.arch, start.preprocess.size, start.initialised) == ("small_gap", 48, ())
    more = start_network(str(tmp_path / "m.safetensors"), 3)
    assert more.initialised == ("fc.weight", "fc.bias")
    assert more.network.num_classes == 3


def test_order_of_an_epoch() -> None:
    batches = epoch_batches(25, 8, seed=1, epoch=2)
    assert [len(batch) for batch in batches] == [8, 8, 9]
    assert sorted(place for batch in batches for place in batch) == list(range(25))
    assert batches == epoch_batches(25, 8, seed=1, epoch=2)
    assert batches != epoch_batches(25, 8, seed=1, epoch=3)
