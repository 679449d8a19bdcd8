"""Stage ``train-cls``: images with image-level labels become a model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from wsltool.errors import ModelError, UsageError
from wsltool.stages.options import PathLike, Settings, TorchOptions, check_range, torch_settings
from wsltool.stages.pack import finished_attributes
from wsltool.stages.pictures import Pictures
from wsltool.stages.plan import Job, claim, output_for
from wsltool.stages.run import inherited, limited, open_input
from wsltool.stores.lineage import fingerprint_file, fingerprint_store
from wsltool.stores.store import Store

if TYPE_CHECKING:
    from wsltool.nets.models import Model
    from wsltool.nets.train_config import TrainConfig

__all__ = ["train_cls"]

Array = np.ndarray[Any, Any]

_REVISION = 1
_SUFFIX = ".safetensors"


def train_cls(
    input: PathLike,
    *,
    model: str,
    init: str = "published",
    loss: Literal["softmax", "logistic"] = "softmax",
    pool: Literal["gap"] = "gap",
    freeze: Literal["none", "features"] = "none",
    optimizer: Literal["sgd", "adamw"] = "adamw",
    lr: float | None = None,
    weight_decay: float = 1e-4,
    epochs: int = 10,
    augment: Literal["none", "mirror", "crop"] = "crop",
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
    model : str
        The architecture, or a model file to go on from.
    init : str
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
    check_range("--epochs", epochs, 1, 1_000_000)
    from wsltool.nets.train_config import TrainConfig

    config = TrainConfig(
        loss=loss,
        pool=pool,
        init=init,
        freeze=freeze,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        epochs=epochs,
        batch_size=torch_options.batch_size,
        mirror=augment != "none",
        crop_area=0.5 if augment == "crop" else 1.0,
        seed=seed,
        input_size=input_size,
        fit=fit,
        precision=torch_options.precision,
    )
    with open_input(input, "images", "train-cls") as source:
        job = _job(settings, source, model, config, augment)
        job.compute.update(torch_options.record())
        held, work = claim(job, overwrite=settings.overwrite)
        settings.report.announce(job.output)
        if work is None:
            settings.report.note(f"{job.output}: finished already, left alone.")
            return job.output
        folder = work.folder / "training"
        pictures = Pictures(source, None if images is None else Path(images))
        trained = _train(source, pictures, folder, model, config, job, settings, torch_options)
        _publish(trained, folder, job, held)
        work.remove()
        return job.output


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
    params |= {"model": model, "init": config.init, "augment": augment, "lr": config.first_lr}
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


def _finished_meta(path: Path) -> dict[str, Any]:
    """Return what a model file records of its making."""
    from wsltool.nets.model_file import read_header

    header = read_header(path) if path.is_file() and path.suffix == _SUFFIX else None
    if header is None:
        raise ModelError("no model file of train-cls.")
    made: dict[str, Any] = header.provenance.get("made", {})
    return made


def _train(
    source: Store,
    pictures: Pictures,
    folder: Path,
    model: str,
    config: TrainConfig,
    job: Job,
    settings: Settings,
    torch_options: Any,
) -> Model:
    from wsltool.nets.training import train_classifier

    row_N = np.arange(job.num_rows)
    if "image_status" in source:
        row_N = row_N[source.rows("image_status", 0, job.num_rows) == 0]
    if not len(row_N):
        raise UsageError(f"{source.path.name}: every image was left out, nothing to train on.")
    label_NK = source.gather(row_N, ["label"])["label"]
    names = source.class_names()
    _warn_of_empty_classes(label_NK, names, settings)
    with settings.report.progress("train-cls", config.epochs, "epochs") as advance:

        def on_epoch(record: dict[str, Any]) -> None:
            advance(1)
            settings.report.note(
                f"epoch {record['epoch']}/{record['num_epochs']}: loss {record['loss']:.4f}"
            )

        return train_classifier(
            model,
            pictures,
            label_NK,
            folder,
            config,
            rows=row_N.tolist(),
            class_name=names,
            class_id=source.whole("class_id").tolist() if "class_id" in source else names,
            device=torch_options.device,
            workers=torch_options.workers,
            on_epoch=on_epoch,
        )


def _warn_of_empty_classes(label_NK: Array, names: list[str], settings: Settings) -> None:
    empty = [names[k] for k in np.flatnonzero(~(label_NK == 1).any(axis=0))]
    if empty:
        listed = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
        settings.report.warn(
            f"{len(empty)} of {len(names)} classes have no image and cannot be learnt ({listed})."
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
