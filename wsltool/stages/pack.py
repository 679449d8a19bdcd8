"""Packing the parts of a finished plan into one store, in order and in bounded memory."""

from __future__ import annotations

import datetime
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from wsltool.errors import StoreExistsError
from wsltool.stages.plan import Job
from wsltool.stores.open import open_store
from wsltool.stores.schema import FORMAT, KINDS, RAGGED
from wsltool.stores.wip import WorkInProgress, fsync_folder, fsync_tree
from wsltool.stores.write import StoreWriter

__all__ = ["finished_attributes", "pack", "publish"]

Array = np.ndarray[Any, Any]

_SKIPPED_HERE = 1


def _survey(work: WorkInProgress, num_blocks: int) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return the shape and dtype that every array of the parts will have when packed."""
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    for block in range(num_blocks):
        for name, (shape, dtype) in work.part_shapes(block).items():
            old = found.get(name, ((0,) * len(shape), dtype))[0]
            trailing = tuple(map(max, old[1:], shape[1:]))
            found[name] = ((old[0] + shape[0], *trailing), dtype)
    return found


def pack(job: Job, held: dict[str, Any], work: WorkInProgress) -> Path:
    """Pack all parts into a store of a random name inside the work folder.

    Returns
    -------
    Path
        The packed store, safely on disk, not yet published.
    """
    scratch = work.scratch(job.output.suffix)
    num_blocks = int(held["num_blocks"])
    layout = _survey(work, num_blocks)
    offsets = {start: axis for axis, start in RAGGED[job.kind].items()}
    writer = StoreWriter(scratch, job.kind)
    for name in KINDS[job.kind]:
        if name in job.fixed:
            writer.put(name, job.fixed[name])
        elif name in layout:
            shape, dtype = layout[name]
            edges = name in offsets
            writer.create(name, (shape[0] + 1, *shape[1:]) if edges else shape, dtype)
            if edges:
                writer.append(name, np.zeros(1, np.int64))
    total = dict.fromkeys(offsets, 0)
    skipped = 0
    for block in range(num_blocks):
        before = dict(total)
        for name, values in work.part(block).items():
            axis = KINDS[job.kind][name].into
            if name in offsets:
                edge = total[name] + np.cumsum(values, dtype=np.int64)
                total[name] = int(edge[-1]) if len(edge) else total[name]
                writer.append(name, edge)
            else:
                shift = before[RAGGED[job.kind][axis]] if axis else None
                writer.append(name, values if shift is None else values + shift)
            if name == "image_status":
                skipped += int((values == _SKIPPED_HERE).sum())
    attributes = job.attributes | job.late_attributes(work)
    writer.finish(finished_attributes(job, held) | {"skipped": skipped}, attributes)
    fsync_tree(scratch)
    return scratch


def finished_attributes(job: Job, held: dict[str, Any]) -> dict[str, Any]:
    """Return what a finished output records of itself, but for digest and skipped images."""
    kept = {key: held[key] for key in ("stage", "params", "inputs", "id", "revision", "limit")}
    return {
        "format": FORMAT,
        "kind": job.kind,
        **kept,
        "version": metadata.version("wsltool"),
        "compute": {
            "machine": platform.machine(),
            "processor": platform.processor(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            **job.compute,
        },
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def publish(scratch: Path, output: Path, expected_id: str) -> None:
    """Give the packed store its name. Who comes second finds an equal store and is content.

    Raises
    ------
    StoreExistsError
        Another store took the name in the meantime.
    """
    try:
        if scratch.is_dir():
            scratch.rename(output)
        else:
            os.link(scratch, output)
            scratch.unlink()
        fsync_folder(output.parent)
        return
    except OSError as error:
        if not os.path.lexists(output):
            if scratch.is_file() and not isinstance(error, FileNotFoundError):
                scratch.rename(output)  # a file system without hard links
                return
            raise
    with open_store(output) as store:
        if store.meta.get("id") != expected_id:
            raise StoreExistsError(
                f"{output}: another store took this name while this one was made. Pass -o."
            )
