"""Points of maps or boxes, and how far they are from true masks, for ``pointing-game``."""

from __future__ import annotations

from typing import Any

import numpy as np

from wsltool.metrics.pointing_game import GamePoints, MaskGaps, squared_gap
from wsltool.metrics.records import Peaks, Truth
from wsltool.stages.scored_records import Source, peaks
from wsltool.stages.true_masks import has_masks, true_masks
from wsltool.stores.store import Store

__all__ = ["played_on_masks", "read"]

Array = np.ndarray[Any, Any]


def played_on_masks(truth: Store, regions: str = "auto") -> bool:
    """Return whether the regions are masks rather than boxes.

    "auto" is TorchRay's rule: masks where the boxes have them (COCO), else boxes (VOC, though
    some of its images have label images); masks, too, where there are no boxes.
    """
    if regions == "auto":
        return "box_rle" in truth or "box" not in truth
    return regions == "masks"


def read(source: Source, block: slice, true: Truth, regions: str = "auto") -> GamePoints:
    """Return the points of a block of the scored images.

    Raises
    ------
    BadImageError
        A true mask cannot be read.
    StoreCorruptError
        A map is not finite.
    ProtocolError
        Boxes are not sound.
    """
    points = peaks(source, block, true)
    if not (has_masks(source.truth) and played_on_masks(source.truth, regions)):
        return GamePoints(peaks=points)
    return GamePoints(peaks=points, masks=_gaps(source.truth, points, true))


def _gaps(store: Store, peaks: Peaks, true: Truth) -> MaskGaps:
    """Return how far the points are from the masks of their classes."""
    masks = true_masks(store)
    gap_NS, centre_gap_NS = (np.full(peaks.map_class_NS.shape, np.inf) for _ in range(2))
    drawn_N = np.array([masks.annotated(int(row)) for row in true.row_N], bool)
    for n in np.flatnonzero(drawn_N).tolist():
        slot_M = _slots_of_shown(peaks.map_class_NS[n], true.label_NK[n])
        if not slot_M:
            continue
        mask_of = masks.of_row(int(true.row_N[n]), crowd=1)
        centre = (true.size_wh_N2[n] // 2).tolist()
        for slot in slot_M:
            mask_HW = mask_of(int(peaks.map_class_NS[n, slot])) == 1
            column, row = np.floor(peaks.peak_xy_NS2[n, slot]).astype(int).tolist()
            gap_NS[n, slot] = squared_gap(mask_HW, column, row)
            centre_gap_NS[n, slot] = squared_gap(mask_HW, *centre)
    return MaskGaps(drawn_N=drawn_N, gap_NS=gap_NS, centre_gap_NS=centre_gap_NS)


def _slots_of_shown(class_S: Array, label_K: Array) -> list[int]:
    """Return the slots of classes that are present or undecided."""
    slot_M = np.flatnonzero(class_S >= 0)
    found: list[int] = slot_M[label_K[class_S[slot_M]] != 0].tolist()
    return found
