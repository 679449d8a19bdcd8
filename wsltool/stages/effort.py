"""Command ``effort``: what annotating clusters gained, class by class, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from wsltool.errors import UsageError
from wsltool.metrics.effort import paired_gain
from wsltool.metrics.protocols import ScoreProtocol, find_protocol
from wsltool.metrics.tally import Tally
from wsltool.stages.effort_classes import Annotation, effort_record, read_annotation
from wsltool.stages.options import PathLike, Settings, check_range, check_seed
from wsltool.stages.report import Reporter
from wsltool.stages.run import open_input
from wsltool.stages.score_result import entry
from wsltool.stages.score_shards import check_places, count_alone, write_result
from wsltool.stages.score_tasks import (
    COMPARED,
    METHOD,
    Other,
    Task,
    count_tasks,
    make_task,
)
from wsltool.stages.scored import rows_in
from wsltool.stores.lineage import find_ancestor, fingerprint_file, fingerprint_store
from wsltool.stores.open import open_store
from wsltool.stores.store import Store

__all__ = ["effort"]

_MOST_SAMPLES = 100_000


def effort(
    input: PathLike,
    *,
    before: PathLike,
    clusters: PathLike,
    labels: PathLike | None = None,
    truth: PathLike | None = None,
    protocol: str = "gt-known",
    iou: float | None = None,
    classes: str | Sequence[str] | None = None,
    min_change: float = 5.0,
    bootstrap: int = 1000,
    seed: int = 0,
    plot: PathLike | None = None,
    output: PathLike | None = None,
    report: Reporter | None = None,
) -> dict[str, Any]:
    """Say what annotating clusters gained: before and after, and the order of annotation.

    Parameters
    ----------
    input : path
        The store after `refine`: boxes, maps or masks, whatever the protocol reads.
    before : path
        The same without. It is scored on the same images.
    clusters : path
        The ``clusters`` store that was annotated: its second eigenvalues give the order.
    labels : path, optional
        The ``labels.json``: then only the classes that it labels are in the order, and classes
        with distractors are counted.
    truth : path, optional
        The ``images`` store with the truth; by default the one that `input` was made from.
    protocol : str
        One of `wsltool.metrics.protocols.PROTOCOLS` that has a value for each class, and a
        better and a worse.
    iou : float, optional
        Another IoU threshold than the protocol's.
    classes : str or sequence of str, optional
        Names or ids, with commas between in a str: only these classes.
    min_change : float
        From so many points on a class has changed, up or down.
    bootstrap : int
        Samples of the images behind the 95 % intervals of the gain and of each class's.
    seed : int
        Of the samples' draws.
    plot : path, optional
        A ``.png`` or ``.svg`` for figure 6: bars of the changed classes, and the curve.
    output : path, optional
        Also write the result here, as JSON; an older result there is replaced.
    report : Reporter, optional
        Who hears of warnings.

    Returns
    -------
    dict
        As `wsltool.stages.score.score` returns for INPUT compared with `before`, its one entry
        with the key ``effort``, see `wsltool.stages.effort_classes.effort_record`.

    Raises
    ------
    UsageError
        An option has a value that it cannot have, or the protocol has no value for each class,
        or neither a better nor a worse.
    ProtocolError
        The protocol does not suit a store or the truth, the clusters are of other classes, or
        none of them can be annotated.
    LineageError
        The truth is not where it was; pass `truth`. Or the labels are about other clusters.
    StoreExistsError
        Something stands at `output` that is no result.
    """
    wanted = _protocol(protocol, iou, classes)
    check_range("--min-change", min_change, 0, 100, open_high=False)
    check_range("--bootstrap", bootstrap, 1, _MOST_SAMPLES, open_high=False, whole=True)
    check_seed(seed)
    check_places(output, plot, "score or effort")
    report = report or Reporter()
    with ExitStack() as stack:
        pair = _open_pair(wanted, input, before, truth, stack)
        groups = stack.enter_context(open_input(clusters, "clusters", "effort --clusters"))
        annotation = read_annotation(groups, pair.truth, None if labels is None else Path(labels))
        tallies = _counted(pair, report)
        draws = {"num_samples": bootstrap, "seed": seed}
        result = _entry(pair, tallies, annotation, min_change, draws)
        result["inputs"] |= _beside(groups, labels)
    found = {"format": 1, "version": metadata.version("wsltool"), "results": [result]}
    for line in result["warnings"]:
        report.warn(f"{result['protocol']}: {line}")
    if output is not None:
        write_result(Path(output), found)
    if plot is not None:
        from wsltool.views.effort_plot import effort_plot

        effort_plot(result, Path(plot))
    return found


@dataclass(frozen=True)
class _Pair:
    """The same protocol on the same images, after and before."""

    after: Task
    before: Task

    @property
    def protocol(self) -> ScoreProtocol:
        return self.after.protocol

    @property
    def truth(self) -> Store:
        return self.after.source.truth


def _protocol(name: str, iou: float | None, classes: str | Sequence[str] | None) -> ScoreProtocol:
    """Return the protocol; refuse one whose classes cannot gain."""
    found = find_protocol(name)
    if found.higher_is_better is None or name == "pxap":
        what = "no value for each class" if name == "pxap" else "neither a better nor a worse"
        raise UsageError(f"--protocol {name} has {what}, so no class gains. Give another one.")
    parts = classes.split(",") if isinstance(classes, str) else classes
    chosen = None if parts is None else tuple(part.strip() for part in parts)
    return replace(found.with_options(iou=iou, classes=chosen), by_image=True)


def _open_pair(
    protocol: ScoreProtocol,
    after: PathLike,
    before: PathLike,
    truth: PathLike | None,
    stack: ExitStack,
) -> _Pair:
    """Open both stores as tasks on the images that are scored of the first one."""
    one, two = (stack.enter_context(open_store(Path(path))) for path in (after, before))
    true = open_store(Path(truth)) if truth else find_ancestor(one, "images", "--truth")
    stack.enter_context(true)
    task, other = (
        make_task(protocol, store, true, stack, measured_to=None, others=(), without_skipped=False)
        for store in (one, two)
    )
    row_N = rows_in(other.source.store, true, task.source.join, "--before")
    join = replace(
        task.source.join,
        row_N=row_N,
        num_missing=int((row_N < 0).sum()),
        num_skipped=0,
        num_unknown=other.source.join.num_unknown,
    )
    return _Pair(task, replace(other, source=replace(other.source, join=join)))


def _counted(pair: _Pair, report: Reporter) -> dict[str, Tally]:
    """Return the joined tallies of all images: after, before, and of the baselines."""
    other = Other(COMPARED, pair.before.given, pair.before.source)
    task = replace(pair.after, others=(other,))
    totals = count_alone(
        lambda edges: (count_tasks([task], *edge) for edge in edges),
        task.num_images,
        Settings(report=report),
    )
    return {name.partition(" ")[2]: tally for name, tally in totals.items()}


def _entry(
    pair: _Pair,
    tallies: dict[str, Tally],
    annotation: Annotation,
    min_change: float,
    draws: dict[str, int],
) -> dict[str, Any]:
    """Return the one entry: that of the store after, compared with before, and the effort."""
    protocol, seed = pair.protocol, draws["seed"]
    found = entry(pair.after, tallies, num_samples=None, seed=seed)
    old = entry(pair.before, tallies | {METHOD: tallies[COMPARED]}, num_samples=None, seed=seed)
    after, before = (protocol.result(tallies[name]) for name in (METHOD, COMPARED))
    interval = paired_gain(protocol, tallies[METHOD], tallies[COMPARED], **draws)
    found["effort"] = effort_record(
        protocol, after, before, interval, annotation, min_change=min_change, seed=seed
    )
    found["compared"] = _compared(found, old)
    new = [line for line in old["warnings"] if line not in found["warnings"]]
    found["warnings"] += [f"before, {pair.before.given.path.name}: {line}" for line in new]
    found["warnings"] += found["effort"].pop("warnings")
    return found


def _compared(found: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Return what `score --compare` says of the store before, from its own entry."""
    gained = found["effort"]
    ends = gained["low"], gained["high"]
    if found["higher_is_better"] is False and None not in ends:  # an error that fell is a gain
        ends = -ends[1], -ends[0]
    known = None not in (found["value"], old["value"])
    return {
        "protocol": old["protocol"],
        "value": old["value"],
        "difference": found["value"] - old["value"] if known else None,
        "low": ends[0],
        "high": ends[1],
        "level": gained["level"],
        "num_samples": gained["num_samples"],
        "seed": gained["seed"],
        "per_class": [row["value"] for row in old["per_class"]],
        "inputs": old["inputs"],
        "made_by": old["made_by"],
    } | ({"thresholds": old["thresholds"]} if "thresholds" in old else {})


def _beside(clusters: Store, labels: PathLike | None) -> dict[str, Any]:
    """Return the fingerprints of what was read beside what `score` reads."""
    found = {"clusters": fingerprint_store(clusters, Path.cwd())}
    if labels is not None:
        found["labels"] = fingerprint_file(Path(labels), Path.cwd())
    return found
