"""Stage ``score``: boxes or maps against the truth, beside what needs no method."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from wsltool.errors import ProtocolError, StoreExistsError, UsageError
from wsltool.metrics.baselines import (
    CENTRED_FRACTIONS,
    centre_peaks,
    centred_boxes,
    fit_centred,
    whole_boxes,
)
from wsltool.metrics.protocols import Counts, ScoreProtocol, find_protocol
from wsltool.metrics.records import Peaks, Predictions, Truth
from wsltool.stages.options import PathLike
from wsltool.stages.report import Reporter
from wsltool.stages.scored import Join, join_images, predictions, truths, usable_slots
from wsltool.stores.lineage import find_ancestor, fingerprint_store
from wsltool.stores.open import open_store
from wsltool.stores.store import Store
from wsltool.stores.wip import place_file

__all__ = ["score"]

Predicted = Predictions | Peaks
_T = TypeVar("_T")
Transform = Callable[[Predicted, Truth], Predicted]


def score(
    input: PathLike,
    *,
    protocol: str | Sequence[str],
    truth: PathLike | None = None,
    iou: float | None = None,
    without_skipped: bool = False,
    output: PathLike | None = None,
    report: Reporter | None = None,
) -> dict[str, Any]:
    """Score a store by one or more protocols.

    Parameters
    ----------
    input : path
        A ``boxes`` store, or a ``maps`` store for protocols that read maps. A protocol that
        reads maps finds those that the boxes were made from.
    protocol : str or sequence of str
        Names, see `wsltool.metrics.protocols.PROTOCOLS`.
    truth : path, optional
        The ``images`` store with the truth; by default the one that `input` was made from.
    iou : float, optional
        Another IoU threshold than the protocol's.
    without_skipped : bool
        Leave out images that were skipped on the way; by default they count as images
        without a prediction.
    output : path, optional
        Also write the result here, as JSON; an older result there is replaced.
    report : Reporter, optional
        Who hears of warnings.

    Returns
    -------
    dict
        ``results``, one entry a protocol: value, per-class rows, counts, parameters, the
        trivial baselines of its kind, how images were joined, fingerprints of the inputs.

    Raises
    ------
    ProtocolError
        The protocol does not suit the store or the truth.
    LineageError
        The truth is not where it was; pass `truth`.
    StoreExistsError
        Something stands at `output` that is no result.
    """
    report = report or Reporter()
    names = [protocol] if isinstance(protocol, str) else list(protocol)
    if not names:
        raise UsageError("--protocol is missing. Pass one, for instance --protocol voc-ap.")
    protocols = [find_protocol(name) for name in names]
    if iou is not None:
        protocols = [one.with_iou(iou) for one in protocols]
    if output is not None:
        _check_output(Path(output))
    with ExitStack() as stack:
        store = stack.enter_context(open_store(Path(input)))
        true = open_store(Path(truth)) if truth else find_ancestor(store, "images", "--truth")
        stack.enter_context(true)
        _check_truth(true)
        results = []
        for one in protocols:
            read = stack.enter_context(_reads(store, one))
            results.append(_scored(read, true, one, store, without_skipped, report))
    found = {"format": 1, "version": metadata.version("wsltool"), "results": results}
    if output is not None:
        text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        place_file(Path(output), text.encode(), replace=True)
    return found


def _check_truth(true: Store) -> None:
    true.require("images", "score --truth", "Give an images store with boxes.")
    if "box" not in true:
        raise ProtocolError(
            f"{true.path.name}: has no true boxes, so nothing can be scored. Ingest them "
            "(ingest folder --boxes …) or pass --truth."
        )


def _check_output(path: Path) -> None:
    """Refuse a place that cannot be written, or holds something else than a result."""
    if not path.parent.is_dir():
        raise UsageError(f"-o {path}: the folder {path.parent} does not exist. Make it first.")
    if not os.path.lexists(path):
        return
    try:
        old = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError):
        old = None
    if not isinstance(old, dict) or "results" not in old:
        raise StoreExistsError(
            f"-o {path}: something stands there that is no result of score. It is left alone. "
            "Give another name."
        )


def _reads(store: Store, protocol: ScoreProtocol) -> Store:
    """Return the store that the protocol reads: the input, or the maps behind boxes."""
    if protocol.reads == "maps" and store.kind == "boxes":
        return find_ancestor(store, "maps", f"INPUT (the maps), which {protocol.name} reads")
    hint = "Run first: wsltool boxes MAPS" if protocol.reads == "boxes" else "Give the maps."
    return store.require(protocol.reads, f"score --protocol {protocol.name}", hint)


def _scored(
    store: Store,
    truth: Store,
    protocol: ScoreProtocol,
    given: Store,
    without_skipped: bool,
    report: Reporter,
) -> dict[str, Any]:
    """Return what one protocol says of `given`, of which it reads `store`."""
    num_slots = usable_slots(store, protocol)
    join = join_images(store, truth, given=given, without_skipped=without_skipped)
    totals = _count(store, truth, protocol, join, num_slots)
    result = protocol.result(totals["method"])
    lines = list(_join_warnings(join, given, truth, without_skipped=without_skipped))
    lines += result.warnings
    for line in lines:
        report.warn(f"{protocol.name}: {line}")
    found = result.as_dict()
    names, ids = truth.class_names(), truth.whole("class_id").tolist()
    for row in found["per_class"]:
        row["class_name"], row["class_id"] = names[row["class_index"]], ids[row["class_index"]]
    return found | {
        "warnings": lines,
        "baselines": list(_baselines(protocol, totals)),
        "images": _image_counts(join, given),
        "classes": store.attributes.get("classes", ""),
        "inputs": {one.kind: fingerprint_store(one, Path.cwd()) for one in (given, store, truth)},
        "made_by": {"stage": given.meta.get("stage"), "params": given.meta.get("params", {})},
    }


def _image_counts(join: Join, store: Store) -> dict[str, Any]:
    return {
        "scored": len(join.row_N),
        "missing": join.num_missing,
        "skipped": join.num_skipped,
        "not_in_truth": join.num_unknown,
        "without_truth": join.num_without_truth,
        "limit": store.meta.get("limit"),
    }


def _join_warnings(
    join: Join, store: Store, truth: Store, *, without_skipped: bool
) -> Iterator[str]:
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
        what = "are left out" if without_skipped else "count as images without a prediction"
        yield f"{join.num_skipped} images were skipped on the way; they {what}"
    if join.num_unknown:
        yield f"{join.num_unknown} images of {store.path.name} are not in {truth.path.name}"
    if join.num_without_truth:
        yield f"{join.num_without_truth} images have no usable truth and are left out"


def _count(
    store: Store, truth: Store, protocol: ScoreProtocol, join: Join, num_slots: int | None
) -> dict[str, Counts]:
    """Return the counts of the method and of each trivial baseline, over all images."""
    transforms = _transforms(protocol)
    totals: dict[str, Counts] = {}
    predicted_blocks = predictions(store, join.row_N, protocol.reads, num_slots)
    for predicted, true in zip(predicted_blocks, truths(truth, join), strict=True):
        for name, transform in transforms.items():
            counts = protocol.count(transform(predicted, true), true)
            totals[name] = totals[name] + counts if name in totals else counts
    return totals


def _transforms(protocol: ScoreProtocol) -> dict[str, Transform]:
    transforms: dict[str, Transform] = {"method": lambda predicted, true: predicted}
    if protocol.reads == "maps":
        transforms["centre"] = lambda p, true: centre_peaks(_as(Peaks, p), true.size_wh_N2)
        return transforms
    transforms["whole"] = lambda p, true: whole_boxes(_as(Predictions, p), true.size_wh_N2)
    for fraction in CENTRED_FRACTIONS:
        transforms[f"centred {fraction}"] = _centred(fraction)
    return transforms


def _as(kind: type[_T], value: Any) -> _T:
    assert isinstance(value, kind)
    return value


def _centred(fraction: float) -> Transform:
    return lambda p, true: centred_boxes(_as(Predictions, p), true.size_wh_N2, fraction)


def _baselines(protocol: ScoreProtocol, totals: dict[str, Counts]) -> Iterator[dict[str, Any]]:
    """Yield the trivial baselines, the centred box with the fraction that suits it best."""
    if protocol.reads == "maps":
        yield {"name": "image centre", "value": _value(protocol, totals["centre"])}
        return
    yield {"name": "whole image", "value": _value(protocol, totals["whole"])}
    values = {f: protocol.result(totals[f"centred {f}"]).value for f in CENTRED_FRACTIONS}
    if np.isnan(list(values.values())).all():
        return
    fit = fit_centred(values.__getitem__, higher_is_better=protocol.higher_is_better)
    yield {
        "name": "centred box",
        "value": fit.value,
        "fraction": fit.fraction,
        "fitted_on": "the scored images",
    }


def _value(protocol: ScoreProtocol, counts: Counts) -> float | None:
    value = protocol.result(counts).value
    return None if np.isnan(value) else value
