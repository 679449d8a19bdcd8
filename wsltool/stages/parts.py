"""What ``view CLUSTERS`` shows: clusters as object parts.

Kolesnikov and Lampert 2016, figure 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsltool.errors import BadImageError
from wsltool.localize.cluster_heat import best_cluster, cluster_heat
from wsltool.localize.grid import resample
from wsltool.stages.label_samples import check_patterns, sample_heat
from wsltool.stages.map_rows import row_named
from wsltool.stages.pictures_behind import PicturesBehind
from wsltool.stages.report import Reporter
from wsltool.stages.view_page import Page, provenance_of
from wsltool.stores.labels import annotation_order, cluster_labels, clusters_of_class, read_labels
from wsltool.stores.store import Store
from wsltool.views.comparison import CaseRow, Section, write_comparison
from wsltool.views.gallery import Case
from wsltool.views.label_strips import SampleHeat

__all__ = ["Example", "Parts", "Shown", "strongest", "write_parts"]

Array = np.ndarray[Any, Any]

_WINDOW_BYTES = 16 << 20
_MOST_ROWS = 1024
_MOST_LISTED = 12
_DECIMALS = 9  # of a heat in [0, 1]: beyond is rounding
_LABEL_CSS = {"object": "hit", "distractor": "miss"}


@dataclass
class Shown:
    """What is told of a cluster: its best images, and how many patterns of its class it wins.

    Attributes
    ----------
    examples : list of Example
        Strongest first.
    num_won : int
        Patterns of the class that look more like this cluster than like any other (eq. 1):
        what its label decides. It need not be the number that k-means put into it.
    """

    examples: list[Example]
    num_won: int = 0


@dataclass(frozen=True, order=True)
class Example:
    """An image that shows a cluster: ordered by falling heat, then by row.

    Attributes
    ----------
    coldness : float
        The heat (eq. 1) of its hottest cell that the cluster wins, negated.
    row : int
        The image, a row of the features store.
    """

    coldness: float
    row: int


def strongest(
    features: Store,
    centroid_of: dict[int, Array],
    samples: int,
    report: Reporter,
) -> dict[tuple[int, int], Shown]:
    """Find the images in which each cluster of some classes is strongest.

    Only cells whose pattern belongs to the class count, and only those that look more like this
    cluster than like any other of the class.

    Parameters
    ----------
    features : Store
        A ``features`` store with ``pattern_cell`` and ``pattern_class``.
    centroid_of : dict
        The mean patterns of the clusters of each class, (Q, C), by the class's number.
    samples : int
        At most so many images a cluster.
    report : Reporter
        Who hears of progress.

    Returns
    -------
    dict
        Class and number of the cluster in it to its images and what it wins.

    Raises
    ------
    StoreCorruptError
        A feature is not finite, or the store does not say which class fired where.
    """
    check_patterns(features)
    found = {
        (k, q): Shown([]) for k, centroid_QC in centroid_of.items() for q in range(len(centroid_QC))
    }
    step = max(1, min(_MOST_ROWS, _WINDOW_BYTES // features.row_bytes))
    with report.progress("view", len(features), "images") as advance:
        for start in range(0, len(features), step):
            stop = min(start + step, len(features))
            for key, example, num_won in _examples(features, start, stop, centroid_of):
                shown = found[key]
                shown.examples = sorted([*shown.examples, example])[:samples]
                shown.num_won += num_won
            advance(stop - start)
    return found


def _examples(
    features: Store, start: int, stop: int, centroid_of: dict[int, Array]
) -> Iterator[tuple[tuple[int, int], Example, int]]:
    """Yield for every image and class the clusters that win cells there, and how many."""
    patterns = features.patterns(np.arange(start, stop))
    class_P, cell_P = patterns["pattern_class"], patterns["pattern_cell"]
    if not np.isin(class_P, list(centroid_of)).any():
        return
    edge, where = features.ragged("cell", start, stop)
    feature_PC = features.rows("feature", where.start, where.stop)
    row_P = np.searchsorted(edge, cell_P, side="right") - 1
    for n in range(stop - start):
        for k in np.unique(class_P[row_P == n]).tolist():
            if k not in centroid_of:
                continue
            own = cell_P[(row_P == n) & (class_P == k)]
            with row_named(features, start + n):
                heat_PQ = cluster_heat(feature_PC[own], centroid_of[k])
            best_P = best_cluster(heat_PQ)
            for q in np.unique(best_P).tolist():
                won_W = heat_PQ[best_P == q, q]
                yield (k, q), Example(-float(won_W.max()), start + n), len(won_W)


@dataclass
class Parts:
    """Draws the clusters of some classes.

    Attributes
    ----------
    clusters, features : Store
    picture : PicturesBehind
        Loads the picture of a row of `features`.
    words : list of str or None
        The label of every cluster of the store, None of one that nobody judged.
    annotator : str
        Who labelled; empty without labels.
    num_left_out : int
        Cases whose picture could not be read, so far.
    """

    clusters: Store
    features: Store
    picture: PicturesBehind
    words: list[str | None]
    annotator: str = ""
    num_left_out: int = 0

    @classmethod
    def of(
        cls, clusters: Store, features: Store, images: Path | None, labels: Path | None
    ) -> Parts:
        """Return what draws clusters, with their labels where there are some.

        Raises
        ------
        LineageError
            The pictures are not where they were, or the labels are about other clusters.
        DatasetError, StoreMissingError
            The labels cannot be read.
        """
        words: list[str | None] = [None] * clusters.shape("cluster_class")[0]
        annotator = ""
        if labels is not None:
            read = read_labels(labels)
            words, annotator = cluster_labels(read, clusters), read.annotator
        return cls(clusters, features, PicturesBehind(features, images), words, annotator)

    def cases(
        self,
        shown: Sequence[tuple[int, int, int, Example]],
        centroid_of: dict[int, Array],
        report: Reporter,
    ) -> Iterator[tuple[int, Case]]:
        """Yield the case of each (class, cluster of it, row of the cluster, example)."""
        names = self.clusters.class_names()
        with report.progress("view", len(shown), "pictures") as advance:
            for number, (k, q, cluster, example) in enumerate(shown):
                advance(1)
                image_id = str(self.features.rows("image_id", example.row, example.row + 1)[0])
                try:
                    picture = self.picture(example.row)
                except BadImageError as error:
                    name = self.features.path.name
                    report.warn(f'{name} row {example.row} "{image_id}": {error} Left out.')
                    self.num_left_out += 1
                    continue
                with row_named(self.features, example.row):
                    sample = sample_heat(self.features, example.row, centroid_of[k])
                    heat_HW, region_HW = _at_pixels(sample, q)
                word = self.words[cluster]
                yield (
                    number,
                    Case(
                        image_id=image_id,
                        class_name=names[k],
                        picture_HWC=picture,
                        heat_HW=heat_HW,
                        region_HW=region_HW,
                        verdict=(
                            _LABEL_CSS.get(word or "", "none"),
                            f"heat {-example.coldness:.2f}",
                        ),
                        note=word or "",
                    ),
                )


def _at_pixels(sample: SampleHeat, cluster: int) -> tuple[Array, Array]:
    """Return the heat of a cluster at every pixel, and where it is the highest of all clusters.

    float64 and bool of (height, width); NaN, and False, at pixels whose cell is not stored.
    """
    known_HW = np.isfinite(sample.heat_QHW[0])
    extent, size = sample.extent_xyxy, sample.size_wh
    heats = [
        resample(np.where(known_HW, heat_HW, 0.0), extent, size, ~known_HW)
        for heat_HW in sample.heat_QHW
    ]
    seen_HW = resample(np.where(known_HW, 1.0, -1.0), extent, size, ~known_HW) > 0
    best_HW = np.round(heats, _DECIMALS).argmax(axis=0) == cluster  # the first among equals
    heat_HW = np.where(seen_HW, heats[cluster], np.nan)
    return heat_HW, best_HW & seen_HW


def write_parts(about: Page, parts: Parts) -> Path:
    """Write the gallery of clusters, classes in the order of annotation."""
    clusters = parts.clusters
    order = annotation_order(clusters)
    classes = order[: about.num].tolist()
    rows_of, centroid_QC = clusters_of_class(clusters), clusters.whole("centroid")
    centroid_of = {k: centroid_QC[rows_of[k]] for k in classes}
    found = strongest(parts.features, centroid_of, about.samples, about.report)
    shown = [
        (k, q, int(cluster), example)
        for k in classes
        for q, cluster in enumerate(rows_of[k])
        for example in found[k, q].examples
    ]
    return write_comparison(
        about.folder,
        parts.cases(shown, centroid_of, about.report),
        title=f"{clusters.path.stem}: the parts that its clusters are",
        facts=_facts(parts, len(classes), len(order)),
        sections=_sections(parts, classes, shown, found),
        marks=[("contour", "most like this cluster")],
        map_name="like the cluster",
        provenance=provenance_of([clusters], about.folder),
        overwrite=about.overwrite,
        identity=about.identity_of(parts),
    )


def _facts(parts: Parts, num_shown: int, num_classes: int) -> list[tuple[str, str]]:
    clusters = parts.clusters
    facts = [
        ("classes", f"{num_shown} of {num_classes} with clusters"),
        ("clusters", str(clusters.shape("cluster_class")[0])),
        ("patterns", f"{int(clusters.whole('num_patterns').sum()):,}"),
        ("layer", str(clusters.attributes.get("layer", "?"))),
    ]
    if parts.annotator:
        num = {word: parts.words.count(word) for word in ("object", "distractor", "unsure")}
        told = ", ".join(f"{count} {word}" for word, count in num.items() if count)
        facts.append(("labelled by", f"{parts.annotator}: {told or 'nothing'}"))
    return facts


def _sections(
    parts: Parts,
    classes: Sequence[int],
    shown: Sequence[tuple[int, int, int, Example]],
    found: Mapping[tuple[int, int], Shown],
) -> list[Section]:
    """Return a section for each class with a row for each of its clusters."""
    clusters = parts.clusters
    names, size_Q = clusters.class_names(), clusters.whole("cluster_size")
    rows_of, eigenvalue_KM = clusters_of_class(clusters), clusters.whole("eigenvalue")
    num_K = clusters.whole("num_patterns")
    numbers: dict[int, list[int]] = {}
    for number, (_, _, cluster, _) in enumerate(shown):
        numbers.setdefault(cluster, []).append(number)
    sections = []
    for place, k in enumerate(classes, 1):
        total = max(1, int(size_Q[rows_of[k]].sum()))
        won_Q = [found[k, q].num_won for q in range(len(rows_of[k]))]
        rows = [
            CaseRow(
                f"Cluster {q}" + (f": {parts.words[row]}" if parts.words[row] else ""),
                f"{size_Q[row]:,} patterns, {100 * size_Q[row] / total:.0f} %; "
                f"wins {100 * won_Q[q - 1] / max(1, sum(won_Q)):.0f} %",
                numbers.get(row, []),
                stays=True,
            )
            for q, row in enumerate(rows_of[k].tolist(), 1)
        ]
        values = "  ".join("–" if np.isnan(one) else f"{one:.2f}" for one in eigenvalue_KM[k])
        lead = f"Number {place} in the queue. {int(num_K[k]):,} patterns; eigenvalues {values}."
        listed = len(classes) <= _MOST_LISTED
        sections.append(Section(f"class-{place}", names[k], lead, rows, listed))
    return sections
