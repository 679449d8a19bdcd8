"""Stage ``cam``: images and a network become class activation maps."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from wsltool.errors import BadImageError, UsageError
from wsltool.stages.chosen import ClassChoice, parse_choice
from wsltool.stages.class_columns import match_classes
from wsltool.stages.half import as_float16
from wsltool.stages.model_behind import UsedModel, given_model
from wsltool.stages.options import (
    PathLike,
    Settings,
    TorchOptions,
    TorchSettings,
    check_choice,
    check_input_size,
    torch_settings,
)
from wsltool.stages.pictures import Pictures
from wsltool.stages.pictures_behind import good_batches
from wsltool.stages.plan import Job
from wsltool.stages.run import Block, Rows, Tick, leave_out, open_input, row_job, run
from wsltool.stores.store import Store

if TYPE_CHECKING:
    from wsltool.nets.inference import CamBatch
    from wsltool.nets.models import Model

__all__ = ["cam"]

Array = np.ndarray[Any, Any]

Fit = Literal["warp", "crop", "letterbox"]
ScoreKind = Literal["logit", "probability"]
MapDtype = Literal["float32", "float16"]
Crops = Literal["one", "ten"]

_REVISION = 2


def cam(
    input: PathLike,
    *,
    model: PathLike,
    weights: PathLike | None = None,
    classes: str = "top5",
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    crops: Crops = "one",
    input_size: int | None = None,
    fit: Fit | None = None,
    scores: ScoreKind = "logit",
    map_dtype: MapDtype = "float32",
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
    model : str or path
        A model file, a name, or ``package.module:function``.
    weights : path, optional
        Weights to load into the architecture `model`.
    classes : str
        Which maps are kept: ``present``, ``topK``, ``above:P`` (probability), ``all``, or
        several joined by ``+``, such as ``top5+present``.
    scales : sequence of float
        Sizes relative to the input size. The class score is the mean over scales, the map
        the maximum on the finest scale's grid (Oquab et al. 2015). A scale whose input is
        smaller than the window of a sliding-window network is left out, with a warning.
    flip : bool
        Average with the mirrored picture.
    crops : {"one", "ten"}
        ``ten``: the ILSVRC pipeline of Zhou et al.: ten crops of a larger warped picture, the
        mean of their probabilities, and one map of 64 x 64 cells merged of theirs
        (`wsltool.nets.ten_crops`). Neither `scales` nor `flip` go with it.
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
    UsageError
        An option is out of its range, or a map does not fit into float16.
    ModelError
        The network gives no closed-form maps, or its classes are others than the images'.
    BadImageError
        A picture is unusable and ``on_bad`` is ``"stop"``.
    """
    settings, torch_options = Settings.of(options), torch_settings(options)
    choice = parse_choice(classes)
    params = {
        "classes": choice.text,
        "scales": _scales(scales),
        "flip": flip,
        "crops": crops,
        "scores": scores,
        "map_dtype": map_dtype,
        "precision": torch_options.precision,
    }
    _check_options(params, input_size, fit)
    with open_input(input, "images", "cam") as source:
        used = given_model(model, weights, input_size=input_size, fit=fit, maps=True)
        preprocess = used.model.preprocess
        params |= {"input_size": preprocess.size_px, "fit": preprocess.fit}
        maker = _MapMaker(
            source=source,
            used=used,
            choice=choice,
            pictures=Pictures(source, None if images is None else Path(images)),
            params={"model": used.name} | params,
            settings=settings,
            torch_options=torch_options,
        )
        return run(maker.job(), maker.compute, settings)


def _scales(scales: Any) -> list[float]:
    if isinstance(scales, str):
        raise UsageError(f"--scales must be a sequence of numbers, got {scales!r}.")
    return [float(scale) for scale in scales]


def _check_options(params: dict[str, Any], input_size: int | None, fit: str | None) -> None:
    scales = params["scales"]
    if not scales or not all(0 < scale < np.inf for scale in scales):
        raise UsageError(f"--scales must be numbers above 0, got {scales}.")
    check_input_size(input_size)
    if fit is not None:
        check_choice("--fit", fit, Fit)
    if not isinstance(params["flip"], bool):
        raise UsageError(f"--flip must be true or false, got {params['flip']!r}.")
    check_choice("--crops", params["crops"], Crops)
    if params["crops"] == "ten" and (params["flip"] or scales != [1.0]):
        option = "--flip" if params["flip"] else "--scales"
        raise UsageError(
            f"{option} and --crops ten exclude each other: the ten crops are of one size, and half "
            "of them are mirrored. Leave one out."
        )
    if params["crops"] == "ten" and fit not in (None, "warp"):
        raise UsageError(f"--crops ten cuts crops out of a warped picture, got --fit {fit}.")
    check_choice("--scores", params["scores"], ScoreKind)
    check_choice("--map-dtype", params["map_dtype"], MapDtype)


@dataclass(frozen=True)
class _MapMaker:
    """What all blocks of one run share."""

    source: Store
    used: UsedModel
    choice: ClassChoice
    pictures: Pictures
    params: dict[str, Any]
    settings: Settings
    torch_options: TorchSettings

    @property
    def model(self) -> Model:
        """The model, for the input size and fit wanted."""
        return self.used.model

    @functools.cached_property
    def columns(self) -> Array:
        """Column of each class of the images in the model's output, int64 (K,)."""
        return match_classes(self.model, self.source)

    @property
    def least_slots(self) -> int:
        """Slots that every store of this choice has, however few of its images are good."""
        return max(1, min(self.choice.top, len(self.columns)))

    def job(self) -> Job:
        """Return the job."""
        num_classes = len(self.columns)
        num_rows, num_cols = self._grid()
        num_slots = self.choice.most_slots(self.source, num_classes)
        folder = (self.settings.output or self.source.path).parent
        return row_job(
            self.settings,
            "cam",
            "maps",
            self.source,
            params=self.params,
            inputs={"model": self.used.record(folder)},
            revision=_REVISION,
            row_bytes=4 * (num_slots * num_rows * num_cols + num_classes),
            attributes={
                "classes": self.choice.text,
                "score_kind": self.params["scores"],
                "probability": "sigmoid" if self.model.loss == "logistic" else "softmax",
            },
            compute=self.torch_options.record(),
        )

    def _grid(self) -> tuple[int, int]:
        """Return rows and columns of the maps; refuse a network that fails on its input."""
        from wsltool.nets.map_grid import map_grid
        from wsltool.nets.ten_crops import check_ten_crops, merged_grid

        scales = self._used_scales()
        scales = sorted({min(scales), max(scales)})
        finest = [map_grid(self.model, scale) for scale in scales][-1]
        if self.params["crops"] == "one":
            return finest
        check_ten_crops(self.model)
        return merged_grid(self.model.preprocess.size_px)

    def _used_scales(self) -> list[float]:
        """Return the scales at which the network has a cell; tell of those that are left out."""
        from wsltool.nets.map_grid import usable_scales

        used = usable_scales(self.model, self.params["scales"])
        left_out = [f"{scale:g}" for scale in self.params["scales"] if scale not in used]
        if left_out:
            self.settings.report.warn(
                f"--scales {', '.join(left_out)}: the input is smaller than the window of "
                f"{self.model.arch}. Left out."
            )
        return used

    def compute(self, blocks: list[Block], tick: Tick) -> Iterator[Rows]:
        """Yield the rows of each block; a batch never crosses a block."""
        from wsltool.nets.inference import run_cams

        size = self.torch_options.batch_size
        found = run_cams(
            self.model,
            self.pictures,
            [batch for block in blocks for batch in good_batches(self.source, block, size)],
            self.choose,
            scales=self.params["scales"],
            flip=self.params["flip"],
            crops=self.params["crops"],
            device=self.torch_options.device,
            precision=self.torch_options.precision,
            workers=self.torch_options.workers,
        )
        with contextlib.closing(found):  # ends the workers, also when a row stops the stage
            for block in blocks:
                yield self._assemble(block, found, tick)

    def choose(self, rows: Sequence[int], logit_NK: Array) -> Array:
        """Return the model's classes whose maps are kept, by falling score, -1 for none."""
        if not len(rows):
            return np.full((0, self.least_slots), -1, np.int64)
        score_NK = logit_NK[:, self.columns]
        chosen_NK = np.zeros(score_NK.shape, bool)
        if self.choice.present:
            chosen_NK |= self.source.gather(np.array(rows), ["label"])["label"] == 1
        if self.choice.above is not None:
            chosen_NK |= self.model.probability(logit_NK)[:, self.columns] > self.choice.above
        order_NK = np.argsort(-score_NK, axis=1, kind="stable")
        top = min(self.choice.top, score_NK.shape[1])
        np.put_along_axis(chosen_NK, order_NK[:, :top], True, axis=1)
        ranked_NK = np.take_along_axis(chosen_NK, order_NK, axis=1)
        num_slots = max(self.least_slots, int(ranked_NK.sum(axis=1).max()))
        first_NS = np.argsort(~ranked_NK, axis=1, kind="stable")[:, :num_slots]
        class_NS = self.columns[np.take_along_axis(order_NK, first_NS, axis=1)]
        return np.where(np.take_along_axis(ranked_NK, first_NS, axis=1), class_NS, -1)

    def _assemble(self, block: Block, found: Iterator[CamBatch], tick: Tick) -> Rows:
        """Put the batches of a block together; a picture that failed keeps an empty row."""
        rows = self.source.carried(block.start, block.stop)
        num_good = int((rows["image_status"] == 0).sum())
        batches: list[CamBatch] = []
        while sum(len(batch.rows) for batch in batches) < num_good:
            batches.append(next(found))
            tick(len(batches[-1].rows))
        rows |= _empty_rows(block.num_rows, batches, len(self.columns), self.least_slots)
        for batch in batches:
            place_N = np.array(batch.rows) - block.start
            for n, error in zip(place_N, batch.error, strict=True):
                if error is not None:
                    bad = BadImageError(error)
                    leave_out(self.source, self.settings, rows, block.start + n, n, bad)
            self._fill(rows, batch, place_N)
        if self.params["map_dtype"] == "float16":
            rows["map"] = as_float16(rows["map"], "--map-dtype", "a map")
        return rows

    def _fill(self, rows: Rows, batch: CamBatch, place_N: Array) -> None:
        """Write a batch into its rows, with classes numbered as the images number them."""
        class_of = np.full(self.model.num_classes + 1, -1, np.int32)
        class_of[self.columns] = np.arange(len(self.columns))
        class_NS = class_of[batch.class_NS]
        score_NK = batch.class_score_NK
        if self.params["scores"] == "probability":
            known_NK = np.isfinite(score_NK)
            probability_NK = self.model.probability(np.where(known_NK, score_NK, 0))
            score_NK = np.where(known_NK, probability_NK, -np.inf)
        score_NK = score_NK[:, self.columns]
        score_NS = np.take_along_axis(score_NK, np.maximum(class_NS, 0).astype(np.int64), axis=1)
        used = np.s_[place_N, : class_NS.shape[1]]
        rows["map"][used] = batch.map_NSHW
        rows["map_class"][used] = class_NS
        rows["map_score"][used] = np.where(class_NS >= 0, score_NS, -np.inf)
        rows["map_extent"][place_N] = batch.extent_N4
        rows["class_score"][place_N] = score_NK


def _empty_rows(num_rows: int, batches: list[CamBatch], num_classes: int, least_slots: int) -> Rows:
    """Return rows without a map, as large as the largest batch needs them."""
    num_slots = max((batch.class_NS.shape[1] for batch in batches), default=least_slots)
    grid = batches[0].map_NSHW.shape[2:] if batches else (1, 1)
    return {
        "map": np.zeros((num_rows, num_slots, *grid), np.float32),
        "map_class": np.full((num_rows, num_slots), -1, np.int32),
        "map_score": np.full((num_rows, num_slots), -np.inf, np.float32),
        "map_extent": np.zeros((num_rows, 4), np.float32),
        "class_score": np.full((num_rows, num_classes), -np.inf, np.float32),
    }
