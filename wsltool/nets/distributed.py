"""Several processes that train one network (``torchrun``): who is who, and sums over all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from wsltool.errors import ModelError, TrainingError, UsageError
from wsltool.nets.weights import one_line

__all__ = ["World", "joined"]

T = TypeVar("T")

_TIMEOUT = timedelta(days=7)


@dataclass(frozen=True)
class World:
    """The processes of one training.

    Attributes
    ----------
    rank, size
        This process's number, and how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and talks."""
        return self.rank == 0

    def share(self, num: int) -> tuple[int, int]:
        """Return start and end of this process's share of `num` images, in order."""
        return self.rank * num // self.size, (self.rank + 1) * num // self.size

    def sums(self, values: list[float], device: torch.device) -> list[float]:
        """Return the sums over all processes.

        Raises
        ------
        TrainingError
            Another process has gone.
        """
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=device)
        with _told():
            dist.all_reduce(total)
        found: list[float] = total.tolist()
        return found

    def agreed(self, value: T) -> T:
        """Return the first process's value in all of them."""
        if self.size == 1:
            return value
        held: list[Any] = [value]
        with _told():
            dist.broadcast_object_list(held, src=0)
        agreed: T = held[0]
        return agreed

    @contextmanager
    def telling_of_losses(self) -> Iterator[None]:
        """Say so where something fails in the block because another process has gone.

        Raises
        ------
        TrainingError
            Another process has gone.
        """
        try:
            yield
        except (RuntimeError, ModelError) as error:
            cause = error.__cause__ or error
            lost = isinstance(cause, dist.DistBackendError) or "gloo" in str(cause)
            if self.size == 1 or not lost or isinstance(error, TrainingError):
                raise
            raise _gone(cause) from error


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise _gone(error) from error


def _gone(error: BaseException) -> TrainingError:
    reason = one_line(error).partition(". ")[0]
    return TrainingError(
        f"another process of this training has gone ({reason}). See its last line; the same "
        "command continues."
    )


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """Join the processes that ``torchrun`` started; alone without it.

    Yields
    ------
    World
    torch.device
        The device of this process: with CUDA one each, by ``LOCAL_RANK``.

    Raises
    ------
    UsageError
        There are fewer CUDA devices than processes on this machine.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "MASTER_ADDR" not in os.environ:
        yield World(), device
        return
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"torchrun started process {local} here, but torch can use "
                f"{torch.cuda.device_count()} CUDA devices. Start fewer, or pass --device cpu."
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    with _told():
        dist.init_process_group(backend, timeout=_TIMEOUT)
    try:
        yield World(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()
