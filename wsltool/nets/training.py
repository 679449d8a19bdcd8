"""Image-level training of a classifier that gives class activation maps."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import torch

from wsltool.errors import TrainingError
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.checkpoint import Record
from wsltool.nets.closed_form import evaluating
from wsltool.nets.compute import fastest_layout, told_in_one_line
from wsltool.nets.frozen import entries_before, hold_still
from wsltool.nets.initial import Start, head_entries, start_network
from wsltool.nets.learning_rates import make_optimizer
from wsltool.nets.loop import Listener, Loop, Task
from wsltool.nets.losses import check_labels
from wsltool.nets.models import Model
from wsltool.nets.preprocess import Preprocess
from wsltool.nets.source_choice import SourceChoice
from wsltool.nets.suppression import Suppression, prepare_suppression
from wsltool.nets.train_config import TrainConfig
from wsltool.nets.training_parts import Feedback, Labelled, Place, Validated, Watcher
from wsltool.nets.weights import state_sha256

__all__ = [
    "Feedback",
    "Labelled",
    "Place",
    "Validated",
    "Watcher",
    "prepare_training",
    "train_classifier",
]


def prepare_training(
    name: str,
    data: Labelled,
    config: TrainConfig,
    feedback: Feedback | None = None,
) -> Start:
    """Check all that can be checked before the first step, and build the network.

    Parameters
    ----------
    name
        The network, as for `load_model`.

    Raises
    ------
    TrainingError
        Labels that cannot be learnt from, nothing to freeze, nothing that learns, a
        learning rate for parts that are not there, earlier networks that do not suit this one.
    ModelError
        The network cannot be built.
    """
    check_labels(data.label_NK, config.loss, rows=data.places, class_name=data.names)
    start = start_network(
        name,
        data.label_NK.shape[1],
        init=config.init,
        pool=config.pool,
        seed=config.seed,
        count_padding=config.count_padding,
        size_px=config.input_size,
    )
    _check_masked(start, data, config)
    with told_in_one_line(start.arch):
        frozen = _frozen(start, config)
        hold_still(start.network, frozen, _size_px(start, config))
    if config.freeze != "none" and not frozen & set(start.matched):
        raise TrainingError(
            f"--freeze {config.freeze}: nothing of {start.arch} was trained before (init is "
            f'"{start.source}"). Pass --init FILE, or leave --freeze out.'
        )
    _suppression(start, data, feedback)
    make_optimizer(start.network.module, start.network.head_name, config)
    _check_sizes(start, config)
    return start


@torch.no_grad()
def _check_sizes(start: Start, config: TrainConfig) -> None:
    """Run the network once at its smallest and its largest input."""
    preprocess = start.preprocess.at(config.input_size, config.fit)
    for size_px in sorted({preprocess.scaled(factor).size_px for factor in config.shown.scale}):
        what = f"{start.arch} on a picture of {size_px}x{size_px}"
        with evaluating(start.network), told_in_one_line(what):
            start.network(torch.zeros((1, 3, size_px, size_px)))


def _check_masked(start: Start, data: Labelled, config: TrainConfig) -> None:
    if config.masked_pooling == "none":
        return
    if data.boxes is None:
        raise TrainingError(
            f"--masked-pooling {config.masked_pooling}: the images have no boxes. Ingest them "
            "with their boxes, or leave it out."
        )
    if not isinstance(start.network, CamNetwork):
        raise TrainingError(
            f"--masked-pooling {config.masked_pooling}: {start.arch} has no class maps to pool. "
            "Use a network that has, such as alexnet_sliding."
        )


def _size_px(start: Start, config: TrainConfig) -> int:
    return start.preprocess.at(config.input_size, config.fit).size_px


def _frozen(start: Start, config: TrainConfig) -> set[str]:
    """Names of the arrays that do not learn."""
    if config.freeze == "none":
        return set()
    head = set(head_entries(start.network, start.network.module.state_dict()))
    if config.freeze == "features":
        return set(start.matched) - head
    return entries_before(start.network, config.freeze, _size_px(start, config)) - head


def _suppression(start: Start, data: Labelled, feedback: Feedback | None) -> Suppression | None:
    if feedback is None or not feedback.firsts:
        return None
    layer = feedback.layer or start.suppress_layer
    return prepare_suppression(
        feedback.firsts, feedback.thresholds, start.network, data.names, layer
    )


def train_classifier(
    start: Start | str,
    data: Labelled,
    place: Place,
    config: TrainConfig,
    *,
    feedback: Feedback | None = None,
    validated: Validated | None = None,
    watcher: Watcher | None = None,
) -> Model:
    """Train a network on image-level labels.

    `place.folder` holds checkpoints and the log (``log.jsonl``); the same call goes on from
    there, in the middle of an epoch as well, and ends with the same numbers as without
    interruption (byte for byte on one CPU with the same threads).

    Where the first layers do not learn and pictures are only mirrored at most, what those
    layers give is computed once and kept.

    Parameters
    ----------
    start
        From `prepare_training`, or the network's name.

    Raises
    ------
    TrainingError
        Labels that cannot be learnt from, a loss that is not finite, or a folder of another
        training.
    BadImageError
        A picture cannot be used; the message names its row.
    ModelError
        The network cannot be built or run.
    """
    watcher = watcher or Watcher()
    if isinstance(start, str):
        start = prepare_training(start, data, config, feedback)
    suppression = _suppression(start, data, feedback)
    preprocess = start.preprocess.at(config.input_size, config.fit)
    place.folder.mkdir(parents=True, exist_ok=True)
    start.network.to(place.device)
    if suppression is not None:
        suppression.to(place.device)
    layout = fastest_layout(start.network, preprocess.size_px, place.device)
    frozen = _frozen(start, config)
    still = hold_still(start.network, frozen, preprocess.size_px)
    maker = SourceChoice(start, config, place, suppression, preprocess, still, watcher)
    cut, source, validation = maker.sources(data, validated)
    plan = _plan(start, data, config, suppression)
    task = Task(
        network=start.network,
        still=still,
        skipped=() if cut is None else cut.skipped,
        source=source,
        label_NK=torch.tensor(data.label_NK).to(place.device),
        suppression=suppression,
        validation=validation,
        config=config,
        folder=place.folder,
        plan=plan,
        device=place.device,
        world=place.world,
        keep_at=frozenset(watcher.keep_at),
        checkpoint_s=place.checkpoint_s,
        layout=layout,
    )

    def keep(iteration: int) -> None:
        watcher.keep(iteration, _model(start, data, config, preprocess, loop.history))

    loop = Loop(task, Listener(watcher.step, watcher.record, keep))
    history = loop.run()
    start.network.to(memory_format=torch.contiguous_format)
    start.network.cpu().eval().requires_grad_(False)
    return _model(start, data, config, preprocess, history)


def _plan(
    start: Start, data: Labelled, config: TrainConfig, suppression: Suppression | None
) -> dict[str, Any]:
    """Return what a checkpoint must agree with to be continued."""
    content = np.ascontiguousarray(data.label_NK).tobytes() + repr(data.places).encode()
    plan: dict[str, Any] = {
        "model": start.arch,
        "start": state_sha256(start.network.module.state_dict()),
        "data": hashlib.sha256(content).hexdigest(),
        **{f.name: getattr(config, f.name) for f in fields(config)},
    }
    if suppression is not None:
        plan["suppress"] = [
            [state_sha256(first.network.module.state_dict()), threshold]
            for first, threshold in zip(suppression.firsts, suppression.thresholds, strict=True)
        ]
        plan["suppress_layer"] = suppression.layer
    return plan


def _model(
    start: Start,
    data: Labelled,
    config: TrainConfig,
    preprocess: Preprocess,
    history: Sequence[Record],
) -> Model:
    """Return the network as a model, with what it was trained with."""
    return Model(
        network=start.network,
        arch=start.arch,
        class_name=None if data.class_name is None else list(data.class_name),
        class_id=None if data.class_id is None else list(data.class_id),
        preprocess=preprocess,
        loss=config.loss,
        fingerprint=state_sha256(start.network.module.state_dict()),
        provenance={
            "config": asdict(config),
            "init": start.source,
            "num_matched": len(start.matched),
            "initialised": list(start.initialised),
            "num_images": len(data.places),
            "iteration": history[-1]["iteration"] if history else 0,
            "loss": [record["loss"] for record in history if "loss" in record],
        },
        count_padding=config.count_padding,
        label_pair_count_KK=data.label_pair_count_KK,
    )
