"""Arrays that are computed once, row by row, and kept on disk under the name of their content."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from wsltool.nets.weights import fsync_replace

__all__ = ["Arrays", "keep_arrays"]

Arrays = dict[str, NDArray[Any]]

_FLUSH_EVERY = 32  # batches
_SPARE_FRAC = 0.9


def keep_arrays(
    folder: Path,
    name: str,
    num_rows: int,
    compute: Callable[[int], Iterable[Arrays]],
    on_rows: Callable[[int], None] | None = None,
) -> Arrays | None:
    """Return arrays mapped into memory; what is missing is computed.

    A call after an interruption goes on where the last one stopped; of several processes that
    want the same arrays one computes and the others wait.

    Parameters
    ----------
    folder, name
        Where they are kept; `name` must tell them from all others.
    num_rows
        Of every array.
    compute
        Takes the first row that is missing, yields consecutive rows of every array, batch
        after batch; a generator is closed.
    on_rows
        Called with the number of rows that were just done.

    Returns
    -------
    dict or None
        None where the disk has no room for them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        note = folder / f"{name}.json"
        plan = _read(note)
        if plan.get("num_done", 0) < num_rows:
            batches: Any = compute(plan.get("num_done", 0))
            with closing(batches):
                plan = _fill(folder / name, plan, num_rows, batches, note, on_rows)
    return _open(folder / name, plan, num_rows) if plan else None


def _fill(
    stem: Path,
    plan: dict[str, Any],
    num_rows: int,
    batches: Iterable[Arrays],
    note: Path,
    on_rows: Callable[[int], None] | None,
) -> dict[str, Any]:
    """Write the rows that are missing; return the plan, empty where there is no room."""
    arrays = _open(stem, plan, num_rows) if plan else {}
    for count, batch in enumerate(batches, 1):
        if not arrays:
            kinds = {n: [list(value.shape[1:]), str(value.dtype)] for n, value in batch.items()}
            plan = {"arrays": kinds, "num_done": 0}
            num_bytes = num_rows * sum(value[:1].nbytes for value in batch.values())
            if num_bytes > _SPARE_FRAC * shutil.disk_usage(stem.parent).free:
                return {}
            arrays = _open(stem, plan, num_rows)
        start = plan["num_done"]
        num = len(next(iter(batch.values())))
        for name, value in batch.items():
            arrays[name][start : start + num] = value
        plan["num_done"] = start + num
        if on_rows is not None:
            on_rows(num)
        if count % _FLUSH_EVERY == 0 or plan["num_done"] == num_rows:
            for array in arrays.values():
                array.flush()  # type: ignore[attr-defined]
            _write(note, plan)
    return plan


def _open(stem: Path, plan: dict[str, Any], num_rows: int) -> Arrays:
    """Map the arrays into memory; make them where nothing was done yet."""
    opened: Arrays = {}
    for name, (shape, kind) in plan["arrays"].items():
        path = stem.with_name(f"{stem.name}.{name}.npy")
        mode: Any = "r+" if plan["num_done"] else "w+"
        opened[name] = open_memmap(path, mode, np.dtype(kind), (num_rows, *shape))
    return opened


def _read(note: Path) -> dict[str, Any]:
    try:
        plan: dict[str, Any] = json.loads(note.read_text())
        stem = note.with_suffix("")
        fine = all(stem.with_name(f"{stem.name}.{name}.npy").is_file() for name in plan["arrays"])
        return plan if fine and plan["num_done"] > 0 else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write(note: Path, plan: dict[str, Any]) -> None:
    temporary = note.with_name(f".{note.name}.tmp")
    temporary.write_text(json.dumps(plan))
    fsync_replace(temporary, note)
