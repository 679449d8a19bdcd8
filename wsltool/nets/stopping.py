"""A signal that asks a training to stop is heard between two steps, never within one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["StopSign", "stop_sign"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSign:
    """Which signal came, 0 for none."""

    def __init__(self) -> None:
        self.signum = 0


@contextmanager
def stop_sign() -> Iterator[StopSign]:
    """Note SIGTERM and SIGINT while the block runs; a second one does what it did before.

    In another thread than the main one nothing is caught.
    """
    sign = StopSign()
    if threading.current_thread() is not threading.main_thread():
        yield sign
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}

    def note(number: int, _frame: FrameType | None) -> None:
        sign.signum = number
        _restore(before)

    for number in _SIGNALS:
        signal.signal(number, note)
    try:
        yield sign
    finally:
        _restore(before)


def _restore(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        if handler is not None:
            signal.signal(number, handler)
