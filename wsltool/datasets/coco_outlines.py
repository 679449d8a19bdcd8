"""COCO's three forms of a segmentation, brought to one: the compressed run-length code."""

from __future__ import annotations

import importlib
from typing import Any

from wsltool.datasets.coco_rle import decode_rle
from wsltool.errors import BadImageError, DatasetError, ExtraMissingError

__all__ = ["encode_outline", "load_pycocotools"]

_FEWEST_NUMBERS = 6  # of a polygon: three corners


def load_pycocotools() -> Any:
    """Import ``pycocotools.mask``, the reference's own rasteriser.

    Raises
    ------
    ExtraMissingError
        It is not installed.
    """
    try:
        return importlib.import_module("pycocotools.mask")
    except ImportError as error:
        raise ExtraMissingError(
            "the segmentations of COCO need pycocotools, which is not installed. "
            "pip install 'wsltool[coco]', or pass --no-masks to leave them out."
        ) from error


def encode_outline(segmentation: object, size_wh: tuple[int, int], place: str) -> str:
    """Return the compressed code of a segmentation for the whole picture.

    Parameters
    ----------
    segmentation
        As parsed from the JSON: a list of polygons ``[x, y, x, y, …]``, of which the union
        is taken; ``{"size": [h, w], "counts": …}`` with run lengths or the compressed code;
        None or an empty list for no mask.
    size_wh
        Width and height of the picture in pixels.
    place
        What messages begin with.

    Returns
    -------
    str
        The code as pycocotools writes it; "" for no mask.

    Raises
    ------
    BadImageError
        Another form; a polygon of fewer than three corners, or with a corner that is not
        finite or lies more than a whole picture beside the picture; run lengths that do not
        fill the picture.
    """
    if segmentation is None or segmentation == []:
        return ""
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, size_wh, place)
    if isinstance(segmentation, dict):
        return _from_runs(segmentation, size_wh, place)
    raise BadImageError(
        f"{place}: segmentation is {segmentation!r:.40}, expected polygons or run lengths."
    )


def _from_polygons(polygons: list[Any], size_wh: tuple[int, int], place: str) -> str:
    mask = load_pycocotools()
    width, height = size_wh
    for number, polygon in enumerate(polygons, 1):
        _check_polygon(polygon, size_wh, f"{place} polygon {number}")
    code: bytes = mask.merge(mask.frPyObjects(polygons, height, width))["counts"]
    return code.decode()


def _check_polygon(polygon: object, size_wh: tuple[int, int], place: str) -> None:
    """Refuse what the rasteriser would take for a box, or would need endless memory for."""
    if not isinstance(polygon, list) or not all(type(x) in (int, float) for x in polygon):
        raise BadImageError(f"{place}: is no list of numbers x y x y ….")
    if len(polygon) < _FEWEST_NUMBERS or len(polygon) % 2:
        raise BadImageError(
            f"{place}: has {len(polygon)} numbers; expected pairs, at least three of them."
        )
    for side_px, corners in zip(size_wh, (polygon[::2], polygon[1::2]), strict=True):
        for value in corners:
            if not -side_px <= value <= 2 * side_px:
                raise BadImageError(
                    f"{place}: corner {value!r:.40} is far from the {size_wh[0]}x{size_wh[1]} "
                    "picture."
                )


def _from_runs(runs: dict[str, Any], size_wh: tuple[int, int], place: str) -> str:
    width, height = size_wh
    if runs.get("size") != [height, width]:
        raise BadImageError(
            f"{place}: run lengths for the size {runs.get('size')!r:.40}, but the picture has "
            f"height and width [{height}, {width}]."
        )
    counts = runs.get("counts")
    if isinstance(counts, str):
        try:
            decode_rle(counts, (height, width))
        except (DatasetError, UnicodeEncodeError) as error:
            raise BadImageError(
                f"{place}: counts {counts[:20]!r} are no compressed run lengths of a {width}x"
                f"{height} picture."
            ) from error
        return counts
    if not isinstance(counts, list) or not all(type(x) is int and x >= 0 for x in counts):
        raise BadImageError(f"{place}: counts are no run lengths, expected whole numbers.")
    if sum(counts) != height * width:
        raise BadImageError(
            f"{place}: run lengths tell {sum(counts)!r:.20} pixels; expected {width}x{height}."
        )
    code: bytes = load_pycocotools().frPyObjects(runs, height, width)["counts"]
    return code.decode()
