"""Write a gallery: a folder with one page, and the pictures that it shows.

The page works from the file system: no server, nothing from outside, relative links only.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsltool.errors import StoreExistsError, UsageError
from wsltool.views.gallery_case import Bar, Case, ClassRow, ShownCase
from wsltool.views.gallery_page import PageText, render_page
from wsltool.views.overlay import (
    check_boxes,
    check_heat_size,
    check_picture,
    display_size,
    draw_overlay,
    heat_contours,
    heat_indices,
    heat_palette,
    resize_picture,
    unit_heat,
)
from wsltool.views.selection import NUM_EXTREME, NUM_SAMPLES

__all__ = ["MARKER_NAME", "Bar", "Case", "ClassRow", "gallery_identity", "write_gallery"]

MARKER_NAME: Final = "wsltool-view.json"
"""A folder that holds this file is a gallery and may be replaced."""
PAGE_NAME: Final = "index.html"
PICTURE_FOLDER: Final = "pictures"


def write_gallery(
    folder: Path,
    cases: Iterable[Case],
    *,
    title: str,
    bars: Sequence[Bar] = (),
    facts: Sequence[tuple[str, str]] = (),
    classes: Sequence[ClassRow] = (),
    provenance: Sequence[tuple[str, str]] = (),
    hit_iou_frac: float = 0.5,
    num_extreme: int = NUM_EXTREME,
    num_samples: int = NUM_SAMPLES,
    longest_px: int = 720,
    overwrite: bool = False,
    identity: str | Callable[[], str] = "",
) -> Path:
    """Write the gallery of some cases into a new folder.

    The folder appears complete or not at all: it is made beside its place under another
    name and then renamed. The same input gives the same bytes (with the same Pillow and
    OpenCV).

    Parameters
    ----------
    folder
        Where; its parents are made.
    cases
        Read once, one at a time; pictures are written as they come and not kept. Those
        worth showing among many are chosen beforehand by
        `wsltool.views.selection.shown_cases`; the page then shows the same worst, best and
        samples as if all cases had been given. Three files a case are written.
    title
        Heading of the page.
    bars
        Scores and baselines; the first score stands in large figures.
    facts
        (name, value) beside the title: images, protocol, threshold.
    classes
        One row a class. Classes of cases that have no row get one without numbers.
    provenance
        (name, value) at the end: inputs, parameters, version.
    hit_iou_frac
        From this IoU on a case is marked as a hit.
    num_extreme, num_samples
        Cases among the worst and best, and of each class.
    longest_px
        Longer side of the pictures at most; the flat overlays have exactly this.
    overwrite
        Replace an older gallery in the same place.
    identity
        What it is made from, kept in the marker, so that `gallery_identity` knows it again;
        or a function that tells it once all cases are drawn.

    Returns
    -------
    pathlib.Path
        The page, ``folder/index.html``.

    Raises
    ------
    StoreExistsError
        If something is at `folder` that is no gallery, or is one without `overwrite`.
    UsageError
        If an option lies out of range, or an IoU outside [0, 1].
    BadImageError
        If a picture, map or box cannot be drawn; nothing is left behind.
    """
    if not 0 < hit_iou_frac <= 1:
        raise UsageError(f"hit_iou_frac must be in (0, 1], got {hit_iou_frac}.")
    if min(num_extreme, num_samples) < 0:
        raise UsageError(f"numbers of cases must be at least 0, got {num_extreme, num_samples}.")
    text = PageText(title, bars, facts, classes, provenance, hit_iou_frac, num_extreme, num_samples)
    with _new_folder(folder, overwrite) as draft:
        (draft / PICTURE_FOLDER).mkdir()
        shown = [_write_case(draft, row, case, longest_px) for row, case in enumerate(cases)]
        (draft / PAGE_NAME).write_text(render_page(text, shown), encoding="utf-8", newline="\n")
        identity = identity() if callable(identity) else identity
        marker = json.dumps(
            {"format": 1, "kind": "gallery", "num_cases": len(shown), "identity": identity}
        )
        (draft / MARKER_NAME).write_text(marker + "\n", encoding="utf-8", newline="\n")
    return folder / PAGE_NAME


def gallery_identity(folder: Path) -> str | None:
    """Return what the gallery in `folder` was made from; None where there is no gallery."""
    try:
        marker = json.loads((folder / MARKER_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(marker.get("identity", ""))


def _write_case(draft: Path, row: int, case: Case, longest_px: int) -> ShownCase:
    """Write the pictures of one case; return what the page needs of it."""
    picture = check_picture(case.picture_HWC() if callable(case.picture_HWC) else case.picture_HWC)
    predicted, true = check_boxes(case.predicted_box_B4), check_boxes(case.true_box_B4)
    height_px, width_px = picture.shape[:2]
    stem = f"{PICTURE_FOLDER}/{row:05d}{_slug(case.image_id)}"
    hrefs = f"{stem}.jpg", f"{stem}-map.png", f"{stem}-overlay.jpg"
    size_wh = width_px, height_px
    if max(size_wh) > longest_px:
        size_wh = display_size(width_px, height_px, longest_px)
    _write_jpeg(draft / hrefs[0], resize_picture(picture, size_wh))
    outline = ""
    if case.heat_HW is not None:
        check_heat_size(case.heat_HW, (height_px, width_px))
        heat = unit_heat(case.heat_HW, size_wh, case.contour_level)
        _write_heat(draft / hrefs[1], heat_indices(heat.heat_HW))
        outline = _contour_path(
            heat_contours(heat), (width_px / size_wh[0], height_px / size_wh[1])
        )
    flat = draw_overlay(
        picture,
        case.heat_HW,
        predicted,
        true,
        contour_level=case.contour_level,
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
        marks=outline + _box_marks(predicted, "predicted") + _box_marks(true, "true"),
        predicted_box_B4=predicted,
        true_box_B4=true,
        iou=_check_iou(case),
        class_score=case.class_score,
        present=case.present,
        note=case.note,
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


def _write_heat(path: Path, index_HW: NDArray[np.uint8]) -> None:
    """Write levels as an indexed PNG whose palette has colour and opacity."""
    palette = heat_palette()
    picture = Image.fromarray(index_HW).convert("L")
    picture.putpalette(palette[:, :3].tobytes())
    picture.save(path, "PNG", transparency=palette[:, 3].tobytes(), optimize=True)


def _box_marks(box_B4: NDArray[np.float64], css: str) -> str:
    """SVG of boxes: each a dark line with a lit one over it."""
    rects = []
    for x0, y0, x1, y1 in box_B4.tolist():
        place = f'x="{x0:.2f}" y="{y0:.2f}" width="{x1 - x0:.2f}" height="{y1 - y0:.2f}"'
        rects.append(f'<rect class="dark" {place}/><rect class="lit" {place}/>')
    return f'<g class="{css}">{"".join(rects)}</g>' if rects else ""


def _contour_path(outlines: list[NDArray[np.float64]], scale_xy: tuple[float, float]) -> str:
    """SVG of outlines, moved to the picture's own pixels."""
    paths = []
    for outline in outlines:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (outline * scale_xy).tolist())
        paths.append(f"M{points}Z")
    return f'<g class="contour"><path d="{"".join(paths)}"/></g>' if paths else ""


@contextmanager
def _new_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Give a draft folder that becomes `folder` at the end, or is removed on an error."""
    _check_place(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".wip", dir=folder.parent))
    try:
        draft = room / "new"
        draft.mkdir()
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
