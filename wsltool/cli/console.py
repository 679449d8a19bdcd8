"""What a person sees on stderr: warnings, notes, and progress with rate and time left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from wsltool.cli.pipe import write_result
from wsltool.stages.report import Reporter

__all__ = ["ConsoleReporter"]

_PLAIN_EVERY_S = 10.0


class ConsoleReporter(Reporter):
    """Draws on stderr: a bar on a terminal, plain lines elsewhere.

    Parameters
    ----------
    verbosity : int
        -1 silent but for warnings, 0 as usual, 1 with notes.
    """

    def __init__(self, verbosity: int = 0) -> None:
        self.verbosity = verbosity
        self.num_skipped = 0

    def announce(self, path: Path) -> None:
        """Print the name of the output into the pipe, at once."""
        write_result(f"{path}\n")

    def skipped(self, num: int) -> None:
        """Remember that images were left out: the exit code tells."""
        self.num_skipped += num
        if num:
            self._line(f"{num} {'image was' if num == 1 else 'images were'} left out.")

    def warn(self, line: str) -> None:
        """Print a warning."""
        self._line(f"warning: {line}")

    def note(self, line: str) -> None:
        """Print a note, unless quiet."""
        if self.verbosity >= 0:
            self._line(line)

    def ask(self, line: str) -> None:
        """Print what to do now, also when quiet."""
        self._line(line)

    @contextlib.contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Show progress with rate and time left."""
        if self.verbosity < 0:
            yield lambda num: None
        elif sys.stderr.isatty():
            with _bar(label, total, unit) as advance:
                yield advance
        else:
            plain = _PlainProgress(label, total, unit, self._line)
            yield plain.advance
            plain.finish()

    def _line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _bar(label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{_rate(task.speed)} {unit}/s")

    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    columns += [Rate(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda num: bar.advance(task, num)


def _rate(speed: float | None) -> str:
    return "–" if speed is None else f"{speed:.1f}" if speed < 100 else f"{speed:.0f}"


class _PlainProgress:
    """A line every ten seconds and one at the end, for logs."""

    def __init__(self, label: str, total: int, unit: str, write: Callable[[str], None]) -> None:
        self._label, self._total, self._unit, self._write = label, total, unit, write
        self._done, self._start = 0, time.monotonic()
        self._last = self._start

    def advance(self, num: int) -> None:
        """Count `num` more and print a line when ten seconds have passed."""
        self._done += num
        now = time.monotonic()
        if now - self._last >= _PLAIN_EVERY_S and self._done < self._total:
            self._last = now
            rate = self._done / (now - self._start)
            left = (self._total - self._done) / rate
            self._write(f"{self._state()}, {_rate(rate)} {self._unit}/s, {_time(left)} left")

    def finish(self) -> None:
        """Print the last line."""
        spent = max(time.monotonic() - self._start, 1e-9)
        rate = _rate(self._done / spent)
        self._write(f"{self._state()}, {rate} {self._unit}/s, {_time(spent)}")

    def _state(self) -> str:
        return f"{self._label}: {self._done}/{self._total} {self._unit}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
