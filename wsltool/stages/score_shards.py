"""Counts of several processes: each commits its share, the last one has them all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsltool.errors import StoreError, StoreExistsError, UsageError
from wsltool.metrics.tally import Tally, joined_by_name
from wsltool.stages.options import PathLike, Settings
from wsltool.stages.plan import Job, claim, rows_per_block
from wsltool.stages.score_workers import CountBlocks
from wsltool.stores.wip import WorkInProgress, place_file

__all__ = [
    "block_edges",
    "count_alone",
    "count_share",
    "no_result",
    "read_result",
    "write_result",
]


def block_edges(num_rows: int) -> list[tuple[int, int]]:
    """Return first and last (exclusive) image of every block of a share."""
    step = rows_per_block(1)
    return [(start, min(start + step, num_rows)) for start in range(0, num_rows, step)]


def count_alone(count: CountBlocks, num_rows: int, settings: Settings) -> dict[str, Tally]:
    """Return the joined tallies of all images, counted by this process."""
    edges = block_edges(num_rows)
    with settings.report.progress("score", num_rows, "images") as advance:

        def tallies() -> Iterator[tuple[str, Tally]]:
            for (start, stop), counted in zip(edges, count(edges), strict=True):
                yield from counted.items()
                advance(stop - start)

        return joined_by_name(tallies())


def count_share(
    job: Job, count: CountBlocks, settings: Settings
) -> tuple[dict[str, Tally] | None, WorkInProgress | None]:
    """Count this process's share of the blocks; return all tallies if none is missing.

    Returns
    -------
    totals : dict or None
        The joined tallies of all images; None where blocks of other shards are missing, or
        the result is finished.
    work : WorkInProgress or None
        To be removed when the result is written; None where it is finished.
    """
    held, work = claim(job, overwrite=True)
    if work is None:
        _tidy(WorkInProgress(job.output))
        return None, None
    edges = block_edges(job.num_rows)
    mine = [n for n in work.missing(int(held["num_blocks"])) if settings.shard.has(n)]
    try:
        with settings.report.progress("score", len(mine), "blocks") as advance:
            counted = count([edges[index] for index in mine])
            for index, tallies in zip(mine, counted, strict=True):
                work.commit(index, _arrays(tallies))
                advance(1)
        missing = work.missing(len(edges))
        totals = None if missing else _gathered(work, len(edges))
    except (FileNotFoundError, StoreExistsError):  # the parts are gone
        if not job.is_finished():
            raise
        return None, None
    if missing and job.is_finished():  # another shard wrote the result and took them away
        return None, None
    if missing:
        settings.report.note(
            f"{job.output}: this share is done, {len(missing)} of {len(edges)} blocks of other "
            "shards are missing."
        )
    return totals, work


def _gathered(work: WorkInProgress, num_blocks: int) -> dict[str, Tally]:
    """Return the joined tallies of all parts."""
    parts = (_tallies(work.part(index)) for index in range(num_blocks))
    return joined_by_name(named for part in parts for named in part.items())


def _arrays(tallies: dict[str, Tally]) -> dict[str, Any]:
    """Return tallies as arrays by one name, fit for a part."""
    return {
        f"{number}|{name}|{path}": array
        for number, (name, tally) in enumerate(tallies.items())
        for path, array in tally.as_arrays().items()
    }


def _tallies(arrays: dict[str, Any]) -> dict[str, Tally]:
    found: dict[str, dict[str, Any]] = {}
    for key, array in arrays.items():
        _, name, path = key.split("|", 2)
        found.setdefault(name, {})[path] = array
    return {name: Tally.from_arrays(parts) for name, parts in found.items()}


def _tidy(work: WorkInProgress) -> None:
    """Remove what a process that was killed after writing the result left behind."""
    if work.folder.is_dir() and work.plan() is not None:
        work.remove()


def read_result(path: Path) -> dict[str, Any]:
    """Return a result that `write_result` wrote.

    Raises
    ------
    StoreError
        It is something else.
    """
    try:
        found = json.loads(path.read_bytes(), parse_constant=_refuse) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("results"), list):
        raise no_result(path)
    return found


def no_result(path: Path) -> StoreError:
    """Return the error of a file that is no result."""
    return StoreError(f"{path}: is no result of wsltool score. Make one: score … -o {path}")


def _refuse(word: str) -> None:
    raise ValueError(word)  # NaN and Infinity are no JSON


def check_places(output: PathLike | None, plot: PathLike | None, maker: str) -> None:
    """Refuse places of a result and its picture where nothing can be written, before counting.

    Parameters
    ----------
    output, plot : path or None
        What ``-o`` and ``--plot`` name.
    maker : str
        Whose results may stand at `output`, for the message.

    Raises
    ------
    UsageError
        A plot is none, or a folder is not there.
    StoreExistsError
        Something else stands at `output`.
    """
    if plot is not None and Path(plot).suffix not in (".png", ".svg"):
        raise UsageError(f"--plot {plot}: a plot is a .png or a .svg. Give such a name.")
    for option, place in (("-o", output), ("--plot", plot)):
        if place is not None and not Path(place).parent.is_dir():
            folder = Path(place).parent
            raise UsageError(
                f"{option} {place}: the folder {folder} does not exist. Make it first."
            )
    if output is None or not os.path.lexists(output):
        return
    try:
        read_result(Path(output))
    except StoreError as error:
        raise StoreExistsError(
            f"-o {output}: something stands there that is no result of {maker}. It is left alone. "
            "Give another name."
        ) from error


def write_result(path: Path, found: dict[str, Any]) -> None:
    """Write a result as JSON; an older one is replaced."""
    text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    place_file(path, text.encode(), replace=True)
