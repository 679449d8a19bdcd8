"""Maps of chosen classes, put together block by block: what stages that run a classifier share."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from wsltool.errors import BadImageError
from wsltool.stages.chosen import ClassChoice
from wsltool.stages.class_columns import match_classes
from wsltool.stages.cooccurrence import Rescoring
from wsltool.stages.half import as_float16
from wsltool.stages.model_behind import UsedModel
from wsltool.stages.options import Settings
from wsltool.stages.run import Block, Rows, Tick, leave_out
from wsltool.stores.store import Store

if TYPE_CHECKING:
    from wsltool.nets.inference import CamBatch
    from wsltool.nets.models import Model

__all__ = ["ClassMaps", "MapDtype"]

Array = np.ndarray[Any, Any]
Batch = TypeVar("Batch", bound="CamBatch")

MapDtype = Literal["float32", "float16"]


@dataclass(frozen=True)
class ClassMaps:
    """Which classes of an image get a map, and the rows that come of it.

    Classes count as the images count them, not as the model does.

    Attributes
    ----------
    source : Store
        The images.
    used : UsedModel
        The classifier.
    choice : ClassChoice
        Of the classes.
    scores : {"logit", "probability"}
        Unit of the class scores kept.
    map_dtype : {"float32", "float16"}
        Of the maps kept.
    settings : Settings
        What to do with a bad image.
    rescoring : Rescoring, optional
        Combines the scores of classes that occur together; classes are chosen by them.
    """

    source: Store
    used: UsedModel
    choice: ClassChoice
    scores: str
    map_dtype: MapDtype
    settings: Settings
    rescoring: Rescoring | None = None

    @property
    def model(self) -> Model:
        """The classifier, for the input size and fit wanted."""
        return self.used.model

    @property
    def folder(self) -> Path:
        """Where the store is made."""
        return (self.settings.output or self.source.path).parent

    @functools.cached_property
    def columns(self) -> Array:
        """Column of each class of the images in the model's output, int64 (K,)."""
        return match_classes(self.model, self.source)

    @functools.cached_property
    def most_slots(self) -> int:
        """Slots of the image that has most."""
        return self.choice.most_slots(self.source, len(self.columns))

    @property
    def least_slots(self) -> int:
        """Slots that every store of this choice has, however few of its images are good."""
        return max(1, min(self.choice.top, len(self.columns)))

    @property
    def attributes(self) -> dict[str, Any]:
        """What the store says of its classes and scores."""
        said: dict[str, Any] = {
            "classes": self.choice.text,
            "score_kind": self.scores,
            "probability": "sigmoid" if self.model.loss == "logistic" else "softmax",
        }
        if self.rescoring is None:
            return said
        return said | self.rescoring.attributes(self.folder)

    @property
    def inputs(self) -> dict[str, Any]:
        """What the store records beside the images: the model, a file of ``--cooccurrence``."""
        found = {"model": self.used.record(self.folder)}
        return found if self.rescoring is None else found | self.rescoring.inputs(self.folder)

    def _chances(self, logit_NM: Array) -> Array:
        """Return the probabilities of the images' classes, combined where that is wanted."""
        chance_NK = self.model.probability(logit_NM)[:, self.columns]
        return chance_NK if self.rescoring is None else self.rescoring(chance_NK)

    def choose(self, rows: Sequence[int], logit_NK: Array) -> Array:
        """Return the model's classes whose maps are kept, by falling score, -1 for none."""
        if not len(rows):
            return np.full((0, self.least_slots), -1, np.int64)
        score_NK = logit_NK[:, self.columns]
        keys, chosen_NK = [-score_NK], np.zeros(score_NK.shape, bool)  # the last key counts first
        if self.rescoring is not None or self.choice.above is not None:
            chance_NK = self._chances(logit_NK)
        if self.rescoring is not None:
            keys.append(-chance_NK)
        if self.choice.present:
            chosen_NK |= self.source.gather(np.array(rows), ["label"])["label"] == 1
        if self.choice.above is not None:
            chosen_NK |= chance_NK > self.choice.above
        order_NK = np.lexsort(keys, axis=1)
        top = min(self.choice.top, score_NK.shape[1])
        np.put_along_axis(chosen_NK, order_NK[:, :top], True, axis=1)
        ranked_NK = np.take_along_axis(chosen_NK, order_NK, axis=1)
        num_slots = max(self.least_slots, int(ranked_NK.sum(axis=1).max()))
        first_NS = np.argsort(~ranked_NK, axis=1, kind="stable")[:, :num_slots]
        class_NS = self.columns[np.take_along_axis(order_NK, first_NS, axis=1)]
        return np.where(np.take_along_axis(ranked_NK, first_NS, axis=1), class_NS, -1)

    def assemble(
        self, block: Block, found: Iterator[Batch], tick: Tick
    ) -> tuple[Rows, list[Batch]]:
        """Put the batches of a block together; a picture that failed keeps an empty row.

        Returns
        -------
        Rows
            The arrays that all maps have.
        list
            The batches, for those that only some have.
        """
        rows = self.source.carried(block.start, block.stop)
        num_good = int((rows["image_status"] == 0).sum())
        batches: list[Batch] = []
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
        if self.map_dtype == "float16":
            rows["map"] = as_float16(rows["map"], "--map-dtype", "a map")
        return rows, batches

    def _fill(self, rows: Rows, batch: CamBatch, place_N: Array) -> None:
        """Write a batch into its rows, with classes numbered as the images number them."""
        class_of = np.full(self.model.num_classes + 1, -1, np.int32)
        class_of[self.columns] = np.arange(len(self.columns))
        class_NS = class_of[batch.class_NS]
        score_NK = batch.class_score_NK[:, self.columns]
        if self.scores == "probability" or self.rescoring is not None:
            known_NM = np.isfinite(batch.class_score_NK)  # nothing of an image that failed
            chance_NK = self._chances(np.where(known_NM, batch.class_score_NK, 0))
            score_NK = np.where(known_NM[:, self.columns], chance_NK, -np.inf)
        score_NS = np.take_along_axis(score_NK, np.maximum(class_NS, 0).astype(np.int64), axis=1)
        used = np.s_[place_N, : class_NS.shape[1]]
        rows["map"][used] = batch.map_NSHW
        rows["map_class"][used] = class_NS
        rows["map_score"][used] = np.where(class_NS >= 0, score_NS, -np.inf)
        rows["map_extent"][place_N] = batch.extent_N4
        rows["class_score"][place_N] = score_NK


def _empty_rows(
    num_rows: int, batches: Sequence[CamBatch], num_classes: int, least_slots: int
) -> Rows:
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
