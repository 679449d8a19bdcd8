"""MaxBoxAcc, V1 to V3: GT-known boxes at the best threshold (wsolevaluation).

Choe et al. 2020, "Evaluating Weakly Supervised Object Localization Methods Right"; the
evaluator's own code (``evaluation.py``, `BoxEvaluator`) is the rule, see
`wsltool.metrics.box_levels` for its boxes. True boxes are scaled to the grid,
``int(coordinate * 224 / size)``, all of them whatever their class. IoU counts inclusive pixels
(``+ 1`` on every side), and one that equals δ is right.

An image is right at a threshold τ and δ if any of its boxes has an IoU ≥ δ with any true box;
``MaxBoxAcc(δ)`` is the largest share of right images over τ in ``arange(0, 1, interval)``, the
threshold chosen on the scored images. V1: the box of the contour of the largest area, δ .5. V2:
the boxes of all contours, mean over δ .3, .5, .7. V3, of a fork, unpublished: boxes are assigned
to true boxes one to one, the largest IoU first, and counted are true boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError
from wsltool.metrics.box_levels import LevelBoxes, contour_boxes, largest_boxes
from wsltool.metrics.grid_heats import GRID_PX, GridHeats, check_grid_heats, flat_maps
from wsltool.metrics.records import Integers, Truth, image_of_box, single_label
from wsltool.metrics.result import ClassRow, Extra, Result, class_rows, percent, told
from wsltool.metrics.tally import Tally

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["count", "result"]

Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]
Whole: TypeAlias = npt.NDArray[np.int32 | np.int64]

_IOUS = (0.3, 0.5, 0.7)
_AT_ONCE = 8
# A map is noisy where in every sixteenth row such a share of pixels is a peak or a valley.
_EVERY_ROW, _NOISY = 16, 0.25
_SUMMED_AT_ONCE = 1024
_CASES = (
    ("num_without_true_box", "images have no true box and count as wrong"),
    ("num_without_map", "images have no map of their class and count as wrong"),
    ("num_flat_maps", "maps are the same everywhere, or NaN, and count as 0 throughout"),
    ("num_off_grid", "maps do not cover their image or are suppressed, and are bilinear"),
)
_CHOSEN = "the threshold was chosen on the scored images, as MaxBoxAcc is defined"


def count(protocol: ScoreProtocol, predicted: GridHeats, truth: Truth) -> Tally:
    """Return the counts of a block of images.

    Raises
    ------
    ProtocolError
        If an image has not exactly one label, heat is not in [0, 1] on the grid, or a true
        box has a negative or not finite coordinate or x1 < x0.
    """
    label_N = single_label(truth, protocol.name)
    check_grid_heats(predicted, truth)
    true_4G = _on_grid(truth)
    has_N = np.asarray(predicted.has_map_N, dtype=bool)
    num_true_N = np.diff(truth.box_start)
    off_N = np.zeros(len(truth), bool) if predicted.off_grid_N is None else predicted.off_grid_N
    image: dict[str, npt.NDArray[Any]] = {
        "row": truth.row_N.astype(np.int64),
        "label": label_N.astype(np.int32),
        "mapped": has_N,
        "flat": has_N & flat_maps(predicted),
        "off_grid": np.asarray(off_N, dtype=bool),
        "num_true": num_true_N.astype(np.min_scalar_type(int(num_true_N.max(initial=0)))),
    }
    num_found_NDT = _found(protocol, predicted.heat_NHW, true_4G, truth.box_start)
    num_found_NDT[~has_N] = 0
    if protocol.name == "maxboxacc-v3":
        image["found"] = num_found_NDT.astype(image["num_true"].dtype)
    else:
        image["found"] = np.packbits(num_found_NDT > 0, axis=2)
    return Tally(truth.num_classes, {"image": image})


def _thresholds(protocol: ScoreProtocol) -> npt.NDArray[np.float64]:
    return np.arange(0, 1, protocol.interval)


def _ious(protocol: ScoreProtocol) -> tuple[float, ...]:
    return (protocol.iou,) if protocol.name == "maxboxacc" else _IOUS


def _on_grid(truth: Truth) -> Whole:
    """Return the true boxes on the grid, truncated to whole pixels, (4, G)."""
    box_G4 = np.asarray(truth.box_xyxy_B4, np.float64)
    bad_G = ~np.isfinite(box_G4).all(axis=1) | (box_G4 < 0).any(axis=1)
    bad_G |= (box_G4[:, 2:] < box_G4[:, :2]).any(axis=1)
    image_G = image_of_box(truth.box_start)
    if bad_G.any():
        first = int(bad_G.argmax())
        raise ProtocolError(
            f"truth row {truth.row_N[image_G[first]]}: a box is {box_G4[first].tolist()}; "
            "expected 0 <= x0 <= x1 and 0 <= y0 <= y1."
        )
    size_G4 = np.tile(truth.size_wh_N2[image_G].astype(np.float64), 2)
    box_4G = (box_G4 * float(GRID_PX) / size_G4).T.astype(np.int64)
    # Areas of boxes below 2**14 fit 32 bits, which are twice as fast.
    return np.ascontiguousarray(box_4G, np.int32 if box_4G.max(initial=0) < 1 << 14 else np.int64)


def _found(
    protocol: ScoreProtocol,
    heat_NHW: npt.NDArray[np.float64],
    true_4G: Whole,
    box_start: Integers,
) -> npt.NDArray[Any]:
    """Return how many true boxes are found at each IoU and threshold (V1, V2: whether any)."""
    threshold_T, ious = _thresholds(protocol), _ious(protocol)
    num_NDT = np.zeros((len(heat_NHW), len(ious), len(threshold_T)), np.int32)
    for image_M in _stacks(heat_NHW):
        heat_MHW = heat_NHW[image_M[0] : image_M[-1] + 1]
        if len(heat_MHW) > len(image_M):
            heat_MHW = heat_NHW[image_M]
        true = _TrueBoxes(true_4G, box_start[image_M], np.diff(box_start)[image_M])
        if protocol.name == "maxboxacc":
            boxes = largest_boxes(heat_MHW, threshold_T, partial(true.right, ious[0]))
        else:
            boxes = contour_boxes(heat_MHW, threshold_T)
        matched = _one_to_one if protocol.name == "maxboxacc-v3" else _any_match
        num_MDL = matched(boxes, true, ious)
        each_M = np.arange(len(image_M))[:, None, None]
        num_NDT[image_M] = num_MDL[each_M, np.arange(len(ious))[:, None], boxes.level_NT[:, None]]
    return num_NDT


def _stacks(heat_NHW: npt.NDArray[np.float64]) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the maps to be worked on together: noisy ones, which take much memory, alone."""
    noisy_N = np.zeros(len(heat_NHW), np.bool_)
    for image, heat_HW in enumerate(heat_NHW):
        rises = np.diff(heat_HW[::_EVERY_ROW]) >= 0
        noisy_N[image] = np.mean(rises[:, 1:] != rises[:, :-1]) > _NOISY
    for alone in np.flatnonzero(noisy_N):
        yield np.array([alone])
    calm = np.flatnonzero(~noisy_N)
    for first in range(0, len(calm), _AT_ONCE):
        yield calm[first : first + _AT_ONCE]


@dataclass(frozen=True, slots=True, eq=False)
class _TrueBoxes:
    """True boxes on the grid: ``num_M`` of each image, the first at ``first_M``."""

    box_4G: Whole
    first_M: Integers
    num_M: Integers

    def best_iou(self, image_B: Integers, box_4B: Whole) -> npt.NDArray[np.float64]:
        """Return the largest IoU of each box with any true box of its image, −1 without one."""
        best_B = np.full(len(image_B), -1.0)
        num_true_B = self.num_M[image_B]
        for nth in range(int(num_true_B.max(initial=0))):
            at = np.flatnonzero(num_true_B > nth)
            true_4A = self.box_4G[:, self.first_M[image_B[at]] + nth]
            best_B[at] = np.maximum(best_B[at], _inclusive_iou(box_4B[:, at], true_4A))
        return best_B

    def right(self, iou: float, image_B: Integers, box_4B: Whole) -> Bools:
        """Return which boxes have such an IoU with any true box of their image."""
        return np.asarray(self.best_iou(image_B, box_4B) >= iou)


def _any_match(boxes: LevelBoxes, true: _TrueBoxes, ious: tuple[float, ...]) -> Bools:
    """Return where any box has such an IoU with any true box, (N, D, 256 levels)."""
    best_B = true.best_iou(boxes.image_B, boxes.box_4B)
    right_NDL = np.zeros((len(boxes.level_NT), len(ious), 256), np.bool_)
    for place, iou in enumerate(ious):
        at = np.flatnonzero(best_B >= iou)
        right_NDL[boxes.image_B[at], place, boxes.level_B[at]] = True
    return right_NDL


def _one_to_one(
    boxes: LevelBoxes, true: _TrueBoxes, ious: tuple[float, ...]
) -> npt.NDArray[np.int32]:
    """Return how many true boxes are found one to one, (N, D, 256 levels).

    The pair of the largest IoU first, each box and each true box once; among equals that of
    the box with the smallest ``x0 y0 x1 y1``, then the first true box.
    """
    num_NDL = np.zeros((len(boxes.level_NT), len(ious), 256), np.int32)
    num_B = true.num_M[boxes.image_B]
    box_P = np.repeat(np.arange(len(num_B)), num_B)
    nth_P = np.arange(len(box_P)) - np.repeat(np.cumsum(num_B) - num_B, num_B)
    true_P = true.first_M[boxes.image_B[box_P]] + nth_P
    iou_P = _inclusive_iou(boxes.box_4B[:, box_P], true.box_4G[:, true_P])
    kept = iou_P >= min(ious)
    box_P, true_P, iou_P = box_P[kept], true_P[kept], iou_P[kept]
    level_P, image_P = boxes.level_B[box_P], boxes.image_B[box_P]
    order = np.lexsort((true_P, *boxes.box_4B[::-1, box_P], -iou_P, level_P, image_P))
    taken: set[tuple[int, int]] = set()
    for pair in order.tolist():
        image, level = int(image_P[pair]), int(level_P[pair])
        both = {(-1, int(box_P[pair])), (level, int(true_P[pair]))}
        if not both & taken:
            taken |= both
            num_NDL[image, :, level] += iou_P[pair] >= np.array(ious)
    return num_NDL


def _inclusive_iou(box_4B: Whole, true_4B: Whole) -> npt.NDArray[np.float64]:
    """Return the IoU of pairs of boxes of whole pixels that include their right and lower edge."""
    x0, y0, x1, y1 = box_4B
    s0, t0, s1, t1 = true_4B
    wide = np.minimum(x1, s1) - np.maximum(x0, s0) + 1
    high = np.minimum(y1, t1) - np.maximum(y0, t0) + 1
    shared = np.maximum(wide, 0) * np.maximum(high, 0)
    union = (x1 - x0 + 1) * (y1 - y0 + 1) + (s1 - s0 + 1) * (t1 - t0 + 1) - shared
    iou: npt.NDArray[np.float64] = shared / union
    return iou


def result(protocol: ScoreProtocol, tally: Tally) -> Result:
    """Return the largest share over thresholds, the mean over IoUs, in per cent."""
    threshold_T, ious = _thresholds(protocol), _ious(protocol)
    weight_N = tally.weight("image")
    num_true_N = tally.column("image", "num_true").astype(np.int64)
    whole_N = num_true_N if protocol.name == "maxboxacc-v3" else np.ones_like(num_true_N)
    found_DT = _sums(protocol, tally)
    share_DT = percent(found_DT, weight_N @ whole_N)
    best_D = found_DT.argmax(axis=1)
    best = [float(share_T[at]) for share_T, at in zip(share_DT, best_D, strict=True)]
    num = _image_counts(tally, num_true_N)
    extra: dict[str, Extra] = {**num}
    for place, iou in enumerate(ious):
        extra[f"iou_{iou:g}"] = best[place]
        extra[f"threshold_{iou:g}"] = float(threshold_T[best_D[place]])
    curve = {f"iou {iou:g}": share_DT[place].tolist() for place, iou in enumerate(ious)}
    cases = ((num[name], words) for name, words in _CASES)
    return Result.of(
        protocol,
        float(np.mean(best)),
        per_class=_class_rows(protocol, tally, best_D, whole_N),
        extra=extra,
        warnings=(_CHOSEN, *told(cases)),
        curve={"threshold": threshold_T.tolist(), **curve},
    )


def _image_counts(tally: Tally, num_true_N: Ints) -> dict[str, int]:
    mapped_N, flat_N, off_N = (
        tally.column("image", name) for name in ("mapped", "flat", "off_grid")
    )
    return {
        "num_images": tally.num("image"),
        "num_true_boxes": int(tally.weight("image") @ num_true_N),
        "num_without_true_box": tally.num("image", num_true_N == 0),
        "num_without_map": tally.num("image", ~mapped_N),
        "num_flat_maps": tally.num("image", flat_N),
        "num_off_grid": tally.num("image", off_N),
    }


def _class_rows(
    protocol: ScoreProtocol, tally: Tally, best_D: npt.NDArray[np.intp], whole_N: Ints
) -> tuple[ClassRow, ...]:
    """Return a row for each class, at the thresholds that are best for all together."""
    label_N, weight_N = tally.column("image", "label"), tally.weight("image")

    def by_class(number_N: npt.NDArray[Any]) -> Ints:
        return np.bincount(label_N, weight_N * number_N, tally.num_classes).astype(np.int64)

    whole_K = by_class(whole_N)
    found = _unpacked(protocol, tally.column("image", "found"), best_D)
    found_DK = [by_class(found_N) for found_N in found.T]
    value_K = np.mean([percent(found_K, whole_K) for found_K in found_DK], axis=0)
    num_K = {"num_images": by_class(np.ones_like(whole_N))}
    if protocol.name == "maxboxacc-v3":
        num_K["num_true_boxes"] = whole_K
    for iou, found_K in zip(_ious(protocol), found_DK, strict=True):
        num_K[f"num_found_{iou:g}"] = found_K
    return class_rows(value_K, num_K)


def _unpacked(
    protocol: ScoreProtocol,
    found_ND: npt.NDArray[Any],
    threshold_D: npt.NDArray[np.intp] | None = None,
) -> npt.NDArray[Any]:
    """Return what each image adds at each IoU and threshold (N, D, T), or at one each (N, D)."""
    packed = protocol.name != "maxboxacc-v3"
    if threshold_D is None:
        num = len(_thresholds(protocol))
        return np.unpackbits(found_ND, axis=2, count=num) if packed else found_ND
    each_D = np.arange(len(threshold_D))
    if not packed:
        return found_ND[:, each_D, threshold_D]
    return found_ND[:, each_D, threshold_D // 8] >> (7 - threshold_D % 8).astype(np.uint8) & 1


def _sums(protocol: ScoreProtocol, tally: Tally) -> Ints:
    """Return the sums over images at each IoU and threshold, (D, T)."""
    found_ND, num = tally.column("image", "found"), len(_thresholds(protocol))
    shape = (found_ND.shape[1], num)
    if tally.times_N is None:
        total_DT = np.zeros(shape, np.int64)
        for first in range(0, len(found_ND), _SUMMED_AT_ONCE):
            part = _unpacked(protocol, found_ND[first : first + _SUMMED_AT_ONCE])
            total_DT += part.sum(axis=0, dtype=np.int64)
        return total_DT
    # For samples a product of matrices: sums below 2**24 are exact in float32.
    found_NE = tally.once(
        "found",
        lambda: _unpacked(protocol, found_ND).reshape(len(found_ND), -1).astype(np.float32),
    )
    return (tally.times_N.astype(np.float32) @ found_NE).astype(np.int64).reshape(shape)
