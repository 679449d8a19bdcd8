"""What every reader of other people's files gives: one plain record for each image."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Dataset", "ImageRecord", "Labels", "outside"]

Labels = tuple[tuple[int, ...], tuple[int, ...]]
"""Class indices labelled present (1) and undecided (255), each rising."""


def _no_boxes() -> npt.NDArray[np.float64]:
    return np.zeros((0, 4), np.float64)


def _no_classes() -> npt.NDArray[np.int32]:
    return np.zeros(0, np.int32)


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
        Float64 ``x0 y0 x1 y1``, half-open continuous pixels, inside the picture.
    box_class_B, box_difficult_B, box_truncated_B
        Int32 class index and two uint8 flags for each box.
    masks
        Pairs of mask path (relative to the root) and class; -1 means a label image.
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
    box_xyxy: tuple[float, ...] | npt.NDArray[np.float64], size_wh: tuple[int, int]
) -> bool:
    """Whether a half-open box leaves the picture; touching its edge does not."""
    x0, y0, x1, y1 = box_xyxy
    return bool(x0 < 0 or y0 < 0 or x1 > size_wh[0] or y1 > size_wh[1])
