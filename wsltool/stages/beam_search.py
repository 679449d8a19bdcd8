"""Stage ``beam-search``: images and a classifier become heat maps of ranked candidates."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from wsltool.errors import UsageError
from wsltool.localize.beam import Children, Mode
from wsltool.stages.chosen import parse_choice
from wsltool.stages.class_maps import ClassMaps, MapDtype
from wsltool.stages.cooccurrence import Rescoring, read_weight
from wsltool.stages.model_behind import given_model
from wsltool.stages.options import (
    PathLike,
    Settings,
    TorchOptions,
    TorchSettings,
    check_choice,
    check_range,
    torch_settings,
)
from wsltool.stages.pictures import Pictures
from wsltool.stages.pictures_behind import good_batches
from wsltool.stages.plan import Job
from wsltool.stages.run import Block, Rows, Tick, open_input, row_job, run

if TYPE_CHECKING:
    from wsltool.nets.beam_search import BeamSettings, SearchBatch

__all__ = ["beam_search"]

Array = np.ndarray[Any, Any]

_REVISION = 1
_MOST_LEVELS = 100
_MOST_CELLS = 1024
_CANDIDATE_BYTES = 4 * 8 + 4 + 2 + 4


def beam_search(
    input: PathLike,
    *,
    model: PathLike,
    weights: PathLike | None = None,
    classes: str = "top5",
    mode: Mode = "grid",
    beam: int | str = 8,
    levels: int = 10,
    children: Children = 4,
    map_size: int = 56,
    map_dtype: MapDtype = "float32",
    keep_candidates: bool = False,
    cooccurrence: float | PathLike | None = None,
    images: PathLike | None = None,
    **options: Unpack[TorchOptions],
) -> Path:
    """Search for objects on the sub-grids of a feature map (Bency et al. 2016, §3.3 and §3.4).

    From the whole grid on, the best candidates of each level have children that are one column
    or row smaller; each is stretched to the grid that the classifier's fully connected layers
    read, and scored by its probability of the class. The heat map is the sum of the candidates
    kept, each with its score over the area that it covers; see `wsltool.localize.beam`.

    Parameters
    ----------
    input : path
        An ``images`` store.
    model : str or path
        A model file, a name, or ``package.module:function``; any classifier that splits into
        features on a grid and a head.
    weights : path, optional
        Weights to load into the architecture `model`.
    classes : str
        Which classes are searched for: ``present``, ``topK``, ``above:P`` (probability),
        ``all``, or several joined by ``+``, such as ``top5+present``.
    mode : {"grid", "recrop"}
        ``grid``: sub-grids of one feature map (§3.4). ``recrop``: at each level the picture is
        cropped at the kept boxes and its features are computed anew (§3.3).
    beam : int or str
        How many candidates of a level are kept, M in the paper; 1 is the greedy search. With
        ``all`` every sub-grid is, and with ``all:T`` every sub-grid is scored and the best T of
        each level are kept; these two in mode ``grid`` alone.
    levels : int
        The most levels, H in the paper; a search ends before when nothing smaller is left.
    children : {4, 9}
        ``4``: a column or a row less. ``9``: width and height each as they are or one less at
        either end (§3.3).
    map_size : int
        Rows and columns of the heat maps.
    map_dtype : {"float32", "float16"}
        How maps are stored; a value that float16 cannot hold is an error.
    keep_candidates : bool
        Keep the candidates too: boxes, scores and levels.
    cooccurrence : float or path, optional
        Combine the scores of classes that occur together (eqs. 2 to 4): the weight of pairs, or
        a file that ``fit-cooccurrence`` wrote. The search itself is not changed.
    images : path, optional
        Folder of the pictures, if not where `ingest` found them.
    **options
        See `wsltool.stages.options.TorchOptions`.

    Returns
    -------
    Path
        The ``maps`` store.

    Raises
    ------
    UsageError
        An option is out of its range, or a map does not fit into float16.
    ModelError
        The network does not split, or its classes are others than the images'.
    BadImageError
        A picture is unusable and ``on_bad`` is ``"stop"``.
    """
    settings, torch_options = Settings.of(options), torch_settings(options)
    choice = parse_choice(classes)
    params = {
        "classes": choice.text,
        "mode": mode,
        "beam": str(beam),
        "levels": levels,
        "children": children,
        "map_size": map_size,
        "map_dtype": map_dtype,
        "keep_candidates": keep_candidates,
        "precision": torch_options.precision,
    }
    _check_options(params)
    followed, counted = _beam(str(beam), mode)
    read_weight(cooccurrence)
    with open_input(input, "images", "beam-search") as source:
        from wsltool.nets.beam_search import BeamSettings, check_search

        used = given_model(model, weights, input_size=None, fit=None)
        how = BeamSettings(mode, followed, counted, levels, children, map_size)
        tree = check_search(used.model, how)
        rescoring = Rescoring.of(cooccurrence, used, source, settings)
        if rescoring is not None:
            params |= rescoring.params()
        searcher = _Searcher(
            how=how,
            grid=tree.grid,
            maps=ClassMaps(source, used, choice, "probability", map_dtype, settings, rescoring),
            pictures=Pictures(source, None if images is None else Path(images)),
            params={"model": used.name} | params,
            torch_options=torch_options,
        )
        return run(searcher.job(), searcher.compute, settings)


def _check_options(params: dict[str, Any]) -> None:
    check_choice("--mode", params["mode"], Mode)
    check_range("--levels", params["levels"], 1, _MOST_LEVELS, open_high=False, whole=True)
    check_choice("--children", params["children"], Children)
    check_range("--map-size", params["map_size"], 1, _MOST_CELLS, open_high=False, whole=True)
    check_choice("--map-dtype", params["map_dtype"], MapDtype)
    if not isinstance(params["keep_candidates"], bool):
        raise UsageError(
            f"--keep-candidates must be true or false, got {params['keep_candidates']!r}."
        )


def _beam(text: str, mode: str) -> tuple[int | None, int | None]:
    """Return how many candidates are followed and how many of these are kept; None for all."""
    parts = re.fullmatch(r"([1-9][0-9]*)|all(?::([1-9][0-9]*))?", text)
    if parts is None:
        raise UsageError(f'--beam must be a whole number from 1, all, or all:T, got "{text}".')
    if parts[1]:
        return int(parts[1]), None
    if mode == "recrop":
        raise UsageError(
            f"--beam {text}: crops of crops have no end, so --mode recrop cannot score them all. "
            "Pass --mode grid, or a number."
        )
    return None, int(parts[2]) if parts[2] else None


@dataclass(frozen=True)
class _Searcher:
    """What all blocks of one run share."""

    how: BeamSettings
    grid: tuple[int, int]
    maps: ClassMaps
    pictures: Pictures
    params: dict[str, Any]
    torch_options: TorchSettings

    def job(self) -> Job:
        """Return the job."""
        num_numbers = self.maps.most_slots * self.how.map_size**2 + len(self.maps.columns)
        num_bytes = 4 * num_numbers
        if self.params["keep_candidates"]:
            num_bytes += _CANDIDATE_BYTES * self.maps.most_slots * self._most_candidates()
        return row_job(
            self.maps.settings,
            "beam-search",
            "maps",
            self.maps.source,
            params=self.params,
            inputs=self.maps.inputs,
            revision=_REVISION,
            row_bytes=num_bytes,
            attributes=self.maps.attributes,
            compute=self.torch_options.record(),
        )

    def _most_candidates(self) -> int:
        """Return how many candidates of a class are kept at most."""
        most = self.how.beam if self.how.counted is None else self.how.counted
        if self.how.mode == "grid":
            rows, cols = self.grid
            every = rows * (rows + 1) * cols * (cols + 1) // 4
            most = min(every, most or every)
        assert most is not None  # crops are never all kept
        return self.how.levels * most

    def compute(self, blocks: list[Block], tick: Tick) -> Iterator[Rows]:
        """Yield the rows of each block; a batch never crosses a block."""
        from wsltool.nets.beam_search import run_beam_search

        size = self.torch_options.batch_size
        found = run_beam_search(
            self.maps.model,
            self.pictures,
            [batch for block in blocks for batch in good_batches(self.maps.source, block, size)],
            self.maps.choose,
            settings=self.how,
            device=self.torch_options.device,
            precision=self.torch_options.precision,
            batch_size=size,
            workers=self.torch_options.workers,
        )
        with contextlib.closing(found):  # ends the workers, also when a row stops the stage
            for block in blocks:
                rows, batches = self.maps.assemble(block, found, tick)
                if self.params["keep_candidates"]:
                    rows |= _candidate_rows(block, batches)
                yield rows


def _candidate_rows(block: Block, batches: list[SearchBatch]) -> Rows:
    """Return the candidates of a block's images, by slot, level and rank."""
    count_N = np.zeros(block.num_rows, np.int64)
    box, slot = [np.zeros((0, 4))], [np.zeros(0, np.int32)]
    level, score = [np.zeros(0, np.int16)], [np.zeros(0, np.float32)]
    for batch in batches:
        for row, kept in zip(batch.rows, batch.candidates, strict=True):
            for s, one in enumerate(kept):
                count_N[row - block.start] += len(one.score_B)
                box.append(one.box_B4)
                slot.append(np.full(len(one.score_B), s, np.int32))
                level.append(one.level_B)
                score.append(one.score_B.astype(np.float32))
    return {
        "candidate_start": count_N,
        "candidate": np.concatenate(box),
        "candidate_slot": np.concatenate(slot),
        "candidate_level": np.concatenate(level),
        "candidate_score": np.concatenate(score),
    }
