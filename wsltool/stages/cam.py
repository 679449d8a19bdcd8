"""Stage ``cam``: images and a network become class activation maps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from wsltool.errors import UsageError
from wsltool.stages.chosen import parse_choice
from wsltool.stages.class_maps import ClassMaps, MapDtype
from wsltool.stages.cooccurrence import Rescoring, read_weight
from wsltool.stages.model_behind import given_model
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
from wsltool.stages.run import Block, Rows, Tick, open_input, row_job, run

__all__ = ["cam"]

Array = np.ndarray[Any, Any]

Fit = Literal["warp", "crop", "letterbox"]
ScoreKind = Literal["logit", "probability"]
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
    cooccurrence: float | PathLike | None = None,
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
    cooccurrence : float or path, optional
        Combine the probabilities of classes that occur together in the model's training images
        (Bency et al. 2016, eqs. 2 to 4), and choose classes by what comes out: what pairs weigh,
        or the file that `fit_cooccurrence` wrote. Class scores are then ``combined``, whatever
        `scores` says.
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
        An option is out of its range, a map does not fit into float16, or `cooccurrence` was
        chosen for another model.
    ModelError
        The network gives no closed-form maps, its classes are others than the images', or it
        has no counts of label pairs, which `cooccurrence` needs.
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
    read_weight(cooccurrence)
    with open_input(input, "images", "cam") as source:
        used = given_model(model, weights, input_size=input_size, fit=fit, maps=True)
        preprocess = used.model.preprocess
        params |= {"input_size": preprocess.size_px, "fit": preprocess.fit}
        rescoring = Rescoring.of(cooccurrence, used, source, settings)
        if rescoring is not None:
            params |= rescoring.params()
        maker = _MapMaker(
            maps=ClassMaps(source, used, choice, scores, map_dtype, settings, rescoring),
            pictures=Pictures(source, None if images is None else Path(images)),
            params={"model": used.name} | params,
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

    maps: ClassMaps
    pictures: Pictures
    params: dict[str, Any]
    torch_options: TorchSettings

    def job(self) -> Job:
        """Return the job."""
        num_rows, num_cols = self._grid()
        num_cells = self.maps.most_slots * num_rows * num_cols
        return row_job(
            self.maps.settings,
            "cam",
            "maps",
            self.maps.source,
            params=self.params,
            inputs=self.maps.inputs,
            revision=_REVISION,
            row_bytes=4 * (num_cells + len(self.maps.columns)),
            attributes=self.maps.attributes,
            compute=self.torch_options.record(),
        )

    def _grid(self) -> tuple[int, int]:
        """Return rows and columns of the maps; refuse a network that fails on its input."""
        from wsltool.nets.map_grid import map_grid
        from wsltool.nets.ten_crops import check_ten_crops, merged_grid

        scales = self._used_scales()
        scales = sorted({min(scales), max(scales)})
        finest = [map_grid(self.maps.model, scale) for scale in scales][-1]
        if self.params["crops"] == "one":
            return finest
        check_ten_crops(self.maps.model)
        return merged_grid(self.maps.model.preprocess.size_px)

    def _used_scales(self) -> list[float]:
        """Return the scales at which the network has a cell; tell of those that are left out."""
        from wsltool.nets.map_grid import usable_scales

        used = usable_scales(self.maps.model, self.params["scales"])
        left_out = [f"{scale:g}" for scale in self.params["scales"] if scale not in used]
        if left_out:
            self.maps.settings.report.warn(
                f"--scales {', '.join(left_out)}: the input is smaller than the window of "
                f"{self.maps.model.arch}. Left out."
            )
        return used

    def compute(self, blocks: list[Block], tick: Tick) -> Iterator[Rows]:
        """Yield the rows of each block; a batch never crosses a block."""
        from wsltool.nets.inference import run_cams

        size = self.torch_options.batch_size
        found = run_cams(
            self.maps.model,
            self.pictures,
            [batch for block in blocks for batch in good_batches(self.maps.source, block, size)],
            self.maps.choose,
            scales=self.params["scales"],
            flip=self.params["flip"],
            crops=self.params["crops"],
            device=self.torch_options.device,
            precision=self.torch_options.precision,
            workers=self.torch_options.workers,
        )
        with contextlib.closing(found):  # ends the workers, also when a row stops the stage
            for block in blocks:
                rows, _ = self.maps.assemble(block, found, tick)
                yield rows
