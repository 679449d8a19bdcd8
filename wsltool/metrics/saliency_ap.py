"""Saliency of present classes against their masks (Kim et al. 2017, §5).

Counted are pairs of an image with a mask and a class that is present in it (label 1) and has a
pixel in the mask. Every pixel of the class's map, upsampled to the image, is a prediction that
the pixel shows the class; its confidence is the map's value over the map's maximum, 0 where that
is negative. Ignored pixels (255: borders and what could not be told) are left out.

"pooled": the pixels of all pairs make one precision-recall curve. "per-pair": each pair makes its
own, and the value is the mean of their average precisions. Curves are summed as VOC does from
2010 on. Pixels are counted in 65536 bins (`wsltool.metrics.pixel_histogram`), so any number of
them takes the same memory; the exact value is at least the value, at most ``exact_at_most``.

With another store beside, the difference of the two pooled average precisions is taken over the
pairs that both have a map of, with an interval (`wsltool.metrics.bootstrap`), from 1024 bins an
image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsltool.metrics.bootstrap import bootstrap_difference
from wsltool.metrics.pixel_histogram import histogram_ap, pixel_histogram
from wsltool.metrics.records import Truth
from wsltool.metrics.result import ClassRow, Extra, Result

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["NUM_BINS", "SaliencyCounts", "SaliencyPair", "SaliencyPairs", "count", "result"]

NUM_BINS = 65536
_NUM_BINS_IMAGE = 1024


@dataclass(frozen=True, slots=True, eq=False)
class SaliencyPair:
    """An image and a class present, with heat and mask at the image's size.

    Attributes
    ----------
    row : int
        Of the image among all that are scored.
    class_index : int
    mask_HW : uint8 array
        1 the class, 0 anything else, 255 left out.
    heat_HW : float array or None
        None where there is no map.
    other_HW : float array or None
        Heat of another store, to be compared with.
    """

    row: int
    class_index: int
    mask_HW: npt.NDArray[np.uint8]
    heat_HW: npt.NDArray[Any] | None
    other_HW: npt.NDArray[Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SaliencyPairs:
    """Pairs of some images; all pairs of an image stand in one record."""

    pairs: tuple[SaliencyPair, ...]


@dataclass(frozen=True, slots=True, eq=False)
class SaliencyCounts:
    """Pixels of some pairs.

    Attributes
    ----------
    count_2B : mapping of int to int64 array, (2, 65536)
        Pixels of each class that has pairs.
    ap : mapping of (row, class) to float
        The average precision of each pair, in per cent.
    image_2B : mapping of int to a pair of int64 arrays, (2, 1024)
        Pixels of each row under both stores; empty without another store.
    num_compared : int
        Pairs in `image_2B`.
    num_without_map, num_without_object : mappings of int to int
        Pairs of each class that have no map (and count, as zeros), or whose class has no
        pixel in the mask (and do not count).
    """

    count_2B: Mapping[int, npt.NDArray[np.int64]]
    ap: Mapping[tuple[int, int], float]
    image_2B: Mapping[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
    num_compared: int
    num_without_map: Mapping[int, int]
    num_without_object: Mapping[int, int]
    num_classes: int

    def __add__(self, other: SaliencyCounts) -> SaliencyCounts:
        return SaliencyCounts(
            _sum(self.count_2B, other.count_2B),
            {**self.ap, **other.ap},
            {**self.image_2B, **other.image_2B},
            self.num_compared + other.num_compared,
            _sum(self.num_without_map, other.num_without_map),
            _sum(self.num_without_object, other.num_without_object),
            self.num_classes,
        )


def _sum(one: Mapping[int, Any], other: Mapping[int, Any]) -> dict[int, Any]:
    return {**one, **{key: one[key] + n if key in one else n for key, n in other.items()}}


def count(protocol: ScoreProtocol, predicted: SaliencyPairs, truth: Truth) -> SaliencyCounts:
    """Return the counts of a block of images.

    Raises
    ------
    ProtocolError
        If heat is not finite or not of its mask's shape.
    """
    total = SaliencyCounts({}, {}, {}, 0, {}, {}, truth.num_classes)
    chosen = protocol.class_index or range(truth.num_classes)
    for pair in predicted.pairs:
        key = pair.class_index
        if not (pair.mask_HW == 1).any():
            total = total + SaliencyCounts({}, {}, {}, 0, {}, {key: 1}, truth.num_classes)
            continue
        count_2B = pixel_histogram(pair.heat_HW, pair.mask_HW, NUM_BINS)
        lacking = {key: 1} if pair.heat_HW is None else {}
        ap = {(pair.row, key): histogram_ap(count_2B)}
        total = total + SaliencyCounts({key: count_2B}, ap, {}, 0, lacking, {}, truth.num_classes)
    compared = [one for one in predicted.pairs if one.class_index in chosen and _in_both(one)]
    images = _by_image(compared)
    return total + SaliencyCounts({}, {}, images, len(compared), {}, {}, truth.num_classes)


def _in_both(pair: SaliencyPair) -> bool:
    has_maps = pair.heat_HW is not None and pair.other_HW is not None
    return has_maps and bool((pair.mask_HW == 1).any())


def _by_image(
    pairs: Sequence[SaliencyPair],
) -> dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Return the pixels of each image under both stores, summed over its pairs."""
    empty = np.zeros((2, _NUM_BINS_IMAGE), np.int64)
    images: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = {}
    for pair in pairs:
        a_2B, b_2B = images.get(pair.row, (empty, empty))
        images[pair.row] = (
            a_2B + pixel_histogram(pair.heat_HW, pair.mask_HW, _NUM_BINS_IMAGE),
            b_2B + pixel_histogram(pair.other_HW, pair.mask_HW, _NUM_BINS_IMAGE),
        )
    return images


def result(protocol: ScoreProtocol, counts: SaliencyCounts) -> Result:
    """Return the average precision in per cent, pooled or the mean over pairs; each class's too."""
    chosen = sorted(protocol.class_index) or list(range(counts.num_classes))
    num_object = sum(counts.num_without_object.get(index, 0) for index in chosen)
    num_map = sum(counts.num_without_map.get(index, 0) for index in chosen)
    num_pairs = len(_pair_aps(counts, chosen))
    pooled = _pooled(counts, chosen)
    extra: dict[str, Extra] = {}
    if protocol.pairs == "pooled":
        extra["exact_at_most"] = histogram_ap(pooled, optimistic=True)
    extra |= {
        "num_classes": sum(index in counts.count_2B for index in chosen),
        "num_pairs": num_pairs,
        "num_object_px": int(pooled[0].sum()),
        "num_other_px": int(pooled[1].sum()),
        "num_pairs_without_map": num_map,
        "num_pairs_without_object_px": num_object,
    }
    num_lacking = num_pairs - counts.num_compared if protocol.other else 0
    cases = (
        (num_map, "pairs have no map and count as zeros."),
        (num_lacking, "pairs have no map in one of the stores and are not compared."),
        (num_object, "pairs have no pixel of the class in the mask and are left out."),
    )
    return Result(
        protocol=protocol.name,
        value=_value(protocol, counts, chosen),
        unit=protocol.unit,
        higher_is_better=protocol.higher_is_better,
        parameters=protocol.parameters,
        per_class=tuple(_class_row(protocol, counts, k) for k in range(counts.num_classes)),
        extra=extra | (_compared(counts) if protocol.other else {}),
        warnings=tuple(f"{number} {what}" for number, what in cases if number),
    )


def _value(protocol: ScoreProtocol, counts: SaliencyCounts, chosen: list[int]) -> float:
    if protocol.pairs == "pooled":
        return histogram_ap(_pooled(counts, chosen))
    aps = _pair_aps(counts, chosen)
    return math.fsum(aps) / len(aps) if aps else float("nan")


def _pooled(counts: SaliencyCounts, chosen: list[int]) -> npt.NDArray[np.int64]:
    pooled = np.zeros((2, NUM_BINS), np.int64)
    for index in chosen:
        if index in counts.count_2B:
            pooled += counts.count_2B[index]
    return pooled


def _pair_aps(counts: SaliencyCounts, chosen: list[int]) -> list[float]:
    return [ap for (_, index), ap in counts.ap.items() if index in chosen]


def _class_row(protocol: ScoreProtocol, counts: SaliencyCounts, index: int) -> ClassRow:
    pooled = _pooled(counts, [index])
    numbers = {
        "num_pairs": len(_pair_aps(counts, [index])),
        "num_object_px": int(pooled[0].sum()),
        "num_other_px": int(pooled[1].sum()),
    }
    return ClassRow(index, _value(protocol, counts, [index]), numbers)


def _compared(counts: SaliencyCounts) -> dict[str, Extra]:
    """Return the difference to the other store with its interval; NaN without a pair."""
    rows = sorted(counts.image_2B)
    difference = low = high = float("nan")
    if rows:
        stacked = [np.stack([counts.image_2B[row][one] for row in rows]) for one in (0, 1)]
        found = bootstrap_difference(stacked[0], stacked[1])
        difference, low, high = found.difference, found.low, found.high
    return {
        "pooled_difference_to_other": difference,
        "pooled_difference_95": [low, high],
        "num_images_compared": len(rows),
        "num_pairs_compared": counts.num_compared,
    }
