"""Worker processes that read and resize pictures while the network computes."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from wsltool.errors import WslError
from wsltool.nets.weights import one_line

__all__ = ["default_workers", "load_batches"]

Item = TypeVar("Item")
Batch = TypeVar("Batch")

_PR_SET_PDEATHSIG = 1
_MOST_WORKERS = 16


def default_workers(device: torch.device) -> int:
    """Return how many processes read pictures unless told otherwise.

    On the CPU one for each four cores the network computes on, at least one; beside a GPU
    all cores but one, at most 16; none on a single core.
    """
    num_cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if num_cores == 1:
        return 0
    if device.type == "cpu":
        return min(_MOST_WORKERS, (num_cores + 3) // 4)
    return min(_MOST_WORKERS, num_cores - 1)


def load_batches(
    dataset: Dataset[Item],
    batches: Iterable[Sequence[int]],
    collate: Callable[[list[Item]], Batch],
    *,
    workers: int,
    pin: bool = False,
) -> Generator[Batch]:
    """Yield `collate` of the items of each batch, in order, read ahead by `workers` processes.

    The workers ignore SIGINT (whoever started them handles it) and die with their parent at
    once, however it dies (Linux). Close the generator, or use it up, to end them; torch's
    global random state is not touched.

    Raises
    ------
    WslError
        A worker was killed, for instance for want of memory.
    """
    loader: DataLoader[Item] = DataLoader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]
        collate_fn=collate,
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_start_worker,
        generator=torch.Generator().manual_seed(0),
    )
    before = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    if workers and before is not None and threading.current_thread() is threading.main_thread():
        # torch's handler would raise in the middle of whatever runs; the loader itself
        # notices a dead worker when it waits for it
        signal.signal(signal.SIGCHLD, before)
    try:
        yield from iterator
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise WslError(
            f"a process that reads pictures has died ({one_line(error)}); memory may be short. "
            "Pass a smaller --workers or --batch-size."
        ) from error
    finally:
        del iterator  # ends the workers, whoever still holds this frame


def _start_worker(_worker: int) -> None:
    """Make a new worker process leave Ctrl-C to its parent and die with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        library: Any = ctypes.CDLL(None, use_errno=True)
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)
