"""The pointing game (Zhang et al. 2016) as TorchRay plays it (Fong et al. 2019).

One point for each image and class present: the hottest pixel of the class's map, or the pixel
that holds the centre of its best box. It is a hit if a pixel of the class's region lies less than
`tolerance` pixels away, between centres of pixels and exclusive: ``du**2 + dv**2 < 15**2``. The
region is the union of all boxes of the class, in whole pixels and within the image, or of all
their masks; difficult instances and crowds are part of it.

A pair of an image and a class whose instances are all difficult is skipped, as is one for which
nobody drew a region. One that has only crowds is played, as in TorchRay, if it has a point. A
pair without a point is a miss, as is one whose region holds no pixel. Excluded images are left
out.

The accuracy of a class is hits / (hits + misses), 0 for a class that was never played; the value
is the mean over all classes, in per cent. The mean over those that were played stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError
from wsltool.metrics.baselines import centre_peaks
from wsltool.metrics.matching import join, key_of, truth_keys
from wsltool.metrics.records import Peaks, Truth, check_peaks
from wsltool.metrics.result import Result, class_mean, class_rows, percent, told
from wsltool.metrics.tally import Tally

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["GamePoints", "MaskGaps", "centre_points", "count", "result", "squared_gap"]

_MISS, _HIT, _DIFFICULT, _UNDRAWN, _CROWD = range(5)
# Most points that miss a mask lie close to it: look there before looking everywhere.
_NEAR_PX = 32

Floats = npt.NDArray[np.floating[Any]]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskGaps:
    """How far the points of N images are from the masks of their classes.

    Attributes
    ----------
    drawn_N : array of bool
        Whether somebody drew masks in the image.
    gap_NS : array of float64
        The squared distance from the pixel of each point to the nearest pixel of the mask of
        its class, inf if that holds none; anything for a class that is absent.
    centre_gap_NS : array of float64
        The same from the pixel that holds the centre of the image.
    """

    drawn_N: Flags
    gap_NS: Floats
    centre_gap_NS: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GamePoints:
    """Points in N images.

    Attributes
    ----------
    peaks : Peaks
        Of equal classes of an image the first one counts.
    masks : MaskGaps or None
        None: the regions are the true boxes.
    """

    peaks: Peaks
    masks: MaskGaps | None = None

    def __len__(self) -> int:
        return len(self.peaks)

    def take(self, image: npt.NDArray[np.integer[Any]]) -> Self:
        """Return the given images (indices, in any order) as a record of their own."""
        masks = self.masks
        if masks is not None:
            masks = MaskGaps(
                drawn_N=masks.drawn_N[image],
                gap_NS=masks.gap_NS[image],
                centre_gap_NS=masks.centre_gap_NS[image],
            )
        return type(self)(peaks=self.peaks.take(image), masks=masks)


def centre_points(points: GamePoints, size_wh_N2: npt.NDArray[Any]) -> GamePoints:
    """Return the same classes, every point in the middle of its image."""
    masks = points.masks
    if masks is not None:
        masks = replace(masks, gap_NS=masks.centre_gap_NS)
    return GamePoints(peaks=centre_peaks(points.peaks, size_wh_N2), masks=masks)


def squared_gap(mask_HW: npt.NDArray[Any], column: int, row: int) -> float:
    """Return the squared distance of a pixel to the nearest one of a mask, inf without any.

    Parameters
    ----------
    mask_HW : array of bool or integers
        0: not in the mask.
    column, row : int
        Of the pixel; it may lie outside the image.
    """
    everywhere = sum(mask_HW.shape) + abs(column) + abs(row)
    for near in (0, _NEAR_PX, everywhere):
        top, left = max(0, row - near), max(0, column - near)
        part_HW = mask_HW[top : max(0, row + near + 1), left : max(0, column + near + 1)]
        row_P, column_P = np.nonzero(part_HW)
        gap = ((row_P + top - row) ** 2 + (column_P + left - column) ** 2).min(initial=2**62)
        # In the corners of a window are pixels further away than some outside of it.
        if gap <= near**2:
            return float(gap)
    return float("inf")


def count(protocol: ScoreProtocol, predicted: GamePoints, truth: Truth) -> Tally:
    """Return the counts of a block of images.

    The table ``pair`` has one entry for each image and class that is present or undecided.

    Raises
    ------
    ProtocolError
        The records are not sound, or masks are asked for and there are none.
    """
    peaks = predicted.peaks
    masks = None if protocol.regions == "boxes" else predicted.masks
    check_peaks(peaks, truth)
    if protocol.regions == "masks" and masks is None:
        raise ProtocolError(
            "--regions masks: the truth has no masks; expected files or those of boxes. Pass "
            "--regions boxes."
        )
    counted_N = np.asarray(truth.excluded_N) == 0
    boxed_NK, played_NK = _instances(truth)
    undecided_NK = (truth.label_NK == 255) & boxed_NK
    image_Q, class_Q = np.nonzero(((truth.label_NK == 1) | undecided_NK) & counted_N[:, None])
    slot_Q, pointed_Q = _slots(peaks, image_Q, class_Q)
    if masks is None:
        point_Q2 = np.zeros((len(image_Q), 2))
        point_Q2[pointed_Q] = peaks.peak_xy_NS2[image_Q[pointed_Q], slot_Q[pointed_Q]]
        gap_Q = _box_gap(np.floor(point_Q2), image_Q, class_Q, truth)
        drawn_Q = boxed_NK[image_Q, class_Q]
    else:
        gap_Q = np.full(len(image_Q), np.inf)
        gap_Q[pointed_Q] = masks.gap_NS[image_Q[pointed_Q], slot_Q[pointed_Q]]
        drawn_Q = masks.drawn_N[image_Q]
    only_NK = undecided_NK & played_NK
    outcome_Q = np.where(pointed_Q & (gap_Q < protocol.tolerance**2), _HIT, _MISS)
    outcome_Q[~pointed_Q & only_NK[image_Q, class_Q]] = _CROWD
    outcome_Q[~drawn_Q] = _UNDRAWN
    outcome_Q[(undecided_NK & ~played_NK)[image_Q, class_Q]] = _DIFFICULT
    row_N = np.asarray(truth.row_N, np.int64)
    pair: dict[str, npt.NDArray[Any]] = {
        "row": row_N[image_Q],
        "class": class_Q.astype(np.int32),
        "outcome": outcome_Q.astype(np.int8),
        "pointed": pointed_Q,
        "empty": pointed_Q & np.isinf(gap_Q),
        "on_mask": np.full(len(image_Q), masks is not None),
    }
    return Tally(truth.num_classes, {"image": {"row": row_N, "excluded": ~counted_N}, "pair": pair})


def result(protocol: ScoreProtocol, tally: Tally) -> Result:
    """Return the mean accuracy over all classes in per cent, and each class's own."""
    outcome_Q = tally.column("pair", "outcome")
    num_OK = np.stack([tally.num_by("pair", where=outcome_Q == one) for one in range(5)])
    num_K = num_OK[_HIT] + num_OK[_MISS]
    value_K = percent(num_OK[_HIT], num_K)
    played_mean, _ = class_mean(value_K, protocol.chosen)
    used_K = value_K[protocol.chosen]
    played_K = ~np.isnan(used_K)
    value = float(np.where(played_K, used_K, 0.0).mean()) if played_K.any() else float("nan")
    num = _numbers(protocol, tally, num_OK)
    extra: dict[str, float | int] = {
        "mean_over_played": played_mean,
        "num_classes_played": int(played_K.sum()),
        "num_classes_never_played": int((~played_K).sum()),
        **num,
        "num_excluded": tally.num("image", tally.column("image", "excluded")),
    }
    return Result.of(
        protocol,
        value,
        per_class=class_rows(value_K, {"num_hits": num_OK[_HIT], "num_misses": num_OK[_MISS]}),
        extra=extra,
        warnings=told((int(extra[name]), what) for name, what in _SAID.items()),
    )


_SAID = {
    "num_classes_never_played": "classes are never played and count as 0, as in TorchRay; "
    "mean_over_played leaves them out.",
    "num_without_point": "pairs have no map (or box) and count as missed.",
    "num_without_region_px": "pairs have a region without any pixel and count as missed.",
    "num_undrawn": "pairs have no region in the truth and are left out.",
    "num_crowd_without_point": "pairs of only crowds have no map (or box) and are left out; "
    "TorchRay plays them.",
}


def _numbers(
    protocol: ScoreProtocol, tally: Tally, num_OK: npt.NDArray[np.int64]
) -> dict[str, int]:
    """Return how many pairs of the chosen classes there are of each sort."""
    chosen_K = np.zeros(tally.num_classes, bool)
    chosen_K[protocol.chosen] = True
    num_O = num_OK[:, chosen_K].sum(axis=1)
    outcome_Q, pointed_Q, empty_Q, on_mask_Q = (
        tally.column("pair", name) for name in ("outcome", "pointed", "empty", "on_mask")
    )
    played_Q = (outcome_Q <= _HIT) & chosen_K[tally.column("pair", "class")]
    return {
        "num_pairs": int(num_O[_HIT] + num_O[_MISS]),
        "num_pairs_on_masks": tally.num("pair", played_Q & on_mask_Q),
        "num_hits": int(num_O[_HIT]),
        "num_without_point": tally.num("pair", played_Q & ~pointed_Q),
        "num_without_region_px": tally.num("pair", played_Q & empty_Q),
        "num_difficult": int(num_O[_DIFFICULT]),
        "num_undrawn": int(num_O[_UNDRAWN]),
        "num_crowd_without_point": int(num_O[_CROWD]),
    }


def _instances(truth: Truth) -> tuple[Flags, Flags]:
    """Return which classes have a box in which images, and which one that is played, (N, K).

    A crowd is played, though it is marked as difficult.
    """
    hard_B = np.asarray(truth.box_difficult_B, bool)
    if truth.box_crowd_B is not None:
        hard_B = hard_B & ~np.asarray(truth.box_crowd_B, bool)
    key_B = truth_keys(truth)
    found = []
    for marked_B in (np.ones(len(key_B), bool), ~hard_B):
        there_M = np.zeros(truth.label_NK.size, bool)
        there_M[key_B[marked_B]] = True
        found.append(there_M.reshape(truth.label_NK.shape))
    return found[0], found[1]


def _slots(peaks: Peaks, image_Q: Indices, class_Q: Indices) -> tuple[Indices, Flags]:
    """Return the first slot of each class in an image, and whether there is one."""
    if not peaks.map_class_NS.shape[1]:
        return np.zeros(len(image_Q), np.intp), np.zeros(len(image_Q), bool)
    same_QS = peaks.map_class_NS[image_Q] == class_Q[:, None]
    return same_QS.argmax(axis=1), same_QS.any(axis=1)


def _box_gap(
    pixel_Q2: npt.NDArray[np.float64], image_Q: Indices, class_Q: Indices, truth: Truth
) -> npt.NDArray[np.float64]:
    """Return the squared distance of each pixel to the nearest one of the boxes of its class.

    A box holds the pixels that it touches, within the image; inf where there is none.
    """
    query_P, true_P = join(key_of(image_Q, class_Q, truth.num_classes), truth_keys(truth))
    box_P4 = truth.box_xyxy_B4[true_P]
    last_P2 = np.asarray(truth.size_wh_N2, np.float64)[image_Q[query_P]] - 1
    low_P2 = np.maximum(np.floor(box_P4[:, :2]), 0)
    high_P2 = np.minimum(np.ceil(box_P4[:, 2:]) - 1, last_P2)
    held_P2 = (low_P2 <= high_P2) & (box_P4[:, :2] < box_P4[:, 2:])
    pixel_P2 = pixel_Q2[query_P]
    off_P2 = np.maximum(np.maximum(low_P2 - pixel_P2, pixel_P2 - high_P2), 0)
    gap_P = np.where(held_P2.all(axis=1), (off_P2**2).sum(axis=1), np.inf)
    gap_Q = np.full(len(image_Q), np.inf)
    np.minimum.at(gap_Q, query_P, gap_P)
    return gap_Q
