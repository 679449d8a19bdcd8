"""``wsltool demo``: the whole pipeline on scenes that it draws itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wsltool.cli.app import app, command
from wsltool.cli.options import SEED


@command(app, "demo", common=SEED, reads_input=False)
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for everything.")] = Path(
        "wsltool-demo"
    ),
    num_train: Annotated[int, typer.Option(help="Scenes to train on.")] = 600,
    num_test: Annotated[int, typer.Option(help="Scenes to score on.")] = 150,
    epochs: Annotated[int, typer.Option(help="Passes of the training.")] = 24,
    **common: Any,
) -> None:
    """Draw scenes, train a small network on their labels, localize, score, and show it all.

    Example: wsltool demo
    """
    from wsltool.stages import demo as stage

    stage.demo(output, num_train=num_train, num_test=num_test, epochs=epochs, **common)
