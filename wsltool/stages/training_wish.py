"""What one call of ``train-cls`` asks for, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsltool.errors import ModelError, TrainingError, UsageError
from wsltool.stages.options import (
    TorchSettings,
    check_input_size,
    check_range,
    check_seed,
)

if TYPE_CHECKING:
    from wsltool.nets.train_config import TrainConfig

__all__ = ["Wish", "training_config"]


@dataclass(frozen=True)
class Wish:
    """What one call asks for, beside the options that every stage has."""

    model: str
    config: TrainConfig
    suppress: list[Path]
    suppress_threshold: list[float]
    suppress_layer: str | None
    validate: Path | None
    validate_every: int | None
    keep_at: list[int]
    cache: Path | None
    checkpoint_s: float
    root: Path | None

    def check(self) -> None:
        """Raise UsageError for what can be told without reading anything."""
        if self.validate_every is not None:
            check_range("--validate-every", self.validate_every, 1, 1 << 40, whole=True)
            if self.validate is None:
                raise UsageError("--validate-every needs --validate IMAGES. Give both.")
        for value in self.keep_at:
            check_range("--keep-at", value, 1, 1 << 40, whole=True)
        check_range("--checkpoint-minutes", self.checkpoint_s / 60, 0, 1e6)
        if not self.suppress and (self.suppress_threshold or self.suppress_layer):
            raise UsageError(
                "--suppress-threshold and --suppress-layer need --suppress FIRST.safetensors."
            )

    def params(self) -> dict[str, Any]:
        """Return what decides the result, as it is recorded."""
        config = self.config
        hidden = {"init", "lr"}
        params = {n: getattr(config, n) for n in config.__dataclass_fields__ if n not in hidden}
        return params | {
            "model": _name(self.model),
            "init": _name(config.init),
            "lr": config.first_lr,
            "suppress_threshold": self.suppress_threshold,
            "suppress_layer": self.suppress_layer,
            "validate_every": self.validate_every,
            "keep_at": self.keep_at,
        }

    def files(self) -> dict[str, Path]:
        """Return the files that are read, by role."""
        files = {"model": Path(self.model), "init": Path(self.config.init)}
        for number, path in enumerate(self.suppress, 1):
            files["suppress" if number == 1 else f"suppress{number}"] = path
        return {role: path for role, path in files.items() if path.is_file()}


def training_config(torch_options: TorchSettings, **given: Any) -> TrainConfig:
    """Check the options and return all that decides what training gives."""
    for name in ("epochs", "iterations"):
        if given[name] is not None:
            check_range(f"--{name}", given[name], 1, 100_000_000, whole=True)
    check_range("--accumulate", given["accumulate"], 1, 1 << 20, whole=True)
    check_range("--weight-decay", given["weight_decay"], 0, 1)
    check_seed(given["seed"])
    if given["lr"] is not None:
        check_range("--lr", given["lr"], 0, 1000, open_low=True)
    check_input_size(given["input_size"])
    from wsltool.nets.train_config import TrainConfig

    given |= {"batch_size": torch_options.batch_size, "precision": torch_options.precision}
    plain = {n: v.item() if isinstance(v, np.generic) else v for n, v in given.items()}
    try:
        return TrainConfig(**plain)
    except (TrainingError, ModelError) as error:
        raise UsageError(str(error)) from error


def _name(model: str) -> str:
    """Return what is recorded of a model: of a file, which has a fingerprint, its name."""
    return Path(model).name if Path(model).is_file() else model
