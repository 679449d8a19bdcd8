"""Pieces of patterns, computed at the same time in bounded memory, and the same in any threads."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["in_order", "tiles", "to_double"]

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float64]
T = TypeVar("T")

_MOST_THREADS = 8  # so that few pieces are in memory
_TILE_ROWS = 1024  # computed at once, so that they stay in the cache
_HALF_INFINITY = 0x7C00  # its bits; those of smaller numbers are smaller, of negative ones larger


def in_order(pieces: Iterable[Array], compute: Callable[[int, Array], T]) -> Iterator[T]:
    """Yield ``compute(at, piece)`` of each piece in order; `at` patterns came before it.

    Pieces are read here and computed in a thread a core, a few at a time.
    """
    at, waiting = 0, deque[Future[T]]()
    num_threads = _num_threads()
    with ThreadPoolExecutor(num_threads) as pool:
        for piece in pieces:
            waiting.append(pool.submit(compute, at, piece))
            at += len(piece)
            if len(waiting) > num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _num_threads() -> int:
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(cores, _MOST_THREADS)


def tiles(piece: Array) -> Iterator[tuple[slice, Float]]:
    """Yield where they lie in the piece, and rows of it as float64, which the next write over."""
    room_PC = np.empty((min(len(piece), _TILE_ROWS), piece.shape[1]))
    for at in range(0, len(piece), _TILE_ROWS):
        raw_PC = piece[at : at + _TILE_ROWS]
        yield slice(at, at + len(raw_PC)), to_double(raw_PC, room_PC[: len(raw_PC)])


def to_double(raw_PC: Array, out_PC: Float) -> Float:
    """Write numbers into `out_PC` and return it.

    Finite float16 without a sign become float32 by their bits, five times as fast as numpy's
    conversion: the same fraction, and an exponent that is 127 - 15 too small.
    """
    if raw_PC.dtype == np.float16 and raw_PC.view(np.uint16).max(initial=0) < _HALF_INFINITY:
        bits_PC = raw_PC.view(np.uint16).astype(np.uint32)
        bits_PC <<= 23 - 10
        raw_PC = bits_PC.view(np.float32)
        raw_PC *= 2.0 ** (127 - 15)
    np.copyto(out_PC, raw_PC)
    return out_PC
