"""Stage ``propose``: boxes that may hold an object of any class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from wsltool.errors import BadImageError
from wsltool.localize.selective_search import (
    SearchMode,
    load_selective_search,
    selective_search,
)
from wsltool.stages.options import (
    PathLike,
    RunOptions,
    Settings,
    check_choice,
    check_range,
    check_seed,
)
from wsltool.stages.pictures_behind import PicturesBehind
from wsltool.stages.plan import Job
from wsltool.stages.run import Block, Rows, Tick, leave_out, open_input, row_job, run
from wsltool.stores.schema import string_array
from wsltool.stores.store import Store

__all__ = ["propose"]

Array = np.ndarray[Any, Any]

_REVISION = 1
_CLASS = "proposal"
# An image takes about a second: small blocks lose little when killed, and share out well.
_BLOCK_ROWS = 32
_LONGEST_PX = 8192
_MOST_BOXES = 1 << 20


def propose(
    input: PathLike,
    *,
    mode: SearchMode = "fast",
    max_boxes: int = 2000,
    longest_side: int = 500,
    seed: int = 0,
    images: PathLike | None = None,
    **options: Unpack[RunOptions],
) -> Path:
    """Propose boxes of objects by selective search (Uijlings et al. 2013, through OpenCV).

    Parameters
    ----------
    input : path
        An ``images`` store.
    mode : {"fast", "quality"}
        OpenCV's strategies: ``quality`` takes about four times as long and finds four times as
        many boxes.
    max_boxes : int
        Boxes of an image that are kept at most.
    longest_side : int
        Pictures are reduced to it first, in pixels; the boxes are in pixels of the original.
    seed : int
        Of the order, hence of which boxes are kept. The same picture gives the same boxes in any
        store.
    images : path, optional
        Folder of the pictures if not where `ingest` found them.
    **options
        See `wsltool.stages.options.RunOptions`.

    Returns
    -------
    Path
        The ``boxes`` store, of one class ``proposal``. The score falls from 1 with the rank,
        ``1 - rank / boxes of the image``, and means nothing but the order.

    Raises
    ------
    UsageError
        An option is out of its range.
    ExtraMissingError
        OpenCV's contrib build is not installed.
    LineageError
        The folder of the pictures is not there.
    BadImageError
        A picture is unusable and ``on_bad`` is ``"stop"``.
    """
    settings = Settings.of(options)
    check_choice("--mode", mode, SearchMode)
    check_range("--max-boxes", max_boxes, 1, _MOST_BOXES, open_high=False, whole=True)
    check_range("--longest-side", longest_side, 16, _LONGEST_PX, open_high=False, whole=True)
    check_seed(seed)
    load_selective_search()
    params = {"mode": mode, "max_boxes": max_boxes, "longest_side": longest_side, "seed": seed}
    with open_input(input, "images", "propose") as source:
        pictures = PicturesBehind(source, None if images is None else Path(images))
        proposer = _Proposer(source, pictures, params, settings)
        return run(proposer.job(), proposer.compute, settings)


@dataclass(frozen=True)
class _Proposer:
    """What all blocks of one run share."""

    source: Store
    pictures: PicturesBehind
    params: dict[str, Any]
    settings: Settings

    def job(self) -> Job:
        """Return the job; its store has one class."""
        return row_job(
            self.settings,
            "propose",
            "boxes",
            self.source,
            params=self.params,
            revision=_REVISION,
            block_rows=_BLOCK_ROWS,
            fixed={"class_name": string_array([_CLASS])},
            attributes={"classes": "all", "score_kind": "unknown", "box_score_kind": "rank"},
        )

    def compute(self, blocks: list[Block], tick: Tick) -> Iterator[Rows]:
        """Yield the rows of each block."""
        for block in blocks:
            yield self._block(block, tick)

    def _block(self, block: Block, tick: Tick) -> Rows:
        rows = self.source.carried(block.start, block.stop)
        found: list[Array] = []
        for n in range(block.num_rows):
            found.append(self._boxes(rows, block.start + n, n))
            tick(1)
        count_N = np.array([len(box_B4) for box_B4 in found], np.int64)
        used_N1 = count_N[:, None] > 0
        score = [1 - np.arange(count) / count for count in count_N.tolist() if count]
        return rows | {
            "map_class": np.where(used_N1, 0, -1).astype(np.int32),
            "map_score": np.where(used_N1, 1, -np.inf).astype(np.float32),
            "box_start": count_N,
            "box": np.concatenate(found),
            "box_class": np.zeros(count_N.sum(), np.int32),
            "box_score": np.concatenate([np.zeros(0), *score]).astype(np.float32),
            "box_slot": np.zeros(count_N.sum(), np.int32),
        }

    def _boxes(self, rows: Rows, row: int, n: int) -> Array:
        """Return the boxes of an image, none of one that is left out."""
        if rows["image_status"][n] == 0:
            try:
                return selective_search(
                    self.pictures(row),
                    mode=self.params["mode"],
                    longest_side_px=self.params["longest_side"],
                    max_boxes=self.params["max_boxes"],
                    seed=self.params["seed"],
                )
            except BadImageError as error:
                leave_out(self.source, self.settings, rows, row, n, error)
        return np.zeros((0, 4))
