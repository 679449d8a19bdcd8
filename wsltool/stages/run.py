"""The stage runner: plan, parts, pack, publish, shards. The only copy.

A stage hands over a `Job` and a function that computes blocks; everything that makes the
same command safe to run twice, in pieces, or side by side is here (DESIGN of the pipe and
of shards: ``docs/decisions/runner.md``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsltool.errors import BadImageError, StoreError
from wsltool.stages.options import PathLike, Settings
from wsltool.stages.pack import pack, publish
from wsltool.stages.plan import Job, claim, output_for
from wsltool.stages.report import Reporter
from wsltool.stores.lineage import fingerprint_store
from wsltool.stores.open import open_store
from wsltool.stores.schema import row_axis, string_array
from wsltool.stores.store import Store
from wsltool.stores.wip import WorkInProgress

__all__ = [
    "Block",
    "Compute",
    "Rows",
    "Tick",
    "inherited",
    "leave_out",
    "limited",
    "open_input",
    "rebased",
    "row_job",
    "run",
    "warn_of_strangers",
]

Array = np.ndarray[Any, Any]
Rows = dict[str, Array]


@dataclass(frozen=True)
class Block:
    """One block of a plan: its number and the rows ``start:stop``."""

    index: int
    start: int
    stop: int

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start


Tick = Callable[[int], None]
"""Tells that so many more images of the block in flight are computed."""

Compute = Callable[[list[Block], Tick], Iterable[Rows]]
"""Given the blocks to do, yields the rows of each in the same order.

Rows are arrays by name; of a ragged axis, the values of all rows one after another, and
under the name of its offsets the *counts* of each row.
"""


def open_input(path: PathLike, kind: str, reader: str) -> Store:
    """Open the input of the stage `reader`, which must be of `kind`."""
    return open_store(Path(path)).require(kind, reader, _HINTS[kind])


_HINTS = {
    "images": "Run first: wsltool ingest …",
    "maps": "Run first: wsltool cam --model … IMAGES",
    "boxes": "Run first: wsltool boxes MAPS",
    "features": "Run first: wsltool extract-features MAPS",
    "clusters": "Run first: wsltool cluster FEATURES",
}


def limited(source: Store, limit: int | None) -> tuple[int, dict[str, Any] | None]:
    """Return how many rows are used and the record of why not all of the data set are.

    Raises
    ------
    StoreError
        The store has no rows.
    """
    held: dict[str, Any] | None = source.meta.get("limit")
    rows = len(source)
    if not rows:
        raise StoreError(
            f"{source.path.name}: holds no images, expected at least 1. Nothing can be made of it."
        )
    if limit is None or limit >= rows:
        return rows, held
    return limit, {"how": "limit", "num_rows": limit, "of": held["of"] if held else rows}


def row_job(settings: Settings, stage: str, kind: str, source: Store, **more: Any) -> Job:
    """Return the job of a stage that makes rows of output from rows of `source`.

    The output's name, its number of rows, the bytes of a row and the lineage (the input under
    its kind, and the images behind it) follow from `source`; `more` are further fields of
    `Job`, and take the place of these.
    """
    output = settings.output or output_for(source.path, stage)
    num_rows, limit = limited(source, settings.limit)
    inputs = {source.kind: fingerprint_store(source, output.parent)}
    inputs |= inherited(source, output.parent)
    found = {"num_rows": num_rows, "limit": limit, "row_bytes": source.row_bytes} | more
    found["inputs"] = inputs | more.get("inputs", {})
    found["fixed"] = {"class_name": source.whole("class_name")} | more.get("fixed", {})
    return Job(stage=stage, kind=kind, output=output, **found)


def inherited(
    source: Store, folder: Path, kinds: Sequence[str] = ("images", "maps")
) -> dict[str, Any]:
    """Return the records of the inputs behind `source`, with paths relative to `folder`.

    `kinds` says which are kept: those whose role is their kind. What a model is called where it
    is no file stays as it is.
    """
    found, home = {}, source.path.parent
    for role, record in source.meta.get("inputs", {}).items():
        if record.get("kind") in kinds and role == record["kind"] != source.kind:
            is_name = role == "model" and not (home / record["path"]).exists()
            path = record["path"] if is_name else rebased(record["path"], home, folder)
            found[role] = record | {"path": path}
    return found


def rebased(path: str, old: Path, new: Path) -> str:
    """Return a path that was relative to the folder `old` relative to the folder `new`."""
    return Path(os.path.relpath((old / path).resolve(), new.resolve())).as_posix()


def leave_out(
    source: Store, settings: Settings, rows: Rows, row: int, n: int, error: BadImageError
) -> None:
    """Mark row `n` of a block, image `row` of `source`, as left out, or stop the stage."""
    place = f'{source.path.name} row {row} "{rows["image_id"][n]}"'
    notes = rows["image_note"].tolist()
    notes[n] = settings.bad_row(place, error)
    rows["image_note"], rows["image_status"][n] = string_array(notes), 1


def warn_of_strangers(source: Store, report: Reporter) -> None:
    """Tell of arrays outside the schema, which a stage that copies a store leaves behind."""
    strangers = sorted(set(source.names) - set(source.known_names))
    if strangers:
        listed = ", ".join(strangers)
        report.warn(f"{source.path.name}: arrays outside the schema are left behind: {listed}.")


def run(job: Job, compute: Compute, settings: Settings) -> Path:
    """Make the output of a job, or this shard's share of it; return its path.

    Raises
    ------
    StoreExistsError
        Something else stands at the output's name.
    WslError
        Whatever `compute` raises; blocks committed before stay.
    """
    held, work = claim(job, overwrite=settings.overwrite)
    settings.report.announce(job.output)
    if work is None:
        settings.report.note(f"{job.output}: finished already, left alone.")
        settings.report.skipped(int(held.get("skipped", 0)))
        return job.output
    num_skipped = 0
    try:
        _compute_share(job, held, work, compute, settings)
        num_skipped = _skipped_in_share(held, work, settings)
        missing = work.missing(int(held["num_blocks"]))
        if missing:
            settings.report.note(
                f"{job.output}: this share is done, {len(missing)} of {held['num_blocks']} "
                "blocks of other shards are missing."
            )
        else:
            publish(pack(job, held, work), job.output, held["id"])
    except Exception as error:
        if _published_skips(job.output, held["id"]) is None:
            if isinstance(error, (OSError, StoreError)):
                work.check_held()
            raise  # else another shard published and took the work folder away
    published = _published_skips(job.output, held["id"])
    if published is not None:
        work.remove()
    settings.report.skipped(num_skipped if published is None else published)
    return job.output


def _compute_share(
    job: Job, held: dict[str, Any], work: WorkInProgress, compute: Compute, settings: Settings
) -> None:
    """Compute and commit this shard's missing blocks."""
    blocks = list(_missing_blocks(held, work, settings))
    num_rows = sum(block.num_rows for block in blocks)
    if not blocks:
        return
    unit = "images" if row_axis(job.kind) == "image" else "classes"
    with settings.report.progress(job.stage, num_rows, unit) as advance:
        told = 0

        def tick(num: int) -> None:
            nonlocal told
            told += num
            advance(num)

        for block, rows in zip(blocks, compute(blocks, tick), strict=True):
            work.commit(block.index, rows)
            tick(block.num_rows - told)
            told = 0


def _skipped_in_share(held: dict[str, Any], work: WorkInProgress, settings: Settings) -> int:
    """Return how many rows this shard's blocks skipped, those of earlier runs included."""
    mine = [n for n in range(int(held["num_blocks"])) if settings.shard.has(n)]
    if row_axis(str(held["kind"])) != "image":
        return 0
    return sum(int((work.part_array(n, "image_status") == 1).sum()) for n in mine)


def _missing_blocks(
    held: dict[str, Any], work: WorkInProgress, settings: Settings
) -> Iterator[Block]:
    rows, total = int(held["rows_per_block"]), int(held["num_rows"])
    for index in work.missing(int(held["num_blocks"])):
        if settings.shard.has(index):
            yield Block(index, index * rows, min(total, (index + 1) * rows))


def _published_skips(output: Path, expected_id: str) -> int | None:
    """Return how many images the published output skipped; None if it is not published."""
    try:
        with open_store(output) as store:
            return int(store.meta["skipped"]) if store.meta.get("id") == expected_id else None
    except StoreError:
        return None
