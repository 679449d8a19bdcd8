"""Stage ``train-cls``: images with image-level labels become a model."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

from wsltool.errors import BadImageError, UsageError
from wsltool.stages.options import PathLike, Settings, TorchOptions, TorchSettings, torch_settings
from wsltool.stages.plan import Job, claim, output_for
from wsltool.stages.run import inherited, limited, open_input
from wsltool.stages.training_inputs import labelled, measure, placed, same_classes
from wsltool.stages.training_output import SUFFIX, Training, alone, check_kept, finished_meta
from wsltool.stages.training_progress import Silence
from wsltool.stages.training_wish import Wish, training_config
from wsltool.stores.lineage import fingerprint_file, fingerprint_store
from wsltool.stores.open import open_store
from wsltool.stores.store import Store

if TYPE_CHECKING:
    from wsltool.nets.initial import Start
    from wsltool.nets.training import Feedback, Labelled, Validated

__all__ = ["train_cls"]

_REVISION = 3


def train_cls(
    input: PathLike,
    *,
    model: PathLike,
    init: PathLike = "published",
    loss: Literal["softmax", "logistic", "softmax-bce"] = "softmax",
    pool: str = "gap",
    count_padding: bool = False,
    masked_pooling: Literal["none", "inside", "inside-outside"] = "none",
    freeze: str = "none",
    optimizer: Literal["sgd", "adamw"] = "adamw",
    lr: float | None = None,
    lr_multiplier: str = "",
    schedule: str = "constant",
    weight_decay: float = 1e-4,
    epochs: int | None = None,
    iterations: int | None = None,
    accumulate: int = 1,
    augment: str | None = None,
    input_size: int | None = None,
    fit: Literal["warp", "crop", "letterbox"] | None = None,
    suppress: Sequence[PathLike] = (),
    suppress_threshold: Sequence[float] = (),
    suppress_layer: str | None = None,
    validate: PathLike | None = None,
    validate_every: int | None = None,
    keep_at: Sequence[int] = (),
    cache: PathLike | None = None,
    checkpoint_minutes: float = 10.0,
    images: PathLike | None = None,
    seed: int = 0,
    **options: Unpack[TorchOptions],
) -> Path:
    """Train a network on image-level labels, so that it gives class activation maps.

    Started by ``torchrun``, all processes train one network (DistributedDataParallel); a batch
    is divided among them, so that any number of them takes the same steps.

    Parameters
    ----------
    input : path
        An ``images`` store.
    model : str or path
        The architecture, or a model file to go on from.
    init : str or path
        ``published`` weights, ``none``, or a file of weights: what fits is loaded.
    loss : {"softmax", "logistic", "softmax-bce"}
        Cross-entropy of one class an image; the sum of a logistic loss for each class
        (Oquab et al. 2015, eq. 1); binary cross-entropy on softmax (Bency et al. 2016, eq. 1).
        The last two leave out undecided labels.
    pool : str
        How class maps become class scores: ``gap``, ``gmp``, ``lse:R``, ``gwrp:Q``.
    count_padding : bool
        Let cells that show only padding take part in pooling (Oquab's, as published).
    masked_pooling : {"none", "inside", "inside-outside"}
        Pool present classes inside their true boxes (Oquab et al. 2015, section 5).
    freeze : str
        ``none``; ``features``: train only what `init` did not give, and the head; or the name
        of a module: all that runs up to its end stays as it is.
    optimizer : {"sgd", "adamw"}
        SGD with momentum 0.9, or AdamW.
    lr : float, optional
        Learning rate; 0.01 for SGD and 0.001 for AdamW by default.
    lr_multiplier : str
        ``NAME=FACTOR,…`` for parameters whose name begins so; ``head``; ``bias``.
    schedule : str
        ``constant``, ``step=N:F``, ``milestones=A/B:F``, ``cosine``, each with ``,warmup=N``.
    weight_decay : float
        Weight decay.
    epochs, iterations : int, optional
        Passes over the images, or steps; 10 epochs if neither is given.
    accumulate : int
        Cut a batch into so many pieces that are computed one after the other.
    augment : str, optional
        ``none``, or several of ``mirror``, ``crop``, ``scale=A:B``, ``rotate=DEG``,
        ``noise=STD``, ``balance``, with commas between. By default ``crop``; with `freeze`
        ``mirror``, so that what does not learn is computed once.
    input_size, fit
        As in `wsltool.cam`.
    suppress : sequence of path
        Models of earlier phases (Kim et al. 2017), whose peaks are hidden from this one.
    suppress_threshold : sequence of float
        Share of the maximum above which a cell is hidden, for each; .6, then .4.
    suppress_layer : str, optional
        Module whose output is suppressed; by default the last features of the architecture.
    validate : path, optional
        An ``images`` store, on which the network is measured on the way.
    validate_every : int, optional
        Iterations between; once an epoch by default.
    keep_at : sequence of int
        Iterations after which the model is kept, as ``NAME.iterN.safetensors``.
    cache : path, optional
        Folder where what frozen layers give is kept, for other trainings as well.
    checkpoint_minutes : float
        Between two checkpoints.
    images : path, optional
        Folder of the pictures, if not where `ingest` found them.
    seed : int
        Of initialisation, order and augmentation.
    **options
        See `wsltool.stages.options.TorchOptions`; here ``batch_size`` decides the result.

    Returns
    -------
    Path
        The model file (safetensors); its log stands beside it (``NAME.log.jsonl``), and with
        matplotlib a picture of it (``NAME.curve.png``).

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
            "train-cls has one worker and leaves no image out: no --shard, no --on-bad. For "
            "several GPUs start it with torchrun."
        )
    config = training_config(
        torch_options,
        loss=loss,
        pool=pool,
        count_padding=count_padding,
        masked_pooling=masked_pooling,
        init=os.fspath(init),
        freeze=freeze,
        optimizer=optimizer,
        lr=lr,
        lr_multiplier=lr_multiplier,
        schedule=schedule,
        weight_decay=weight_decay,
        epochs=epochs,
        iterations=iterations,
        accumulate=accumulate,
        augment=augment or ("crop" if freeze == "none" else "mirror"),
        seed=seed,
        input_size=input_size,
        fit=fit,
    )
    wish = Wish(
        model=os.fspath(model),
        config=config,
        suppress=[Path(path) for path in suppress],
        suppress_threshold=[float(value) for value in suppress_threshold],
        suppress_layer=suppress_layer,
        validate=None if validate is None else Path(validate),
        validate_every=validate_every,
        keep_at=sorted(set(keep_at)),
        cache=None if cache is None else Path(cache),
        checkpoint_s=60 * checkpoint_minutes,
        root=None if images is None else Path(images),
    )
    wish.check()
    with contextlib.ExitStack() as stack:
        return _run(input, wish, settings, torch_options, stack)


def _run(
    input: PathLike,
    wish: Wish,
    settings: Settings,
    torch_options: TorchSettings,
    stack: contextlib.ExitStack,
) -> Path:
    """Train, as one of the processes of this training; the first one claims and publishes."""
    from wsltool.nets.distributed import joined

    world, device = stack.enter_context(joined(torch_options.device))
    torch_options = replace(torch_options, device=device)
    if not world.is_first:
        settings = replace(settings, report=Silence())
    source = stack.enter_context(open_input(input, "images", "train-cls"))
    job = _job(settings, source, wish)
    job.compute.update(torch_options.record() | {"processes": world.size})
    data = labelled(source, job.num_rows, wish.root, settings.report)
    feedback, validated = _feedback(wish), _validated(wish, source, stack)
    start = _prepared(job, wish, data, feedback)
    held, work = None, None
    if world.is_first:
        check_kept(job, wish.keep_at, overwrite=settings.overwrite)
        held, work = claim(job, overwrite=settings.overwrite)
        settings.report.announce(job.output)
    folder = world.agreed(None if work is None else work.folder / "training")
    if folder is None or start is None:
        settings.report.note(f"{job.output}: finished already, left alone.")
        return job.output
    settings.report.note(start.summary())
    if world.is_first:
        stack.enter_context(alone(folder, job.output))
    one = Training(job, held or {}, folder, wish, settings.report)
    try:
        trained = one.train(start, data, feedback, validated, world, torch_options)
    except BadImageError as error:
        raise placed(source, error) from error
    if work is not None:
        one.publish(trained)
        work.remove()
    world.agreed(None)
    return job.output


def _feedback(wish: Wish) -> Feedback | None:
    if not wish.suppress:
        return None
    from wsltool.nets.models import load_model
    from wsltool.nets.training import Feedback

    firsts = [load_model(os.fspath(path)) for path in wish.suppress]
    return Feedback(firsts, wish.suppress_threshold, wish.suppress_layer)


def _validated(wish: Wish, source: Store, stack: contextlib.ExitStack) -> Validated | None:
    if wish.validate is None:
        return None
    from wsltool.nets.training import Validated

    other = stack.enter_context(open_input(wish.validate, "images", "train-cls --validate"))
    same_classes(source, other)
    return Validated(labelled(other, len(other), None), measure, wish.validate_every)


def _prepared(job: Job, wish: Wish, data: Labelled, feedback: Feedback | None) -> Start | None:
    """Return the network to train, checked; None where an equal one is finished already."""
    from wsltool.nets.training import prepare_training

    return None if job.is_finished() else prepare_training(wish.model, data, wish.config, feedback)


def _job(settings: Settings, source: Store, wish: Wish) -> Job:
    output = settings.output or output_for(source.path, "train-cls", SUFFIX)
    if output.suffix != SUFFIX:
        raise UsageError(f"-o {output}: a model file ends in {SUFFIX}.")
    num_rows, limit = limited(source, settings.limit)
    inputs = {"images": fingerprint_store(source, output.parent)}
    inputs |= inherited(source, output.parent)
    for role, path in wish.files().items():
        inputs[role] = fingerprint_file(path, output.parent, "model")
    if wish.validate is not None:
        with open_store(wish.validate) as other:
            inputs["validate"] = fingerprint_store(other, output.parent)
    return Job(
        stage="train-cls",
        kind="model",
        output=output,
        params=wish.params(),
        inputs=inputs,
        num_rows=num_rows,
        limit=limit,
        revision=_REVISION,
        finished_meta=finished_meta,
    )
