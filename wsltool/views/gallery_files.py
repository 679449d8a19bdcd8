"""The files of a gallery: its folder, which appears whole or not at all, and its pictures."""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsltool.errors import StoreExistsError, UsageError
from wsltool.views.gallery_case import Case, ShownCase
from wsltool.views.overlay import (
    PeakMark,
    SearchMarks,
    check_boxes,
    check_heat_size,
    check_picture,
    display_size,
    draw_overlay,
    heat_contours,
    heat_indices,
    heat_palette,
    region_contours,
    resize_picture,
    unit_heat,
)

__all__ = [
    "MARKER_NAME",
    "PAGE_NAME",
    "finish_gallery",
    "gallery_identity",
    "new_gallery",
    "write_case",
]

MARKER_NAME: Final = "wsltool-view.json"
"""A folder that holds this file is a gallery and may be replaced."""
PAGE_NAME: Final = "index.html"
PICTURE_FOLDER: Final = "pictures"


def gallery_identity(folder: Path) -> str | None:
    """Return what the gallery in `folder` was made from; None where there is no gallery."""
    try:
        marker = json.loads((folder / MARKER_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(marker.get("identity", ""))


def finish_gallery(draft: Path, page: str, num_cases: int, identity: str) -> None:
    """Write the page and the marker that `gallery_identity` reads."""
    (draft / PAGE_NAME).write_text(page, encoding="utf-8", newline="\n")
    marker = {"format": 1, "kind": "gallery", "num_cases": num_cases, "identity": identity}
    text = json.dumps(marker) + "\n"
    (draft / MARKER_NAME).write_text(text, encoding="utf-8", newline="\n")


def write_case(
    draft: Path, row: int, case: Case, longest_px: int, photo_href: str | None = None
) -> ShownCase:
    """Write the pictures of one case; return what the page needs of it.

    Parameters
    ----------
    draft
        The folder, as `new_gallery` gives it.
    row
        Its number, which makes the names of files unique.
    case
        What to draw.
    longest_px
        Longer side at most.
    photo_href
        The bare photo, where another case of the same picture wrote it.

    Raises
    ------
    BadImageError
        The picture, map or a box cannot be drawn.
    UsageError
        The IoU lies outside [0, 1].
    """
    picture = check_picture(case.picture_HWC() if callable(case.picture_HWC) else case.picture_HWC)
    predicted, true = check_boxes(case.predicted_box_B4), check_boxes(case.true_box_B4)
    former = None if case.former_box_B4 is None else check_boxes(case.former_box_B4)
    height_px, width_px = picture.shape[:2]
    stem = f"{PICTURE_FOLDER}/{row:05d}{_slug(case.image_id)}"
    hrefs = photo_href or f"{stem}.jpg", f"{stem}-map.png", f"{stem}-overlay.jpg"
    size_wh = width_px, height_px
    if max(size_wh) > longest_px:
        size_wh = display_size(width_px, height_px, longest_px)
    if photo_href is None:
        _write_jpeg(draft / hrefs[0], resize_picture(picture, size_wh))
    outline = ""
    if case.heat_HW is not None:
        outline = _write_heat(draft / hrefs[1], case, size_wh, (width_px, height_px))
    flat = draw_overlay(
        picture,
        case.heat_HW,
        predicted,
        true,
        former_box_B4=former,
        contour_level=case.contour_level,
        region_HW=case.region_HW,
        peaks=case.peaks,
        search=case.search,
        longest_px=longest_px,
    )
    _write_jpeg(draft / hrefs[2], flat)
    return ShownCase(
        image_id=case.image_id,
        class_name=case.class_name,
        size_wh=(width_px, height_px),
        picture_href=hrefs[0],
        heat_href=None if case.heat_HW is None else hrefs[1],
        overlay_href=hrefs[2],
        marks=outline
        + _search_marks(case.search)
        + _box_marks(predicted, "predicted" if former is None else "latter")
        + ("" if former is None else _box_marks(former, "former"))
        + _box_marks(true, "true")
        + _peak_marks(case.peaks),
        predicted_box_B4=predicted,
        true_box_B4=true,
        iou=_check_iou(case),
        class_score=case.class_score,
        present=case.present,
        note=case.note,
        peaks=case.peaks,
        caption=case.caption,
        verdict=case.verdict,
        former_box_B4=former,
        told=case.told,
        is_search=case.search is not None,
    )


def _check_iou(case: Case) -> float:
    iou = math.nan if case.iou is None else float(case.iou)
    if not math.isnan(iou) and not 0 <= iou <= 1:
        raise UsageError(f'case "{case.image_id}": IoU is {iou}; expected [0, 1], or None.')
    return iou


def _slug(image_id: str) -> str:
    """Make a readable part of a file name: ASCII letters, digits, dots and dashes, at most 60."""
    plain = unicodedata.normalize("NFKD", image_id).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.")[-60:].strip("-.")
    return f"-{slug}" if slug else ""


def _write_jpeg(path: Path, picture_HWC: NDArray[np.uint8]) -> None:
    Image.fromarray(picture_HWC).save(path, "JPEG", quality=88, subsampling=0)


def _write_heat(path: Path, case: Case, shown_wh: tuple[int, int], size_wh: tuple[int, int]) -> str:
    """Write the map as an indexed PNG of colour and opacity; return its outline as SVG."""
    assert case.heat_HW is not None
    check_heat_size(case.heat_HW, size_wh[::-1])
    heat = unit_heat(case.heat_HW, shown_wh, case.contour_level)
    palette = heat_palette()
    picture = Image.fromarray(heat_indices(heat.heat_HW)).convert("L")
    picture.putpalette(palette[:, :3].tobytes())
    picture.save(path, "PNG", transparency=palette[:, 3].tobytes(), optimize=True)
    scale_xy = size_wh[0] / shown_wh[0], size_wh[1] / shown_wh[1]
    outlines = heat_contours(heat)
    if case.region_HW is not None:
        check_heat_size(case.region_HW, size_wh[::-1])
        outlines += region_contours(case.region_HW, shown_wh)
    return _contour_path(outlines, scale_xy)


def _box_marks(box_B4: NDArray[np.float64], css: str) -> str:
    """SVG of boxes: each a dark line with a lit one over it."""
    rects = []
    for x0, y0, x1, y1 in box_B4.tolist():
        place = f'x="{x0:.2f}" y="{y0:.2f}" width="{x1 - x0:.2f}" height="{y1 - y0:.2f}"'
        rects.append(f'<rect class="dark" {place}/><rect class="lit" {place}/>')
    return f'<g class="{css}">{"".join(rects)}</g>' if rects else ""


def _search_marks(search: SearchMarks | None) -> str:
    """SVG of a level of a search: a path for earlier boxes, for those of the level, for the best.

    Earlier ones are many and lie close, so they have no dark line below.
    """
    if search is None:
        return ""
    groups = []
    for css, layers, box_B4 in (
        ("earlier", ("lit",), search.earlier_B4),
        ("current", ("dark", "lit"), search.current_B4[1:]),
        ("current best", ("dark", "lit"), search.current_B4[:1]),
    ):
        path = "".join(
            f"M{x0:.2f} {y0:.2f}H{x1:.2f}V{y1:.2f}H{x0:.2f}Z" for x0, y0, x1, y1 in box_B4
        )
        lines = "".join(f'<path class="{layer}" d="{path}"/>' for layer in layers)
        groups.append(f'<g class="{css}">{lines}</g>' if path else "")
    return "".join(groups)


def _peak_marks(peaks: Sequence[PeakMark]) -> str:
    """SVG of points: lines without length, whose caps are a disc or a square of fixed size."""
    marks = []
    for x_px, y_px, which in reversed(peaks):
        path = f'd="M{x_px:.2f} {y_px:.2f}l0 0"'
        layers = "".join(f'<path class="{css}" {path}/>' for css in ("dark", "white", "lit"))
        marks.append(f'<g class="peak {which}">{layers}</g>')
    return "".join(marks)


def _contour_path(outlines: list[NDArray[np.float64]], scale_xy: tuple[float, float]) -> str:
    """SVG of outlines, moved to the picture's own pixels."""
    paths = []
    for outline in outlines:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (outline * scale_xy).tolist())
        paths.append(f"M{points}Z")
    return f'<g class="contour"><path d="{"".join(paths)}"/></g>' if paths else ""


@contextmanager
def new_gallery(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a draft folder that becomes `folder` at the end, or is removed on an error.

    Raises
    ------
    StoreExistsError
        If something is at `folder` that is no gallery, or is one without `overwrite`.
    """
    _check_place(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".wip", dir=folder.parent))
    try:
        draft = room / "new"
        (draft / PICTURE_FOLDER).mkdir(parents=True)
        yield draft
        _check_place(folder, overwrite)
        if folder.exists():
            folder.rename(room / "old")
        draft.rename(folder)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _check_place(folder: Path, overwrite: bool) -> None:
    """Refuse a place where something stands that must not be replaced."""
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not (folder / MARKER_NAME).is_file():
        raise StoreExistsError(
            f"{folder}: exists, and is no gallery (no {MARKER_NAME} in a folder of its own); "
            "expected nothing there. Remove it by hand, or name another with -o."
        )
    if not overwrite:
        raise StoreExistsError(
            f"{folder}: a gallery is already there; expected nothing. "
            "Pass --overwrite to replace it, or name another with -o."
        )
