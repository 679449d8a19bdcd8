"""Stage ``view``: galleries to look at: of boxes and maps, side by side, and of clusters."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsltool.errors import LineageError, StoreKindError, UsageError
from wsltool.stages.judged import Shown
from wsltool.stages.label_samples import features_behind
from wsltool.stages.mended import write_mended
from wsltool.stages.options import PathLike, check_range
from wsltool.stages.parts import Parts, write_parts
from wsltool.stages.pictures import Pictures
from wsltool.stages.report import Reporter
from wsltool.stages.run import open_input
from wsltool.stages.side_by_side import write_compared, write_over
from wsltool.stages.view_found import write_found
from wsltool.stages.view_page import Page
from wsltool.stages.view_search import check_candidates, write_search
from wsltool.stores.lineage import (
    find_ancestor,
    fingerprint_file,
    fingerprint_store,
)
from wsltool.stores.open import open_store
from wsltool.stores.store import Store
from wsltool.views.gallery import gallery_identity
from wsltool.views.selection import NUM_CLASSES

__all__ = ["view"]

_NUM_CASES, _NUM_SEARCHES = 12, 4
_SAMPLES, _SEARCH_SAMPLES = 4, 1


def view(
    input: PathLike,
    *,
    over: Sequence[PathLike] = (),
    compare: PathLike | None = None,
    before: PathLike | None = None,
    search: bool = False,
    labels: PathLike | None = None,
    features: PathLike | None = None,
    truth: PathLike | None = None,
    images: PathLike | None = None,
    num: int | None = None,
    samples: int | None = None,
    output: PathLike | None = None,
    overwrite: bool = False,
    report: Reporter | None = None,
) -> Path:
    """Write a gallery: the worst cases, the best, and some of each class; or parts of objects.

    A case is an image and a class that is present in it; it is judged by the IoU of the
    first predicted box of the class with the nearest true box of the class. Images without
    a prediction count as missed and are not drawn.

    Parameters
    ----------
    input : path
        A ``boxes`` store, or a ``maps`` store, whose boxes are then drawn at 20 % of the
        maximum. Or a ``clusters`` store: each cluster on the images that show it best
        (Kolesnikov and Lampert 2016, figure 5).
    over : sequence of paths, optional
        Further ``maps`` stores of the same images, such as those of a model's checkpoints
        (Oquab et al. 2015, figure 1): each case shows the maps of all stores in the order
        given, their maxima marked.
    compare : path, optional
        Another ``maps`` store: each case shows the maxima of both on one picture (Kim et
        al. 2017, figure 4); the farthest, those around the median, the nearest, and some of
        each class.
    before : path, optional
        Boxes or maps of the same images from before a change, such as `refine`: what was
        wrong and is right now, and the other way round (Kolesnikov and Lampert 2016, figure 7).
    search : bool
        Show how `beam_search` came to its maps, level by level (Bency et al. 2016, figures 3
        and 5). `input`, or the maps behind these boxes, were made with ``keep_candidates``.
    labels : path, optional
        Of clusters: the ``labels.json``, whose words are shown.
    features : path, optional
        Of clusters: the ``features`` store; by default the one that they were made from.
    truth : path, optional
        The ``images`` store; by default the one that `input` was made from.
    images : path, optional
        Folder of the pictures, if not where `ingest` found them; of clusters also the
        ``images`` store.
    num : int, optional
        Cases among the worst and the best (the farthest, the middle, the nearest; the mended
        and the spoilt), 12 by default, 4 with `search`; of clusters: classes, 40 by default.
    samples : int, optional
        Cases of each class, or of each cluster; 4 by default, 1 with `search`.
    output : path, optional
        The folder to write, by default INPUT's stem and ``view`` (``over``, ``compare``,
        ``mended``, ``search``) beside it.
    overwrite : bool
        Replace a gallery of something else there.
    report : Reporter, optional
        Who hears of warnings.

    Returns
    -------
    Path
        The page, ``index.html``.

    Raises
    ------
    UsageError
        A number is out of its range, or options are given that exclude each other, or that
        nothing reads of such an input.
    StoreKindError
        An input is of another kind.
    StoreError
        `search`, and the maps hold no candidates.
    StoreExistsError
        Something else stands at the output's place.
    LineageError
        The images, or the features, are not where they were; the labels are about other
        clusters.
    ProtocolError
        The stores are of other images or classes, or without true boxes nothing is mended.
    """
    report = report or Reporter()
    _check_number("--num", num)
    _check_number("--samples", samples)
    if isinstance(over, (str, os.PathLike)):
        raise UsageError(f"--over must be a sequence of paths, got {over!r}.")
    with ExitStack() as stack:
        store = stack.enter_context(open_store(Path(input)))
        wish = _Wish(over, compare, before, search, labels, features, truth)
        wish.check(store)
        others = wish.open_others(stack)
        folder = Path(output) if output else store.path.with_name(f"{store.path.stem}.{wish.word}")
        num, samples = wish.amounts(store, num, samples)
        sources = [store, *wish.open_behind(store, stack), *others]
        identity = _identity(sources, labels, wish.word, num, samples)
        page = folder / "index.html"
        known = gallery_identity(folder)
        overwrite = overwrite or known == ""
        if overwrite or known != identity:
            about = Page(folder, num, samples, identity, overwrite, report)
            root = None if images is None else Path(images)
            page = _write(about, wish, sources, root, stack)
        report.announce(page)
        return page


def _check_number(option: str, value: int | None) -> None:
    if value is not None:
        check_range(option, value, 0, 1000, whole=True)


@dataclass(frozen=True)
class _Wish:
    """Which page is asked for: the options that decide it."""

    over: Sequence[PathLike]
    compare: PathLike | None
    before: PathLike | None
    search: bool
    labels: PathLike | None
    features: PathLike | None
    truth: PathLike | None

    @property
    def word(self) -> str:
        """What stands behind INPUT's stem."""
        if self.compare or self.over:
            return "compare" if self.compare else "over"
        if self.search:
            return "search"
        return "mended" if self.before else "view"

    def amounts(self, store: Store, num: int | None, samples: int | None) -> tuple[int, int]:
        """Return how many cases are shown, of extremes and of each class, the defaults filled in.

        A search has a panel for every level, so fewer are shown.
        """
        if num is None:
            num = _NUM_SEARCHES if self.search else _NUM_CASES
            num = NUM_CLASSES if store.kind == "clusters" else num
        return num, (_SEARCH_SAMPLES if self.search else _SAMPLES) if samples is None else samples

    def check(self, store: Store) -> None:
        """Refuse options that exclude each other or that nothing reads of this store."""
        given: dict[str, Any] = {
            "--over": self.over,
            "--compare": self.compare,
            "--before": self.before,
            "--search": self.search,
        }
        pages = [option for option, value in given.items() if value]
        if len(pages) > 1:
            both = " and ".join(pages) if len(pages) < 3 else ", ".join(pages)
            raise UsageError(f"{both} are {_both(pages)} given; expected one of them.")
        of_clusters = {"--labels": self.labels, "--features": self.features}
        unread = of_clusters if store.kind != "clusters" else {**given, "--truth": self.truth}
        for option, value in unread.items():
            if value:
                raise UsageError(
                    f"{option} has no meaning for {store.path.name}, whose kind is "
                    f'"{store.kind}". Leave it out.'
                )
        if self.over or self.compare:
            store.require("maps", "view --over or --compare", "Give the maps behind it.")
        elif store.kind not in ("boxes", "maps", "clusters"):
            raise StoreKindError(
                f'{store.path.name}: kind is "{store.kind}", but view reads "boxes", "maps" or '
                '"clusters". Run first: wsltool cam … | wsltool boxes'
            )

    def open_others(self, stack: ExitStack) -> list[Store]:
        """Open the stores that are set beside the input."""
        if self.before:
            other = stack.enter_context(open_store(Path(self.before)))
            if other.kind not in ("boxes", "maps"):
                other.require("boxes", "view --before", "Run first: wsltool boxes MAPS")
            return [other]
        paths = [*self.over, *([self.compare] if self.compare else [])]
        return [stack.enter_context(open_input(path, "maps", "view")) for path in paths]

    def open_behind(self, store: Store, stack: ExitStack) -> list[Store]:
        """Open the features behind clusters, the images behind anything else."""
        if store.kind == "clusters":
            found = features_behind(store, self.features or None, "view")
        elif self.truth:
            found = open_store(Path(self.truth))
        else:
            found = find_ancestor(store, "images", "--truth")
        return [stack.enter_context(found)]


def _both(options: Sequence[str]) -> str:
    return "both" if len(options) == 2 else "all"


def _write(
    about: Page, wish: _Wish, sources: Sequence[Store], images: Path | None, stack: ExitStack
) -> Path:
    """Write the page that was asked for; `sources` are the input, what is behind it, others."""
    store, behind, *others = sources
    if store.kind == "clusters":
        labels = None if wish.labels is None else Path(wish.labels)
        parts = Parts.of(store, behind, images, labels)
        page = write_parts(about, parts)
        about.report.skipped(parts.num_left_out)
        return page
    maps = (
        find_ancestor(store, "maps", "wsltool view MAPS --search")
        if wish.search
        else _maps_behind(store)
    )
    if maps is not None:
        stack.enter_context(maps)
    shown = Shown(store, behind, maps, Pictures(behind, images))
    if wish.compare:
        page = write_compared(about, shown, others[0])
    elif wish.over:
        page = write_over(about, shown, [store, *others])
    elif wish.before:
        page = write_mended(about, shown, others[0])
    elif maps is not None and wish.search:
        check_candidates(maps)
        page = write_search(about, shown, maps)
    else:
        page = write_found(about, shown)
    about.report.skipped(shown.num_left_out)
    return page


def _maps_behind(store: Store) -> Store | None:
    """Return the maps that are drawn over the pictures, if they are still there."""
    try:
        return find_ancestor(store, "maps", "INPUT")
    except LineageError:
        return None


def _identity(
    stores: Sequence[Store], labels: PathLike | None, word: str, num: int, samples: int
) -> str:
    """Return what a gallery was made from, to know the same one again."""
    prints: list[dict[str, Any]] = [fingerprint_store(one, one.path.parent) for one in stores]
    if labels is not None:
        prints.append(fingerprint_file(Path(labels), Path()))
    known = [one.get("id") or one.get("digest") for one in prints]
    return hashlib.sha256(json.dumps([*known, word, num, samples]).encode()).hexdigest()
