"""What a person sees of a training."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from wsltool.stages.report import Reporter

__all__ = ["Silence", "TrainingProgress"]

_NOTE_EVERY_S = 20.0


class Silence(Reporter):
    """Hears everything and says nothing: of several processes one talks."""

    def warn(self, line: str) -> None:
        """Say nothing."""

    def note(self, line: str) -> None:
        """Say nothing."""


class TrainingProgress(contextlib.ExitStack):
    """Progress over the images whose features are computed, if any are, then over iterations."""

    def __init__(self, report: Reporter, num_images: int) -> None:
        super().__init__()
        self._report, self._num_images = report, num_images
        self._label, self._num_done = "", 0
        self._advance: Callable[[int], None] = lambda num: None
        self._noted_at = -_NOTE_EVERY_S

    def _enter(self, label: str, total: int, unit: str) -> None:
        if self._label != label:
            self.close()
            self._label, self._num_done = label, 0
            self._advance = self.enter_context(self._report.progress(label, total, unit))

    def features(self, num: int) -> None:
        """Count `num` images whose features were computed."""
        self._enter("features", self._num_images, "images")
        self._advance(num)

    def step(self, done: int, total: int) -> None:
        """Count iterations up to `done` of `total`."""
        self._enter("train-cls", total, "iterations")
        self._advance(done - self._num_done)
        self._num_done = done

    def record(self, record: dict[str, Any]) -> None:
        """Tell of a line of the log: every validation, and the loss now and then."""
        where = f"iteration {record['iteration']}, epoch {record['epoch']}"
        measures = [f"{n[4:]} {v:.4g}" for n, v in record.items() if n.startswith("val_")]
        if measures:
            self._report.note(f"{where}: validation {', '.join(measures)}")
        elif time.monotonic() - self._noted_at > _NOTE_EVERY_S:
            self._noted_at = time.monotonic()
            self._report.note(f"{where}: loss {record['loss']:.4f}, learning rate {record['lr']:g}")
