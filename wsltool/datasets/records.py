"""What every reader of other people's files gives: one plain record for each image."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["BOX_EXTRAS", "OVERHANG_PX", "Dataset", "ImageRecord", "Labels", "outside"]

BOX_EXTRAS = frozenset(("box_truncated", "box_crowd", "box_area", "box_rle"))
"""What the boxes of a data set may have besides class and difficult flag."""

OVERHANG_PX = 1.0
"""How far a box may reach beyond the picture where annotators did not clip theirs."""

Labels = tuple[tuple[int, ...], tuple[int, ...]]
"""Class indices labelled present (1) and undecided (255), each rising."""


def _no_boxes() -> npt.NDArray[np.float64]:
    return np.zeros((0, 4), np.float64)


def _no_classes() -> npt.NDArray[np.int32]:
    return np.zeros(0, np.int32)


def _no_areas() -> npt.NDArray[np.float64]:
    return np.zeros(0, np.float64)


def _no_flags() -> npt.NDArray[np.uint8]:
    return np.zeros(0, np.uint8)


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image with its labels and, where the data set has them, boxes and masks.

    Attributes
    ----------
    image_id
        The data set's own name of the image.
    image_path
        Posix path of the picture, relative to the data set's root.
    size_wh
        Width and height in pixels, as stored (EXIF orientation ignored).
    num_bytes
        Size of the picture's file.
    present, undecided
        Class indices labelled present (1) and undecided (255), rising; every other class
        is absent.
    box_xyxy_B4
        Float64 ``x0 y0 x1 y1``, half-open continuous pixels with x0 <= x1 and y0 <= y1,
        inside the picture. The annotators of COCO, ILSVRC and CUB overstep its edge now and
        then: their boxes are kept as written where they do so by at most `OVERHANG_PX`.
    box_class_B, box_difficult_B
        Int32 class index and uint8 flag for each box.
    box_truncated_B, box_crowd_B, box_area_B, box_rle
        Two more uint8 flags, float64 area in pixels, and the mask as the compressed COCO
        run-length code of the whole picture ("" where a box has none), for each box; empty
        where `Dataset.box_extras` does not name them.
    masks
        Pairs of mask path (relative to the root) and class; -1 means a label image, -2 a
        mask of what is left out.
    """

    image_id: str
    image_path: str
    size_wh: tuple[int, int]
    num_bytes: int
    present: tuple[int, ...]
    undecided: tuple[int, ...] = ()
    box_xyxy_B4: npt.NDArray[np.float64] = field(default_factory=_no_boxes)
    box_class_B: npt.NDArray[np.int32] = field(default_factory=_no_classes)
    box_difficult_B: npt.NDArray[np.uint8] = field(default_factory=_no_flags)
    box_truncated_B: npt.NDArray[np.uint8] = field(default_factory=_no_flags)
    box_crowd_B: npt.NDArray[np.uint8] = field(default_factory=_no_flags)
    box_area_B: npt.NDArray[np.float64] = field(default_factory=_no_areas)
    box_rle: tuple[str, ...] = ()
    masks: tuple[tuple[str, int], ...] = ()


class Dataset(Protocol):
    """A data set whose faults as a whole were found when it was opened.

    Rows are read one by one, so memory holds ids and paths, never the records.

    Attributes
    ----------
    root
        The folder that every path is relative to.
    class_name, class_id
        The classes in order, and the source's own ids (equal to the names where the
        source has none).
    image_id
        The ids of the rows in order.
    has_boxes, has_masks
        Whether any row can have boxes or masks.
    has_pictures
        Whether the pictures are there; without them a row's size is what is told of it.
    box_extras
        What its boxes have besides class and difficult flag: any of `BOX_EXTRAS`.
    excluded
        Rows that are left out of measurements (ILSVRC's blacklist), None where the data set
        has no such list.
    sources
        The files that decided the rows (image list, CSVs, class list) by the option that
        named them.
    """

    root: Path
    class_name: list[str]
    class_id: list[str]
    image_id: list[str]
    has_boxes: bool
    has_masks: bool
    has_pictures: bool
    box_extras: frozenset[str]
    excluded: frozenset[int] | None
    sources: dict[str, Path]

    def read(self, row: int) -> ImageRecord:
        """Read one row; raises `BadImageError` where that row alone is unusable."""
        ...

    def path(self, row: int) -> str:
        """Picture path of a row relative to the root, without reading the row."""
        ...

    def labels(self, row: int) -> Labels | None:
        """Labels of a row, even where its picture or a box is unusable.

        None where the annotation itself is: nobody knows then what the picture shows.
        """
        ...

    def annotation(self, row: int) -> Path | None:
        """File that annotates this row alone, None where `sources` say all."""
        ...


def outside(
    box_xyxy: tuple[float, ...] | npt.NDArray[np.float64],
    size_wh: tuple[int, int],
    overhang_px: float = 0,
) -> bool:
    """Whether a half-open box leaves the picture by more than `overhang_px`.

    Touching its edge does not.
    """
    x0, y0, x1, y1 = box_xyxy
    low, (wide, high) = -overhang_px, size_wh
    return bool(x0 < low or y0 < low or x1 > wide + overhang_px or y1 > high + overhang_px)
