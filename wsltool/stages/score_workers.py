"""Blocks of images counted by several processes of one machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack

from wsltool.metrics.tally import Tally
from wsltool.stages.score_tasks import ScoreWish, Task, count_tasks, open_tasks

__all__ = ["CountBlocks", "counting"]

CountBlocks = Callable[[Iterable[tuple[int, int]]], Iterator[dict[str, Tally]]]
"""Given blocks ``start, stop`` of scored images, yields the tallies of each, in order."""

_tasks: list[Task] = []
_stack = ExitStack()
_LOOK_S = 1.0


@contextlib.contextmanager
def counting(wish: ScoreWish, tasks: list[Task], num_workers: int) -> Iterator[CountBlocks]:
    """Give a function that counts blocks, here or in `num_workers` processes.

    Each process opens the stores anew; what it counts is the same. No process outlives this
    one.
    """
    if num_workers <= 1:
        yield lambda edges: (count_tasks(tasks, *edge) for edge in edges)
        return
    pool = ProcessPoolExecutor(
        num_workers,
        mp_context=multiprocessing.get_context("spawn"),  # forks of threads (zarr's) hang
        initializer=_start,
        initargs=(wish, os.getpid()),
    )
    try:
        yield lambda edges: pool.map(_count, edges)
    finally:
        pool.shutdown(cancel_futures=True)


def _start(wish: ScoreWish, parent: int) -> None:
    """Open the stores, once a process. Ctrl-C is the parent's affair."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    cv2.setNumThreads(1)
    _tasks.extend(open_tasks(wish, _stack))


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: killed, it could not tell."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)


def _count(edge: tuple[int, int]) -> dict[str, Tally]:
    return count_tasks(_tasks, *edge)
