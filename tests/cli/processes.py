"""The command line in processes of its own: through a shell, or forked from a warm process.

A forked command is the real one but for the start of Python and the import of torch, which take
seconds and hold nothing that a kill could hurt.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WARM = [
    "h5py",
    "torch.utils.data",
    "torchvision.models",
    "wsltool.cli.commands",
    "wsltool.nets.inference",
    "wsltool.stages.boxes",
    "wsltool.stages.cam",
    "wsltool.stores.hdf5_container",
    "wsltool.stores.zarr_container",
]


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment with one thread and `tests` importable."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    found = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    return found | more


def shell(
    script: str, folder: Path, timeout_s: float = 60, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run a bash script with ``pipefail``, in which ``wsltool`` is this working tree's."""
    function = f'wsltool() {{ "{sys.executable}" -m wsltool "$@"; }}; set -o pipefail\n'
    given = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True} | more
    return subprocess.run(
        ["bash", "-c", function + script],
        cwd=folder,
        env=environment(),
        timeout=timeout_s,
        check=False,
        **given,
    )


class Command:
    """A command that runs, forked from a warm process.

    Parameters
    ----------
    folder : Path
        Where it runs; its stdout and stderr go to files there.
    arguments : str
        What stands behind ``wsltool``.
    """

    _count = 0

    def __init__(self, folder: Path, *arguments: str) -> None:
        Command._count += 1
        self._said = [folder / f".said-{Command._count}-{n}" for n in (1, 2)]
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(WARM)
        os.environ.update({"OMP_NUM_THREADS": "1"})
        target = (list(arguments), str(folder), [str(path) for path in self._said])
        self.process: ForkServerProcess = context.Process(target=_become, args=target)
        self.process.start()

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.is_alive()

    def kill(self) -> bool:
        """Kill it; return whether it was still running."""
        self.process.kill()
        return self.wait() == -9

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait(self, timeout_s: float = 60) -> int:
        """Wait for its end; return its exit code."""
        self.process.join(timeout_s)
        assert self.process.exitcode is not None, "it hangs"
        return self.process.exitcode

    @property
    def stdout(self) -> str:
        """What it wrote to stdout."""
        return self._said[0].read_text()

    @property
    def stderr(self) -> str:
        """What it wrote to stderr."""
        return self._said[1].read_text()


def _become(arguments: list[str], folder: str, said: list[str]) -> None:
    multiprocessing.set_start_method(None, force=True)  # type: ignore[arg-type]
    os.chdir(folder)
    for number, name in enumerate(said, start=1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["wsltool", *arguments]
    from wsltool.cli import main

    main()
