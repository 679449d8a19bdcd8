"""What a running stage tells whoever started it. The command line draws it; Python logs it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["Reporter"]

_LOG = logging.getLogger("wsltool")


class Reporter:
    """Receives what a stage has to say; this one passes warnings and notes to `logging`."""

    def announce(self, path: Path) -> None:
        """Hear that the output is claimed: its name may go through the pipe."""

    def skipped(self, num: int) -> None:
        """Hear that `num` images were left out because of ``on_bad="skip"``."""

    def warn(self, line: str) -> None:
        """Tell something that a person should know."""
        _LOG.warning("%s", line)

    def note(self, line: str) -> None:
        """Tell something that is good to know."""
        _LOG.info("%s", line)

    def ask(self, line: str) -> None:
        """Tell a person what to do now, without which the stage cannot go on."""
        self.note(line)

    @contextlib.contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Show progress over `total` units; yields the function that advances it."""
        _LOG.info("%s: %d %s", label, total, unit)
        yield lambda num: None
