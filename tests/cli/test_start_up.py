"""What a command loads: help loads nothing heavy, and what needs no network no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from .processes import environment

pytestmark = pytest.mark.slow

HEAVY = ("torch", "torchvision", "numpy", "zarr", "h5py", "scipy", "cv2", "PIL", "rich", "xarray")
HEAVY += ("pycocotools", "faster_coco_eval", "matplotlib")

_PROGRAM = """
import sys
sys.argv = ["wsltool", *sys.argv[1:]]
try:
    import wsltool.cli
    wsltool.cli.main()
except SystemExit as end:
    code = end.code
print(code, *sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def _loaded(folder: Path, *arguments: str) -> set[str]:
    """Run a command; return the top-level packages that it loaded."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PROGRAM, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    code, *names = done.stderr.splitlines()[-1].split()
    assert code == "0", done.stderr
    assert {"wsltool", "typer"} <= set(names)
    return set(names)


def _commands() -> list[list[str]]:
    """Return every command, and every group, as words."""
    from wsltool.cli import commands
    from wsltool.cli.app import app

    assert commands
    found: list[list[str]] = [[]]
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        found.append([name])
        found += [[name, inner] for inner in getattr(command, "commands", {})]
    return found


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_help_loads_nothing_heavy(tmp_path: Path, words: list[str]) -> None:
    assert _loaded(tmp_path, *words, "--help") & set(HEAVY) == set()


def test_the_version_loads_nothing_heavy(tmp_path: Path) -> None:
    assert _loaded(tmp_path, "--version") & set(HEAVY) == set()


@pytest.mark.parametrize(
    "command",
    [
        "boxes maps.h5",
        "select in.h5 --fraction 0.5",
        "score maps.h5 --protocol peak-in-box",
        "baseline in.h5",
        "inspect in.h5",
        "verify maps.h5",
        "convert maps.h5",
        "boxes maps.h5 --rule zhou",
        "ingest folder PICTURES/in -o made.zarr",
        "export maps.h5 --form npy",
        "export in.h5 --form coco-truth",
    ],
)
def test_what_needs_no_network_never_loads_torch(
    folder: Path, pictures: Path, command: str
) -> None:
    words = command.replace("PICTURES", str(pictures)).split()
    assert "torch" not in _loaded(folder, *words)


def test_the_package_itself_loads_nothing_heavy(tmp_path: Path) -> None:
    program = "import sys, wsltool; sys.exit(bool(set(sys.argv[1:]) & set(sys.modules)))"
    command = [sys.executable, "-c", program, *HEAVY]
    assert subprocess.run(command, cwd=tmp_path, env=environment(), check=False).returncode == 0
