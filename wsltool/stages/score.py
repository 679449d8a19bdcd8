"""Stage ``score``: boxes or maps against the truth, beside what needs no method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from wsltool.errors import UsageError
from wsltool.metrics.protocols import ScoreProtocol, find_protocol
from wsltool.metrics.tally import Tally
from wsltool.stages.options import PathLike, Settings, check_range, check_seed, parse_shard
from wsltool.stages.plan import Job
from wsltool.stages.report import Reporter
from wsltool.stages.score_compared import Entries, digest_of, put_beside, read_entries
from wsltool.stages.score_result import entry
from wsltool.stages.score_shards import (
    check_places,
    count_alone,
    count_share,
    read_result,
    write_result,
)
from wsltool.stages.score_tasks import COMPARED, ScoreWish, Task, open_tasks
from wsltool.stages.score_workers import CountBlocks, counting
from wsltool.stores.lineage import fingerprint_store

__all__ = ["score"]

_REVISION = 1
_MOST_SAMPLES = 100_000
_MOST_WORKERS = 1024


def score(
    input: PathLike,
    *,
    protocol: str | Sequence[str],
    truth: PathLike | None = None,
    iou: float | str | Sequence[float] | None = None,
    tolerance: float | None = None,
    metric: str | None = None,
    point_at: str | None = None,
    confidence: str | None = None,
    misses: str | None = None,
    pairs: str | None = None,
    interval: float | None = None,
    definition: str | None = None,
    grid: str | None = None,
    regions: str | None = None,
    other: PathLike | None = None,
    classes: str | Sequence[str] | None = None,
    compare: PathLike | None = None,
    runs: Sequence[PathLike] | None = None,
    bootstrap: int | None = None,
    seed: int = 0,
    without_skipped: bool = False,
    plot: PathLike | None = None,
    workers: int = 1,
    output: PathLike | None = None,
    shard: str | None = None,
    report: Reporter | None = None,
) -> dict[str, Any]:
    """Score a store by one or more protocols.

    Parameters
    ----------
    input : path
        A ``boxes`` store, or a ``maps`` or ``masks`` store for protocols that read them. A
        protocol that reads maps finds those that the boxes were made from.
    protocol : str or sequence of str
        Names, see `wsltool.metrics.protocols.PROTOCOLS`.
    truth : path, optional
        The ``images`` store with the truth; by default the one that `input` was made from.
    iou : float, str or sequence of float, optional
        Another IoU threshold than the protocol's; of several (in a str: with commas between), a
        result for each.
    tolerance : float, optional
        ``point``, ``pointing-game``: how many pixels a point may lie from an object.
    metric : str, optional
        ``point``: how that is measured, ``chebyshev`` (default) or ``euclidean``.
    point_at : str, optional
        ``point``: where a map's point lies, its hottest pixel, ``peak`` (default), or the centre
        of its ``region`` of maximal response.
    confidence : str, optional
        ``point``: ranked by the ``map``'s value (default) or the class score, ``cls``.
    misses : str, optional
        ``point``: whether a point that misses is a false positive, ``fp`` (default), or only
        a false negative, ``fn``.
    pairs : str, optional
        ``saliency-ap``: pixels of all pairs ``pooled`` (default), or a curve ``per-pair``.
    interval : float, optional
        ``maxboxacc…``, ``pxap``: the step between thresholds; .001 by default.
    definition : str, optional
        ``corloc``: ``wsod`` (default), ``discovery`` or ``discovery-no-hard``.
    grid : str, optional
        ``voc07-ap``: the eleven recalls as the ``devkit`` has them (default), or ``numpy``.
    regions : str, optional
        ``pointing-game``: ``boxes``, ``masks``, or what the truth has (``auto``, default).
    other : path, optional
        ``peak-distance``: another ``maps`` store of the same images, measured to.
    classes : str or sequence of str, optional
        Names or ids, with commas between in a str: the value is taken over these classes.
    compare : path, optional
        Another store of the same images, scored alike: the paired difference with its 95 %
        interval. Or a result that ``score -o`` wrote: the plain difference, without interval.
    runs : sequence of path, optional
        The same from other seeds: values, mean and standard deviation of all.
    bootstrap : int, optional
        So many samples of the images give each value a 95 % interval (percentiles).
    seed : int
        Of the samples' draws.
    without_skipped : bool
        Leave out images that were skipped on the way; by default they count as images
        without a prediction.
    plot : path, optional
        A ``.png`` or ``.svg`` to draw the results in: curves, a bar for each class.
    workers : int
        Processes that count. More than one need a script that guards its main program
        (``if __name__ == "__main__":``).
    output : path, optional
        Also write the result here, as JSON; an older result there is replaced.
    shard : str, optional
        ``I/N`` or ``slurm``: count only this share of the images, into ``OUTPUT.wip``; the
        process that finds all shares there makes the result.
    report : Reporter, optional
        Who hears of warnings.

    Returns
    -------
    dict
        ``results``, one entry a protocol (and IoU): value, per-class rows, counts,
        parameters, the trivial baselines of its kind, how images were joined, fingerprints
        of the inputs. With `shard`, no entry while shares of others are missing.

    Raises
    ------
    UsageError
        An option has a value that it cannot have, or the protocol does not read it.
    ProtocolError
        The protocol does not suit the store or the truth.
    BadImageError
        A true mask cannot be read.
    LineageError
        The truth is not where it was; pass `truth`.
    StoreExistsError
        Something stands at `output` that is no result.
    """
    given = {
        "tolerance": tolerance,
        "metric": metric,
        "point_at": point_at,
        "confidence": confidence,
        "misses": misses,
        "pairs": pairs,
        "interval": interval,
        "definition": definition,
        "grid": grid,
        "regions": regions,
        "other": None if other is None else str(other),
        "classes": _names(classes),
    }
    by_image = bootstrap is not None or compare is not None
    protocols = list(_protocols(protocol, _ious(iou), given, by_image=by_image))
    settings = _settings(output, shard, bootstrap, seed, plot, workers, report)
    against = None if compare is None else read_entries(Path(compare), protocols)
    others = [] if compare is None or against is not None else [(COMPARED, compare)]
    others += [(f"run {number}", path) for number, path in enumerate(runs or (), 2)]
    wish = ScoreWish(tuple(protocols), input, truth, other, tuple(others), without_skipped)
    with ExitStack() as stack:
        tasks = open_tasks(wish, stack)
        drawn = {"bootstrap": bootstrap, "seed": seed, "without_skipped": without_skipped}
        beside = {} if against is None else {"compare": digest_of(against)}
        job = _job(tasks, settings, drawn | beside)
        count = stack.enter_context(counting(wish, tasks, workers))
        found = _counted(tasks, count, job, settings, against, bootstrap, seed)
    for result in found["results"]:
        for line in result["warnings"]:
            settings.report.warn(f"{result['protocol']}: {line}")
    if plot is not None and found["results"]:
        from wsltool.views.result_plots import result_plot

        result_plot(found["results"], Path(plot))
    return found


def _names(classes: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if classes is None:
        return None
    parts = classes.split(",") if isinstance(classes, str) else classes
    return tuple(part.strip() for part in parts)


def _ious(iou: float | str | Sequence[float] | None) -> list[float | None]:
    """Return the IoU of each result of a protocol that reads it."""
    if iou is None or isinstance(iou, (int, float)):
        return [iou]
    try:
        parts = [float(part) for part in (iou.split(",") if isinstance(iou, str) else iou)]
    except ValueError:
        raise UsageError(f'--iou must be numbers with commas between, got "{iou}".') from None
    return list(dict.fromkeys(parts)) or [None]


def _protocols(
    name: str | Sequence[str],
    ious: Sequence[float | None],
    given: dict[str, Any],
    *,
    by_image: bool,
) -> Iterator[ScoreProtocol]:
    """Yield the protocols, each with what it reads; refuse what none reads, or one lacks."""
    names = [name] if isinstance(name, str) else list(name)
    if not names:
        raise UsageError("--protocol is missing. Pass one, for instance --protocol voc-ap.")
    plain = [find_protocol(name) for name in names]
    known = {option for one in plain for option in one.options}
    unread = {option: value for option, value in given.items() if option not in known}
    if "iou" not in known:
        unread["iou"] = ious[0]
    for one in plain:
        own = {option: value for option, value in given.items() if option in one.options}
        if one.record == "peak-pairs" and not own.get("other"):
            raise UsageError(
                f"--other is missing: {one.name} measures to the maps of another store. "
                "Pass --other MAPS."
            )
        for iou in ious if "iou" in one.options else [None]:
            mine = own | unread | ({} if iou is None else {"iou": iou})
            yield replace(one.with_options(**mine), by_image=by_image)


def _settings(
    output: PathLike | None,
    shard: str | None,
    bootstrap: int | None,
    seed: int,
    plot: PathLike | None,
    workers: int,
    report: Reporter | None,
) -> Settings:
    """Check what does not concern protocols."""
    if bootstrap is not None:
        check_range("--bootstrap", bootstrap, 1, _MOST_SAMPLES, open_high=False, whole=True)
    check_seed(seed)
    check_range("--workers", workers, 1, _MOST_WORKERS, open_high=False, whole=True)
    if shard is not None and output is None:
        raise UsageError("--shard needs -o: the shares meet beside the result. Pass -o FILE.json.")
    check_places(output, plot, "score")
    return Settings(
        output=None if output is None else Path(output),
        shard=parse_shard(shard),
        report=report or Reporter(),
    )


def _job(tasks: Sequence[Task], settings: Settings, options: dict[str, Any]) -> Job:
    """Return the result as a job, so that shards know whether they mean the same."""
    output = settings.output or Path("result.json")
    stores = {"truth": tasks[0].source.truth, "input": tasks[0].given}
    stores |= {other.name: other.given for other in tasks[0].others}
    for task in tasks:
        if task.source.other is not None:
            stores["other"] = task.source.other
    inputs = {role: fingerprint_store(one, output.parent) for role, one in stores.items()}
    protocols = [{"protocol": t.protocol.name, **t.protocol.parameters} for t in tasks]
    return Job(
        stage="score",
        kind="result",
        output=output,
        params={"protocol": protocols, **options},
        inputs=inputs,
        num_rows=max(task.num_images for task in tasks),
        revision=_REVISION,
        finished_meta=lambda path: dict(read_result(path).get("request", {})),
    )


def _counted(
    tasks: Sequence[Task],
    count: CountBlocks,
    job: Job,
    settings: Settings,
    against: Entries | None,
    num_samples: int | None,
    seed: int,
) -> dict[str, Any]:
    """Count, alone or this process's share; return the result and write it where asked."""
    found: dict[str, Any] = {"format": 1, "version": metadata.version("wsltool"), "results": []}
    work = None
    if settings.shard.count == 1:
        totals: dict[str, Tally] | None = count_alone(count, job.num_rows, settings)
    else:
        totals, work = count_share(job, count, settings)
        if totals is None and work is None:
            return read_result(job.output)
    if totals is None:
        return found
    for number, task in enumerate(tasks):
        own = {
            name.partition(" ")[2]: tally
            for name, tally in totals.items()
            if name.startswith(f"{number} ")
        }
        found["results"].append(entry(task, own, num_samples=num_samples, seed=seed))
    if against is not None:
        put_beside(found["results"], against)
    if settings.output is not None:
        found["request"] = {k: v for k, v in job.plan().items() if k in _REQUEST}
        write_result(settings.output, found)
    if work is not None:
        work.remove()
    return found


_REQUEST = ("stage", "kind", "revision", "params", "inputs", "limit")
