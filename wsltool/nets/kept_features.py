"""What the frozen part of a network gives of every picture, computed once and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsltool.nets.closed_form import evaluating
from wsltool.nets.compute import Precision, computing, fastest_layout, told_in_one_line
from wsltool.nets.examples import Batch, Examples, picture_batches
from wsltool.nets.frozen import Cut, Network, kept_activation
from wsltool.nets.kept_arrays import Arrays, keep_arrays
from wsltool.nets.models import Model
from wsltool.nets.sampling import ordered_batches
from wsltool.nets.skipping import skipping
from wsltool.nets.suppression import Suppression

__all__ = ["FeatureKeeper", "KeptFeatures"]


@dataclass(frozen=True)
class KeptFeatures:
    """Arrays on disk, mapped into memory; row n is the n-th example.

    Attributes
    ----------
    value_NV
        (num_examples, num_views, …) float32, what the cut keeps; the second view, if there
        is one, is of the mirrored picture.
    inside_NV4
        (num_examples, num_views, 4) float32, part of the input that shows the picture; None
        where nothing is padded.
    mask_NVHW
        (num_examples, num_views, row, column) uint8, the suppression mask; None without.
    """

    value_NV: NDArray[np.float32]
    inside_NV4: NDArray[np.float32] | None
    mask_NVHW: NDArray[np.uint8] | None


@dataclass(frozen=True)
class FeatureKeeper:
    """Computes what a cut keeps, and suppression masks, and keeps them in a folder.

    Files are named after what decides their content, so that several trainings may share the
    folder.

    Attributes
    ----------
    network, cut
        The network, and where its frozen part ends.
    folder
        Where the arrays are kept.
    device, precision, workers, batch_size
        How they are computed; processes that read pictures.
    on_features
        Called with the number of pictures that were just done.
    """

    network: Network
    cut: Cut
    folder: Path
    device: torch.device
    precision: Precision
    workers: int
    batch_size: int
    on_features: Callable[[int], None] | None = None

    def keep(
        self,
        examples: Examples,
        data_key: str,
        suppression: Suppression | None = None,
        label_NK: Tensor | None = None,
    ) -> KeptFeatures | None:
        """Return what is kept of every picture.

        Parameters
        ----------
        examples
            Pictures; only mirrored at most.
        data_key
            Tells these pictures from others.
        suppression, label_NK
            Earlier networks, and labels (num_examples, num_classes) uint8 on the device.

        Returns
        -------
        KeptFeatures or None
            None where the disk has no room for them.
        """
        facts = [data_key, list(examples.rows), examples.preprocess, _num_views(examples)]
        facts += [self.cut, self.precision, self.device.type]
        frozen = _under(self.network.module.state_dict(), self.cut)
        found = self._kept("features", _key(facts, frozen), examples, self._values)
        if found is None:
            return None
        kept = KeptFeatures(found["value"], found.get("inside"), None)
        if suppression is None or label_NK is None:
            return kept
        grid = self._grid(examples, suppression)
        facts += [grid, suppression.thresholds, label_NK.cpu().numpy().tobytes()]
        states = [first.network.module.state_dict() for first in suppression.firsts]
        task = _Masks(self, examples, kept, suppression, label_NK, grid)
        masks = self._kept("masks", _key(facts, *states), examples, task.batches)
        return (
            None if masks is None else KeptFeatures(found["value"], kept.inside_NV4, masks["mask"])
        )

    def _kept(
        self,
        word: str,
        key: str,
        examples: Examples,
        batches: Callable[[Examples, int], Iterator[Arrays]],
    ) -> Arrays | None:
        name, num = f"{word}-{key[:16]}", len(examples.rows)
        return keep_arrays(
            self.folder, name, num, lambda start: batches(examples, start), self.on_features
        )

    def _values(self, examples: Examples, start: int) -> Iterator[Arrays]:
        """Yield what the cut keeps, from row `start`; views on the second axis."""
        layout = fastest_layout(self.network, examples.preprocess.size_px, self.device)
        is_padded = examples.preprocess.fit == "letterbox"
        with ExitStack() as stack:
            shown = stack.enter_context(closing(self.pictures(examples, start)))
            for batch in shown:
                views: list[Arrays] = []
                for view in range(_num_views(examples)):
                    input_NCHW, inside_N4 = seen(batch, view)
                    x_NCHW = examples.preprocess.normalise(input_NCHW.to(self.device))
                    with self.computed(f"features of {len(x_NCHW)} pictures"):
                        x_NCHW = x_NCHW.contiguous(memory_format=layout)
                        value = kept_activation(self.network, self.cut, x_NCHW).float()
                    found = {"value": value.cpu().contiguous().numpy()}
                    views.append(found | ({"inside": inside_N4.numpy()} if is_padded else {}))
                yield {name: np.stack([one[name] for one in views], 1) for name in views[0]}

    def pictures(self, examples: Examples, start: int) -> Generator[Batch]:
        """Yield the pictures from row `start`, unchanged and in order."""
        batches = ordered_batches(len(examples.rows), self.batch_size, start)
        with closing(picture_batches(examples.plain(), batches, 0, workers=self.workers)) as shown:
            yield from shown

    @contextmanager
    def computed(self, what: str) -> Iterator[None]:
        """Compute the block as it is computed here: without gradients, in evaluation mode."""
        with (
            torch.inference_mode(),
            evaluating(self.network),
            computing(self.device, self.precision),
            told_in_one_line(what),
        ):
            yield

    def _grid(self, examples: Examples, suppression: Suppression) -> tuple[int, int]:
        """Return rows and columns of the suppressed layer."""
        grid: list[tuple[int, int]] = []

        def note(value: Tensor) -> Tensor:
            grid.append((int(value.shape[2]), int(value.shape[3])))
            return value

        size_px = examples.preprocess.size_px
        x_NCHW = torch.zeros((1, 3, size_px, size_px), device=self.device)
        with self.computed("the suppressed layer"), suppression.watching(self.network, note):
            self.network(x_NCHW)
        return grid[-1]


@dataclass(frozen=True)
class _Masks:
    """Computes suppression masks: from pictures, or from what is kept of them.

    Earlier networks whose frozen part is the same see what is kept.
    """

    keeper: FeatureKeeper
    examples: Examples
    kept: KeptFeatures
    suppression: Suppression
    label_NK: Tensor
    grid: tuple[int, int]

    def batches(self, examples: Examples, start: int) -> Iterator[Arrays]:
        """Yield masks from row `start`; views on the second axis."""
        cut = self.keeper.cut
        shared = not cut.is_pooled and all(map(self._shares, self.suppression.firsts))
        source = self._from_kept(start) if shared else self._from_pictures(start)
        with ExitStack() as stack:
            stack.enter_context(closing(source))
            for first in self.suppression.firsts if shared else []:
                stack.enter_context(skipping(first.network.module, cut.skipped))
            for masks in source:
                mask_NVHW = torch.cat(masks, 1).byte().cpu().numpy()
                yield {"mask": mask_NVHW}

    def _from_pictures(self, start: int) -> Generator[list[Tensor]]:
        is_padded = self.examples.preprocess.fit == "letterbox"
        with closing(self.keeper.pictures(self.examples, start)) as shown:
            for batch in shown:
                masks = []
                for view in range(_num_views(self.examples)):
                    input_NCHW, inside_N4 = seen(batch, view)
                    with self.keeper.computed("suppression masks"):
                        masks.append(
                            self.suppression.mask_of_pictures(
                                input_NCHW.to(self.keeper.device),
                                self.label_NK[batch.place_N],
                                inside_N4 if is_padded else None,
                                self.grid,
                            )
                        )
                yield masks

    def _from_kept(self, start: int) -> Generator[list[Tensor]]:
        size_px = self.examples.preprocess.size_px
        num, step = len(self.label_NK), self.keeper.batch_size
        for first in range(start, num, step):
            rows = slice(first, min(first + step, num))
            masks = []
            for view in range(_num_views(self.examples)):
                x = torch.from_numpy(self.kept.value_NV[rows, view]).to(self.keeper.device)
                inside = self.kept.inside_NV4
                with self.keeper.computed("suppression masks"):
                    masks.append(
                        self.suppression.mask(
                            _always(x),
                            self.label_NK[rows],
                            None if inside is None else torch.from_numpy(inside[rows, view]),
                            self.grid,
                            (size_px, size_px),
                        )
                    )
            yield masks

    def _shares(self, first: Model) -> bool:
        """Whether an earlier network computes what is kept as the network does."""
        keeper = self.keeper
        own = _under(keeper.network.module.state_dict(), keeper.cut)
        theirs = _under(first.network.module.state_dict(), keeper.cut)
        mine, its = self.examples.preprocess, first.preprocess
        return (
            type(first.network.module) is type(keeper.network.module)
            and (mine.mean, mine.std) == (its.mean, its.std)
            and own.keys() == theirs.keys()
            and all(torch.equal(own[name].cpu(), theirs[name].cpu()) for name in own)
        )


def _always(x: Tensor) -> Callable[[Model], Tensor]:
    return lambda _first: x


def _num_views(examples: Examples) -> int:
    return examples.augment.num_views or 1


def seen(batch: Batch, view: int) -> tuple[Tensor, Tensor]:
    """Return pictures, and what of them shows the picture, plain (0) or mirrored (1)."""
    if not view:
        return batch.input_NCHW, batch.inside_N4
    inside_N4 = batch.inside_N4[:, [2, 1, 0, 3]] * batch.inside_N4.new_tensor([-1, 1, -1, 1])
    return batch.input_NCHW.flip(3), inside_N4 + inside_N4.new_tensor([1, 0, 1, 0])


def _under(state: dict[str, Tensor], cut: Cut) -> dict[str, Tensor]:
    """Return the arrays of the part that is cut off."""
    return {
        name: value
        for name, value in state.items()
        if any(name.startswith(f"{skipped}.") for skipped in cut.skipped)
    }


def _key(facts: list[Any], *states: dict[str, Tensor]) -> str:
    """Tell arrays of other pictures, weights or preprocessing from these."""
    digest = hashlib.sha256(repr(facts).encode())
    for state in states:
        for name, value in sorted(state.items()):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
