"""Stage ``cluster``: the patterns of each class become clusters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from wsltool.errors import StoreError, UsageError
from wsltool.localize.spectral import SpectralClusters, find_unusable, spectral_clusters
from wsltool.stages.class_patterns import ClassPatterns
from wsltool.stages.options import (
    PathLike,
    RunOptions,
    Settings,
    check_choice,
    check_range,
    check_seed,
)
from wsltool.stages.plan import Job, output_for
from wsltool.stages.run import Block, Rows, Tick, inherited, open_input, run
from wsltool.stores.lineage import fingerprint_store
from wsltool.stores.schema import string_array
from wsltool.stores.store import Store
from wsltool.stores.wip import WorkInProgress

__all__ = ["cluster"]

Array = np.ndarray[Any, Any]
Centroid = Literal["mean", "unit"]

_REVISION = 1
_MOST_CLUSTERS = 64
_BEHIND = ("images", "maps", "model")
_NAMES_TOLD = 5


def cluster(
    input: PathLike,
    *,
    eigenvalue_threshold: float = 0.7,
    min_clusters: int = 2,
    max_clusters: int = 4,
    centroid: Centroid = "mean",
    seed: int = 0,
    **options: Unpack[RunOptions],
) -> Path:
    """Cluster the patterns of each class (Kolesnikov and Lampert 2016, Algorithm 1).

    A class has as many clusters as eigenvalues of its graph Laplacian lie below the threshold,
    within the bounds (`wsltool.localize.spectral`). A class with fewer patterns than
    `min_clusters` has none, and ``class_note`` says so.

    Parameters
    ----------
    input : path
        A ``features`` store that was made from maps, of nonnegative features.
    eigenvalue_threshold : float
        Eigenvalues strictly below it ask for a cluster, in [0, 1].
    min_clusters, max_clusters : int
        Bounds of the number of clusters, 1 <= min <= max <= 64. `max_clusters` eigenvalues are
        kept.
    centroid : {"mean", "unit"}
        Plain means of the normalised patterns, as in the paper (a tight cluster scores higher),
        or these brought to unit length.
    seed : int
        Of the starts of k-means.
    **options
        See `wsltool.stages.options.RunOptions`; every class is clustered and no image is read,
        so neither ``limit`` nor ``on_bad`` is taken.

    Returns
    -------
    Path
        The ``clusters`` store.

    Raises
    ------
    UsageError
        An option is out of its range.
    StoreError
        The features know of no patterns, or one is negative or not finite.
    """
    settings = Settings.of(options)
    _check_not_given(options)
    params = {
        "eigenvalue_threshold": eigenvalue_threshold,
        "min_clusters": min_clusters,
        "max_clusters": max_clusters,
        "centroid": centroid,
        "seed": seed,
    }
    _check_options(params)
    with open_input(input, "features", "cluster") as features:
        maker = _ClusterMaker(features, ClassPatterns(features), params, settings)
        return run(maker.job(), maker.compute, settings)


def _check_not_given(options: RunOptions) -> None:
    for name, cure in (
        ("limit", "Pass it to the stages before (wsltool cam --limit N)."),
        ("on_bad", "Leave it out."),
    ):
        if options.get(name) is not None:
            option = "--" + name.replace("_", "-")
            raise UsageError(
                f"{option}: rows of clusters are classes, and all of them are made. {cure}"
            )


def _check_options(params: dict[str, Any]) -> None:
    threshold = params["eigenvalue_threshold"]
    check_range("--eigenvalue-threshold", threshold, 0, 1, open_high=False)
    for name, low in (("min_clusters", 1), ("max_clusters", params["min_clusters"])):
        option = "--" + name.replace("_", "-")
        check_range(option, params[name], low, _MOST_CLUSTERS, open_high=False, whole=True)
    check_choice("--centroid", params["centroid"], Centroid)
    check_seed(params["seed"])


@dataclass(frozen=True)
class _ClusterMaker:
    """What all blocks of one run share."""

    features: Store
    patterns: ClassPatterns
    params: dict[str, Any]
    settings: Settings

    @property
    def output(self) -> Path:
        """Where the clusters will stand."""
        return self.settings.output or output_for(self.features.path, "cluster")

    def job(self) -> Job:
        """Return the job, whose rows are classes; a block is one of them."""
        source, folder = self.features, self.output.parent
        if not len(self.patterns.count_K):
            raise StoreError(f"{source.path.name}: has no classes. Make the features again.")
        carried = {name: source.attributes.get(name) for name in ("layer", "input_size", "fit")}
        return Job(
            stage="cluster",
            kind="clusters",
            output=self.output,
            params=self.params,
            inputs={"features": fingerprint_store(source, folder)}
            | inherited(source, folder, _BEHIND),
            num_rows=len(self.patterns.count_K),
            block_rows=1,
            revision=_REVISION,
            fixed={"class_name": source.whole("class_name")},
            attributes=carried | {"centroid": self.params["centroid"]},
            late_attributes=self._late_attributes,
        )

    def _late_attributes(self, work: WorkInProgress) -> dict[str, Any]:
        """Return how many classes have no clusters, counted in the parts of all shards."""
        classes = range(len(self.patterns.count_K))
        sizes = (work.part_array(block, "cluster_size") for block in classes)
        return {"num_classes_without": sum(not len(size_Q) for size_Q in sizes)}

    def compute(self, blocks: list[Block], tick: Tick) -> Iterator[Rows]:
        """Yield the clusters of each class; tell of classes that have none."""
        without = []
        for block in blocks:
            found = self._clusters(block.start)
            if found.note:
                without.append(self._name(block.start))
            yield self._rows(block.start, found)
        if without:
            more = "" if len(without) <= _NAMES_TOLD else ", …"
            self.settings.report.warn(
                f"{self.output.name}: no clusters for {len(without)} of {len(blocks)} classes "
                f"({', '.join(without[:_NAMES_TOLD])}{more}): too few patterns."
            )

    def _name(self, class_index: int) -> str:
        return str(self.features.rows("class_name", class_index, class_index + 1)[0])

    def _clusters(self, class_index: int) -> SpectralClusters:
        """Return the clusters of a class; an error says where in the store the pattern is."""
        patterns = self.patterns.of(class_index)
        try:
            return spectral_clusters(
                patterns,
                threshold=self.params["eigenvalue_threshold"],
                least=self.params["min_clusters"],
                most=self.params["max_clusters"],
                seed=self.params["seed"],
                centroid=self.params["centroid"],
            )
        except StoreError:
            num = 0
            for piece_PC in patterns():
                bad = find_unusable(piece_PC)
                if bad is not None:
                    place = self.patterns.place(class_index, num + bad[0])
                    raise StoreError(f"{self.features.path.name} {place}: {bad[1]}") from None
                num += len(piece_PC)
            raise

    def _rows(self, class_index: int, found: SpectralClusters) -> Rows:
        num_clusters = len(found.size_Q)
        num_channels = self.features.shape("feature")[1]
        return {
            "class_note": string_array([found.note]),
            "num_patterns": np.array([found.num_patterns], np.int64),
            "num_zero": np.array([found.num_zero], np.int64),
            "eigenvalue": found.eigenvalue_M[None],
            "centroid": found.centroid_QC.reshape(num_clusters, num_channels),
            "cluster_class": np.full(num_clusters, class_index, np.int32),
            "cluster_size": found.size_Q,
        }
