"""``wsltool --help`` beside an empty Python."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.benchmark


def _seconds(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def test_help_against_empty_python(record: Callable[..., None]) -> None:
    """The median of the difference is at most 0.2 s."""
    for arguments in (("-c", "pass"), ("-m", "wsltool", "--help")):
        _seconds(*arguments)
    pairs = [(_seconds("-c", "pass"), _seconds("-m", "wsltool", "--help")) for _ in range(15)]
    more = sorted(slow - fast for fast, slow in pairs)[7]
    record(
        empty_s=round(sorted(fast for fast, _ in pairs)[7], 3),
        help_s=round(sorted(slow for _, slow in pairs)[7], 3),
        more_s=round(more, 3),
    )
    assert more <= 0.2
