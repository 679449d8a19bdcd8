"""What ``score`` counts, task by task: the method, its baselines, and what it is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from wsltool.errors import ProtocolError
from wsltool.metrics.protocols import ScoreProtocol
from wsltool.metrics.tally import Tally, joined_by_name
from wsltool.stages.options import PathLike
from wsltool.stages.score_baselines import transforms
from wsltool.stages.scored import join_images, rows_in, usable_slots
from wsltool.stages.scored_records import Source, records
from wsltool.stages.true_masks import has_masks
from wsltool.stores.lineage import find_ancestor
from wsltool.stores.open import open_store
from wsltool.stores.store import Store

__all__ = ["COMPARED", "METHOD", "Other", "Task", "count_task", "make_task"]

METHOD, COMPARED = "method", "compared"


@dataclass(frozen=True)
class Other:
    """A further store that is scored on the same images.

    Attributes
    ----------
    name : str
        ``compared``, or ``run 1`` and so on.
    given : Store
        As it was given: boxes, perhaps, of a protocol that reads maps.
    source : Source
        What the protocol reads.
    """

    name: str
    given: Store
    source: Source


@dataclass(frozen=True)
class Task:
    """One protocol on one store.

    Attributes
    ----------
    protocol : ScoreProtocol
    given : Store
        The INPUT.
    source : Source
        What the protocol reads: the INPUT, or the maps behind it.
    others : tuple of Other
    """

    protocol: ScoreProtocol
    given: Store
    source: Source
    others: tuple[Other, ...] = ()

    @property
    def num_images(self) -> int:
        """The number of images that are scored."""
        return len(self.source.join.truth_row_N)


@dataclass(frozen=True)
class ScoreWish:
    """What is to be scored, in plain values: what another process needs to open the same.

    Attributes
    ----------
    protocols : tuple of ScoreProtocol
    input : path
    truth, measured_to : path or None
        None: the images behind the input; no store that a protocol measures to.
    others : tuple of (str, path)
        Names and stores that are scored by the same protocols on the same images.
    without_skipped : bool
    """

    protocols: tuple[ScoreProtocol, ...]
    input: PathLike
    truth: PathLike | None
    measured_to: PathLike | None
    others: tuple[tuple[str, PathLike], ...]
    without_skipped: bool


def open_tasks(wish: ScoreWish, stack: ExitStack) -> list[Task]:
    """Return a task for each protocol; what is opened closes with `stack`.

    Raises
    ------
    ProtocolError
        A protocol does not suit a store or the truth.
    LineageError
        The truth, or the maps behind boxes, are not where they were.
    """
    store = stack.enter_context(open_store(Path(wish.input)))
    given = wish.truth
    true = open_store(Path(given)) if given else find_ancestor(store, "images", "--truth")
    stack.enter_context(true)
    return [
        make_task(
            protocol,
            store,
            true,
            stack,
            measured_to=wish.measured_to,
            others=wish.others,
            without_skipped=wish.without_skipped,
        )
        for protocol in wish.protocols
    ]


def make_task(
    protocol: ScoreProtocol,
    given: Store,
    truth: Store,
    stack: ExitStack,
    *,
    measured_to: PathLike | None,
    others: Sequence[tuple[str, PathLike]],
    without_skipped: bool,
) -> Task:
    """Return what is to be counted; refuse stores that do not suit the protocol.

    `measured_to` is the protocol's own other store, `others` (names and paths) are scored by
    the same protocol on the same images. Stores that are opened here close with `stack`.

    Raises
    ------
    ProtocolError
        The protocol does not suit a store or the truth.
    LineageError
        The maps behind boxes are not where they were.
    """
    _check_truth(truth, protocol)
    protocol = protocol.with_classes(truth.class_names(), truth.whole("class_id").tolist())
    store = stack.enter_context(_reads(given, protocol))
    _check_point(store, protocol)
    num_slots = usable_slots(store, protocol)
    join = join_images(
        store,
        truth,
        given=given,
        without_skipped=without_skipped,
        only_masked=protocol.truth == "mask",
    )
    source = Source(store, truth, join, num_slots)
    if measured_to is not None and "other" in protocol.options:
        to = stack.enter_context(open_store(Path(measured_to)))
        to.require("maps", "score --other", "Give the maps.")
        usable_slots(to, protocol)
        source = replace(source, other=to, other_row_N=rows_in(to, truth, join, "--other"))
    return Task(
        protocol,
        given,
        source,
        tuple(_other(name, path, protocol, source, stack) for name, path in others),
    )


def _other(
    name: str, path: PathLike, protocol: ScoreProtocol, source: Source, stack: ExitStack
) -> Other:
    """Return another store as a source of the same images."""
    option = "--compare" if name == COMPARED else "--runs"
    given = stack.enter_context(open_store(Path(path)))
    store = stack.enter_context(_reads(given, protocol))
    row_N = rows_in(store, source.truth, source.join, option)
    join = replace(source.join, row_N=row_N)
    return Other(
        name,
        given,
        replace(source, store=store, join=join, num_slots=usable_slots(store, protocol)),
    )


def _check_truth(true: Store, protocol: ScoreProtocol) -> None:
    true.require("images", "score --truth", "Give an images store with boxes.")
    on_masks = protocol.record == "game" and protocol.regions != "boxes" and has_masks(true)
    if protocol.truth == "box" and "box" not in true and not on_masks:
        raise ProtocolError(
            f"{true.path.name}: has no true boxes, so nothing can be scored. Ingest them "
            "(ingest folder --boxes …) or pass --truth."
        )
    if protocol.truth == "mask" and not has_masks(true):
        raise ProtocolError(
            f"{true.path.name}: has no true masks, which {protocol.name} needs. Ingest them "
            "(ingest voc, of a folder with SegmentationClass) or pass --truth."
        )


def _reads(store: Store, protocol: ScoreProtocol) -> Store:
    """Return the store that the protocol reads: the input, or the maps behind boxes."""
    if store.kind in protocol.reads:
        return store
    if store.kind == "boxes" and "maps" in protocol.reads:
        return find_ancestor(store, "maps", f"INPUT (the maps), which {protocol.name} reads")
    hints = {"boxes": "Run first: wsltool boxes MAPS", "masks": "Run first: wsltool ingest masks …"}
    first = protocol.reads[0]
    return store.require(
        first, f"score --protocol {protocol.name}", hints.get(first, "Give the maps.")
    )


def _check_point(store: Store, protocol: ScoreProtocol) -> None:
    if protocol.point_at == "region" and store.kind == "boxes":
        raise ProtocolError(
            f"{store.path.name}: holds boxes, whose point is their centre; --point-at region needs "
            "maps. Give the maps, or leave --point-at out."
        )


def count_tasks(tasks: Sequence[Task], start: int, stop: int) -> dict[str, Tally]:
    """Return the tallies of the scored images ``start:stop``, by task and what was counted."""
    return {
        f"{number} {name}": tally
        for number, task in enumerate(tasks)
        if start < task.num_images
        for name, tally in count_task(task, start, min(stop, task.num_images)).items()
    }


def count_task(task: Task, start: int, stop: int) -> dict[str, Tally]:
    """Return the tallies of the scored images ``start:stop``, by what was counted.

    ``method``, each trivial baseline (see `score_baselines`), and each of `Task.others`.
    """
    return joined_by_name(_tallies(task, start, stop))


def _tallies(task: Task, start: int, stop: int) -> Iterator[tuple[str, Tally]]:
    protocol = task.protocol
    alone = replace(protocol, by_image=False)
    trivial = transforms(protocol)
    for predicted, true in records(task.source, protocol, start, stop):
        yield METHOD, protocol.count(predicted, true)
        for name, transform in trivial.items():
            yield name, alone.count(transform(predicted, true), true)
    for other in task.others:
        used = protocol if other.name == COMPARED else alone
        for predicted, true in records(other.source, protocol, start, stop):
            yield other.name, used.count(predicted, true)
