"""Object proposals by selective search (Uijlings et al. 2013), as OpenCV's contrib build has it.

Regions of a graph segmentation are merged, the most similar neighbours first; every region on the
way gives its bounding box. OpenCV ranks the boxes by ``rand()`` of the C library, which nobody can
seed from here (``cv2.setRNGSeed`` is another generator), times a region's level, so small regions
come first, against the paper. *Which* boxes it finds does not depend on that. They are put in a
fixed order here and shuffled by a generator of ours: the same picture gives the same list, and
the first N of it are a fair sample of all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from wsltool.errors import ExtraMissingError

__all__ = ["SearchMode", "load_selective_search", "selective_search"]

FloatArray: TypeAlias = npt.NDArray[np.float64]
SearchMode: TypeAlias = Literal["fast", "quality"]


def load_selective_search() -> Callable[[], Any]:
    """Return what makes OpenCV's segmentation object.

    Raises
    ------
    ExtraMissingError
        OpenCV is here without its contrib modules. (The plain build installed over the other
        leaves a hollow ``cv2.ximgproc``, hence the look at the function.)
    """
    room = getattr(getattr(cv2, "ximgproc", None), "segmentation", None)
    make: Callable[[], Any] | None = getattr(room, "createSelectiveSearchSegmentation", None)
    if make is None:
        version = getattr(cv2, "__version__", "without a version")  # a hollow folder has none
        raise ExtraMissingError(
            f"selective search needs OpenCV's contrib build; the cv2 {version} here lacks "
            "it. pip install 'wsltool[proposals]', and if opencv-python-headless was installed "
            "over it: pip install --force-reinstall --no-deps opencv-contrib-python-headless"
        )
    return make


def selective_search(
    picture_HWC: npt.NDArray[np.uint8],
    *,
    mode: SearchMode = "fast",
    longest_side_px: int = 500,
    max_boxes: int = 2000,
    seed: int = 0,
) -> FloatArray:
    """Return proposals of a picture, each box once, in an order drawn by `seed`.

    Parameters
    ----------
    picture_HWC : uint8 array, (height, width, 3), RGB
    mode : {"fast", "quality"}
        OpenCV's strategies: 2 colour spaces x 3 segmentations x 2 similarities, or 5 x 5 x 4.
    longest_side_px : int
        A larger picture is reduced to it first (``INTER_AREA``); none is enlarged.
    max_boxes : int
        How many boxes are kept, the first ones.
    seed : int
        Of the order. It depends on the boxes alone besides, not on the place of the picture.

    Returns
    -------
    box_xyxy_B4 : float64 array, (boxes, 4)
        Half-open, in pixels of the picture as given; at least one, a picture without any edge
        being one region.

    Raises
    ------
    ExtraMissingError
        OpenCV's contrib build is not installed.
    """
    search = load_selective_search()()
    height, width = picture_HWC.shape[:2]
    share = min(1.0, longest_side_px / max(height, width))
    small_wh = max(1, round(width * share)), max(1, round(height * share))
    bgr_HWC: npt.NDArray[Any] = np.ascontiguousarray(picture_HWC[:, :, ::-1])
    if small_wh != (width, height):
        bgr_HWC = cv2.resize(bgr_HWC, small_wh, interpolation=cv2.INTER_AREA)
    search.setBaseImage(bgr_HWC)
    if mode == "fast":
        search.switchToSelectiveSearchFast()
    else:
        search.switchToSelectiveSearchQuality()
    found_xywh = np.unique(np.asarray(search.process(), np.int64).reshape(-1, 4), axis=0)
    order = np.random.default_rng([seed, len(found_xywh)]).permutation(len(found_xywh))
    corner, side = np.split(found_xywh[order[:max_boxes]].astype(np.float64), 2, axis=1)
    # Multiplied before divided: the right edge of the small picture is that of the large one.
    scale_24 = np.array([(width, height, width, height), np.tile(small_wh, 2)], np.float64)
    box_B4: FloatArray = np.concatenate([corner, corner + side], axis=1) * scale_24[0]
    box_B4 /= scale_24[1]
    return box_B4
