"""From pictures to heat maps by beam search (Bency et al. 2016), batch after batch."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from math import isfinite
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsltool.errors import BadImageError, ModelError
from wsltool.localize.beam import (
    Candidates,
    Children,
    ImageSearch,
    Mode,
    SearchTree,
    beam_heat,
)
from wsltool.nets.beam_scoring import Scorer, Searched, in_pixels, pieces
from wsltool.nets.compute import Precision, fastest_layout
from wsltool.nets.inference import CamBatch, ChooseClasses, choose_classes, note_not_finite
from wsltool.nets.map_grid import map_grid
from wsltool.nets.models import Model
from wsltool.nets.picture_inputs import LoadPicture, PictureInputs, picture_inputs

__all__ = ["BeamSettings", "NumEvaluated", "SearchBatch", "check_search", "run_beam_search"]

_MOST_PIXELS = 1 << 26
"""Pictures are searched together, for their crops, while they have no more pixels than this."""


class NumEvaluated(NamedTuple):
    """What a batch took, its whole pictures not counted.

    Attributes
    ----------
    num_heads
        Sub-grids that went through the head.
    num_crops
        Crops whose features were computed.
    num_heads_alone, num_crops_alone
        The same if each class of each picture were searched for alone.
    """

    num_heads: int
    num_crops: int
    num_heads_alone: int
    num_crops_alone: int


_NOTHING = NumEvaluated(0, 0, 0, 0)


@dataclass(frozen=True)
class BeamSettings:
    """How to search.

    Attributes
    ----------
    mode
        ``recrop`` or ``grid``, see `wsltool.localize.beam.SearchTree`.
    beam, counted
        See `wsltool.localize.beam.ImageSearch`.
    levels
        The most levels, H in the paper.
    children
        4 or 9.
    map_size
        Rows and columns of the heat map.
    """

    mode: Mode = "grid"
    beam: int | None = 8
    counted: int | None = None
    levels: int = 10
    children: Children = 4
    map_size: int = 56


@dataclass(frozen=True)
class SearchBatch(CamBatch):
    """Scores, heat maps and candidates of one batch.

    Attributes
    ----------
    candidates
        Of each row, one entry a slot, empty for an empty slot or a row with an error.
    num_evaluated
        What it took.
    """

    candidates: list[list[Candidates]] = field(default_factory=list)
    num_evaluated: NumEvaluated = _NOTHING


def check_search(model: Model, settings: BeamSettings) -> SearchTree:
    """Return the tree that `run_beam_search` searches.

    Raises
    ------
    ModelError
        The network slides a window over its input, its features are a single cell, it fails
        on its input size, or crops cannot be warped as it wants its pictures.
    UsageError
        A setting is out of its range.
    """
    preprocess = model.preprocess
    if model.network.window is not None:
        raise ModelError(
            f"{model.arch}: slides a window over its input, so its head reads no grid that could "
            f"be searched. Its maps come from: wsltool cam --model {model.arch}"
        )
    if settings.mode == "recrop" and preprocess.fit == "letterbox":
        raise ModelError(
            f"{model.arch}: its pictures are letterboxed, but --mode recrop warps every crop. Pass "
            "--mode grid, or a model with --fit warp or crop."
        )
    grid = map_grid(model)
    if grid == (1, 1):
        raise ModelError(
            f"{model.arch}: its head reads a single cell at {preprocess.size_px} pixels, expected "
            "a grid to search."
        )
    return SearchTree(grid, settings.mode, settings.levels, settings.children)


def run_beam_search(
    model: Model,
    load_picture: LoadPicture,
    batches: Iterable[Sequence[int]],
    choose: ChooseClasses,
    *,
    settings: BeamSettings,
    device: torch.device,
    precision: Precision = "float32",
    batch_size: int = 32,
    workers: int = 0,
) -> Generator[SearchBatch]:
    """Search for the classes of each picture (Bency et al. 2016, §3.3 and §3.4).

    A candidate's sub-grid of the features is resized to the whole grid, bilinearly, each
    channel alone, with nothing read outside it (``align_corners=False``), and goes through the
    head; its score is the probability of the class (`Model.probability`). In mode ``recrop``
    the features are those of the parent's box, cut out of the picture, exact to the fraction of a
    pixel, and warped to the input size.

    All candidates of a level, of all classes and pictures of a batch, are scored together, equal
    ones once; of so many pictures as `_MOST_PIXELS` and what the head's first layer reads of them
    allow. The same batches give the same bytes on the same machine. A batch goes
    through whole, pictures with an error as black ones.

    Parameters
    ----------
    batches
        The rows of each batch; consumed as needed.
    choose
        Called once a batch with its good rows; the classes to search for.
    settings
        How.
    batch_size
        So many crops go through the network, and four times as many sub-grids through its
        head, at once.
    workers
        Processes that read and resize pictures, and in mode ``recrop`` threads that cut crops; 0
        does all that here.

    Yields
    ------
    SearchBatch
        One a batch, in order. Close the generator, or use it up, to end the workers.

    Raises
    ------
    ModelError
        As `check_search`, or memory is short.
    """
    tree = check_search(model, settings)
    network = model.network.eval().to(device)
    layout = fastest_layout(network, model.preprocess.size_px, device)
    loaded = picture_inputs(
        [model.preprocess], load_picture, batches, device=device, workers=workers
    )
    with closing(loaded), ThreadPoolExecutor(max(1, workers)) as threads:
        scorer = Scorer(model, device, precision, layout, tree, threads, batch_size)
        run = _Runner(model, settings, tree, scorer, load_picture)
        for inputs in loaded:
            yield run(inputs, choose)


@dataclass
class _Runner:
    """Searches one batch; keeps nothing between batches."""

    model: Model
    settings: BeamSettings
    tree: SearchTree
    scorer: Scorer
    load_picture: LoadPicture

    @torch.inference_mode()
    def __call__(self, inputs: PictureInputs, choose: ChooseClasses) -> SearchBatch:
        feature_NCHW, logit_NK = self.scorer.first(inputs.inputs[0], inputs.inside[0])
        error = list(inputs.error)
        note_not_finite(error, logit_NK)
        class_NS = choose_classes(inputs.rows, logit_NK, error, choose)
        extent_N4 = inputs.extent_N4.copy()
        searched = [
            self._start(n, class_NS[n], extent_N4[n], feature_NCHW[n])
            for n, text in enumerate(error)
            if text is None and (class_NS[n] >= 0).any()
        ]
        before = self.scorer.num_heads, self.scorer.num_crops
        alone = np.zeros(2, np.int64)
        for group in self._groups(searched, inputs.rows, error):
            alone += self._search(group, error)
        size = self.settings.map_size
        map_NSHW = np.zeros((*class_NS.shape, size, size), np.float32)
        none = Candidates(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int16))
        candidates = [[none] * class_NS.shape[1] for _ in inputs.rows]
        for one in searched:
            if error[one.n] is None:
                self._finish(one, class_NS[one.n], map_NSHW[one.n], candidates[one.n])
        bad_N = np.array([text is not None for text in error], bool)
        logit_NK[bad_N], class_NS[bad_N], extent_N4[bad_N] = -np.inf, -1, 0
        num_heads, num_crops = self.scorer.num_heads, self.scorer.num_crops
        return SearchBatch(
            rows=inputs.rows,
            class_score_NK=logit_NK,
            class_NS=class_NS.astype(np.int32),
            map_NSHW=map_NSHW,
            extent_N4=extent_N4.astype(np.float32),
            error=error,
            candidates=candidates,
            num_evaluated=NumEvaluated(
                num_heads - before[0], num_crops - before[1], int(alone[0]), int(alone[1])
            ),
        )

    def _start(
        self, n: int, class_S: NDArray[np.int64], extent_4: NDArray[np.float64], feature: Tensor
    ) -> Searched:
        used_S = class_S[class_S >= 0]
        search = ImageSearch(self.tree, len(used_S), self.settings.beam, self.settings.counted)
        return Searched(n, search, used_S, extent_4, feature)

    def _groups(
        self, searched: list[Searched], rows: list[int], error: list[str | None]
    ) -> Iterator[list[Searched]]:
        """Yield pictures that are searched together, so many that memory holds what they need."""
        if self.tree.mode == "grid":
            yield from pieces(searched, self.scorer.most_together or max(1, len(searched)))
            return
        group: list[Searched] = []
        num_pixels = 0
        for one in searched:
            try:
                picture_HWC = self.load_picture(rows[one.n])
            except BadImageError as bad:  # it was fine when its input was made
                error[one.n] = str(bad)
                continue
            size = picture_HWC.shape[0] * picture_HWC.shape[1]
            if group and num_pixels + size > _MOST_PIXELS:
                yield group
                group, num_pixels = [], 0
            one.picture_HWC = picture_HWC
            group.append(one)
            num_pixels += size
        yield group

    def _search(self, group: list[Searched], error: list[str | None]) -> NDArray[np.int64]:
        """Search some pictures to the end; return what each class alone would have taken."""
        alone = np.zeros(2, np.int64)
        active = group
        while active := [one for one in active if error[one.n] is None and not one.search.is_over]:
            for one in active:
                alone += one.search.num_alone()
                one.scores = [[] for _ in one.search.wanted]
            self.scorer.level(active)
            for one in active:
                if all(map(isfinite, chain(*one.scores))):
                    one.search.advance(one.scores)
                else:
                    error[one.n] = "the network's output is not finite (NaN or infinity)."
        for one in group:
            one.picture_HWC = one.read = None
        return alone

    def _finish(
        self,
        one: Searched,
        class_S: NDArray[np.int64],
        map_SHW: NDArray[np.float32],
        candidates_S: list[Candidates],
    ) -> None:
        """Write the heat maps and the candidates of a picture, these in its pixels."""
        for k, slot in enumerate(np.flatnonzero(class_S >= 0)):
            found = one.search.candidates(k)
            map_SHW[slot] = beam_heat(found, self.settings.map_size)
            candidates_S[slot] = found._replace(box_B4=in_pixels(found.box_B4, one.extent_4))
