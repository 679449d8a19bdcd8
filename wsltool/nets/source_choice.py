"""Where a training gets its inputs from: pictures, or features that are computed once."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from wsltool.nets.augment import Augment
from wsltool.nets.examples import Examples
from wsltool.nets.frozen import Cut, find_cut
from wsltool.nets.initial import Start
from wsltool.nets.kept_features import FeatureKeeper, KeptFeatures
from wsltool.nets.preprocess import Preprocess
from wsltool.nets.sources import KeptSource, PictureSource, Source
from wsltool.nets.suppression import Suppression
from wsltool.nets.train_config import TrainConfig
from wsltool.nets.training_parts import Labelled, Place, Validated, Watcher
from wsltool.nets.validation import Validation

__all__ = ["SourceChoice"]


@dataclass(frozen=True)
class SourceChoice:
    """Decides where inputs come from: pictures, or features that are computed once.

    Attributes
    ----------
    start, config, place, suppression, watcher
        Of the training.
    preprocess
        From picture to input.
    still
        Modules that stay in evaluation mode.
    """

    start: Start
    config: TrainConfig
    place: Place
    suppression: Suppression | None
    preprocess: Preprocess
    still: frozenset[str]
    watcher: Watcher

    def sources(
        self, data: Labelled, validated: Validated | None
    ) -> tuple[Cut | None, Source, Validation | None]:
        """Return where the network is cut, and the sources of training and validation."""
        shown, suppression = self.config.shown, self.suppression
        cut, kept, seen = self._cut(), None, None
        if cut is not None:
            label_NK = torch.tensor(data.label_NK).to(self.place.device)
            examples = self._examples(data, shown)
            kept = self._keeper(cut).keep(examples, data.key, suppression, label_NK)
        if cut is not None and kept is not None and validated is not None:
            examples = self._examples(validated.data, Augment())
            seen = self._keeper(cut).keep(examples, validated.data.key)
        if kept is None or (validated is not None and seen is None):
            cut, kept, seen = None, None, None
        source = self._source(data, shown, suppression, kept)
        if validated is None:
            return cut, source, None
        checked = self._source(validated.data, Augment(), None, seen)
        return (
            cut,
            source,
            Validation(checked, validated.data.label_NK, validated.measure, validated.every),
        )

    def _cut(self) -> Cut | None:
        """Return where the frozen part ends, if what it gives can be kept."""
        config, suppression = self.config, self.suppression
        varied = config.shown.num_views is None or config.masked_pooling != "none"
        if config.freeze == "none" or varied or self.place.world.size > 1:
            return None
        layer = None if suppression is None or suppression.is_input else suppression.layer
        is_padded = self.preprocess.fit == "letterbox" and not config.count_padding
        return find_cut(
            self.start.network,
            self.preprocess.size_px,
            still=self.still,
            before=layer,
            pooled=config.pool == "gap" and not is_padded and suppression is None,
        )

    def _keeper(self, cut: Cut) -> FeatureKeeper:
        place = self.place
        return FeatureKeeper(
            self.start.network,
            cut,
            place.cache or place.folder,
            place.device,
            self.config.precision,
            place.workers,
            self.config.batch_size,
            self.watcher.features,
        )

    def _examples(self, data: Labelled, shown: Augment) -> Examples:
        boxes = None if self.config.masked_pooling == "none" else data.boxes
        return Examples(
            data.load_picture, data.places, self.preprocess, shown, self.config.seed, boxes
        )

    def _source(
        self,
        data: Labelled,
        shown: Augment,
        suppression: Suppression | None,
        kept: KeptFeatures | None,
    ) -> Source:
        place, size_px = self.place, self.preprocess.size_px
        if kept is not None:
            return KeptSource(place.device, kept, (size_px, size_px))
        label_NK = torch.tensor(data.label_NK).to(place.device)
        examples = self._examples(data, shown)
        return PictureSource(examples, label_NK, suppression, place.device, place.workers)
