"""The pipe contract: a name goes through, its end means done, the store carries the data.

Nothing but one line can get into the pipe: at start the real stdout moves to a private
descriptor that no child keeps, and descriptor 1 becomes stderr.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from wsltool.errors import PipeError, UsageError

__all__ = ["private_stdout", "read_input", "write_result"]

_MOST_BYTES = 1 << 16
_FIRST_OWN = 3  # 0, 1 and 2 keep their meaning, also where one was closed at the start

_private: int | None = None


@contextlib.contextmanager
def private_stdout() -> Iterator[None]:
    """Move stdout to a private descriptor for as long as a command runs."""
    global _private
    _open_streams()
    sys.stdout.flush()
    try:  # not inherited over exec; closed in forked children
        _private = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, _FIRST_OWN)
    except OSError:
        _private = None
    os.dup2(2, 1)
    os.register_at_fork(after_in_child=_close_in_child)
    try:
        yield
    finally:
        sys.stdout.flush()
        if _private is not None:
            os.dup2(_private, 1)
            os.close(_private)
            _private = None


def _open_streams() -> None:
    """Make stderr and `sys.stdout` usable where they were closed (``2>&-``, ``>&-``)."""
    try:
        os.fstat(2)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def _close_in_child() -> None:
    global _private
    if _private is not None:
        with contextlib.suppress(OSError):
            os.close(_private)
        _private = None


def is_terminal() -> bool:
    """Return whether the private stdout is a terminal."""
    return _private is not None and os.isatty(_private)


def write_result(text: str) -> None:
    """Write text to the private stdout. A reader that has gone is no error.

    Raises
    ------
    OSError
        Stdout cannot be written, for instance because a disk is full.
    """
    if _private is None:
        return
    data = os.fsencode(text)
    try:
        while data:
            data = data[os.write(_private, data) :]
    except BrokenPipeError:
        pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, "stdout") from error


def read_input(argument: str | None) -> Path:
    """Return INPUT: the argument, or the one line that comes through stdin.

    End-of-file means that the writer before us has stopped, so this waits for it.

    Raises
    ------
    UsageError
        There is no argument and stdin is a terminal, /dev/null or closed; or several lines
        came.
    PipeError
        Nothing came, or the argument is empty (``"$(…)"``): the stage before failed.
    """
    if argument == "":
        raise PipeError("INPUT is empty: the command that should print its name failed")
    if argument not in (None, "-"):
        return Path(str(argument))
    if _no_stdin():
        raise UsageError("INPUT is missing. Give a path, or pipe one from another stage.")
    lines = _read_stdin()
    if not lines:
        raise PipeError("nothing came through the pipe: the stage before it failed")
    if len(lines) > 1:
        raise UsageError(
            f"stdin holds {len(lines)} or more lines, expected one path. "
            "Pipe one stage into the next, or give INPUT as an argument."
        )
    return Path(os.fsdecode(lines[0]))


def _no_stdin() -> bool:
    try:
        state = os.fstat(0)
    except OSError:
        return True
    null = os.stat(os.devnull)  # noqa: PTH116
    same = stat.S_ISCHR(state.st_mode) and state.st_rdev == null.st_rdev
    return same or os.isatty(0)


def _read_stdin() -> list[bytes]:
    """Return the lines on stdin once its writer has stopped, or at once if there are several."""
    data = b""
    while piece := os.read(0, _MOST_BYTES):
        data += piece
        lines = [line for line in data.split(b"\n") if line.strip()]
        if len(lines) > 1 or len(data) > _MOST_BYTES:
            return [*lines, b""][:2]
    return [line.rstrip(b"\r") for line in data.split(b"\n") if line.strip()]
