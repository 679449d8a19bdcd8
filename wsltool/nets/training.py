"""Image-level training of a classifier that gives class activation maps."""

from __future__ import annotations

import hashlib
import json
import pickle
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsltool.errors import TrainingError
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.compute import computing, told_in_one_line
from wsltool.nets.inference import LoadPicture
from wsltool.nets.initial import Start, head_entries, start_network
from wsltool.nets.losses import LOSSES, check_labels
from wsltool.nets.models import Model
from wsltool.nets.train_config import TrainConfig
from wsltool.nets.training_data import (
    Examples,
    epoch_batches,
    picture_batches,
    pooled_features,
    write_text,
)
from wsltool.nets.weights import fsync_replace, one_line, state_sha256

__all__ = ["Record", "prepare_training", "train_classifier"]

Record = dict[str, float | int]
"""What is logged of one epoch: epoch, num_epochs, loss, lr, seconds, num_images."""


@dataclass
class _Task:
    """One training: what learns, from what, and where it is kept."""

    learner: nn.Module
    forward: Callable[[Tensor], Tensor]
    batches: Callable[[int], Generator[tuple[list[int], Tensor]]]
    label_NK: Tensor
    config: TrainConfig
    folder: Path
    plan: dict[str, Any]
    device: torch.device
    history: list[Record] = field(default_factory=list)


def prepare_training(
    name: str,
    label_NK: NDArray[np.uint8],
    config: TrainConfig,
    *,
    rows: Sequence[int] | None = None,
    class_name: Sequence[str] | None = None,
) -> Start:
    """Check all that can be checked before the first step, and build the network.

    Parameters
    ----------
    name
        The network, as for `load_model`.
    label_NK, rows, class_name
        As for `train_classifier`.

    Raises
    ------
    TrainingError
        Labels that cannot be learnt from, or nothing to freeze.
    ModelError
        The network cannot be built.
    """
    places = list(range(len(label_NK)) if rows is None else rows)
    names = list(class_name or map(str, range(label_NK.shape[1])))
    check_labels(label_NK, config.loss, rows=places, class_name=names)
    start = start_network(
        name, label_NK.shape[1], init=config.init, pool=config.pool, seed=config.seed
    )
    if config.freeze == "features" and not _frozen(start, config):
        raise TrainingError(
            f"--freeze features: nothing of {start.arch} was trained before (init is "
            f'"{start.source}"). Pass --init FILE, or leave --freeze out.'
        )
    return start


def _frozen(start: Start, config: TrainConfig) -> set[str]:
    """Names of the arrays that do not learn."""
    head = set(head_entries(start.network, start.network.module.state_dict()))
    return set(start.matched) - head if config.freeze == "features" else set()


def train_classifier(
    start: Start | str,
    load_picture: LoadPicture,
    label_NK: NDArray[np.uint8],
    work_dir: Path,
    config: TrainConfig,
    *,
    rows: Sequence[int] | None = None,
    class_name: Sequence[str] | None = None,
    class_id: Sequence[str] | None = None,
    device: torch.device | None = None,
    workers: int = 0,
    on_features: Callable[[int], None] | None = None,
    on_epoch: Callable[[Record], None] | None = None,
) -> Model:
    """Train a network on image-level labels.

    After each epoch `work_dir` holds a checkpoint and the log (``log.jsonl``); the same call
    goes on from there and ends with the same numbers as without interruption (byte for byte
    on one CPU with the same threads).

    Parameters
    ----------
    start
        From `prepare_training`, or the network's name.
    load_picture
        Takes a row, returns its picture.
    label_NK
        (num_rows, num_classes) uint8: 0 absent, 1 present, 255 undecided.
    rows
        The row of each label; None for 0 … num_rows − 1. Good pictures only.
    class_name, class_id
        Of each class, kept with the model.
    on_features
        Called with the number of pictures whose features were just computed, where the
        features are frozen.
    on_epoch
        Called with the record of each finished epoch.

    Raises
    ------
    TrainingError
        Labels that cannot be learnt from, a loss that is not finite, or a `work_dir` of
        another training.
    BadImageError
        A picture cannot be used; the message names its row.
    ModelError
        The network cannot be built or run.
    """
    device = device or torch.device("cpu")
    places = list(range(len(label_NK)) if rows is None else rows)
    if isinstance(start, str):
        start = prepare_training(start, label_NK, config, rows=places, class_name=class_name)
    preprocess = start.preprocess.at(config.input_size, config.fit)
    work_dir.mkdir(parents=True, exist_ok=True)
    examples = Examples(
        load_picture, places, preprocess, config.mirror, config.crop_area, config.seed
    )
    start.network.to(device)
    task = _task(start, examples, label_NK, config, work_dir, device, workers, on_features)
    _run(task, on_epoch)
    _keep(start, task)
    module = start.network.cpu().eval().requires_grad_(False).module
    return Model(
        network=start.network,
        arch=start.arch,
        class_name=None if class_name is None else list(class_name),
        class_id=None if class_id is None else list(class_id),
        preprocess=preprocess,
        loss=config.loss,
        fingerprint=state_sha256(module.state_dict()),
        provenance={
            "config": asdict(config),
            "init": start.source,
            "num_matched": len(start.matched),
            "initialised": list(start.initialised),
            "num_images": len(places),
            "loss": [record["loss"] for record in task.history],
        },
    )


def _task(
    start: Start,
    examples: Examples,
    label_NK: NDArray[np.uint8],
    config: TrainConfig,
    folder: Path,
    device: torch.device,
    workers: int,
    on_features: Callable[[int], None] | None,
) -> _Task:
    """Decide what learns: the whole network, a part, or only the head on kept features."""
    head = set(head_entries(start.network, start.network.module.state_dict()))
    frozen = _frozen(start, config)
    for entry, parameter in start.network.module.named_parameters():
        parameter.requires_grad_(entry not in frozen)
    plan = _plan(start, examples, label_NK, config)
    label = torch.tensor(label_NK).to(device)
    batches: Callable[[int], Generator[tuple[list[int], Tensor]]]
    learns_head_only = all(
        entry in head for entry, p in start.network.module.named_parameters() if p.requires_grad
    )
    if learns_head_only and config.pool == "gap":
        feature_NVC = pooled_features(
            start.network.eval(),
            examples,
            folder,
            batch_size=config.batch_size,
            device=device,
            precision=config.precision,
            workers=workers,
            on_features=on_features,
        )
        batches = _feature_batches(feature_NVC, config, device)
        layer = _layer(start.network, device)
        return _Task(layer, layer, batches, label, config, folder, plan, device)

    def pictures(epoch: int) -> Generator[tuple[list[int], Tensor]]:
        order = epoch_batches(len(examples.rows), config.batch_size, config.seed, epoch)
        return picture_batches(examples, order, epoch, device, workers)

    def forward(x_NCHW: Tensor) -> Tensor:
        logit_NK: Tensor = start.network(x_NCHW).logit_NK
        return logit_NK

    return _Task(start.network.module, forward, pictures, label, config, folder, plan, device)


def _layer(network: CamNetwork, device: torch.device) -> nn.Linear:
    """Return the head as a layer of its own."""
    has_bias = network.head.bias is not None
    with torch.random.fork_rng(devices=[]):
        layer = nn.Linear(network.num_channels, network.num_classes, bias=has_bias).to(device)
    layer.weight.data.copy_(network.class_weight.data)
    if has_bias:
        layer.bias.data.copy_(network.class_bias.data)
    return layer


def _feature_batches(
    feature_NVC: NDArray[np.float32], config: TrainConfig, device: torch.device
) -> Callable[[int], Generator[tuple[list[int], Tensor]]]:
    """Return a function that yields one view of each picture an epoch."""
    num_images, num_views, _ = feature_NVC.shape

    def batches(epoch: int) -> Generator[tuple[list[int], Tensor]]:
        random = np.random.default_rng((config.seed, epoch, 1))
        view_N = np.asarray(random.integers(0, num_views, num_images))
        for places in epoch_batches(num_images, config.batch_size, config.seed, epoch):
            place_N = np.array(places)
            yield places, torch.from_numpy(feature_NVC[place_N, view_N[place_N]]).to(device)

    return batches


def _plan(
    start: Start, examples: Examples, label_NK: NDArray[np.uint8], config: TrainConfig
) -> dict[str, Any]:
    """Return what a checkpoint must agree with to be continued."""
    content = np.ascontiguousarray(label_NK).tobytes() + repr(list(examples.rows)).encode()
    return {
        "model": start.arch,
        "start": state_sha256(start.network.module.state_dict()),
        "data": hashlib.sha256(content).hexdigest(),
        **{f.name: getattr(config, f.name) for f in fields(config)},
    }


def _run(task: _Task, on_epoch: Callable[[Record], None] | None) -> None:
    """Train the epochs that are missing."""
    config = task.config
    learning = [p for p in task.learner.parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            learning, config.first_lr, momentum=0.9, weight_decay=config.weight_decay
        )
    else:
        optimizer = torch.optim.AdamW(learning, config.first_lr, weight_decay=config.weight_decay)
    _resume(task, optimizer)
    for epoch in range(len(task.history), config.epochs):
        for group in optimizer.param_groups:
            group["lr"] = config.lr_at(epoch)
        record = _epoch(task, optimizer, epoch)
        task.history.append(record)
        _checkpoint(task, optimizer)
        if on_epoch is not None:
            on_epoch(record)


def _epoch(task: _Task, optimizer: torch.optim.Optimizer, epoch: int) -> Record:
    """Train one epoch; its random numbers depend on the seed and the epoch alone."""
    config, started = task.config, time.perf_counter()
    _train_mode(task.learner)
    total, num_images, lr = 0.0, 0, config.lr_at(epoch)
    devices = [task.device] if task.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(np.random.default_rng((config.seed, epoch, 2)).integers(2**62)))
        with closing(task.batches(epoch)) as batches:
            for step, (places, x) in enumerate(batches, 1):
                value = _step(task, optimizer, places, x, f"epoch {epoch + 1} step {step}")
                total, num_images = total + value * len(places), num_images + len(places)
    return {
        "epoch": epoch + 1,
        "num_epochs": config.epochs,
        "loss": total / num_images,
        "lr": lr,
        "seconds": round(time.perf_counter() - started, 3),
        "num_images": num_images,
    }


def _step(
    task: _Task, optimizer: torch.optim.Optimizer, places: list[int], x: Tensor, what: str
) -> float:
    """Learn from one batch; return its loss."""
    with computing(task.device, task.config.precision), told_in_one_line(what):
        logit_NK = task.forward(x).float()
    loss = LOSSES[task.config.loss](logit_NK, task.label_NK[places])
    value = loss.item()
    if not np.isfinite(value):
        lr = optimizer.param_groups[0]["lr"]
        raise TrainingError(
            f"{what}: the loss is {value} at learning rate {lr:g}. Pass a smaller --lr, such as "
            f"{lr / 10:g}."
        )
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return value


def _train_mode(learner: nn.Module) -> None:
    """Put everything in training mode except the batch statistics of frozen parts."""
    learner.train()
    for part in learner.modules():
        own = list(part.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            part.eval()


def _checkpoint(task: _Task, optimizer: torch.optim.Optimizer) -> None:
    """Write state and log, each whole or not at all."""
    path = task.folder / "checkpoint.pt"
    temporary = path.with_name(f".{path.name}.tmp")
    state = {
        "plan": json.dumps(task.plan, sort_keys=True),
        "learner": task.learner.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": task.history,
    }
    torch.save(state, temporary)
    fsync_replace(temporary, path)
    lines = "".join(json.dumps(record) + "\n" for record in task.history)
    write_text(task.folder / "log.jsonl", lines)


def _resume(task: _Task, optimizer: torch.optim.Optimizer) -> None:
    """Continue from the checkpoint in the folder, if there is one."""
    path = task.folder / "checkpoint.pt"
    if not path.is_file():
        return
    try:
        state = torch.load(path, map_location=task.device, weights_only=True)
        plan, history = json.loads(state["plan"]), state["history"]
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"{path}: not a checkpoint of train-cls ({one_line(error)}). Remove it to start anew."
        ) from error
    now = json.loads(json.dumps(task.plan))
    for name in now:
        if plan.get(name) != now[name]:
            raise TrainingError(
                f"{task.folder}: holds a training with {name} {plan.get(name)}, not {now[name]}. "
                "Use the same settings, another folder, or remove it."
            )
    task.learner.load_state_dict(state["learner"])
    optimizer.load_state_dict(state["optimizer"])
    task.history = list(history)


def _keep(start: Start, task: _Task) -> None:
    """Put a head that was trained on kept features back into its network."""
    if task.learner is start.network.module or not isinstance(task.learner, nn.Linear):
        return
    head = start.network.head
    head.weight.data.copy_(task.learner.weight.data.view_as(head.weight))
    if head.bias is not None:
        head.bias.data.copy_(task.learner.bias.data)
