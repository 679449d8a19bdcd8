"""The label page over stores: what it asks, its pictures, and where its answers go."""

from __future__ import annotations

import datetime
import os
import sys
import threading
import webbrowser
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from wsltool.errors import StoreExistsError, UsageError, WslError
from wsltool.stages.label_pictures import LabelBoard
from wsltool.stages.options import PathLike
from wsltool.stages.report import Reporter
from wsltool.stores.labels import (
    WORDS,
    ClassLabels,
    Labels,
    new_labels,
    read_labels,
    write_labels,
)
from wsltool.stores.store import Store
from wsltool.views.gallery_files import finish_gallery, gallery_identity, new_gallery
from wsltool.views.label_queue import (
    ASSETS,
    PAGE_NAME,
    SCRIPT_NAME,
    BoardText,
    QueueClass,
    board_script,
    picture_names,
    read_asset,
)
from wsltool.views.label_server import check_label_extra, serve_desk

__all__ = ["export", "serve"]

_LONGEST_S = 86400.0
_DOWNLOADED = "labels.json"


def serve(
    clusters: Store,
    labels_path: Path,
    *,
    features: PathLike | None = None,
    images: PathLike | None = None,
    samples: int = 12,
    seed: int = 0,
    port: int = 0,
    browser: bool = True,
    report: Reporter | None = None,
) -> None:
    """Ask a person by a page on this machine, until Finish is pressed or Ctrl-C.

    Parameters
    ----------
    clusters : Store
        A ``clusters`` store.
    labels_path : Path
        A ``labels.json`` about them: the page goes on where it stands and writes every answer
        there before it moves on.
    features, images, samples, seed
        As `LabelBoard.open`.
    port : int
        0 takes a free one.
    browser : bool
        Whether a browser is opened, where there is a screen.
    report : Reporter, optional
        Who hears of the address and of bad pictures.

    Raises
    ------
    ExtraMissingError
        The server's packages are not installed.
    UsageError
        The port is taken.
    LineageError, ProtocolError, StoreCorruptError
        The features or the pictures are not there, or do not fit.
    Interrupted
        SIGTERM came.
    """
    check_label_extra()
    report = report or Reporter()

    def opened(url: str) -> None:
        report.ask(f"{labels_path.name}: label at {url} until Finish or Ctrl-C.")
        if browser and _has_screen():
            webbrowser.open(url)

    with ExitStack() as stack:
        board = LabelBoard.open(stack, clusters, features, images, samples, seed, report)
        serve_desk(_Desk(board, labels_path), port=port, opened=opened)


def export(
    clusters: Store,
    folder: Path,
    *,
    features: PathLike | None = None,
    images: PathLike | None = None,
    samples: int = 12,
    seed: int = 0,
    overwrite: bool = False,
    report: Reporter | None = None,
) -> Path:
    """Write the page as files that open without a server; return the folder.

    It appears whole or not at all. One that was made from the same is left alone.

    Parameters
    ----------
    clusters : Store
        A ``clusters`` store.
    folder : Path
        Where.
    features, images, samples, seed
        As `LabelBoard.open`.
    overwrite : bool
        Replace an older page of something else there.
    report : Reporter, optional
        Who hears of progress and bad pictures.

    Raises
    ------
    StoreExistsError
        Something else stands there.
    LineageError, ProtocolError, StoreCorruptError
        As `serve`.
    """
    report = report or Reporter()
    with ExitStack() as stack:
        board = LabelBoard.open(stack, clusters, features, images, samples, seed, report)
        known = gallery_identity(folder)
        if overwrite or known != board.identity:
            with new_gallery(folder, overwrite=overwrite or known == "") as draft:
                _write_page(board, draft, report)
        report.announce(folder)
    return folder


def _write_page(board: LabelBoard, draft: Path, report: Reporter) -> None:
    for name in set(ASSETS) - {PAGE_NAME}:
        (draft / name).write_bytes(read_asset(name))
    head = new_labels(board.clusters, board.clusters.path.parent, "person", {})
    source = {"path": head.clusters_path, "digest": head.clusters_digest}
    text = BoardText(
        title=board.clusters.path.name,
        mode="file",
        labels_name=_DOWNLOADED,
        digest=head.clusters_digest,
        labels_head={
            "format": 1,
            "kind": "labels",
            "clusters": source,
            "annotator": head.annotator,
            "made": {},
        },
        next_command=f"wsltool label {board.clusters.path.name} --answers {_DOWNLOADED}",
    )
    script = board_script(text, board.queue, {})
    (draft / SCRIPT_NAME).write_text(script, encoding="ascii", newline="\n")
    with report.progress("pictures", len(board.queue), "classes") as advance:
        for place in range(len(board.queue)):
            for name, content in board.strips(place).items():
                (draft / "pictures" / name).write_bytes(content)
            advance(1)
    page = read_asset(PAGE_NAME).decode()
    finish_gallery(draft, page, len(board.queue), "" if board.num_bad else board.identity)


def _has_screen() -> bool:
    """Return whether a browser has somewhere to show a page; else it could take the terminal."""
    return sys.platform == "darwin" or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


class _Desk:
    """What the server asks: the board, and a file of labels that is the only memory."""

    def __init__(self, board: LabelBoard, path: Path) -> None:
        self._board, self._path = board, path
        self._made = read_labels(path).made
        self._lock = threading.Lock()
        self._names = {
            name: place
            for place, one in enumerate(board.queue)
            for name in picture_names(place, len(one.cluster_size))
        }

    def _read(self) -> Labels:
        """Return the labels; refuse those that another command has put there meanwhile."""
        labels = read_labels(self._path)
        if labels.made != self._made:
            raise StoreExistsError(
                f"{self._path}: another command replaced it while this page was open. Run this "
                "one again, with -o or --overwrite."
            )
        return labels

    def script(self) -> str:
        labels = self._read()
        place_of = {one.class_index: place for place, one in enumerate(self._board.queue)}
        answers = {place_of[one.class_index]: _told(one) for one in labels.classes}
        text = BoardText(
            title=self._board.clusters.path.name,
            mode="server",
            labels_name=str(self._path),
            digest=labels.clusters_digest,
            next_command=f"wsltool refine MAPS --labels {self._path.name}",
        )
        return board_script(text, self._board.queue, answers)

    def picture(self, name: str) -> bytes | None:
        place = self._names.get(name)
        try:
            return None if place is None else self._board.strips(place)[name]
        except WslError as error:
            self._board.report.warn(str(error))  # the page can only say that it did not arrive
            return None

    def answer(self, given: object) -> dict[str, Any]:
        place, words, seconds = _checked(given, self._board.queue)
        one = self._board.queue[place]
        with self._lock:
            labels = self._read()
            if words is None:
                write_labels(self._path, labels.without_class(one.class_index))
                return {}
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            answer = ClassLabels(one.class_index, one.class_name, words, seconds, now)
            order = [other.class_index for other in self._board.queue]
            write_labels(self._path, labels.with_class(answer, order))
            return _told(answer)


def _told(one: ClassLabels) -> dict[str, Any]:
    return {"words": one.words, "seconds": one.seconds, "answered": one.answered}


def _checked(
    given: object, queue: list[QueueClass]
) -> tuple[int, tuple[str, ...] | None, float | None]:
    """Return place, words and seconds of an answer; no words take one back."""
    if not isinstance(given, dict) or set(given) != {"place", "words", "seconds"}:
        raise UsageError("an answer is place, words and seconds; got something else.")
    place, words, seconds = given["place"], given["words"], given["seconds"]
    if type(place) is not int or not 0 <= place < len(queue):
        raise UsageError(f"place must be in [0, {len(queue)}), got {place!r:.40}.")
    if words is None:
        return place, None, None
    num = len(queue[place].cluster_size)
    if not isinstance(words, list) or len(words) != num or any(w not in WORDS for w in words):
        raise UsageError(f"words must be {num} of {', '.join(WORDS)}, got {words!r:.60}.")
    if type(seconds) not in (int, float) or not 0 <= seconds <= _LONGEST_S:
        raise UsageError(f"seconds must be in [0, {_LONGEST_S:g}], got {seconds!r:.40}.")
    return place, tuple(words), float(seconds)
