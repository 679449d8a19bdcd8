"""The optimizer of a training, with a learning rate for each part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from wsltool.errors import TrainingError
from wsltool.nets.train_config import TrainConfig

__all__ = ["factor_of", "make_optimizer", "set_rates"]


def factor_of(entry: str, factors: Mapping[str, float], head: str) -> float:
    """Return the factor of the learning rate of one parameter.

    The longest name that the parameter's begins with counts; ``head`` stands for the name of
    the head, and the factor of ``bias`` is a further one for every bias.
    """
    own = {name: factor for name, factor in factors.items() if _covers(name, entry, head)}
    factor = own[max(own, key=len)] if own else 1.0
    return factor * factors.get("bias", 1.0) if entry.endswith(".bias") else factor


def _covers(name: str, entry: str, head: str) -> bool:
    first, dot, rest = name.partition(".")
    place = f"{head}{dot}{rest}" if first == "head" else name
    return name != "bias" and f"{entry}.".startswith(f"{place}.")


def make_optimizer(module: nn.Module, head: str, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer of everything that learns, a group for each factor.

    Raises
    ------
    TrainingError
        Nothing learns, or a multiplier fits no parameter that learns.
    """
    learning = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not learning:
        raise TrainingError("nothing learns: every array is frozen. Freeze less.")
    for name in config.multipliers:
        if name != "bias" and not any(_covers(name, entry, head) for entry in learning):
            tops = sorted({entry.partition(".")[0] for entry in learning})
            raise TrainingError(
                f'--lr-multiplier "{name}": nothing that learns is called so; expected head, bias '
                f"or a name that begins with one of {', '.join(tops[:20])}."
            )
    groups: dict[float, list[nn.Parameter]] = {}
    for entry, parameter in learning.items():
        factor = factor_of(entry, config.multipliers, head)
        groups.setdefault(factor, []).append(parameter)
    made: list[dict[str, Any]] = [
        {"params": groups[factor], "factor": factor} for factor in sorted(groups)
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            made, config.first_lr, momentum=0.9, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(made, config.first_lr, weight_decay=config.weight_decay)


def set_rates(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its multiple of the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]
