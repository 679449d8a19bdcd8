"""Stage ``refine``: maps and labels of clusters become maps without the distractors' cells."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from wsltool.errors import BadImageError, ModelError, UsageError
from wsltool.localize.cell_lookup import nearest_cells
from wsltool.localize.refinement import Fill, distractor_cells, refine_map
from wsltool.stages.cell_patterns import (
    CellPatterns,
    ComputedPatterns,
    PatternSource,
    StoredPatterns,
    check_features,
    matched_rows,
)
from wsltool.stages.cooccurrence import inherited_weight
from wsltool.stages.distractors import Judged, Unsure, judged_classes
from wsltool.stages.model_behind import UsedModel, given_model, model_behind, model_record
from wsltool.stages.options import (
    PathLike,
    Settings,
    TorchOptions,
    TorchSettings,
    check_choice,
    torch_settings,
)
from wsltool.stages.pictures_behind import PicturesBehind
from wsltool.stages.plan import Job, output_for
from wsltool.stages.report import Reporter
from wsltool.stages.run import (
    Block,
    Rows,
    Tick,
    inherited,
    leave_out,
    limited,
    open_input,
    row_job,
    run,
    warn_of_strangers,
)
from wsltool.stores.labels import Labels, find_clusters, read_labels
from wsltool.stores.lineage import fingerprint_file, fingerprint_store
from wsltool.stores.open import open_store
from wsltool.stores.store import Store
from wsltool.stores.wip import WorkInProgress

__all__ = ["refine"]

Array = np.ndarray[Any, Any]

_REVISION = 1
_COPIED = ("map", "map_class", "map_score", "map_extent", "map_grid", "class_score", "suppressed")
_EMPTY = {"map_class": -1, "map_score": -np.inf, "class_score": -np.inf}


def refine(
    input: PathLike,
    *,
    labels: PathLike,
    clusters: PathLike | None = None,
    features: PathLike | None = None,
    model: PathLike | None = None,
    weights: PathLike | None = None,
    unsure: Unsure = "keep",
    fill: Fill = "masked",
    images: PathLike | None = None,
    **options: Unpack[TorchOptions],
) -> Path:
    """Suppress the cells that look most like a distractor (Kolesnikov and Lampert 2016, step iv).

    Of each cell the cluster with the highest heat (their eq. 1) decides. Maps of classes that
    nobody judged, or whose clusters are all kept, pass unchanged.

    Parameters
    ----------
    input : path
        A ``maps`` store.
    labels : path
        What an annotator said of the clusters, a ``labels.json``.
    clusters : path, optional
        The clusters, if not where the labels say.
    features : path, optional
        A ``features`` store of the same images that holds every cell; otherwise the model
        computes them in one pass over the images that need it.
    model, weights : str or path, optional
        The model, if not the one recorded behind the clusters or not where it was; another one
        is refused. Its layer, input size and fit are those of the clusters.
    unsure : {"keep", "suppress"}
        What becomes of clusters that are neither object nor distractor.
    fill : {"masked", "floor", "zero"}
        What suppressed cells hold, see `wsltool.localize.refinement.refine_map`.
    images : path, optional
        Folder of the pictures, if not where `ingest` found them; or the ``images`` store, if
        not where the maps say.
    **options
        See `wsltool.stages.options.TorchOptions`; those of torch count without `features`.

    Returns
    -------
    Path
        The ``maps`` store. Its attributes ``num_refined`` and ``num_suppressed_everywhere``
        count maps of classes with a distractor, and those of which nothing was left: they keep
        their scores.

    Raises
    ------
    UsageError
        An option is out of its range, or excluded by another.
    LineageError, DatasetError
        The labels are about other clusters, or an input is gone.
    ProtocolError
        The features do not fit the clusters or hold firing cells only, or the classes differ.
    ModelError
        The model is not that of the clusters.
    BadImageError
        A map or picture is unusable and ``on_bad`` is ``"stop"``.
    """
    settings = Settings.of(options)
    check_choice("--unsure", unsure, Unsure)
    check_choice("--fill", fill, Fill)
    _check_together(features, {"--model": model, "--weights": weights, "--images": images})
    with ExitStack() as stack:
        maps = stack.enter_context(open_input(input, "maps", "refine"))
        said = read_labels(Path(labels))
        held = stack.enter_context(_open_clusters(clusters, Path(labels), said))
        judged = judged_classes(maps, held, said, unsure, settings.report)
        row_R = _judged_rows(maps, judged, settings.limit)
        folder = (settings.output or output_for(maps.path, "refine")).parent
        used = _Used(_no_patterns, {}, {}, {})
        if features is not None:
            stored = stack.enter_context(open_input(features, "features", "refine --features"))
            used = _stored(maps, held, stored, row_R, settings.report, folder)
        elif len(row_R):
            used = _computed(maps, held, (model, weights), images, torch_settings(options), folder)
        warn_of_strangers(maps, settings.report)
        refiner = _Refiner(maps, judged, set(row_R), used.source, fill, settings)
        inputs = inherited(maps, folder, ("model",)) | {
            "labels": fingerprint_file(Path(labels), folder, "labels"),
            "clusters": fingerprint_store(held, folder),
        }
        job = refiner.job({"unsure": unsure, "fill": fill}, inputs, used)
        output = run(job, refiner.compute, settings)
        _tell_of_empty(output, settings.report)
        return output


def _check_together(features: PathLike | None, others: dict[str, PathLike | None]) -> None:
    given = next((option for option, value in others.items() if value is not None), None)
    if features is not None and given:
        raise UsageError(
            f"--features and {given} exclude each other: stored features need neither model nor "
            "pictures. Leave one out."
        )
    if others["--weights"] is not None and others["--model"] is None:
        raise UsageError(
            f"--weights {others['--weights']} needs --model, the network that it fills."
        )


def _open_clusters(given: PathLike | None, path: Path, labels: Labels) -> Store:
    if given is None:
        return find_clusters(path, labels, "--clusters")
    return open_input(given, "clusters", "refine --clusters")


def _judged_rows(maps: Store, judged: dict[int, Judged], limit: int | None) -> list[int]:
    """Return the rows that have a map of a class with a distractor."""
    num_rows, _ = limited(maps, limit)
    class_NS = maps.rows("map_class", 0, num_rows)
    found: list[int] = np.flatnonzero(np.isin(class_NS, list(judged)).any(axis=1)).tolist()
    return found


@dataclass(frozen=True)
class _Used:
    """Where patterns come from, and what the output records of it."""

    source: PatternSource
    params: dict[str, Any]
    inputs: dict[str, Any]
    compute: dict[str, Any]


def _no_patterns(_blocks: Sequence[Sequence[int]]) -> Generator[CellPatterns]:
    yield from ()


def _stored(
    maps: Store,
    clusters: Store,
    features: Store,
    rows: Sequence[int],
    report: Reporter,
    folder: Path,
) -> _Used:
    check_features(features, clusters, report)
    row_of = matched_rows(maps, features, rows)
    inputs = {"features": fingerprint_store(features, folder)}
    return _Used(StoredPatterns(features, row_of), {}, inputs, {})


def _computed(
    maps: Store,
    clusters: Store,
    given: tuple[PathLike | None, PathLike | None],
    images: PathLike | None,
    options: TorchSettings,
    folder: Path,
) -> _Used:
    from wsltool.nets.layers import find_layer

    used = _model_of(clusters, *given)
    layer = find_layer(used.model, str(clusters.attributes["layer"]))
    pictures = PicturesBehind(maps, None if images is None else Path(images))
    params = {
        "model": used.name,
        "layer": layer.name,
        "input_size": used.model.preprocess.size_px,
        "fit": used.model.preprocess.fit,
        "precision": options.precision,
    }
    source = ComputedPatterns(used.model, layer, pictures, options)
    return _Used(source, params, {"feature_model": used.record(folder)}, options.record())


def _model_of(clusters: Store, model: PathLike | None, weights: PathLike | None) -> UsedModel:
    """Return the network whose patterns were clustered, at their input size and fit."""
    if model is None:
        return model_behind(clusters)
    told, record = clusters.attributes, model_record(clusters)
    used = given_model(model, weights, input_size=told.get("input_size"), fit=told.get("fit"))
    if record and used.digest != record.get("digest"):
        raise ModelError(
            f"--model {used.name}: its digest is {used.digest}, but {clusters.path.name} was made "
            f'with "{record.get("name") or record.get("path")}", {record.get("digest")}; patterns '
            "of another network mean nothing to these clusters. Give the model of the clusters."
        )
    return used


@dataclass(frozen=True)
class _Refiner:
    """What all blocks of one run share; `rows` are those whose patterns are asked for."""

    maps: Store
    judged: dict[int, Judged]
    rows: set[int]
    source: PatternSource
    fill: Fill
    settings: Settings

    def job(self, params: dict[str, Any], inputs: dict[str, Any], used: _Used) -> Job:
        """Return the job."""
        names = self.maps.class_names()
        own = {name: value for name, value in self.maps.attributes.items() if name != "wsltool"}
        own |= inherited_weight(self.maps, (self.settings.output or self.maps.path).parent)
        return row_job(
            self.settings,
            "refine",
            "maps",
            self.maps,
            params=params | used.params,
            inputs=inputs | used.inputs,
            revision=_REVISION,
            row_bytes=self.maps.row_bytes + int(np.prod(self.maps.shape("map")[1:])),
            attributes=own | {"refined_classes": [names[index] for index in sorted(self.judged)]},
            late_attributes=self._counts,
            compute=used.compute,
        )

    def compute(self, blocks: list[Block], tick: Tick) -> Iterator[Rows]:
        """Yield the rows of each block; the network sees only images that need it."""
        wanted = [
            [row for row in range(block.start, block.stop) if row in self.rows] for block in blocks
        ]
        with contextlib.closing(self.source(wanted)) as found:
            for block in blocks:
                yield self._block(block, found, tick)

    def _block(self, block: Block, found: Iterator[CellPatterns], tick: Tick) -> Rows:
        """Return the rows of a block; an image that cannot be refined is left out."""
        at, to = block.start, block.stop
        rows = self.maps.carried(at, to)
        rows |= {name: self.maps.rows(name, at, to) for name in _COPIED if name in self.maps}
        rows.setdefault("suppressed", np.zeros(rows["map"].shape, np.uint8))
        for n in range(block.num_rows):
            patterns = next(found) if at + n in self.rows else None
            try:
                _check_finite(rows, n)
                if patterns is not None:
                    self._refine(rows, n, patterns)
            except BadImageError as error:
                leave_out(self.maps, self.settings, rows, at + n, n, error)
                for name in set(_COPIED) & set(rows) - {"map_grid"}:
                    rows[name][n] = _EMPTY.get(name, 0)
            tick(1)
        return rows

    def _refine(self, rows: Rows, n: int, patterns: CellPatterns) -> None:
        """Refine the maps of one image in place."""
        if patterns.error is not None:
            raise BadImageError(patterns.error)
        grid = _grid(rows, n)
        num_rows, num_cols, num_channels = patterns.feature_HWC.shape
        row_H, col_W = nearest_cells(
            rows["map_extent"][n], grid, patterns.extent_xyxy, (num_rows, num_cols)
        )
        feature_PC = patterns.feature_HWC.reshape(-1, num_channels)
        for slot, index in enumerate(rows["map_class"][n].tolist()):
            if index not in self.judged:
                continue
            judged = self.judged[index]
            gone_P = distractor_cells(feature_PC, judged.centroid_QC, judged.distractor_Q)
            gone_HW = gone_P.reshape(num_rows, num_cols)[np.ix_(row_H, col_W)]
            cells = np.s_[n, slot, : grid[0], : grid[1]]
            made = refine_map(rows["map"][cells], gone_HW, self.fill, rows["suppressed"][cells])
            rows["map"][cells], rows["suppressed"][cells] = made.map_HW, made.suppressed_HW

    def _counts(self, work: WorkInProgress) -> dict[str, int]:
        """Return how many maps were refined, and of how many nothing was left."""
        names = {"map_class", "suppressed"} | ({"map_grid"} if "map_grid" in self.maps else set())
        num_refined = num_everywhere = 0
        for block in sorted(work.committed()):
            rows = {name: work.part_array(block, name) for name in names}
            image_M, slot_M = np.nonzero(np.isin(rows["map_class"], list(self.judged)))
            num_refined += len(image_M)
            for n, slot in zip(image_M.tolist(), slot_M.tolist(), strict=True):
                high, wide = _grid(rows, n)
                num_everywhere += bool(rows["suppressed"][n, slot, :high, :wide].all())
        return {"num_refined": num_refined, "num_suppressed_everywhere": num_everywhere}


def _grid(rows: Rows, n: int) -> tuple[int, int]:
    """Return how many rows and columns of the maps of an image are in use."""
    grid = rows["map_grid"][n] if "map_grid" in rows else rows["suppressed"].shape[2:]
    return int(grid[0]), int(grid[1])


def _check_finite(rows: Rows, n: int) -> None:
    """Refuse an image with a map that is not finite, whether of a judged class or not."""
    high, wide = _grid(rows, n)
    map_SHW = rows["map"][n, rows["map_class"][n] >= 0, :high, :wide]
    if not np.isfinite(map_SHW).all():
        worst = map_SHW[~np.isfinite(map_SHW)][0]
        raise BadImageError(f"map has the value {worst}; expected finite scores.")


def _tell_of_empty(output: Path, report: Reporter) -> None:
    """Say of how many maps nothing was left, once the output is there."""
    if not output.exists():
        return
    with open_store(output) as store:
        told = store.attributes.get("num_suppressed_everywhere", 0)
        if told:
            report.warn(
                f"{output.name}: of {told} of {store.attributes['num_refined']} maps of classes "
                "with a distractor no cell was left; they keep their scores."
            )
