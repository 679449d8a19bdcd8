"""Stage ``train-cls``: images with image-level labels become a model."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from wsltool.errors import BadImageError, ModelError, StoreUnfinishedError, UsageError
from wsltool.stages.options import (
    PathLike,
    Settings,
    TorchOptions,
    TorchSettings,
    check_choice,
    check_input_size,
    check_range,
    check_seed,
    torch_settings,
)
from wsltool.stages.pack import finished_attributes
from wsltool.stages.pictures import Pictures
from wsltool.stages.plan import Job, claim, output_for
from wsltool.stages.report import Reporter
from wsltool.stages.run import inherited, limited, open_input
from wsltool.stores.lineage import fingerprint_file, fingerprint_store
from wsltool.stores.store import Store

if TYPE_CHECKING:
    from wsltool.nets.initial import Start
    from wsltool.nets.models import Model
    from wsltool.nets.train_config import TrainConfig

__all__ = ["train_cls"]

Array = np.ndarray[Any, Any]

Augment = Literal["none", "mirror", "crop"]

_REVISION = 1
_SUFFIX = ".safetensors"


def train_cls(
    input: PathLike,
    *,
    model: PathLike,
    init: PathLike = "published",
    loss: Literal["softmax", "logistic"] = "softmax",
    pool: Literal["gap"] = "gap",
    freeze: Literal["none", "features"] = "none",
    optimizer: Literal["sgd", "adamw"] = "adamw",
    lr: float | None = None,
    weight_decay: float = 1e-4,
    epochs: int = 10,
    augment: Augment = "crop",
    input_size: int | None = None,
    fit: Literal["warp", "crop", "letterbox"] | None = None,
    images: PathLike | None = None,
    seed: int = 0,
    **options: Unpack[TorchOptions],
) -> Path:
    """Train a network on image-level labels, so that it gives class activation maps.

    Parameters
    ----------
    input : path
        An ``images`` store.
    model : str or path
        The architecture, or a model file to go on from.
    init : str or path
        ``published`` weights, ``none``, or a file of weights: what fits is loaded.
    loss : {"softmax", "logistic"}
        Cross-entropy of one class an image, or the sum of a logistic loss for each class
        (Oquab et al. 2015, eq. 1), which leaves out undecided labels.
    pool : {"gap"}
        How class maps become class scores.
    freeze : {"none", "features"}
        Train everything, or only the head.
    optimizer : {"sgd", "adamw"}
        SGD with momentum 0.9, or AdamW.
    lr : float, optional
        Learning rate; 0.01 for SGD and 0.001 for AdamW by default.
    weight_decay : float
        Weight decay.
    epochs : int
        Passes over the images.
    augment : {"none", "mirror", "crop"}
        Nothing, random mirroring, or mirroring and random resized crops.
    input_size, fit
        As in `wsltool.cam`.
    images : path, optional
        Folder of the pictures, if not where `ingest` found them.
    seed : int
        Of initialisation, order and augmentation.
    **options
        See `wsltool.stages.options.TorchOptions`; here ``batch_size`` decides the result.

    Returns
    -------
    Path
        The model file (safetensors); its log of losses stands beside it
        (``NAME.log.jsonl``, a line an epoch).

    Raises
    ------
    TrainingError
        The labels do not suit the loss, or the loss is not finite.
    ModelError
        The network is unknown or has no closed-form class activation map.
    """
    settings, torch_options = Settings.of(options), torch_settings(options)
    if settings.shard.count > 1 or settings.on_bad != "stop":
        raise UsageError(
            "train-cls has one worker and leaves no image out: no --shard, no --on-bad."
        )
    model, init = os.fspath(model), os.fspath(init)
    config = _config(
        torch_options,
        augment,
        loss=loss,
        pool=pool,
        init=init,
        freeze=freeze,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        epochs=epochs,
        seed=seed,
        input_size=input_size,
        fit=fit,
    )
    with open_input(input, "images", "train-cls") as source:
        job = _job(settings, source, model, config, augment)
        job.compute.update(torch_options.record())
        examples = _examples(source, job.num_rows, settings)
        start = _prepared(job, model, examples, config)
        pictures = Pictures(source, None if images is None else Path(images))
        held, work = claim(job, overwrite=settings.overwrite)
        settings.report.announce(job.output)
        if work is None or start is None:
            settings.report.note(f"{job.output}: finished already, left alone.")
            return job.output
        folder = work.folder / "training"
        with _alone(folder, job.output), _placed(source):
            trained = _train(start, pictures, examples, folder, config, settings, torch_options)
            _publish(trained, folder, job, held)
        work.remove()
        return job.output


def _config(torch_options: TorchSettings, augment: str, **given: Any) -> TrainConfig:
    """Check the options and return all that decides what training gives."""
    check_range("--epochs", given["epochs"], 1, 1_000_000, whole=True)
    check_range("--weight-decay", given["weight_decay"], 0, 1)
    check_seed(given["seed"])
    if given["lr"] is not None:
        check_range("--lr", given["lr"], 0, 1000, open_low=True)
    check_input_size(given["input_size"])
    check_choice("--augment", augment, Augment)
    if torch_options.precision == "fp16":
        raise UsageError("--precision must be float32, tf32 or bf16 in train-cls, got fp16.")
    from wsltool.nets.train_config import TrainConfig

    return TrainConfig(
        **given,
        batch_size=torch_options.batch_size,
        mirror=augment != "none",
        crop_area=0.5 if augment == "crop" else 1.0,
        precision=torch_options.precision,
    )


@dataclass(frozen=True)
class _Examples:
    """What is learnt from: rows of the images, their labels (N, K), and the classes."""

    row_N: list[int]
    label_NK: Array
    class_name: list[str]
    class_id: list[str]


def _examples(source: Store, num_rows: int, settings: Settings) -> _Examples:
    """Return the rows that were not skipped, with their labels."""
    row_N = np.arange(num_rows)
    if "image_status" in source:
        row_N = row_N[source.rows("image_status", 0, num_rows) == 0]
    if not len(row_N):
        raise UsageError(f"{source.path.name}: every image was left out, nothing to train on.")
    label_NK = source.gather(row_N, ["label"])["label"]
    names = source.class_names()
    empty = [names[k] for k in np.flatnonzero(~(label_NK == 1).any(axis=0))]
    if empty:
        listed = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
        settings.report.warn(
            f"{len(empty)} of {len(names)} classes have no image and cannot be learnt ({listed})."
        )
    ids = source.whole("class_id").tolist() if "class_id" in source else names
    return _Examples(row_N.tolist(), label_NK, names, ids)


def _prepared(job: Job, model: str, examples: _Examples, config: TrainConfig) -> Start | None:
    """Return the network to train, checked; None where an equal one is finished already."""
    from wsltool.nets.training import prepare_training

    if job.is_finished():
        return None
    return prepare_training(
        model,
        examples.label_NK,
        config,
        rows=examples.row_N,
        class_name=examples.class_name,
    )


def _job(settings: Settings, source: Store, model: str, config: TrainConfig, augment: str) -> Job:
    output = settings.output or output_for(source.path, "train-cls", _SUFFIX)
    if output.suffix != _SUFFIX:
        raise UsageError(f"-o {output}: a model file ends in {_SUFFIX}.")
    num_rows, limit = limited(source, settings.limit)
    inputs = {"images": fingerprint_store(source, output.parent)}
    inputs |= inherited(source, output.parent)
    for role, name in (("model", model), ("init", config.init)):
        if Path(name).is_file():
            inputs[role] = fingerprint_file(Path(name), output.parent, "model")
    names = ("loss", "pool", "freeze", "optimizer", "weight_decay", "epochs", "batch_size")
    more = ("seed", "input_size", "fit", "precision")
    params = {name: getattr(config, name) for name in (*names, *more)}
    params |= {"model": _name(model), "init": _name(config.init)}
    params |= {"augment": augment, "lr": config.first_lr}
    return Job(
        stage="train-cls",
        kind="model",
        output=output,
        params=params,
        inputs=inputs,
        num_rows=num_rows,
        limit=limit,
        revision=_REVISION,
        finished_meta=_finished_meta,
    )


def _name(model: str) -> str:
    """Return what is recorded of a model: of a file, which has a fingerprint, its name."""
    return Path(model).name if Path(model).is_file() else model


def _finished_meta(path: Path) -> dict[str, Any]:
    """Return what a model file records of its making."""
    from wsltool.nets.model_file import read_header

    header = read_header(path) if path.is_file() and path.suffix == _SUFFIX else None
    if header is None:
        raise ModelError("no model file of train-cls.")
    made: dict[str, Any] = header.provenance.get("made", {})
    return made


@contextlib.contextmanager
def _placed(source: Store) -> Iterator[None]:
    """Say of a bad picture in which store it is, and what to do."""
    try:
        yield
    except BadImageError as error:
        raise BadImageError(
            f"{source.path.name} {error} Leave the image out: ingest again without it, or keep "
            "the others with wsltool select --ids."
        ) from error


@contextlib.contextmanager
def _alone(folder: Path, output: Path) -> Iterator[None]:
    """Hold the folder of a training against other processes; the lock ends with this one."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreUnfinishedError(
                f"{output}: another process is training it. Wait for that one, or pass -o."
            ) from error
        yield


def _train(
    start: Start,
    pictures: Pictures,
    examples: _Examples,
    folder: Path,
    config: TrainConfig,
    settings: Settings,
    torch_options: TorchSettings,
) -> Model:
    from wsltool.nets.training import train_classifier

    with _TrainProgress(settings.report, len(examples.row_N), config.epochs) as progress:
        return train_classifier(
            start,
            pictures,
            examples.label_NK,
            folder,
            config,
            rows=examples.row_N,
            class_name=examples.class_name,
            class_id=examples.class_id,
            device=torch_options.device,
            workers=torch_options.workers,
            on_features=progress.features,
            on_epoch=progress.epoch,
        )


class _TrainProgress(contextlib.ExitStack):
    """Progress over the images whose features are computed, if any are, then over epochs."""

    def __init__(self, report: Reporter, num_images: int, num_epochs: int) -> None:
        super().__init__()
        self._report, self._num_images, self._num_epochs = report, num_images, num_epochs
        self._label = ""
        self._advance: Callable[[int], None] = lambda num: None

    def _enter(self, label: str, total: int, unit: str) -> None:
        if self._label != label:
            self.close()
            self._label = label
            self._advance = self.enter_context(self._report.progress(label, total, unit))

    def features(self, num: int) -> None:
        """Count `num` images whose features were computed."""
        self._enter("features", self._num_images, "images")
        self._advance(num)

    def epoch(self, record: dict[str, Any]) -> None:
        """Count an epoch and tell its loss."""
        self._enter("train-cls", self._num_epochs, "epochs")
        self._advance(1)
        self._report.note(
            f"epoch {record['epoch']}/{record['num_epochs']}: loss {record['loss']:.4f}"
        )


def _publish(trained: Model, folder: Path, job: Job, held: dict[str, Any]) -> None:
    """Put model and log in place, the model last."""
    from wsltool.nets.models import save_model

    made = finished_attributes(job, held)
    scratch = folder / f"model{_SUFFIX}"
    save_model(scratch, trained, {**trained.provenance, "made": made})
    log = folder / "log.jsonl"
    if log.is_file():
        shutil.copyfile(log, job.output.with_suffix(".log.jsonl"))
    scratch.replace(job.output)
