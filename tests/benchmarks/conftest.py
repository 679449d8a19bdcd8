"""Side-by-side measurements: ``pytest tests/benchmarks -m benchmark``.

Each writes a JSON line to ``docs/benchmarks/results.jsonl`` (or ``$WSLTOOL_BENCHMARKS``);
``python tests/benchmarks/page.py`` makes the page of it.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(os.environ.get("WSLTOOL_BENCHMARKS", ROOT / "docs" / "benchmarks" / "results.jsonl"))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Append what was measured, with when, where and at which commit."""

    def write(**values: Any) -> None:
        commit = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip()
        line = {
            "benchmark": request.node.name,
            "date": datetime.date.today().isoformat(),
            "commit": commit,
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            **values,
        }
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")

    return write


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return where stores are kept: ``$WSLTOOL_BENCHMARK_WORK``, or for this test only."""
    folder = Path(os.environ.get("WSLTOOL_BENCHMARK_WORK", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
