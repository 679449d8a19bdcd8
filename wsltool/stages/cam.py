"""Stage ``cam``: images and a network become class activation maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from wsltool.errors import BadImageError, ModelError, UsageError
from wsltool.stages.chosen import ClassChoice, parse_choice
from wsltool.stages.options import PathLike, Settings, TorchOptions, torch_settings
from wsltool.stages.pictures import Pictures
from wsltool.stages.plan import Job
from wsltool.stages.run import Block, Rows, Tick, open_input, rebased, row_job, run
from wsltool.stores.store import Store

if TYPE_CHECKING:
    from wsltool.nets.inference import CamBatch
    from wsltool.nets.models import Model

__all__ = ["cam", "match_classes"]

Array = np.ndarray[Any, Any]

_REVISION = 1
_AGREE = 0.5


def cam(
    input: PathLike,
    *,
    model: str,
    weights: PathLike | None = None,
    classes: str = "top5",
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    input_size: int | None = None,
    fit: Literal["warp", "crop", "letterbox"] | None = None,
    scores: Literal["logit", "probability"] = "logit",
    map_dtype: Literal["float32", "float16"] = "float32",
    images: PathLike | None = None,
    **options: Unpack[TorchOptions],
) -> Path:
    """Compute class activation maps in closed form (Zhou et al. 2016, eq. 2).

    The map of class c is ``sum_k w_ck f_k``, without bias, so that its mean plus the bias is
    the class's logit; it is stored raw at the network's own resolution.

    Parameters
    ----------
    input : path
        An ``images`` store.
    model : str
        A model file, a name, or ``package.module:function``.
    weights : path, optional
        Weights to load into the architecture `model`.
    classes : str
        Which maps are kept: ``present``, ``topK``, ``above:P`` (probability), ``all``, or
        several joined by ``+``, such as ``top5+present``.
    scales : sequence of float
        Sizes relative to the input size. The class score is the mean over scales, the map
        the maximum on the finest scale's grid (Oquab et al. 2015).
    flip : bool
        Average with the mirrored picture.
    input_size : int, optional
        Another input size than the model's, in pixels.
    fit : {"warp", "crop", "letterbox"}, optional
        Another way to bring pictures to that size than the model's.
    scores : {"logit", "probability"}
        Unit of the stored class scores.
    map_dtype : {"float32", "float16"}
        How maps are stored; a value that float16 cannot hold is an error.
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
    ModelError
        The network gives no closed-form maps, or its classes are others than the images'.
    BadImageError
        A picture is unusable and ``on_bad`` is ``"stop"``.
    """
    settings, torch_options = Settings.of(options), torch_settings(options)
    choice = parse_choice(classes)
    from wsltool.nets.models import load_model

    with open_input(input, "images", "cam") as source:
        network = load_model(model, weights=None if weights is None else Path(weights))
        network.preprocess = network.preprocess.at(size=input_size, fit=fit)
        column_K = match_classes(network, source)
        params = {
            "model": model,
            "classes": choice.text,
            "scales": [float(scale) for scale in scales],
            "flip": flip,
            "input_size": network.preprocess.size_px,
            "fit": network.preprocess.fit,
            "scores": scores,
            "map_dtype": map_dtype,
            "precision": torch_options.precision,
        }
        job = _job(settings, source, network, choice, params)
        job.compute.update(torch_options.record())
        pictures = Pictures(source, None if images is None else Path(images))

        def compute(blocks: list[Block], tick: Tick) -> Iterator[Rows]:
            from wsltool.nets.inference import run_cams

            batches = [
                b for block in blocks for b in _batches(source, block, torch_options.batch_size)
            ]
            found = run_cams(
                network,
                pictures,
                batches,
                _chooser(network, source, choice, column_K),
                scales=[float(scale) for scale in scales],
                flip=flip,
                device=torch_options.device,
                precision=torch_options.precision,
                workers=torch_options.workers,
            )
            for block in blocks:
                yield _assemble(source, block, found, column_K, settings, params, network, tick)

        return run(job, compute, settings)


def _job(
    settings: Settings, source: Store, network: Model, choice: ClassChoice, params: dict[str, Any]
) -> Job:
    from wsltool.nets.map_grid import map_grid

    num_classes = source.shape("class_name")[0]
    num_rows, num_cols = map_grid(network, max(params["scales"]))
    folder = (settings.output or source.path).parent
    path = params["model"]
    if Path(path).is_file():
        path = rebased(path, Path.cwd(), folder)
    num_slots = choice.most_slots(source, num_classes)
    return row_job(
        settings,
        "cam",
        "maps",
        source,
        params=params,
        inputs={"model": {"path": path, "kind": "model", "digest": network.fingerprint}},
        revision=_REVISION,
        row_bytes=4 * (num_slots * num_rows * num_cols + num_classes),
        attributes={"classes": choice.text, "score_kind": params["scores"]},
    )


def match_classes(model: Model, images: Store) -> Array:
    """Return for each class of the images its column in the model's output, int64 (K,).

    Classes are matched by id, then by name; a model without names must have as many classes,
    in the same order.

    Raises
    ------
    ModelError
        A class of the images is none of the model's, or the order is in doubt.
    """
    names = images.class_names()
    ids = [str(one) for one in images.whole("class_id").tolist()] if "class_id" in images else names
    for wanted, known in ((ids, model.class_id), (names, model.class_name)):
        if known is not None and len(set(known)) == len(known) and set(wanted) <= set(known):
            where = {name: column for column, name in enumerate(known)}
            return np.array([where[name] for name in wanted], np.int64)
    if len(names) == model.num_classes and _same_order(names, model.class_name):
        return np.arange(len(names))
    known = model.class_name or []
    lacking = [name for name in names if name not in known]
    listed = ", ".join((lacking or names)[:4])
    raise ModelError(
        f"{images.path.name}: has {len(names)} classes, {model.arch} {model.num_classes}; "
        f"not matched: {listed}, …. Ingest with --classes FILE in the model's order, or train "
        "the model on these classes (wsltool train-cls)."
    )


def _same_order(names: list[str], known: list[str] | None) -> bool:
    """Return whether two class lists of equal length may be the same in the same order.

    Names of a model that are spelled differently are borne if at least half agree and no
    name that occurs once in both stands at another place.
    """
    if known is None:
        return True
    where = {name: n for n, name in enumerate(known) if known.count(name) == 1}
    agree = [
        where[name] == n for n, name in enumerate(names) if name in where and names.count(name) == 1
    ]
    return all(agree) and len(agree) >= _AGREE * len(names)


def _batches(source: Store, block: Block, batch_size: int) -> Iterator[list[int]]:
    """Yield the rows of each batch of a block; a skipped image is in none."""
    rows = range(block.start, block.stop)
    if "image_status" in source:
        status = source.rows("image_status", block.start, block.stop)
        rows_kept = [row for row in rows if status[row - block.start] == 0]
    else:
        rows_kept = list(rows)
    for at in range(0, len(rows_kept), batch_size):
        yield rows_kept[at : at + batch_size]


def _chooser(
    model: Model, source: Store, choice: ClassChoice, column_K: Array
) -> Callable[[Sequence[int], Array], Array]:
    """Return the function that picks the model's classes of which maps are kept."""

    def choose(rows: Sequence[int], logit_NK: Array) -> Array:
        if not len(rows):
            return np.full((0, 1), -1, np.int64)
        score_NK = logit_NK[:, column_K]
        chosen_NK = np.zeros(score_NK.shape, bool)
        if choice.present:
            chosen_NK |= source.gather(np.array(rows), ["label"])["label"] == 1
        if choice.above is not None:
            chosen_NK |= model.probability(logit_NK)[:, column_K] > choice.above
        order_NK = np.argsort(-score_NK, axis=1, kind="stable")
        top = min(choice.top, score_NK.shape[1])
        np.put_along_axis(chosen_NK, order_NK[:, :top], True, axis=1)
        ranked_NK = np.take_along_axis(chosen_NK, order_NK, axis=1)
        num_slots = max(1, int(ranked_NK.sum(axis=1).max()))
        first_NS = np.argsort(~ranked_NK, axis=1, kind="stable")[:, :num_slots]
        class_NS = column_K[np.take_along_axis(order_NK, first_NS, axis=1)]
        return np.where(np.take_along_axis(ranked_NK, first_NS, axis=1), class_NS, -1)

    return choose


def _assemble(
    source: Store,
    block: Block,
    found: Iterator[CamBatch],
    column_K: Array,
    settings: Settings,
    params: dict[str, Any],
    model: Model,
    tick: Tick,
) -> Rows:
    """Put the batches of a block together; a picture that failed keeps an empty row."""
    rows = source.carried(block.start, block.stop)
    good_N = rows["image_status"] == 0
    batches: list[CamBatch] = []
    while sum(len(batch.rows) for batch in batches) < good_N.sum():
        batches.append(next(found))
        tick(len(batches[-1].rows))
    notes = rows["image_note"].tolist()
    num_slots = max((batch.class_NS.shape[1] for batch in batches), default=1)
    grid = batches[0].map_NSHW.shape[2:] if batches else (1, 1)
    shape = (block.num_rows, num_slots)
    rows |= {
        "map": np.zeros((*shape, *grid), np.float32),
        "map_class": np.full(shape, -1, np.int32),
        "map_score": np.full(shape, -np.inf, np.float32),
        "map_extent": np.zeros((block.num_rows, 4), np.float32),
        "class_score": np.full((block.num_rows, len(column_K)), -np.inf, np.float32),
    }
    for batch in batches:
        place_N = np.array(batch.rows) - block.start
        for n, error in zip(place_N, batch.error, strict=True):
            if error is not None:
                place = f'{source.path.name} row {block.start + n} "{rows["image_id"][n]}"'
                notes[n] = settings.bad_row(place, BadImageError(error))
                rows["image_status"][n] = 1
        _fill(rows, batch, place_N, column_K, params, model)
    rows["image_note"] = np.array(notes, dtype=np.dtypes.StringDType())
    if params["map_dtype"] == "float16":
        rows["map"] = _as_float16(rows["map"])
    return rows


def _fill(
    rows: Rows,
    batch: CamBatch,
    place_N: Array,
    column_K: Array,
    params: dict[str, Any],
    model: Model,
) -> None:
    """Write a batch into its rows, with classes numbered as the images number them."""
    class_of = np.full(model.num_classes + 1, -1, np.int32)
    class_of[column_K] = np.arange(len(column_K))
    class_NS = class_of[batch.class_NS]
    score_NK = batch.class_score_NK
    if params["scores"] == "probability":
        score_NK = np.where(
            np.isfinite(score_NK), model.probability(np.nan_to_num(score_NK)), -np.inf
        )
    score_NK = score_NK[:, column_K]
    score_NS = np.take_along_axis(score_NK, np.maximum(class_NS, 0).astype(np.int64), axis=1)
    used = np.s_[place_N, : class_NS.shape[1]]
    rows["map"][used] = batch.map_NSHW
    rows["map_class"][used] = class_NS
    rows["map_score"][used] = np.where(class_NS >= 0, score_NS, -np.inf)
    rows["map_extent"][place_N] = batch.extent_N4
    rows["class_score"][place_N] = score_NK


def _as_float16(map_NSHW: Array) -> Array:
    largest = float(np.abs(map_NSHW).max(initial=0))
    if largest > np.finfo(np.float16).max:
        raise UsageError(
            f"--map-dtype float16 holds values up to 65504, a map has {largest:g}. "
            "Pass --map-dtype float32."
        )
    return map_NSHW.astype(np.float16)
