"""One entry of the result of ``score``: numbers, and what a reader must know of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsltool.metrics.bootstrap import bootstrap, bootstrap_difference, over_runs
from wsltool.metrics.protocols import ScoreProtocol
from wsltool.metrics.tally import Tally
from wsltool.stages.score_baselines import baselines
from wsltool.stages.score_tasks import COMPARED, METHOD, Other, Task
from wsltool.stages.scored import Join
from wsltool.stages.scored_records import Source
from wsltool.stores.lineage import fingerprint_store
from wsltool.stores.store import Store

__all__ = ["entry"]


def entry(
    task: Task, totals: Mapping[str, Tally], *, num_samples: int | None, seed: int
) -> dict[str, Any]:
    """Return what one protocol says, as plain data.

    Parameters
    ----------
    task : Task
    totals : mapping of str to Tally
        The joined tallies of all images, see `score_tasks.count_task`.
    num_samples : int or None
        Of the bootstrap; None for no interval.
    seed : int
        Of its draws.
    """
    protocol, source = task.protocol, task.source
    result = protocol.result(totals[METHOD])
    found = result.as_dict()
    names, ids = source.truth.class_names(), source.truth.whole("class_id").tolist()
    for row in found["per_class"]:
        row["class_name"], row["class_id"] = names[row["class_index"]], ids[row["class_index"]]
    thresholds = source.store.attributes.get("thresholds")
    lines = [*_join_warnings(source.join, task.given, source.truth), *result.warnings]
    lines += _threshold_warnings(thresholds)
    lines += _weight_warnings(source.store.attributes.get("cooccurrence"))
    lines += _other_warnings(task.others)
    found |= {
        "warnings": lines,
        "baselines": list(baselines(protocol, totals, found["value"])),
        "images": _image_counts(source.join, task.given, protocol),
        "classes": source.store.attributes.get("classes", ""),
        "inputs": _inputs(task.given, source),
        "made_by": _made_by(task.given),
    }
    if thresholds:
        found["thresholds"] = thresholds
    if num_samples is not None:
        found["interval"] = _interval(protocol, totals[METHOD], num_samples, seed)
    for other in task.others:
        if other.name == COMPARED:
            found["compared"] = _compared(protocol, totals, other, num_samples or 1000, seed)
    runs = [other for other in task.others if other.name != COMPARED]
    if runs:
        found["runs"] = _runs(protocol, totals, result.value, runs)
    return found


def _interval(protocol: ScoreProtocol, tally: Tally, num_samples: int, seed: int) -> dict[str, Any]:
    found = bootstrap(protocol, tally, num_samples, seed)
    return {
        "low": _number(found.low),
        "high": _number(found.high),
        "level": 95,
        "num_samples": num_samples,
        "num_samples_without_value": found.num_without_value,
        "seed": seed,
        "per_class": [
            [_number(float(low)), _number(float(high))]
            for low, high in zip(found.low_K, found.high_K, strict=True)
        ],
    }


def _compared(
    protocol: ScoreProtocol, totals: Mapping[str, Tally], other: Other, num_samples: int, seed: int
) -> dict[str, Any]:
    """Return the paired difference to another store, with its interval."""
    result = protocol.result(totals[COMPARED])
    found = bootstrap_difference(protocol, totals[METHOD], totals[COMPARED], num_samples, seed)
    return {
        "value": _number(result.value),
        "difference": _number(found.difference),
        "low": _number(found.low),
        "high": _number(found.high),
        "level": 95,
        "num_samples": num_samples,
        "seed": seed,
        "per_class": [_number(row.value) for row in result.per_class],
        "inputs": _inputs(other.given, other.source),
        "made_by": _made_by(other.given),
    }


def _runs(
    protocol: ScoreProtocol, totals: Mapping[str, Tally], value: float, runs: list[Other]
) -> dict[str, Any]:
    """Return the values of this and further runs, with mean and spread."""
    values = [value, *(protocol.result(totals[one.name]).value for one in runs)]
    found = over_runs(values)
    return {
        "values": [_number(value) for value in values],
        "mean": _number(found.mean),
        "sd": _number(found.sd),
        "inputs": [_inputs(one.given, one.source) for one in runs],
    }


def _number(value: float) -> float | None:
    return None if value != value else value


def _inputs(given: Store, source: Source) -> dict[str, Any]:
    """Return the fingerprints of what was read."""
    inputs = {one.kind: one for one in (given, source.store, source.truth)}
    if source.other is not None:
        inputs["other"] = source.other
    return {role: fingerprint_store(one, Path.cwd()) for role, one in inputs.items()}


def _made_by(given: Store) -> dict[str, Any]:
    return {"stage": given.meta.get("stage"), "params": given.meta.get("params", {})}


def _image_counts(join: Join, store: Store, protocol: ScoreProtocol) -> dict[str, Any]:
    masks = {"without_mask": join.num_without_mask} if protocol.truth == "mask" else {}
    return masks | {
        "scored": len(join.row_N),
        "missing": join.num_missing,
        "skipped": join.num_skipped,
        "not_in_truth": join.num_unknown,
        "without_truth": join.num_without_truth,
        "limit": store.meta.get("limit"),
    }


def _threshold_warnings(thresholds: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield whether a threshold was chosen on what is scored."""
    num = int((thresholds or {}).get("overlap", 0))
    if num:
        yield f"the threshold was chosen on data that holds {num} of the scored images"


def _weight_warnings(cooccurrence: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield whether the weight of co-occurrence was chosen on what is scored."""
    num = int(((cooccurrence or {}).get("fitted_on") or {}).get("overlap") or 0)
    if num:
        yield f"the weight of co-occurrence was chosen on data that holds {num} of these images"


def _other_warnings(others: Sequence[Other]) -> Iterator[str]:
    """Yield how many of the scored images further stores lack."""
    for other in others:
        row_N = other.source.join.row_N
        num = int((row_N < 0).sum())
        if num:
            yield (
                f"{num} of {len(row_N)} images are not in {other.given.path.name}; they count as "
                "missed there"
            )


def _join_warnings(join: Join, store: Store, truth: Store) -> Iterator[str]:
    """Yield what a reader of the number must know of the images behind it."""
    limit = store.meta.get("limit")
    if limit is not None:
        how = "first" if limit["how"] == "limit" else "selected"
        yield f"{how} {limit['num_rows']} of {limit['of']} images"
    if join.num_missing:
        yield (
            f"{join.num_missing} of {len(join.row_N)} images of {truth.path.name} are not in "
            f"{store.path.name}; they count as missed"
        )
    if join.num_skipped:
        what = "are left out" if join.without_skipped else "count as images without a prediction"
        yield f"{join.num_skipped} images were skipped on the way; they {what}"
    if join.num_unknown:
        yield f"{join.num_unknown} images of {store.path.name} are not in {truth.path.name}"
    if join.num_without_mask:
        yield f"{join.num_without_mask} images have no true mask and are left out"
    if join.num_without_truth:
        yield f"{join.num_without_truth} images have no usable truth and are left out"
