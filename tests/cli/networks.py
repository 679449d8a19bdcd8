"""A user's own networks, as ``--model tests.cli.networks:NAME`` takes them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

PREPROCESS = {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


class Small(nn.Module):
    """Two convolutions, global average pooling, and a head of three classes."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            first, second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
            self.features = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
            self.head = nn.Linear(8, 3)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.features(x_NCHW).mean((2, 3)))
        return scores


class Loud(Small):
    """Prints wherever a network can, through Python and past it."""

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        print("printed in forward")  # noqa: T201
        os.write(1, b"written to descriptor 1\n")
        os.system("echo echoed by a child")
        return super().forward(x_NCHW)


class Slow(Small):
    """Takes a tenth of a second for each batch."""

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        time.sleep(0.1)
        return super().forward(x_NCHW)


class Odd(Small):
    """Fails as no network should, once it sees real pictures."""

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        if x_NCHW.shape[0] > 2:
            raise ZeroDivisionError("a bug of ours looks like this")
        return super().forward(x_NCHW)


def small() -> tuple[nn.Module, dict[str, object]]:
    return Small(), PREPROCESS


def loud() -> tuple[nn.Module, dict[str, object]]:
    print("printed by the factory")  # noqa: T201
    os.write(1, b"written by the factory\n")
    return Loud(), PREPROCESS


def slow() -> tuple[nn.Module, dict[str, object]]:
    return Slow(), PREPROCESS


def odd() -> tuple[nn.Module, dict[str, object]]:
    return Odd(), PREPROCESS


class Dying(Small):
    """Kills its process at its ninth batch, unless the current folder holds ``lives``."""

    batches = 0

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        self.batches += x_NCHW.shape[0] > 2
        if self.batches == 9 and not Path("lives").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x_NCHW)


def dying() -> tuple[nn.Module, dict[str, object]]:
    return Dying(), PREPROCESS


def interrupted() -> object:
    """Ctrl-C at the one moment when zarr has made a coroutine and its loop has not taken it."""

    async def read() -> None:
        pass

    pending = read()
    os.kill(os.getpid(), signal.SIGINT)
    return pending
