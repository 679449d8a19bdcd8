"""What the label page shows of stores: the queue of classes, and their pictures when asked for."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from wsltool.errors import BadImageError, ProtocolError
from wsltool.stages.label_samples import features_behind, sample_heat, sampled_rows
from wsltool.stages.options import PathLike
from wsltool.stages.pictures_behind import PicturesBehind
from wsltool.stages.report import Reporter
from wsltool.stores.labels import annotation_order, clusters_of_class
from wsltool.stores.lineage import fingerprint_store
from wsltool.stores.store import Store
from wsltool.views.label_queue import QueueClass, QueuePicture, picture_names
from wsltool.views.label_strips import SampleHeat, heat_strips, photo_strip, shown_size

__all__ = ["LabelBoard"]

Array = np.ndarray[Any, Any]

_HELD_CLASSES = 8


class LabelBoard:
    """The queue of classes and their pictures, made when they are asked for.

    Parameters
    ----------
    clusters, features : Store
        What is judged, and where its images and their features are.
    load : callable
        Loads the picture of a row of `features`.
    samples, seed : int
        Images a class, and the seed that draws them.
    report : Reporter
        Who hears of bad pictures.
    """

    def __init__(
        self,
        clusters: Store,
        features: Store,
        load: Callable[[int], Array],
        samples: int,
        seed: int,
        report: Reporter,
    ) -> None:
        self.clusters, self._features, self._load, self.report = clusters, features, load, report
        self._rows_of = sampled_rows(features, samples, seed)
        self._clusters_of = clusters_of_class(clusters)
        self._order = annotation_order(clusters).tolist()
        self.queue = self._make_queue()
        self.num_bad = 0
        self._held: OrderedDict[int, dict[str, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        prints = [fingerprint_store(one, one.path.parent) for one in (clusters, features)]
        known = [one.get("id") or one.get("digest") for one in prints]
        self.identity = hashlib.sha256(
            json.dumps([*known, "label", samples, seed]).encode()
        ).hexdigest()

    @classmethod
    def open(
        cls,
        stack: ExitStack,
        clusters: Store,
        features: PathLike | None,
        images: PathLike | None,
        samples: int,
        seed: int,
        report: Reporter,
    ) -> LabelBoard:
        """Open what a board reads; `stack` closes it.

        Parameters
        ----------
        stack : ExitStack
        clusters : Store
        features : path, optional
            The ``features`` store, by default the one that the clusters record.
        images : path, optional
            Folder of the pictures, by default where `ingest` found them.
        samples, seed : int
        report : Reporter

        Raises
        ------
        LineageError
            The features or the pictures are not where they were.
        ProtocolError
            The features have other classes or another number of channels.
        StoreCorruptError
            The features do not say which class fired where.
        """
        store = stack.enter_context(features_behind(clusters, features, "label"))
        _check_fit(clusters, store)
        load = PicturesBehind(store, None if images is None else Path(images))
        return cls(clusters, store, load, samples, seed, report)

    def _make_queue(self) -> list[QueueClass]:
        names = self.clusters.class_names()
        id_N, size_N2 = (self._features.whole(name) for name in ("image_id", "image_size"))
        size_Q = self.clusters.whole("cluster_size")
        eigenvalue = self.clusters.whole("eigenvalue")
        made = []
        for index in self._order:
            second = float(eigenvalue[index, 1]) if eigenvalue.shape[1] > 1 else math.nan
            sizes = size_Q[self._clusters_of[index]].tolist()
            made.append(
                QueueClass(
                    class_index=index,
                    class_name=names[index],
                    eigenvalue=second if math.isfinite(second) else None,
                    cluster_size=tuple(int(size) for size in sizes),
                    pictures=tuple(
                        QueuePicture(str(id_N[row]), shown_size(_at_least_one(size_N2[row])))
                        for row in self._rows_of.get(index, [])
                    ),
                )
            )
        return made

    def _size(self, row: int) -> tuple[int, int]:
        return _at_least_one(self._features.rows("image_size", row, row + 1)[0])

    def strips(self, place: int) -> dict[str, bytes]:
        """Return the pictures of the class at `place`, by name; some classes are held."""
        with self._lock:
            if place not in self._held:
                self._held[place] = self._draw(place)
            self._held.move_to_end(place)
            while len(self._held) > _HELD_CLASSES:
                self._held.popitem(last=False)
            return self._held[place]

    def _draw(self, place: int) -> dict[str, bytes]:
        index = self._order[place]
        cluster_Q = self._clusters_of[index]
        first, last = int(cluster_Q[0]), int(cluster_Q[-1])
        centroid_QC = self.clusters.rows("centroid", first, last + 1)[cluster_Q - first]
        rows = self._rows_of.get(index, [])
        photos = photo_strip(
            [lambda row=row: self._photo(row) for row in rows],  # type: ignore[misc]
            [self._size(row) for row in rows],
        )
        heats = heat_strips([self._heat(row, centroid_QC) for row in rows], len(cluster_Q))
        return dict(zip(picture_names(place, len(cluster_Q)), [photos, *heats], strict=True))

    def _photo(self, row: int) -> Array | None:
        try:
            return self._load(row)
        except BadImageError as error:
            self._tell_bad(row, error)
            return None

    def _heat(self, row: int, centroid_QC: Array) -> SampleHeat | None:
        try:
            return sample_heat(self._features, row, centroid_QC)
        except BadImageError as error:
            self._tell_bad(row, error)
            return None

    def _tell_bad(self, row: int, error: BadImageError) -> None:
        self.num_bad += 1
        name = str(self._features.rows("image_id", row, row + 1)[0])
        self.report.warn(f'{self._features.path.name} row {row} "{name}": {error}')


def _at_least_one(size_2: Array) -> tuple[int, int]:
    width_px, height_px = size_2.tolist()
    return max(1, width_px), max(1, height_px)


def _check_fit(clusters: Store, features: Store) -> None:
    """Refuse features of other classes or another layer."""
    channels = [
        store.shape(name)[1] for store, name in ((clusters, "centroid"), (features, "feature"))
    ]
    if channels[0] != channels[1]:
        raise ProtocolError(
            f"{features.path.name}: features have {channels[1]} channels, the clusters of "
            f"{clusters.path.name} {channels[0]}; expected those that were clustered. Say where "
            "with --features."
        )
    if clusters.class_names() != features.class_names():
        raise ProtocolError(
            f"{features.path.name}: its classes are not those of {clusters.path.name}; expected "
            "the features that were clustered. Say where with --features."
        )
