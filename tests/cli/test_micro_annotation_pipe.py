"""``cam | extract-features | cluster`` as one shell pipe, killed at any instant and run again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import wsltool

from .processes import environment

pytestmark = pytest.mark.slow

PIPE = """
set -o pipefail
wsltool() { "{python}" -m wsltool "$@"; }
wsltool cam in.h5 --model tests.cli.networks:small --classes present --workers 0 -o fired.h5 |
    wsltool extract-features --workers 0 -o cells.h5 | wsltool cluster -o clusters.h5
"""
STORES = ("fired.h5", "cells.h5", "clusters.h5")
NUM_KILLS = 2


def started(folder: Path) -> subprocess.Popen[str]:
    """Start the pipe in a process group of its own."""
    return subprocess.Popen(
        ["bash", "-c", PIPE.replace("{python}", sys.executable)],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def digests(folder: Path) -> list[str]:
    found = []
    for name in STORES:
        with wsltool.open_store(folder / name) as store:
            found.append(store.meta["digest"])
    return found


def test_the_pipe_killed_and_run_again_makes_the_same_bytes(folder: Path) -> None:
    other = shutil.copytree(folder, folder / "undisturbed")
    began = time.monotonic()
    whole = started(other)
    said, told = whole.communicate(timeout=120)
    took_s = time.monotonic() - began
    assert (whole.returncode, said) == (0, "clusters.h5\n"), told
    rng, num_killed = random.Random(3), 0
    for _ in range(NUM_KILLS):
        pipe = started(folder)
        time.sleep(rng.uniform(0.4, 0.95) * took_s)  # the first third starts Python
        if pipe.poll() is None:
            os.killpg(pipe.pid, signal.SIGKILL)
            num_killed += 1
        pipe.communicate()
    last = started(folder)
    said, told = last.communicate(timeout=120)
    assert (last.returncode, said) == (0, "clusters.h5\n"), told
    assert num_killed
    assert digests(folder) == digests(other)
    assert not list(folder.glob("*.wip"))
