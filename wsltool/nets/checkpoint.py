"""Where a training stands, on disk: written whole or not at all, read back to go on."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch

from wsltool.errors import TrainingError
from wsltool.nets.weights import fsync_replace, one_line

__all__ = ["Record", "read_checkpoint", "write_checkpoint"]

Record = dict[str, float | int]
"""A line of the log: iteration, epoch, loss, lr, seconds, num_images; or iteration, epoch and
``val_…`` measures."""

_NAME = "checkpoint.pt"


def write_checkpoint(
    folder: Path, plan: dict[str, Any], history: list[Record], state: dict[str, Any]
) -> None:
    """Write the state, then the log (``log.jsonl``), each whole or not at all."""
    path = folder / _NAME
    temporary = path.with_name(f".{_NAME}.tmp")
    torch.save({"plan": json.dumps(plan, sort_keys=True), "history": history, **state}, temporary)
    fsync_replace(temporary, path)
    log = folder / "log.jsonl"
    temporary = log.with_name(f".{log.name}.tmp")
    temporary.write_text("".join(json.dumps(record) + "\n" for record in history))
    fsync_replace(temporary, log)


def read_checkpoint(
    folder: Path, plan: dict[str, Any], device: torch.device
) -> dict[str, Any] | None:
    """Read what `write_checkpoint` wrote; None where there is nothing yet.

    Raises
    ------
    TrainingError
        It is of another training, or no checkpoint.
    """
    path = folder / _NAME
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        held = json.loads(state["plan"])
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"{path}: not a checkpoint of train-cls ({one_line(error)}). Remove it to start anew."
        ) from error
    now = json.loads(json.dumps(plan))
    for name in now:
        if held.get(name) != now[name]:
            raise TrainingError(
                f"{folder}: holds a training with {name} {held.get(name)}, not {now[name]}. "
                "Use the same settings, another folder, or remove it."
            )
    return state
