"""All that decides what training gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wsltool.errors import TrainingError
from wsltool.nets.compute import Precision
from wsltool.nets.losses import LOSSES
from wsltool.nets.models import Loss
from wsltool.nets.preprocess import Fit

__all__ = ["TrainConfig"]


@dataclass(frozen=True)
class TrainConfig:
    """All that decides what training gives.

    Attributes
    ----------
    loss, pool
        See `wsltool.nets.losses` and `wsltool.nets.pooling`.
    init
        ``published``, ``none`` or a file; see `wsltool.nets.initial.start_network`.
    freeze
        ``features``: whatever came from `init` stays as it is, batch statistics included.
        Where that is all but the head, pooled features are computed once, and dropout is
        left out.
    optimizer
        ``sgd`` with momentum 0.9, or ``adamw``.
    lr
        None for 0.01 (``sgd``) or 0.001 (``adamw``).
    crop_area
        Smallest share of a picture that a random crop shows; 1 for no crops.
    input_size, fit
        Override the model's preprocessing.
    """

    loss: Loss = "softmax"
    pool: str = "gap"
    init: str = "published"
    freeze: Literal["none", "features"] = "none"
    optimizer: Literal["sgd", "adamw"] = "adamw"
    lr: float | None = None
    weight_decay: float = 1e-4
    epochs: int = 10
    batch_size: int = 32
    mirror: bool = True
    crop_area: float = 0.5
    seed: int = 0
    input_size: int | None = None
    fit: Fit | None = None
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        choices = {
            "loss": tuple(LOSSES),
            "freeze": ("none", "features"),
            "optimizer": ("sgd", "adamw"),
            "precision": ("float32", "tf32", "bf16"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise TrainingError(
                    f'{name} must be one of {", ".join(allowed)}, got "{getattr(self, name)}".'
                )
        for name, fine in {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "lr": 0 < self.first_lr < float("inf"),
            "weight_decay": 0 <= self.weight_decay < float("inf"),
            "crop_area": 0 < self.crop_area <= 1,
            "seed": self.seed >= 0,
        }.items():
            if not fine:
                raise TrainingError(f"{name} is out of range, got {getattr(self, name)}.")

    @property
    def first_lr(self) -> float:
        """Learning rate of the first step."""
        return {"sgd": 0.01, "adamw": 0.001}[self.optimizer] if self.lr is None else self.lr

    def lr_at(self, epoch: int) -> float:
        """Learning rate of an epoch, from 0; the same in all."""
        del epoch  # schedules come here
        return self.first_lr
