"""Write a gallery: a folder with one page, and the pictures that it shows.

The page works from the file system: no server, nothing from outside, relative links only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from wsltool.errors import UsageError
from wsltool.views.gallery_case import Bar, Case, ClassRow
from wsltool.views.gallery_files import (
    MARKER_NAME,
    PAGE_NAME,
    finish_gallery,
    gallery_identity,
    new_gallery,
    write_case,
)
from wsltool.views.gallery_page import PageText, render_page
from wsltool.views.selection import NUM_EXTREME, NUM_SAMPLES

__all__ = ["MARKER_NAME", "Bar", "Case", "ClassRow", "gallery_identity", "write_gallery"]


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
    with new_gallery(folder, overwrite=overwrite) as draft:
        shown = [write_case(draft, row, case, longest_px) for row, case in enumerate(cases)]
        identity = identity() if callable(identity) else identity
        finish_gallery(draft, render_page(text, shown), len(shown), identity)
    return folder / PAGE_NAME
