"""Learning rates of parts, and what a configuration refuses."""

from __future__ import annotations

from typing import Any

import pytest

from wsltool.errors import ModelError, TrainingError
from wsltool.nets.initial import start_network
from wsltool.nets.learning_rates import factor_of, make_optimizer, set_rates
from wsltool.nets.train_config import TrainConfig


def test_the_longest_name_counts() -> None:
    factors = {"features": 0.1, "features.0": 0.5, "head": 10.0, "head.bias": 20.0}
    head = "classifier.1"
    assert factor_of("features.3.weight", factors, head) == 0.1
    assert factor_of("features.0.weight", factors, head) == 0.5
    assert factor_of("features_2.weight", factors, head) == 1.0
    assert factor_of("classifier.1.weight", factors, head) == 10.0
    assert factor_of("classifier.1.bias", factors, head) == 20.0
    assert factor_of("classifier.10.weight", factors, head) == 1.0
    assert factor_of("features.3.bias", factors | {"bias": 2.0}, head) == pytest.approx(0.2)


def test_groups_follow_the_rate() -> None:
    module = start_network("small_gap", 2, init="none").network.module
    config = TrainConfig(optimizer="sgd", lr=0.01, lr_multiplier="head=10,bias=2")
    optimizer = make_optimizer(module, "fc", config)
    assert [group["factor"] for group in optimizer.param_groups] == [1.0, 2.0, 10.0, 20.0]
    set_rates(optimizer, 0.001)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
        [0.001, 0.002, 0.01, 0.02]
    )
    counts = [len(group["params"]) for group in optimizer.param_groups]
    assert counts == [10, 5, 1, 1]  # 5 convolutions and 5 norms; the norms' biases; head


def test_a_part_that_is_not_there() -> None:
    module = start_network("small_gap", 2, init="none").network.module
    with pytest.raises(
        TrainingError, match=r'--lr-multiplier "conv": nothing that learns is called so; .* fc, fea'
    ):
        make_optimizer(module, "fc", TrainConfig(lr_multiplier="conv=2"))
    with pytest.raises(TrainingError, match="nothing learns: every array is frozen"):
        make_optimizer(module.requires_grad_(False), "fc", TrainConfig())


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"loss": "hinge"}, TrainingError, 'loss must be one of softmax, .*, got "hinge"'),
        ({"precision": "half"}, TrainingError, 'precision must be one of .*, got "half"'),
        ({"epochs": 0}, TrainingError, "epochs is out of range, got 0"),
        ({"iterations": 0}, TrainingError, "iterations is out of range, got 0"),
        ({"epochs": 2, "iterations": 3}, TrainingError, "epochs 2 and iterations 3 are both given"),
        ({"lr": float("nan")}, TrainingError, "lr is out of range, got nan"),
        ({"accumulate": 33}, TrainingError, "accumulate is out of range, got 33"),
        ({"lr_multiplier": "head"}, TrainingError, 'lr_multiplier: "head" is no NAME=FACTOR'),
        ({"lr_multiplier": "head=-1"}, TrainingError, 'lr_multiplier: "head=-1" is no NAME=FACTOR'),
        ({"pool": "mean"}, ModelError, "mean"),
        ({"augment": "blur"}, TrainingError, "blur"),
        ({"schedule": "linear"}, TrainingError, "linear"),
        ({"masked_pooling": "in"}, TrainingError, "masked_pooling must be one of none, inside"),
    ],
)
def test_impossible_settings(values: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TrainConfig(**values)


def test_settings_are_recorded_in_one_spelling() -> None:
    one = TrainConfig(pool="lse", lr_multiplier=" head = 10 ,bias=2.0", schedule="step=10:0.1")
    two = TrainConfig(pool="lse:1", lr_multiplier="bias=2,head=10", schedule="step=10")
    assert one == two
    assert one.epochs == 10
    assert TrainConfig(iterations=7).epochs is None


def test_the_schedule_of_sec() -> None:
    """Kim et al. 2017, section 3.3: 8000 iterations, a tenth every 2000."""
    config = TrainConfig(optimizer="sgd", lr=1e-3, schedule="step=2000:.1", iterations=8000)
    rates = [config.lr_at(i, 8000) for i in (0, 1999, 2000, 4000, 7999)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5, 1e-6])
