"""The smallest real stage: every rule of the runner, seconds of numpy.

It makes a boxes store: image n gets ``n % 3`` boxes (none at all in block 2), slots differ from
block to block. A block is eight rows, since the stage says that a row takes 8 MB.

    python -m tests.stages.fake_stage INPUT OUTPUT SHARD GO    starts when the file GO appears
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsltool.errors import BadImageError
from wsltool.stages.options import Settings
from wsltool.stages.report import Reporter
from wsltool.stages.run import Block, Rows, Tick, open_input, row_job, run
from wsltool.stores.open import open_store
from wsltool.stores.schema import KINDS, string_array

from ..stores.examples import example_arrays, write_store

ROWS_PER_BLOCK = 8
NUM_BLOCKS = 7  # of the 50 images
ROW_BYTES = (64 << 20) // ROWS_PER_BLOCK


class Listener(Reporter):
    """Keeps what a stage tells."""

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self.lines: list[str] = []
        self.num_skipped = 0

    def announce(self, path: Path) -> None:
        self.paths.append(path)

    def skipped(self, num: int) -> None:
        self.num_skipped += num

    def warn(self, line: str) -> None:
        self.lines.append("warning: " + line)

    def note(self, line: str) -> None:
        self.lines.append(line)


def write_images(path: Path, num_images: int = 50, store_id: str = "1" * 32) -> Path:
    """Write the input of the fake stage: 50 images are 7 blocks, the last of two rows."""
    every = example_arrays("images", num_images)
    arrays = {name: every[name] for name, spec in KINDS["images"].items() if spec.required}
    arrays["image_id"] = string_array([f"image {n}" for n in range(num_images)])
    return write_store(path, "images", arrays, {"id": store_id, "stage": "ingest"})


def fake(
    input: Path,
    *,
    factor: float = 2.0,
    flag: str | None = None,
    revision: int = 1,
    bad: tuple[int, ...] = (),
    on_block: Callable[[int], Any] = lambda index: None,
    row_bytes: int = ROW_BYTES,
    done: list[int] | None = None,
    **options: Any,
) -> Path:
    """Make boxes of nothing; `on_block` is called before each block is given to the runner."""
    settings = Settings.of(options)
    with open_input(input, "images", "fake") as source:
        job = row_job(
            settings,
            "fake",
            "boxes",
            source,
            params={"factor": factor, "flag": flag},
            revision=revision,
            row_bytes=row_bytes,
            attributes={"box_score_kind": "class"},
        )

        def compute(blocks: list[Block], tick: Tick) -> Iterator[Rows]:
            for block in blocks:
                rows = _rows(source.carried(block.start, block.stop), block, factor)
                _leave_out(rows, block, bad, settings)
                on_block(block.index)
                yield rows
                if done is not None:
                    done.append(block.index)

        return run(job, compute, settings)


def _rows(rows: Rows, block: Block, factor: float) -> Rows:
    row_N = np.arange(block.start, block.stop)
    count_N = row_N % 3 if block.index != 2 else np.zeros_like(row_N)
    count_N = np.where(rows["image_status"] == 0, count_N, 0)
    box = np.repeat(row_N, count_N)[:, None] * np.array([0, 0, factor, 1.0]) + [0, 0, 1, 1]
    num_slots = 1 + block.index % 3
    num_boxes = len(box)
    return rows | {
        "map_class": np.tile(np.arange(num_slots, dtype=np.int32) % 2, (len(row_N), 1)),
        "map_score": np.tile(-np.arange(num_slots, dtype=np.float32), (len(row_N), 1)),
        "box_start": count_N.astype(np.int64),
        "box": box,
        "box_class": np.zeros(num_boxes, np.int32),
        "box_score": np.linspace(0, 1, num_boxes, dtype=np.float32),
        "box_slot": np.zeros(num_boxes, np.int32),
    }


def _leave_out(rows: Rows, block: Block, bad: tuple[int, ...], settings: Settings) -> None:
    notes = rows["image_note"].tolist()
    for row in bad:
        if block.start <= row < block.stop:
            place = f'in.zarr row {row} "{rows["image_id"][row - block.start]}"'
            notes[row - block.start] = settings.bad_row(place, BadImageError("it is bad."))
            rows["image_status"][row - block.start] = 1
    rows["image_note"] = string_array(notes)


def contents(path: Path) -> dict[str, Any]:
    """Return every array of a store, as bytes or strings, and its digest."""
    with open_store(path) as store:
        found = {name: store.whole(name) for name in store.names}
        plain = {n: v.tolist() if v.dtype.kind == "T" else v.tobytes() for n, v in found.items()}
        return plain | {"digest": store.meta["digest"]}


class Killed(BaseException):
    """Stands for a kill: nothing of ours handles it."""


def die_at(block: int) -> Any:
    """Return an `on_block` that kills the run before a block is committed."""

    def on_block(index: int) -> None:
        if index == block:
            raise Killed

    return on_block


def ends_killed(call: Any, *args: Any, **options: Any) -> None:
    """Call what `die_at` or a patch kills."""
    with pytest.raises(Killed):
        call(*args, **options)


if __name__ == "__main__":
    source, output, shard, go = sys.argv[1:]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not Path(go).exists():
        time.sleep(0.0005)
    fake(Path(source), output=output, factor=3.0, shard=shard, overwrite=True)
