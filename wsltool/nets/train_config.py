"""All that decides what training gives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from wsltool.errors import TrainingError
from wsltool.nets.augment import Augment
from wsltool.nets.compute import Precision
from wsltool.nets.losses import LOSSES
from wsltool.nets.models import Loss
from wsltool.nets.pooling import canonical_pool
from wsltool.nets.preprocess import Fit
from wsltool.nets.schedule import Schedule

__all__ = ["MaskedPooling", "Optimizer", "TrainConfig", "parse_multipliers"]

Optimizer = Literal["sgd", "adamw"]
MaskedPooling = Literal["none", "inside", "inside-outside"]

_FIRST_LR = {"sgd": 0.01, "adamw": 0.001}
_DEFAULT_EPOCHS = 10


@dataclass(frozen=True)
class TrainConfig:
    """All that decides what training gives.

    Attributes
    ----------
    loss, pool
        See `wsltool.nets.losses` and `wsltool.nets.pooling`.
    count_padding
        Cells that show only padding take part in pooling (Oquab et al. 2015, as published).
    masked_pooling
        ``inside``: where a class is present, pool over the cells inside its true boxes alone
        (Oquab et al. 2015, section 5); ``inside-outside`` also lowers the pooled score of
        the cells outside them. Needs boxes.
    init
        ``published``, ``none`` or a file; see `wsltool.nets.initial.start_network`.
    freeze
        ``none``; ``features``: whatever came from `init` stays as it is, except the head; or
        the name of a module: whatever runs up to its end stays. Frozen parts are in
        evaluation mode.
    optimizer
        ``sgd`` with momentum 0.9, or ``adamw``.
    lr
        None for 0.01 (``sgd``) or 0.001 (``adamw``).
    lr_multiplier
        ``NAME=FACTOR`` with commas between: parameters whose name begins so learn at a
        multiple of the rate; ``head`` stands for the head, ``bias`` for every bias.
    schedule
        Of the learning rate, see `wsltool.nets.schedule.Schedule`.
    epochs, iterations
        How long; one of the two, 10 epochs where neither is given. An iteration is one step
        of the optimizer.
    batch_size, accumulate
        Images of one iteration, and into how many pieces they are cut to save memory.
    augment
        See `wsltool.nets.augment.Augment`.
    input_size, fit
        Override the model's preprocessing.
    """

    loss: Loss = "softmax"
    pool: str = "gap"
    count_padding: bool = False
    masked_pooling: MaskedPooling = "none"
    init: str = "published"
    freeze: str = "none"
    optimizer: Optimizer = "adamw"
    lr: float | None = None
    lr_multiplier: str = ""
    weight_decay: float = 1e-4
    schedule: str = "constant"
    epochs: int | None = None
    iterations: int | None = None
    batch_size: int = 32
    accumulate: int = 1
    augment: str = "crop"
    seed: int = 0
    input_size: int | None = None
    fit: Fit | None = None
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        self._check_words()
        self._check_numbers()
        if self.epochs is not None and self.iterations is not None:
            raise TrainingError(
                f"epochs {self.epochs} and iterations {self.iterations} are both given; "
                "expected one of them."
            )
        if self.epochs is None and self.iterations is None:
            object.__setattr__(self, "epochs", _DEFAULT_EPOCHS)
        parsed: dict[str, str] = {
            "pool": canonical_pool(self.pool),
            "augment": Augment.parse(self.augment).text,
            "schedule": Schedule.parse(self.schedule).text,
            "lr_multiplier": _multiplier_text(parse_multipliers(self.lr_multiplier)),
        }
        for name, text in parsed.items():
            object.__setattr__(self, name, text)

    def _check_words(self) -> None:
        choices: dict[str, tuple[str, ...]] = {
            "loss": tuple(LOSSES),
            "masked_pooling": ("none", "inside", "inside-outside"),
            "optimizer": tuple(_FIRST_LR),
            "precision": ("float32", "tf32", "bf16", "fp16"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise TrainingError(
                    f'{name} must be one of {", ".join(allowed)}, got "{getattr(self, name)}".'
                )

    def _check_numbers(self) -> None:
        fine: dict[str, bool] = {
            "epochs": self.epochs is None or self.epochs >= 1,
            "iterations": self.iterations is None or self.iterations >= 1,
            "batch_size": self.batch_size >= 1,
            "accumulate": 1 <= self.accumulate <= self.batch_size,
            "lr": 0 < self.first_lr < float("inf"),
            "weight_decay": 0 <= self.weight_decay < float("inf"),
            "seed": self.seed >= 0,
        }
        for name, is_fine in fine.items():
            if not is_fine:
                raise TrainingError(f"{name} is out of range, got {getattr(self, name)}.")

    @property
    def first_lr(self) -> float:
        """Learning rate of the first step."""
        return _FIRST_LR[self.optimizer] if self.lr is None else self.lr

    @cached_property
    def shown(self) -> Augment:
        """What is done to pictures, parsed."""
        return Augment.parse(self.augment)

    @cached_property
    def rate(self) -> Schedule:
        """The schedule, parsed."""
        return Schedule.parse(self.schedule)

    @cached_property
    def multipliers(self) -> dict[str, float]:
        """Factor of the learning rate by the beginning of a parameter's name."""
        return parse_multipliers(self.lr_multiplier)

    def num_iterations(self, batches_per_epoch: int) -> int:
        """Return the number of steps, given the batches of an epoch."""
        if self.iterations is not None:
            return self.iterations
        return (self.epochs or _DEFAULT_EPOCHS) * batches_per_epoch

    def lr_at(self, iteration: int, num_iterations: int) -> float:
        """Return the learning rate of a step, from 0, before multipliers."""
        return self.first_lr * self.rate.factor(iteration, num_iterations)


def parse_multipliers(text: str) -> dict[str, float]:
    """Read ``head=10,features.0=.1``.

    Raises
    ------
    TrainingError
        A part has no name, or no factor that is a number of at least 0.
    """
    factors: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.partition("=")
        factor = _number(number)
        if not name or not 0 <= factor < float("inf"):
            raise TrainingError(
                f'lr_multiplier: "{part}" is no NAME=FACTOR with a factor of at least 0, such as '
                "head=10."
            )
        factors[name.strip()] = factor
    return factors


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _multiplier_text(factors: dict[str, Any]) -> str:
    return ",".join(f"{name}={factor:g}" for name, factor in sorted(factors.items()))
