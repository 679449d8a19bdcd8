"""Stage ``merge``: several stores of maps of the same images become one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from wsltool.errors import BadImageError, UsageError
from wsltool.localize.merging import (
    How,
    align_map,
    finest_grid,
    merge_class_scores,
    merge_maps,
    probability_of,
)
from wsltool.stages.cooccurrence import inherited_weight
from wsltool.stages.map_rows import MapRow, map_rows
from wsltool.stages.merge_inputs import (
    Link,
    Probability,
    check_together,
    link_of,
    recorded_choice,
)
from wsltool.stages.options import PathLike, RunOptions, Settings, check_choice
from wsltool.stages.plan import Job, output_for
from wsltool.stages.run import Block, Rows, Tick, leave_out, open_input, row_job, run
from wsltool.stores.lineage import fingerprint_store
from wsltool.stores.store import Store

__all__ = ["merge"]

Array = np.ndarray[Any, Any]

_REVISION = 1


def merge(
    *inputs: PathLike,
    how: How = "weighted-max",
    probability: Probability = "recorded",
    **options: Unpack[RunOptions],
) -> Path:
    """Merge the maps of several networks, class by class (Kim et al. 2017, eq. 5).

    Parameters
    ----------
    *inputs : path
        Two or more ``maps`` stores of the same images in the same order, with the same
        classes and made with the same ``--classes`` and ``--scores``.
    how : {"weighted-max", "mean", "max"}
        ``max(p_1 H_1, p_2 H_2, …)`` with p the class's probability by each network and H
        the raw map; or the mean, or the maximum of the raw maps. The class score is the mean
        for ``mean`` and the maximum otherwise; see `wsltool.localize.merging`.
    probability : {"recorded", "sigmoid", "softmax"}
        What turns stored logits into p: what each model file says it was trained with, or
        what is given. Stored probabilities are taken as they are.
    **options
        See `wsltool.stages.options.RunOptions`. The default output is named after the first
        input.

    Returns
    -------
    Path
        The ``maps`` store. Where grids differ, its maps lie on the finest one of each image,
        the others resampled bilinearly by ``map_extent``. An image that any input skipped is
        skipped.

    Raises
    ------
    UsageError
        Fewer than two inputs, one twice, or an option that is none of its words.
    ProtocolError
        The inputs do not belong together, or it is not known what their probabilities are.
    BadImageError
        A map, score or extent is unusable and ``on_bad`` is ``"stop"``.
    """
    settings = Settings.of(options)
    check_choice("--how", how, How)
    check_choice("--probability", probability, Probability)
    if len(inputs) < 2:
        raise UsageError(
            f"merge needs two maps stores or more, got {len(inputs)}. Name them all; - stands "
            "for the one that comes through the pipe."
        )
    with ExitStack() as stack:
        stores = [stack.enter_context(open_input(path, "maps", "merge")) for path in inputs]
        check_together(stores, how, settings.limit)
        links = [link_of(store, probability) for store in stores] if how == "weighted-max" else []
        merger = _Merger(stores, how, links, settings)

        def compute(blocks: list[Block], tick: Tick) -> Iterator[Rows]:
            for block in blocks:
                yield merger.block(block)

        return run(_job(stores, how, links, settings), compute, settings)


def _job(stores: list[Store], how: str, links: list[Link], settings: Settings) -> Job:
    first = stores[0]
    folder = (settings.output or output_for(first.path, "merge")).parent
    names = ("classes", "score_kind", "probability")
    shared = {name: {str(store.attributes.get(name, "")) for store in stores} for name in names}
    return row_job(
        settings,
        "merge",
        "maps",
        first,
        params={"how": how, "probability": list(links)},
        inputs={
            f"maps_{n}": fingerprint_store(store, folder) for n, store in enumerate(stores[1:], 2)
        },
        row_bytes=sum(store.row_bytes for store in stores),
        revision=_REVISION,
        attributes={n: v for n, (v, *more) in shared.items() if v and not more}
        | inherited_weight(first, folder),
    )


@dataclass
class _Merged:
    """One image: S maps on one grid, −inf where no input has a say; none where it is left out."""

    class_score_K: Array
    extent_xyxy: Array
    class_S: Array
    map_SHW: Array

    @classmethod
    def nothing(cls, class_score_K: Array, extent_xyxy: Array) -> _Merged:
        return cls(class_score_K, extent_xyxy, np.zeros(0, np.int64), np.zeros((0, 1, 1)))


@dataclass(frozen=True)
class _Merger:
    """What all blocks of one run share; `links` are empty where no probability is asked for."""

    stores: Sequence[Store]
    how: How
    links: Sequence[Link]
    settings: Settings

    def block(self, block: Block) -> Rows:
        """Return the rows of a block; an image that cannot be merged is left out."""
        at, to = block.start, block.stop
        rows = self._carried(at, to)
        score_NMK = np.array([_scores(store, at, to) for store in self.stores]).swapaxes(0, 1)
        extent_N4 = self.stores[0].rows("map_extent", at, to)
        found: list[_Merged] = []
        images = zip(*(map_rows(store, at, to) for store in self.stores), strict=True)
        for n, maps_M in enumerate(images):
            merged = _Merged.nothing(np.full(score_NMK.shape[2], -np.inf), np.zeros(4))
            if rows["image_status"][n] == 0:
                try:
                    merged = self._image(maps_M, score_NMK[n], extent_N4[n])
                except BadImageError as error:
                    leave_out(self.stores[0], self.settings, rows, at + n, n, error)
            found.append(merged)
        return rows | self._stacked(found)

    def _carried(self, at: int, to: int) -> Rows:
        """Return what is carried; an image that any input skipped is skipped."""
        rows = self.stores[0].carried(at, to)
        for store in self.stores[1:]:
            other = store.carried(at, to)
            gone_N = (rows["image_status"] == 0) & (other["image_status"] != 0)
            for name in ("image_status", "image_note"):
                rows[name][gone_N] = other[name][gone_N]
        return rows

    def _image(
        self, maps_M: Sequence[MapRow | None], score_MK: Array, extent_xyxy: Array
    ) -> _Merged:
        """Return an image merged; `extent_xyxy` is for one that no input has a map of."""
        score_K = merge_class_scores(score_MK, self.how)
        chance_MK = []
        for store, row_K, link in zip(self.stores, score_MK, self.links, strict=False):
            with _of_input(store):
                chance_MK.append(probability_of(row_K, link))
        here = {m: maps for m, maps in enumerate(maps_M) if maps is not None}
        class_S = self._classes(maps_M, score_K)
        if not len(class_S):
            return _Merged.nothing(score_K, extent_xyxy)
        grids = [maps.map_SHW.shape[1:] for maps in here.values()]
        extents = [maps.extent_xyxy for maps in here.values()]
        finest = finest_grid(np.array(extents), np.array(grids))
        onto = list(here.values())[finest]
        map_SHW = np.empty((len(class_S), *grids[finest]))
        for slot, class_index in enumerate(class_S.tolist()):
            held = {}
            for m, maps in here.items():
                with _of_input(self.stores[m]):
                    map_HW = _aligned(maps, class_index, onto)
                if map_HW is not None:
                    held[m] = map_HW
            chance_M = [float(chance_MK[m][class_index]) for m in held] if chance_MK else None
            map_SHW[slot] = merge_maps(list(held.values()), self.how, chance_M)
        return _Merged(score_K, onto.extent_xyxy, class_S, map_SHW)

    def _classes(self, maps_M: Sequence[MapRow | None], score_K: Array) -> Array:
        """Return the classes that get a map, by falling merged score, int64 (S,)."""
        held = [set() if m is None else set(m.class_S[m.class_S >= 0].tolist()) for m in maps_M]
        every, some = set.intersection(*held), set.union(*held)
        if self.how == "mean" and every != some:
            lacking = self.stores[0].class_names()[min(some - every)]
            raise BadImageError(f'not every input has a map of "{lacking}", which a mean needs.')
        class_S = np.array(sorted(some), np.int64)
        choice = recorded_choice(self.stores[0])
        only_top = choice is not None and not choice.present and choice.above is None
        best_S: Array = class_S[np.argsort(-score_K[class_S], kind="stable")]
        return best_S[: choice.top] if choice is not None and only_top else best_S

    def _stacked(self, found: list[_Merged]) -> Rows:
        """Return the arrays of a block; cells where no input has a say get the map's floor."""
        grid_N2 = np.array([merged.map_SHW.shape[1:] for merged in found], np.int32)
        num_slots = max(1, *(len(merged.class_S) for merged in found))
        shape = (len(found), num_slots, *grid_N2.max(axis=0).tolist())
        rows: Rows = {
            "map": np.zeros(shape, np.result_type(*(one.dtype("map") for one in self.stores))),
            "map_class": np.full(shape[:2], -1, np.int32),
            "map_score": np.full(shape[:2], -np.inf, np.float32),
            "map_extent": np.array([merged.extent_xyxy for merged in found], np.float32),
            "class_score": np.array([merged.class_score_K for merged in found], np.float32),
            "map_grid": grid_N2,
            "suppressed": np.zeros(shape, np.uint8),
        }
        for n, merged in enumerate(found):
            num_rows, num_cols = grid_N2[n].tolist()
            used = np.s_[n, : len(merged.class_S)]
            cells = np.s_[n, : len(merged.class_S), :num_rows, :num_cols]
            silent_SHW = np.isneginf(merged.map_SHW)
            rows["map_class"][used] = merged.class_S
            rows["map_score"][used] = merged.class_score_K[merged.class_S]
            rows["map"][cells] = np.where(silent_SHW, _floor(merged.map_SHW), merged.map_SHW)
            rows["suppressed"][cells] = silent_SHW
        shapes = {one.shape("map")[2:] for one in self.stores}
        if len(shapes) == 1 and not any("map_grid" in one for one in self.stores):
            del rows["map_grid"]
        if not any("suppressed" in one for one in self.stores):
            del rows["suppressed"]
        return rows


@contextlib.contextmanager
def _of_input(store: Store) -> Iterator[None]:
    """Say which input holds what cannot be merged."""
    try:
        yield
    except BadImageError as error:
        raise BadImageError(f"{store.path.name}: {error}") from error


def _scores(store: Store, at: int, to: int) -> Array:
    """Return the score of every class, that of its map where there is one, float64 (N, K)."""
    score_NK = store.rows("class_score", at, to).astype(np.float64)
    class_NS, score_NS = (store.rows(name, at, to) for name in ("map_class", "map_score"))
    image, slot = np.nonzero(class_NS >= 0)
    score_NK[image, class_NS[image, slot]] = score_NS[image, slot]
    return score_NK


def _aligned(maps: MapRow, class_index: int, onto: MapRow) -> Array | None:
    """Return an image's map of a class on the grid of `onto`, None where it has none."""
    slot = maps.slot_of(class_index)
    if slot is None:
        return None
    gone_HW = None if maps.suppressed_SHW is None else maps.suppressed_SHW[slot]
    grid = onto.map_SHW.shape[1], onto.map_SHW.shape[2]
    return align_map(maps.map_SHW[slot], maps.extent_xyxy, onto.extent_xyxy, grid, gone_HW)


def _floor(map_SHW: Array) -> Array:
    """Return ``min(0, min(map))`` of the cells that have a value, (S, 1, 1)."""
    floor: Array = np.where(np.isneginf(map_SHW), 0, map_SHW).min(axis=(1, 2), keepdims=True)
    return np.minimum(floor, 0)
