"""What a gallery shows: cases, bars of the score, rows of classes.

Legend: H W rows and columns, C channels, B boxes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsltool.errors import UsageError
from wsltool.views.overlay import PeakMark, SearchMarks

__all__ = ["Bar", "Case", "ClassRow", "ShownCase"]

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One picture and one class: what was predicted, what is true.

    Attributes
    ----------
    image_id, class_name
        Any text; both are untrusted and escaped.
    picture_HWC
        (H, W, 3) RGB or (H, W) grey, uint8; or a function without arguments that loads it,
        called once, when the case is drawn.
    heat_HW
        (H, W) float at the picture's size, NaN or −inf outside the map's extent; or None.
    predicted_box_B4, true_box_B4
        (B, 4) half-open boxes ``x0 y0 x1 y1`` in pixels of the picture; may be empty.
    former_box_B4
        What was predicted before, in the same way; None where nothing is compared.
    iou
        In [0, 1], of the predicted box with the true one that it is judged by. None or
        NaN: none was predicted, or there is nothing to judge by.
    class_score
        The image-level score of the class, or None.
    present
        Whether the class truly is in the picture.
    note
        A remark to print with it.
    contour_level
        Threshold of the map, in its own units, to draw as an outline; or None.
    region_HW
        (H, W) bool at the picture's size: a region to draw as an outline; or None.
    peaks
        Maxima of maps to mark.
    search
        A level of a search to draw, or None.
    caption
        What stands first under the picture, in the place of the class.
    verdict
        How it went, in the place of the IoU: ``hit``, ``miss`` or ``none``, and words.
    told
        (name, value) for the enlarged view, in the place of class score and true boxes.
    """

    image_id: str
    class_name: str
    picture_HWC: NDArray[np.generic] | Callable[[], NDArray[np.generic]]
    heat_HW: FloatArray | None = None
    predicted_box_B4: FloatArray | None = None
    true_box_B4: FloatArray | None = None
    former_box_B4: FloatArray | None = None
    iou: float | None = None
    class_score: float | None = None
    present: bool = True
    note: str = ""
    contour_level: float | None = None
    region_HW: NDArray[np.bool_] | None = None
    peaks: tuple[PeakMark, ...] = ()
    search: SearchMarks | None = None
    caption: str = ""
    verdict: tuple[str, str] | None = None
    told: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ShownCase:
    """A case without its arrays, its pictures written: what the page needs.

    `marks` is the inside of an SVG in the picture's own pixels.
    """

    image_id: str
    class_name: str
    size_wh: tuple[int, int]
    picture_href: str
    heat_href: str | None
    overlay_href: str
    marks: str
    predicted_box_B4: NDArray[np.float64]
    true_box_B4: NDArray[np.float64]
    iou: float
    class_score: float | None
    present: bool
    note: str
    peaks: tuple[PeakMark, ...] = ()
    caption: str = ""
    verdict: tuple[str, str] | None = None
    former_box_B4: NDArray[np.float64] | None = None
    told: tuple[tuple[str, str], ...] = ()
    is_search: bool = False


def check_frac(where: str, value_frac: float | None) -> None:
    """Refuse a share outside [0, 1]; None and NaN mean that there is none.

    Raises
    ------
    UsageError
        If the value lies outside.
    """
    if value_frac is not None and not math.isnan(value_frac) and not 0 <= value_frac <= 1:
        raise UsageError(f"{where} is {value_frac}; expected a share in [0, 1], or NaN for none.")


@dataclass(frozen=True, slots=True)
class Bar:
    """A score, or a baseline to hold it against.

    Attributes
    ----------
    label
        Its name.
    value_frac
        In [0, 1], shown in percent; None or NaN shows a dash.
    baseline
        Whether it needs no method (whole image, centred box, …).

    Raises
    ------
    UsageError
        If the value lies outside [0, 1].
    """

    label: str
    value_frac: float | None
    baseline: bool = False

    def __post_init__(self) -> None:
        check_frac(f'the value of "{self.label}"', self.value_frac)


@dataclass(frozen=True, slots=True)
class ClassRow:
    """How well one class is localized.

    Attributes
    ----------
    class_name
        As in the cases.
    num_images
        Images that its numbers are of; a class with none is named and no more.
    mean_iou_frac, hit_frac
        In [0, 1]; None or NaN shows a dash.

    Raises
    ------
    UsageError
        If a share lies outside [0, 1].
    """

    class_name: str
    num_images: int
    mean_iou_frac: float | None = None
    hit_frac: float | None = None

    def __post_init__(self) -> None:
        check_frac(f'the mean IoU of class "{self.class_name}"', self.mean_iou_frac)
        check_frac(f'the share of hits of class "{self.class_name}"', self.hit_frac)
