"""The plan of a stage's output, and claiming it: the same command twice is safe."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wsltool.errors import StoreError, StoreExistsError, UsageError
from wsltool.stores.container import check_suffix
from wsltool.stores.lineage import same_fingerprint
from wsltool.stores.open import open_store
from wsltool.stores.schema import KINDS
from wsltool.stores.wip import WorkInProgress

__all__ = ["Job", "claim", "output_for", "remove_output", "rows_per_block"]

Array = np.ndarray[Any, Any]

_BLOCK_ROWS = 256
_PART_BYTES = 64 << 20
_ATTEMPTS = 20
_LOOKS = 3
_PAUSE_S = 0.005


def output_for(source: Path, word: str, suffix: str | None = None) -> Path:
    """Return the derived name: the input's stem plus the stage's word, beside the input."""
    return source.with_name(f"{source.stem}.{word}{suffix or source.suffix}")


def rows_per_block(row_bytes: int) -> int:
    """Return the rows of a block: 256, or a smaller power of two that keeps a part in 64 MB."""
    rows = _BLOCK_ROWS
    while rows > 1 and rows * row_bytes > _PART_BYTES:
        rows //= 2
    return rows


def _stored_meta(path: Path) -> dict[str, Any]:
    with open_store(path) as store:
        return store.meta


@dataclass(frozen=True)
class Job:
    """What a stage will make.

    Attributes
    ----------
    stage, kind : str
        The stage's word and the kind of its output.
    output : Path
        Where it will stand.
    params : dict
        Options that decide the result, defaults filled in; keys are option names.
    inputs : dict
        Fingerprints of the inputs by role (see `wsltool.stores.lineage`).
    num_rows, row_bytes : int
        Rows of the output, and about how many bytes one takes.
    block_rows : int or None
        Rows of a block, where `row_bytes` do not tell: of clusters a block is one class.
    revision : int
        Raised when a stage's results change.
    limit : dict or None
        Why not all rows of the data set are there.
    fixed : dict
        Arrays without an image axis, written whole.
    attributes : dict
        Further root attributes.
    late_attributes : callable
        Returns those that are only known once blocks are computed, given the work with all parts;
        called by whoever packs.
    compute : dict
        What was used and does not decide the result (device, threads, batch size).
    finished_meta : callable
        Reads what a finished output records of itself.
    """

    stage: str
    kind: str
    output: Path
    params: dict[str, Any]
    inputs: dict[str, Any]
    num_rows: int
    row_bytes: int = 1
    block_rows: int | None = None
    revision: int = 1
    limit: dict[str, Any] | None = None
    fixed: dict[str, Array] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    late_attributes: Callable[[WorkInProgress], dict[str, Any]] = lambda _work: {}
    compute: dict[str, Any] = field(default_factory=dict)
    finished_meta: Callable[[Path], dict[str, Any]] = _stored_meta

    def plan(self) -> dict[str, Any]:
        """Return the plan of this job with a new random ``id``, as plain JSON data."""
        rows = self.block_rows or rows_per_block(self.row_bytes)
        plan = {
            "format": 1,
            "stage": self.stage,
            "kind": self.kind,
            "id": secrets.token_hex(16),
            "revision": self.revision,
            "params": self.params,
            "inputs": self.inputs,
            "limit": self.limit,
            "num_rows": self.num_rows,
            "rows_per_block": rows,
            "num_blocks": -(-self.num_rows // rows),
        }
        made: dict[str, Any] = json.loads(json.dumps(plan, default=_plain))
        return made

    def is_finished(self) -> bool:
        """Return whether an equal output stands there already; the claim decides later."""
        try:
            return _difference(self.finished_meta(self.output), self.plan()) is None
        except (StoreError, ValueError, OSError):
            return False


def _plain(value: Any) -> Any:
    """Return a numpy number as Python's."""
    return value.item()


def claim(job: Job, *, overwrite: bool) -> tuple[dict[str, Any], WorkInProgress | None]:
    """Claim the output of a job.

    Returns
    -------
    held : dict
        The plan that holds (of this process or of another shard), or what the finished
        output records.
    work : WorkInProgress or None
        The folder to go on in; None if the output is finished already.

    Raises
    ------
    StoreExistsError
        Something else stands there; the message names the difference.
    UsageError
        The name cannot be used.
    """
    _check_name(job)
    _check_inputs(job)
    plan, work = job.plan(), WorkInProgress(job.output)
    for attempt in range(_ATTEMPTS):
        time.sleep(_PAUSE_S * attempt)
        if os.path.lexists(job.output):
            try:
                held = _finished(job)
            except StoreExistsError:
                if attempt < _LOOKS:
                    continue  # perhaps it went away while we looked
                raise
            difference = _difference(held, plan)
            if difference is None:
                _tidy(work, held)
                return held, None
            _may_replace(job.output, difference, overwrite=overwrite)
            remove_output(job, held.get("id"))
        else:
            claimed = work.claim(plan)
            if claimed is None:
                continue
            held, difference = claimed, _difference(claimed, plan)
            if difference is not None:
                _may_replace(work.folder, difference, overwrite=overwrite)
                work.give_way()
            elif not os.path.lexists(job.output):
                return held, work
            elif held["id"] == plan["id"]:
                work.remove()  # somebody published between our look and our claim
    raise StoreExistsError(
        f"{job.output}: other processes keep replacing it. Start them with equal options."
    )


def _check_name(job: Job) -> None:
    if job.kind in KINDS:
        check_suffix(job.output)
    if any(sign in str(job.output) for sign in "\n\r"):
        raise UsageError(f"-o {str(job.output)!r}: a line break cannot go through a pipe.")
    if not job.output.parent.is_dir():
        raise UsageError(
            f"{job.output}: the folder {job.output.parent} does not exist. Make it first: "
            f"mkdir -p {job.output.parent}"
        )


def _check_inputs(job: Job) -> None:
    """Refuse an output that is one of its own inputs: --overwrite would remove it."""
    for role, record in job.inputs.items():
        if (job.output.parent / record["path"]).resolve() == job.output.resolve():
            raise UsageError(f"-o {job.output}: that is the {role} it reads. Give another name.")


def _finished(job: Job) -> dict[str, Any]:
    """Return what the finished output records; a stranger is never touched."""
    try:
        return job.finished_meta(job.output)
    except (StoreError, ValueError, OSError) as error:
        raise StoreExistsError(
            f"{job.output}: something stands there that wsltool did not make ({error}) It is "
            "left alone, also with --overwrite. Pass -o with another name."
        ) from error


def _may_replace(path: Path, difference: str, *, overwrite: bool) -> None:
    if not overwrite:
        raise StoreExistsError(
            f"{path}: made {difference}. Pass -o for another name, or --overwrite to replace it."
        )


def _difference(held: dict[str, Any], plan: dict[str, Any]) -> str | None:
    """Return in words what differs between two plans, or None."""
    for key in ("stage", "kind", "revision"):
        if held.get(key) != plan[key]:
            return f"with {key} {held.get(key)}, now {plan[key]}"
    fewer = (held.get("limit"), plan["limit"])
    rows = None if fewer[0] == fewer[1] else f"from {_rows(fewer[0])}, now {_rows(fewer[1])}"
    if rows and any(limit and limit["how"] == "limit" for limit in fewer):
        return rows  # --limit comes before params, which may depend on the rows
    old, new = held.get("params", {}), plan["params"]
    for name in sorted(set(old) | set(new)):
        if old.get(name) != new.get(name):
            option = "--" + name.replace("_", "-")
            return f"with {option} {_shown(old.get(name))}, now {_shown(new.get(name))}"
    if rows:
        return rows
    old, new = held.get("inputs", {}), plan["inputs"]
    for role in sorted(set(old) | set(new)):
        if role not in old or role not in new:
            return f"{'with' if role in old else 'without'} the input {role}"
        if not same_fingerprint(old[role], new[role]):
            return f"from another {role} than {new[role]['path']} is now"
    return None


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value)


def _rows(limit: dict[str, Any] | None) -> str:
    return "all rows" if limit is None else f"{limit['num_rows']} of {limit['of']} rows"


def _tidy(work: WorkInProgress, held: dict[str, Any]) -> None:
    """Remove what a process killed between publishing and tidying left behind."""
    if not work.folder.is_dir():
        return
    with contextlib.suppress(StoreError, FileNotFoundError):  # a stranger's folder stays
        plan = work.plan()
        if plan is None:
            work.refuse_strangers()
        if plan is None or plan["id"] == held.get("id"):
            work.remove()


def remove_output(job: Job, expected_id: str | None) -> None:
    """Remove a finished output of ours at once (rename), unless another came in its place.

    Raises
    ------
    StoreExistsError
        It is a symbolic link, which is not ours to remove.
    """
    path = job.output
    if path.is_symlink():
        raise StoreExistsError(
            f"{path}: is a symbolic link, which --overwrite does not follow. Remove the link "
            "or pass -o."
        )
    doomed = path.with_name(f".tmp-{path.name}.{secrets.token_hex(4)}{path.suffix}")
    try:
        path.rename(doomed)
    except FileNotFoundError:
        return
    found_id = expected_id
    with contextlib.suppress(StoreError, ValueError, OSError):
        found_id = job.finished_meta(doomed).get("id")
    if found_id != expected_id and not os.path.lexists(path):
        doomed.rename(path)  # published after we looked: not ours to remove
    elif doomed.is_dir():
        shutil.rmtree(doomed)
    else:
        doomed.unlink()
