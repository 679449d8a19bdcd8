"""Opening a store by path: finished, unfinished, or not there."""

from __future__ import annotations

from pathlib import Path

from wsltool.errors import StoreMissingError, StoreUnfinishedError
from wsltool.stores.container import SUFFIXES, check_suffix, reader_for
from wsltool.stores.store import Store
from wsltool.stores.wip import WorkInProgress

__all__ = ["open_store", "unfinished_error"]

_LISTED = 8


def unfinished_error(path: Path) -> StoreUnfinishedError | None:
    """Return the error that says how far the writer of `path` got, or None without a plan."""
    work = WorkInProgress(path)
    plan = work.plan()
    if plan is None:
        return None
    num_blocks = plan.get("num_blocks")
    if num_blocks is None:
        return StoreUnfinishedError(
            f"{path}: not finished, {plan['stage']} stopped on the way. Run the same command again."
        )
    missing = work.missing(int(num_blocks))
    listed = ", ".join(map(str, missing[:_LISTED])) + (", …" if len(missing) > _LISTED else "")
    state = f"{len(missing)} of {num_blocks} blocks missing ({listed})" if missing else "not packed"
    return StoreUnfinishedError(f"{path}: not finished, {state}. Run the same command again.")


def open_store(path: Path | str) -> Store:
    """Open a finished store for reading.

    Raises
    ------
    StoreMissingError
        There is nothing at `path`.
    StoreUnfinishedError
        Its writer has not finished; the message says how many blocks are missing.
    StoreCorruptError
        It is not a store of wsltool, or bytes are missing.
    UsageError
        The name ends neither in .zarr nor in .h5.
    """
    path = Path(path)
    if not path.exists():
        unfinished = unfinished_error(path)
        if unfinished is not None:
            raise unfinished
        hint = _similar(path)
        raise StoreMissingError(f"{path}: there is no such store.{hint}")
    check_suffix(path)
    return Store(path, reader_for(path))


def _similar(path: Path) -> str:
    """Return a hint with a store of the same stem, if there is one."""
    for suffix in SUFFIXES:
        other = path.with_suffix(suffix)
        if other != path and other.exists():
            return f" Did you mean {other}?"
    return " Give the path that a stage printed, or see `wsltool ingest --help`."
