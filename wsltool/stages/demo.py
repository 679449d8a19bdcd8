"""Stage ``demo``: the whole pipeline on scenes that it draws itself.

It runs the command line, one process a stage, joined by real pipes, and shows every command
before it runs, so that what a newcomer sees is what they will type.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from wsltool.datasets.scenes import write_scenes
from wsltool.errors import StoreExistsError, UsageError, WslError
from wsltool.stages.options import PathLike, check_range, check_seed
from wsltool.stages.report import Reporter
from wsltool.stores.wip import place_file

__all__ = ["demo"]

_MARKER = "wsltool-demo.json"


def demo(
    output: PathLike = "wsltool-demo",
    *,
    num_train: int = 600,
    num_test: int = 150,
    epochs: int = 24,
    seed: int = 0,
    report: Reporter | None = None,
) -> Path:
    """Draw scenes, train a small network on their labels, localize, score, show.

    Scenes hold discs, triangles, squares, stars, crosses and trains; a train always comes
    with its tracks, the classic distractor. The network sees labels only; exact boxes serve
    to score it.

    Parameters
    ----------
    output : path
        A folder for everything, made if absent; the same call goes on where it stopped.
    num_train, num_test : int
        Scenes to draw.
    epochs : int
        Passes of the training.
    seed : int
        Of scenes and training.
    report : Reporter, optional
        Who hears of the commands.

    Returns
    -------
    Path
        The gallery's page.

    Raises
    ------
    StoreExistsError
        The folder holds something else.
    """
    report = report or Reporter()
    for option, value in (("--num-train", num_train), ("--num-test", num_test)):
        check_range(option, value, 6, 1_000_000, whole=True)
    check_range("--epochs", epochs, 1, 100_000, whole=True)
    check_seed(seed)
    folder = Path(output)
    _claim(folder, {"num_train": num_train, "num_test": num_test, "seed": seed})
    scenes = folder / "scenes"
    if not scenes.is_dir():
        report.note(f"drawing {num_train} + {num_test} scenes into {scenes} …")
        write_scenes(scenes, num_train=num_train, num_test=num_test, seed=seed)
    for pipeline in _pipelines(folder, epochs, seed):
        _run(pipeline, report)
    page = folder / "gallery" / "index.html"
    report.announce(page)
    return page


def _claim(folder: Path, params: dict[str, int]) -> None:
    """Make the folder, or find it to be of the same demo."""
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / _MARKER
    if not marker.exists() and any(folder.iterdir()):
        raise StoreExistsError(f"{folder}: holds other files. Give another folder.")
    text = json.dumps(params).encode()
    place_file(marker, text)
    try:
        held = json.loads(marker.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{marker}: is no JSON ({error}). Give another folder.") from error
    if held != params:
        raise StoreExistsError(f"{folder}: holds the demo of {held}. Give another folder.")


def _pipelines(folder: Path, epochs: int, seed: int) -> list[list[list[str]]]:
    """Return the commands of the demo; those of one list are joined by pipes."""
    at = {name: str(folder / name) for name in ("scenes", "train.zarr", "test.zarr", "gallery")}
    classes = str(folder / "scenes" / "classes.txt")
    model = str(folder / "small_gap.safetensors")
    ingest = ["ingest", "voc", at["scenes"], "--classes", classes, "--split"]
    train = ["train-cls", at["train.zarr"], "--model", "small_gap", "--loss", "logistic"]
    train += ["--epochs", str(epochs), "--seed", str(seed), "-o", model]
    maps = ["cam", at["test.zarr"], "--model", model, "--classes", "all"]
    score = ["score", "--protocol", "voc-ap", "--protocol", "peak-in-box"]
    boxes = str(folder / "test.cam.boxes.zarr")
    return [
        [[*ingest, "train", "-o", at["train.zarr"]]],
        [[*ingest, "test", "-o", at["test.zarr"]]],
        [train],
        [maps, ["boxes"], score],
        [["view", boxes, "-o", at["gallery"]]],
    ]


def _run(pipeline: list[list[str]], report: Reporter) -> None:
    """Run commands joined by pipes, as a shell would with ``pipefail``."""
    shown = " | ".join("wsltool " + shlex.join(command) for command in pipeline)
    report.note(f"\n$ {shown}")
    children: list[subprocess.Popen[bytes]] = []
    source: Any = subprocess.DEVNULL
    shows = pipeline[-1][0] == "score"
    for place, command in enumerate(pipeline):
        last = place + 1 == len(pipeline)
        sink = (None if shows else subprocess.DEVNULL) if last else subprocess.PIPE
        child = subprocess.Popen(
            [sys.executable, "-m", "wsltool", *command], stdin=source, stdout=sink
        )
        if children and children[-1].stdout is not None:
            children[-1].stdout.close()
        source = child.stdout
        children.append(child)
    codes = _wait(children)
    if any(codes):
        failed = next(place for place, code in enumerate(codes) if code)
        raise WslError(
            f"demo: wsltool {pipeline[failed][0]} failed with exit code {codes[failed]}; "
            "its message stands above. The same command goes on from there."
        )


def _wait(children: list[subprocess.Popen[bytes]]) -> list[int]:
    """Wait for all; if we are interrupted, so are they."""
    try:
        return [child.wait() for child in children]
    except BaseException:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()
        raise
