"""Stage ``score``: boxes or maps against the truth, beside what needs no method."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

from wsltool.errors import ProtocolError, StoreExistsError, UsageError
from wsltool.metrics.protocols import ScoreProtocol, find_protocol
from wsltool.stages.options import PathLike
from wsltool.stages.report import Reporter
from wsltool.stages.score_baselines import baselines, count_all
from wsltool.stages.scored import Join, join_images, rows_in, usable_slots
from wsltool.stages.scored_records import Source
from wsltool.stores.lineage import find_ancestor, fingerprint_store
from wsltool.stores.open import open_store
from wsltool.stores.store import Store
from wsltool.stores.wip import place_file

__all__ = ["score"]


def score(
    input: PathLike,
    *,
    protocol: str | Sequence[str],
    truth: PathLike | None = None,
    iou: float | None = None,
    tolerance: float | None = None,
    metric: str | None = None,
    confidence: str | None = None,
    misses: str | None = None,
    pairs: str | None = None,
    other: PathLike | None = None,
    classes: str | Sequence[str] | None = None,
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
    tolerance : float, optional
        ``point``: how many pixels a point may lie from a true box; 18 by default.
    metric : str, optional
        ``point``: how that is measured, ``chebyshev`` (default) or ``euclidean``.
    confidence : str, optional
        ``point``: ranked by the ``map``'s value (default) or the class score, ``cls``.
    misses : str, optional
        ``point``: whether a point that misses is a false positive, ``fp`` (default), or only
        a false negative, ``fn``.
    pairs : str, optional
        ``saliency-ap``: pixels of all pairs ``pooled`` (default), or a curve ``per-pair``.
    other : path, optional
        Another ``maps`` store of the same images: what ``peak-distance`` measures to, and
        what ``saliency-ap`` takes the difference to.
    classes : str or sequence of str, optional
        Names or ids, with commas between in a str: the value is taken over these classes.
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
        "iou": iou,
        "tolerance": tolerance,
        "metric": metric,
        "confidence": confidence,
        "misses": misses,
        "pairs": pairs,
        "other": None if other is None else str(other),
        "classes": _names(classes),
    }
    protocols = _protocols(protocol, given)
    if output is not None:
        _check_output(Path(output))
    results = []
    with ExitStack() as stack:
        store = stack.enter_context(open_store(Path(input)))
        true = open_store(Path(truth)) if truth else find_ancestor(store, "images", "--truth")
        stack.enter_context(true)
        against = stack.enter_context(_open_other(other)) if other else None
        for one in protocols:
            _check_truth(true, one)
            one = one.with_classes(true.class_names(), true.whole("class_id").tolist())
            read = stack.enter_context(_reads(store, one))
            source = _source(read, true, one, store, against, without_skipped)
            results.append(_scored(source, one, store, report or Reporter()))
    found = {"format": 1, "version": metadata.version("wsltool"), "results": results}
    if output is not None:
        text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        place_file(Path(output), text.encode(), replace=True)
    return found


def _names(classes: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if classes is None:
        return None
    parts = classes.split(",") if isinstance(classes, str) else classes
    return tuple(part.strip() for part in parts)


def _protocols(name: str | Sequence[str], given: dict[str, Any]) -> list[ScoreProtocol]:
    """Return the protocols, each with what it reads; refuse what none reads, or one lacks."""
    names = [name] if isinstance(name, str) else list(name)
    if not names:
        raise UsageError("--protocol is missing. Pass one, for instance --protocol voc-ap.")
    plain = [find_protocol(name) for name in names]
    known = {option for one in plain for option in one.options}
    unread = {option: value for option, value in given.items() if option not in known}
    protocols = []
    for one in plain:
        own = {option: value for option, value in given.items() if option in one.options}
        protocols.append(one.with_options(**own, **unread))
    for one in protocols:
        if one.record == "peak-pairs" and not one.other:
            raise UsageError(
                f"--other is missing: {one.name} measures to the maps of another store. "
                "Pass --other MAPS."
            )
    return protocols


def _open_other(other: PathLike) -> Store:
    return open_store(Path(other)).require("maps", "score --other", "Give the maps.")


def _check_truth(true: Store, protocol: ScoreProtocol) -> None:
    true.require("images", "score --truth", "Give an images store with boxes.")
    if protocol.truth == "box" and "box" not in true:
        raise ProtocolError(
            f"{true.path.name}: has no true boxes, so nothing can be scored. Ingest them "
            "(ingest folder --boxes …) or pass --truth."
        )
    if protocol.truth == "mask" and "mask_path" not in true:
        raise ProtocolError(
            f"{true.path.name}: has no true masks, which {protocol.name} needs. Ingest them "
            "(ingest voc, of a folder with SegmentationClass) or pass --truth."
        )


def _source(
    store: Store,
    truth: Store,
    protocol: ScoreProtocol,
    given: Store,
    other: Store | None,
    without_skipped: bool,
) -> Source:
    """Return where the protocol reads; refuse stores whose classes do not suit it."""
    num_slots = usable_slots(store, protocol)
    join = join_images(
        store,
        truth,
        given=given,
        without_skipped=without_skipped,
        only_masked=protocol.truth == "mask",
    )
    if other is None:
        return Source(store, truth, join, num_slots)
    usable_slots(other, protocol)
    return Source(store, truth, join, num_slots, other, rows_in(other, truth, join))


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
    if store.kind in protocol.reads:
        return store
    if store.kind == "boxes":
        return find_ancestor(store, "maps", f"INPUT (the maps), which {protocol.name} reads")
    hint = "Run first: wsltool boxes MAPS" if protocol.reads == ("boxes",) else "Give the maps."
    return store.require(protocol.reads[0], f"score --protocol {protocol.name}", hint)


def _scored(
    source: Source, protocol: ScoreProtocol, given: Store, report: Reporter
) -> dict[str, Any]:
    """Return what one protocol says of `given`, of which it reads `source`."""
    truth, join = source.truth, source.join
    totals = count_all(source, protocol)
    result = protocol.result(totals["method"])
    lines = list(_join_warnings(join, given, truth))
    lines += result.warnings
    for line in lines:
        report.warn(f"{protocol.name}: {line}")
    found = result.as_dict()
    inputs = {one.kind: one for one in (given, source.store, truth)}
    if source.other is not None:
        inputs["other"] = source.other
    names, ids = truth.class_names(), truth.whole("class_id").tolist()
    for row in found["per_class"]:
        row["class_name"], row["class_id"] = names[row["class_index"]], ids[row["class_index"]]
    return found | {
        "warnings": lines,
        "baselines": list(baselines(protocol, totals)),
        "images": _image_counts(join, given, protocol),
        "classes": source.store.attributes.get("classes", ""),
        "inputs": {role: fingerprint_store(one, Path.cwd()) for role, one in inputs.items()},
        "made_by": {"stage": given.meta.get("stage"), "params": given.meta.get("params", {})},
    }


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
