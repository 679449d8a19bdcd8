"""One definition of every option that more than one command has.

===================== ==========================================================
``OUTPUT``            commands that write: ``-o``, ``--overwrite``
``LIMIT``             commands that read rows: ``--limit``
``ROWS``              commands that go row by row: ``--shard``, ``--limit``, ``--on-bad``
``TORCH``             commands that compute with torch: ``--device``, ``--batch-size``, …
``TALK``              all: ``-v``, ``-q``
``SEED``              stages that draw: ``--seed``
``Json``              commands that end a pipe: ``--json``
===================== ==========================================================
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wsltool.errors import UsageError

__all__ = [
    "LIMIT",
    "OUTPUT",
    "ROWS",
    "SEED",
    "TALK",
    "TORCH",
    "Cooccurrence",
    "Fit",
    "Images",
    "Input",
    "InputSize",
    "Json",
    "Model",
    "Weights",
    "numbers",
    "whole_numbers",
]

Input = Annotated[
    str | None,
    typer.Argument(metavar="INPUT", show_default=False, help="Read from stdin if - or absent."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")]
Model = Annotated[
    str | None,
    typer.Option(help="A model file, a name (resnet50, …), or package.module:function."),
]
Weights = Annotated[Path | None, typer.Option(help="Weights to load into that architecture.")]
InputSize = Annotated[int | None, typer.Option(help="Input size in pixels [default: the model's].")]
Fit = Annotated[
    Literal["warp", "crop", "letterbox"] | None,
    typer.Option(help="How images are brought to that size [default: the model's]."),
]
Images = Annotated[
    Path | None,
    typer.Option("--images", help="Where the pictures lie, if not where ingest found them."),
]
Cooccurrence = Annotated[
    str | None,
    typer.Option(
        metavar="ALPHA|FILE",
        help="Combine scores of classes that occur together: weight, or a fit-cooccurrence FILE.",
    ),
]

OUTPUT: dict[str, Any] = {
    "output": (
        Annotated[
            Path | None,
            typer.Option("-o", "--output", help="Default: INPUT's stem plus the stage's word."),
        ],
        None,
    ),
    "overwrite": (
        Annotated[bool, typer.Option("--overwrite", help="Replace an output that differs.")],
        False,
    ),
}
LIMIT: dict[str, Any] = {
    "limit": (
        Annotated[int | None, typer.Option(metavar="N", help="Only the first N rows.")],
        None,
    ),
}
ROWS: dict[str, Any] = OUTPUT | {
    "shard": (
        Annotated[
            str | None,
            typer.Option(metavar="I/N|slurm", help="Do only this share of the blocks."),
        ],
        None,
    ),
    **LIMIT,
    "on_bad": (
        Annotated[
            Literal["stop", "skip"], typer.Option(help="What to do about an unusable image.")
        ],
        "stop",
    ),
}
TORCH: dict[str, Any] = {
    "device": (Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")], "auto"),
    "batch_size": (Annotated[int, typer.Option(help="Images computed at once.")], 32),
    "workers": (
        Annotated[
            int | None, typer.Option(help="Processes that read pictures [default: by cores].")
        ],
        None,
    ),
    "precision": (
        Annotated[Literal["float32", "tf32", "bf16", "fp16"], typer.Option(help="Of computing.")],
        "float32",
    ),
}
SEED: dict[str, Any] = {"seed": (Annotated[int, typer.Option(help="Of whatever is drawn.")], 0)}
TALK: dict[str, Any] = {
    "verbose": (Annotated[int, typer.Option("-v", "--verbose", count=True, help="Say more.")], 0),
    "quiet": (Annotated[int, typer.Option("-q", "--quiet", count=True, help="Say less.")], 0),
}


def numbers(option: str, text: str) -> list[float]:
    """Read numbers with commas between.

    Raises
    ------
    UsageError
        Something else stands there.
    """
    try:
        return [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise UsageError(f'{option} must be numbers with commas between, got "{text}".') from None


def whole_numbers(option: str, text: str) -> list[int]:
    """Read whole numbers with commas between.

    Raises
    ------
    UsageError
        Something else stands there.
    """
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise UsageError(
            f'{option} must be whole numbers with commas between, got "{text}".'
        ) from None
