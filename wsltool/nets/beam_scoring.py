"""The scores of all candidates of one level of a beam search, computed together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsltool.localize.beam import Box, ImageSearch, SearchTree
from wsltool.nets.cam_network import Activations
from wsltool.nets.compute import Precision, computing, told_in_one_line
from wsltool.nets.models import Model, probability64
from wsltool.nets.plain_network import PlainNetwork
from wsltool.nets.sub_grids import StretchedReader, stretched

__all__ = ["Scorer", "Searched", "in_pixels", "pieces"]

_HEADS_PER_CROP = 4
"""Sub-grids go through the head so many times the batch size at once: a crop has four."""

_MOST_READ_BYTES = 1 << 28
"""What a head's first layer reads of the pictures searched together takes no more than this."""


@dataclass
class Searched:
    """One picture while it is searched.

    ``scores`` are those of its places at one level, of each for the classes that want it;
    ``read`` is what `StretchedReader.of` makes of its features.
    """

    n: int
    search: ImageSearch
    class_S: NDArray[np.int64]
    extent_4: NDArray[np.float64]
    feature_CHW: Tensor
    picture_HWC: NDArray[np.uint8] | None = None
    scores: list[list[float]] = field(default_factory=list)
    read: Tensor | None = None


class _Crop(NamedTuple):
    """A crop of a picture, and which of its places are scored on it."""

    one: Searched
    crop: Box
    rows: list[int]
    sub_grids: list[Box]


@dataclass
class Scorer:
    """Scores the places of a level."""

    model: Model
    device: torch.device
    precision: Precision
    layout: torch.memory_format
    tree: SearchTree
    threads: ThreadPoolExecutor
    batch_size: int
    num_heads: int = 0
    num_crops: int = 0

    def first(self, input_NCHW: Tensor, inside_N4: Tensor) -> tuple[Tensor, NDArray[np.float32]]:
        """Return the features and the class scores of whole pictures, these without padding."""
        made = self._forward(input_NCHW, inside_N4)
        return made.feature_NCHW, made.logit_NK.float().cpu().numpy()

    @cached_property
    def reader(self) -> StretchedReader | None:
        """The first layer of the head, where all candidates are of one grid and it can be split."""
        network = self.model.network
        exact = self.precision in ("float32", "tf32")
        if self.tree.mode != "grid" or not isinstance(network, PlainNetwork) or not exact:
            return None
        layer = network.reader
        if layer is None or StretchedReader.num_bytes(layer, self.tree.grid) > _MOST_READ_BYTES:
            return None
        return StretchedReader(layer, self.tree.grid)

    @property
    def most_together(self) -> int | None:
        """How many whole pictures may be searched together; None for any number."""
        if self.reader is None:
            return None
        return max(1, _MOST_READ_BYTES // self.reader.num_bytes(self.reader.layer, self.tree.grid))

    def level(self, searched: Sequence[Searched]) -> None:
        """Score what every search wants at its next level."""
        wanted = [crop for one in searched for crop in _crops_of(one)]
        known = [one for one in wanted if one.crop == self.tree.root]
        new = [one for one in wanted if one.crop != self.tree.root]
        if self.reader is not None:
            self._score(known, partial(self._read, self.reader, known))
        else:
            for part in pieces(known, self.batch_size):
                self._head(part, torch.stack([one.one.feature_CHW for one in part]))
        for part, input_NCHW in self._crops(new):
            self.num_crops += len(part)
            self._head(part, self._forward(input_NCHW).feature_NCHW)

    def _forward(self, input_NCHW: Tensor, inside_N4: Tensor | None = None) -> Activations:
        num, _, rows, cols = input_NCHW.shape
        x_NCHW = self.model.preprocess.normalise(input_NCHW.to(self.device, non_blocking=True))
        what = f"{self.model.arch} on {num} pictures of {cols}x{rows}"
        with computing(self.device, self.precision), told_in_one_line(what):
            made: Activations = self.model.network(
                x_NCHW.contiguous(memory_format=self.layout), inside_N4
            )
        return made

    def _crops(self, wanted: list[_Crop]) -> Iterator[tuple[list[_Crop], Tensor]]:
        """Yield crops, as the network wants them; the next are cut while it computes."""
        parts = list(pieces(wanted, self.batch_size))
        ahead = [self.threads.submit(self._cut, one) for part in parts[:1] for one in part]
        for part, after in zip(parts, [*parts[1:], []], strict=False):
            cut, ahead = ahead, [self.threads.submit(self._cut, one) for one in after]
            yield part, torch.from_numpy(np.stack([one.result() for one in cut]))

    def _cut(self, wanted: _Crop) -> NDArray[np.uint8]:
        one = wanted.one
        assert one.picture_HWC is not None
        box_xyxy = in_pixels(self.tree.fractions([wanted.crop]), one.extent_4)[0]
        return self.model.preprocess.warp_box(one.picture_HWC, box_xyxy.tolist())

    def _head(self, part: list[_Crop], feature_NCHW: Tensor) -> None:
        """Score the sub-grids of some crops, given their features."""

        def logits(which: list[int], sub_grids: list[Box]) -> Tensor:
            which_N = torch.tensor(which, device=feature_NCHW.device)
            stretched_NCHW = stretched(feature_NCHW[which_N], sub_grids)
            return self.model.network.head_logits(stretched_NCHW)

        self._score(part, logits)

    def _read(
        self, reader: StretchedReader, part: list[_Crop], which: list[int], sub_grids: list[Box]
    ) -> Tensor:
        """Return the logits of sub-grids of whole pictures, those of a picture together."""
        read = []
        for n, places in groupby(zip(which, sub_grids, strict=True), key=itemgetter(0)):
            one = part[n].one
            if one.read is None:
                one.read = reader.of(one.feature_CHW)
            read.append(reader(one.read, [sub_grid for _, sub_grid in places]))
        assert isinstance(self.model.network, PlainNetwork)
        return self.model.network.logits_behind_reader(torch.cat(read))

    def _score(self, part: list[_Crop], logits: Callable[[list[int], list[Box]], Tensor]) -> None:
        """Score the sub-grids of some crops by a function of places in `part` and sub-grids."""
        asked = [
            (n, crop.one, row, sub_grid)
            for n, crop in enumerate(part)
            for row, sub_grid in zip(crop.rows, crop.sub_grids, strict=True)
        ]
        self.num_heads += len(asked)
        for piece in pieces(asked, _HEADS_PER_CROP * self.batch_size):
            what = f"the head of {self.model.arch} on {len(piece)} sub-grids"
            with computing(self.device, self.precision), told_in_one_line(what):
                logit_NK = logits([n for n, *_ in piece], [sub_grid for *_, sub_grid in piece])
            probability_NK = self._probability(logit_NK.float().cpu().numpy())
            for (_, one, row, _), probability_K in zip(piece, probability_NK, strict=True):
                classes = one.search.wanted[row].classes
                one.scores[row] = probability_K[one.class_S[classes]].tolist()

    def _probability(self, logit_NK: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return class probabilities, NaN of a sub-grid with a logit that is not finite."""
        fine_N1 = np.isfinite(logit_NK).all(axis=1, keepdims=True)
        probability_NK = probability64(self.model.loss, np.where(fine_N1, logit_NK, 0))
        return np.where(fine_N1, probability_NK, np.nan)


def _crops_of(one: Searched) -> Iterator[_Crop]:
    """Yield the crops of a picture whose places are to be scored."""
    by_crop: dict[Box, _Crop] = {}
    for row, ((crop, sub_grid), _) in enumerate(one.search.wanted):
        wanted = by_crop.setdefault(crop, _Crop(one, crop, [], []))
        wanted.rows.append(row)
        wanted.sub_grids.append(sub_grid)
    yield from by_crop.values()


def pieces(items: list[Any], size: int) -> Iterator[list[Any]]:
    """Yield a list in pieces of a size, the last perhaps shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def in_pixels(frac_B4: NDArray[np.float64], extent_4: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return boxes of the frame in pixels of the picture, given what the frame covers of it."""
    x0, y0, x1, y1 = extent_4
    corner, side = np.array([x0, y0, x0, y0]), np.array([x1 - x0, y1 - y0] * 2)
    box_B4: NDArray[np.float64] = corner + frac_B4 * side
    return box_B4
