"""The training loop: step after step, to be interrupted and continued anywhere."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from wsltool.errors import Interrupted, TrainingError
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.checkpoint import Record, read_checkpoint, write_checkpoint
from wsltool.nets.compute import computing, told_in_one_line
from wsltool.nets.distributed import World
from wsltool.nets.frozen import Network, train_mode
from wsltool.nets.learning_rates import make_optimizer, set_rates
from wsltool.nets.losses import LOSSES
from wsltool.nets.masked_pooling import box_cells, masked_pooling_loss
from wsltool.nets.sampling import Draw, epoch_batches
from wsltool.nets.skipping import skipping
from wsltool.nets.sources import Shown, Source
from wsltool.nets.stopping import StopSign, stop_sign
from wsltool.nets.suppression import Suppression, suppressing
from wsltool.nets.train_config import TrainConfig
from wsltool.nets.validation import Validation
from wsltool.nets.whole_batch import Share, whole_batch_layers

__all__ = ["Listener", "Loop", "Task"]

_MOST_RECORDS = 1000
_EPOCH_CHECKPOINT_S = 30.0


@dataclass(frozen=True)
class Task:
    """One training: what learns, from what, and where it is kept.

    Attributes
    ----------
    network, still, skipped
        The network; modules that stay in evaluation mode; modules that are passed over,
        since the source gives what they gave.
    source, label_NK
        Inputs and labels (num_examples, num_classes) uint8 on the device.
    suppression
        Earlier networks, or None.
    validation
        What is measured on the way, or None.
    folder, plan
        Where checkpoints are kept, and what they must agree with.
    keep_at
        Iterations after which the network is handed to `Listener.keep`.
    checkpoint_s
        Seconds between checkpoints.
    layout
        Memory layout in which the network is computed.
    """

    network: Network
    still: frozenset[str]
    skipped: tuple[str, ...]
    source: Source
    label_NK: Tensor
    suppression: Suppression | None
    validation: Validation | None
    config: TrainConfig
    folder: Path
    plan: dict[str, Any]
    device: torch.device
    world: World
    keep_at: frozenset[int] = frozenset()
    checkpoint_s: float = 600.0
    layout: torch.memory_format = torch.contiguous_format


@dataclass(frozen=True)
class Listener:
    """Who hears of a training.

    Attributes
    ----------
    step
        Called with the iterations that are done, out of how many.
    record
        Called with each line of the log.
    keep
        Called after the iterations of `Task.keep_at`, with the network whole.
    """

    step: Callable[[int, int], None] = lambda _done, _total: None
    record: Callable[[Record], None] = lambda _record: None
    keep: Callable[[int], None] = lambda _iteration: None


class _Piece(NamedTuple):
    draws: Sequence[Draw]
    start: int
    weight: float


@dataclass
class _Sum:
    """What the next line of the log is about."""

    loss: float = 0.0
    num_images: int = 0
    started: float = field(default_factory=time.perf_counter)


class Loop:
    """Trains a task from where its folder says it stands.

    All random numbers of a step depend on the seed and the step alone, so a training that was
    interrupted ends as one that was not.
    """

    def __init__(self, task: Task, listener: Listener) -> None:
        self.task, self.listener = task, listener
        self.history: list[Record] = []
        self.iteration = 0
        self.label_host_NK = task.label_NK.cpu().numpy()
        self.batches_per_epoch = len(self._epoch(0))
        self.num_iterations = task.config.num_iterations(self.batches_per_epoch)
        self._sum = _Sum()
        self._share = Share()
        self._skip = ExitStack()
        self._saved_at = time.monotonic()

    def run(self) -> list[Record]:
        """Train what is missing; return the log.

        Raises
        ------
        TrainingError
            A loss that is not finite, or a folder of another training.
        Interrupted
            A signal came; the checkpoint is written.
        """
        task = self.task
        devices = [task.device] if task.device.type == "cuda" else []
        network = task.network
        self.optimizer = make_optimizer(network.module, network.head_name, task.config)
        self.scaler = torch.amp.GradScaler(
            task.device.type, enabled=task.config.precision == "fp16"
        )
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=devices))
            stack.enter_context(self._skip)
            self._skip.enter_context(skipping(task.network.module, task.skipped))
            stack.enter_context(whole_batch_layers(task.network.module, self._share))
            stack.enter_context(task.world.telling_of_losses())
            self._resume()
            learner: Any = task.network
            if task.world.size > 1:
                learner = DistributedDataParallel(task.network)
            sign = stack.enter_context(stop_sign())
            self._validate(sign)
            while self.iteration < self.num_iterations:
                self._finish_epoch(learner, sign)
        return self.history

    def _epoch(self, epoch: int) -> list[list[Draw]]:
        config = self.task.config
        return epoch_batches(
            len(self.label_host_NK),
            config.batch_size,
            config.seed,
            epoch,
            config.shown,
            self.label_host_NK,
        )

    def _finish_epoch(self, learner: Any, sign: StopSign) -> None:
        """Take the steps of the current epoch that are missing."""
        epoch, first = divmod(self.iteration, self.batches_per_epoch)
        batches = self._epoch(epoch)[first:][: self.num_iterations - self.iteration]
        pieces = [self._pieces(batch) for batch in batches]
        shown = self.task.source.pieces([p.draws for some in pieces for p in some], epoch)
        train_mode(self.task.network.module, self.task.still)
        with closing(shown):
            for batch, some in zip(batches, pieces, strict=True):
                loss, stop = self._step(learner, len(batch), some, shown, sign)
                self._note(loss, len(batch))
                self._afterwards(sign, stop=stop)

    def _pieces(self, batch: list[Draw]) -> list[_Piece]:
        """Cut this process's share of a batch into pieces, as many as in any other process.

        A process without a share has one piece of weight 0.
        """
        start, end = self.task.world.share(len(batch))
        if start == end:
            return [_Piece(batch[:1], 0, 0.0)]
        num = max(1, min(self.task.config.accumulate, len(batch) // self.task.world.size))
        edges = [start + (end - start) * n // num for n in range(num + 1)]
        return [_Piece(batch[a:b], a, 1.0) for a, b in pairwise(edges)]

    def _step(
        self,
        learner: Any,
        num_images: int,
        pieces: list[_Piece],
        shown: Iterator[Shown],
        sign: StopSign,
    ) -> tuple[float, bool]:
        """Learn from one batch; return its loss, and whether to stop."""
        task = self.task
        lr = task.config.lr_at(self.iteration, self.num_iterations)
        seed = int(np.random.default_rng((task.config.seed, self.iteration, 2)).integers(2**62))
        torch.manual_seed(seed)
        self._share.num_images, self._share.seed = num_images, seed
        set_rates(self.optimizer, lr)
        self.optimizer.zero_grad()
        local = 0.0
        for number, piece in enumerate(pieces):
            one = next(shown)
            self._share.start, self._share.weight = piece.start, piece.weight
            is_last = number == len(pieces) - 1
            waits = task.world.size > 1 and not is_last
            with learner.no_sync() if waits else nullcontext():
                total = self._losses(learner, one).sum() * piece.weight
                with told_in_one_line(self._place()):
                    self.scaler.scale(total * task.world.size / num_images).backward()  # type: ignore[no-untyped-call]
            local += total.item()
        loss, stop = task.world.sums([local / num_images, float(sign.signum > 0)], task.device)
        if not np.isfinite(loss):
            raise TrainingError(
                f"{self._place()}: the loss is {loss} at learning rate {lr:g}. Pass a smaller "
                f"--lr, such as {lr / 10:g}."
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.iteration += 1
        return loss, stop > 0

    def _place(self) -> str:
        epoch, batch = divmod(self.iteration, self.batches_per_epoch)
        return f"epoch {epoch + 1} step {batch + 1}"

    def _losses(self, learner: Any, one: Shown) -> Tensor:
        """Return the loss of each image of a piece."""
        task, network = self.task, self.task.network
        x = one.x.contiguous(memory_format=task.layout) if one.x.ndim == 4 else one.x
        with (
            computing(task.device, task.config.precision),
            told_in_one_line(self._place()),
            suppressing(network, task.suppression, one.mask),
        ):
            feature_NCHW, logit_NK = learner(x, one.inside_N4, input_px=one.input_px)
        label_NK = task.label_NK[one.place_N]
        loss = LOSSES[task.config.loss]
        if task.config.masked_pooling == "none" or not isinstance(network, CamNetwork):
            return loss(logit_NK.float(), label_NK)
        grid = (int(feature_NCHW.shape[2]), int(feature_NCHW.shape[3]))
        covered = network.covered(grid, one.input_px)
        inside_NKHW = torch.from_numpy(
            box_cells(one.boxes or [], logit_NK.shape[1], grid, covered)
        ).to(task.device)
        outside = task.config.masked_pooling == "inside-outside"
        return masked_pooling_loss(
            network, feature_NCHW, logit_NK, label_NK, inside_NKHW, loss, outside=outside
        )

    def _note(self, loss: float, num_images: int) -> None:
        """Add a step to the log; a line covers several where there are very many."""
        self._sum.loss += loss * num_images
        self._sum.num_images += num_images
        every = max(1, self.num_iterations // _MOST_RECORDS)
        if self.iteration % every == 0 or self.iteration == self.num_iterations:
            lr = self.task.config.lr_at(self.iteration - 1, self.num_iterations)
            self._log(
                {
                    "loss": self._sum.loss / self._sum.num_images,
                    "lr": lr,
                    "seconds": round(time.perf_counter() - self._sum.started, 3),
                    "num_images": self._sum.num_images,
                }
            )
            self._sum = _Sum()
        self.listener.step(self.iteration, self.num_iterations)

    def _log(self, values: Record) -> None:
        epoch = -(-self.iteration // self.batches_per_epoch)
        record: Record = {"iteration": self.iteration, "epoch": epoch, **values}
        self.history.append(record)
        self.listener.record(record)

    def _afterwards(self, sign: StopSign, *, stop: bool) -> None:
        """Do what is due after a step: keep the network, stop, validate, write a checkpoint."""
        if self.iteration in self.task.keep_at and self.task.world.is_first:
            with self._whole():
                self.listener.keep(self.iteration)
        if stop:
            self._save()
            raise Interrupted(sign.signum or signal.SIGTERM)
        self._validate(sign)
        age_s = time.monotonic() - self._saved_at
        at_end = self.iteration % self.batches_per_epoch == 0 and age_s > _EPOCH_CHECKPOINT_S
        if at_end or age_s > self.task.checkpoint_s or self.iteration == self.num_iterations:
            self._save()

    def _validate(self, sign: StopSign) -> None:
        """Validate where it is due and was not done yet; a signal leaves it for the next run."""
        validation, iteration = self.task.validation, self.iteration
        if validation is None or iteration == 0 or not self.task.world.is_first:
            return
        every = validation.every or self.batches_per_epoch
        is_due = iteration % every == 0 or iteration == self.num_iterations
        last = self.history[-1] if self.history else {}
        if not is_due or (last.get("iteration") == iteration and "val_loss" in last):
            return
        measured = validation.run(self.task.network, self.task.config, self.task.device, sign)
        if measured is None:
            self._save()
            raise Interrupted(sign.signum)
        self._log(measured)
        train_mode(self.task.network.module, self.task.still)

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Have the passed-over modules back while the block runs."""
        self._skip.close()
        try:
            yield
        finally:
            self._skip.enter_context(skipping(self.task.network.module, self.task.skipped))

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if not self.task.world.is_first:
            return
        state = {
            "iteration": self.iteration,
            "sum": [self._sum.loss, self._sum.num_images],
            "network": self.task.network.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        write_checkpoint(self.task.folder, self.task.plan, self.history, state)

    def _resume(self) -> None:
        state = read_checkpoint(self.task.folder, self.task.plan, self.task.device)
        if state is None:
            return
        self.task.network.module.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.history, self.iteration = list(state["history"]), int(state["iteration"])
        self._sum = _Sum(float(state["sum"][0]), int(state["sum"][1]))
        self.listener.step(self.iteration, self.num_iterations)
