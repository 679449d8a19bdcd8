"""Stage ``select``: some rows of a store, of the same kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from wsltool.datasets.textfiles import read_lines
from wsltool.errors import LineageError, StoreKindError, UsageError
from wsltool.stages.cooccurrence import inherited_weight
from wsltool.stages.options import PathLike, RunOptions, Settings, check_range, check_seed
from wsltool.stages.plan import Job
from wsltool.stages.run import Block, Rows, Tick, rebased, row_job, run, warn_of_strangers
from wsltool.stores.lineage import find_ancestor, fingerprint_file, fingerprint_store
from wsltool.stores.open import open_store
from wsltool.stores.schema import KINDS, RAGGED
from wsltool.stores.store import Store

__all__ = ["select"]

Array = np.ndarray[Any, Any]

_READ_ROWS = 4096


def select(
    input: PathLike,
    *,
    fraction: float | None = None,
    ids: PathLike | None = None,
    class_: str | None = None,
    not_in: PathLike | None = None,
    seed: int = 0,
    **options: Unpack[RunOptions],
) -> Path:
    """Keep some rows of a store; conditions add up, and rows keep their order.

    Parameters
    ----------
    input : path
        A store of any kind.
    fraction : float, optional
        Keep this share (0, 1] of the rows that fulfil the other conditions, drawn with
        `seed`, the same share of every class; an image counts for its rarest class.
    ids : path, optional
        File with an image id a line; an id that the store lacks is an error.
    class_ : str, optional
        Keep images that are labelled with this class (name or id).
    not_in : path, optional
        Drop images that this other store holds.
    seed : int
        Seed of the draw.
    **options
        See `wsltool.stages.options.RunOptions`; ``limit`` cuts what is kept.

    Returns
    -------
    Path
        The store, of the input's kind.

    Raises
    ------
    UsageError
        No condition, a bad value, an unknown class or id, or no row is left.
    DatasetError
        The file of ids cannot be read.
    """
    if fraction is None and ids is None and class_ is None and not_in is None:
        raise UsageError("select: no condition. Pass --fraction, --ids, --class or --not-in.")
    if fraction is not None:
        check_range("--fraction", fraction, 0, 1, open_low=True, open_high=False)
    check_seed(seed)
    settings = Settings.of(options)
    with open_store(Path(input)) as source:
        if not source.has_images:
            raise StoreKindError(
                f'{source.path.name}: kind is "{source.kind}", whose rows are classes, but select '
                "keeps images. Select among the images or maps that it was made from."
            )
        kept = _named(source, ids, not_in)
        if class_ is not None or fraction is not None:
            kept = _by_class(source, kept, class_, fraction, seed)
        rows = np.flatnonzero(kept)[: settings.limit]
        if not len(rows):
            raise UsageError(f"{source.path.name}: none of {len(source)} rows fulfils that.")
        drawn = {} if fraction is None else {"fraction": fraction, "seed": seed}
        params = drawn | {"class": class_}
        job = _job(settings, source, rows, params, ids, not_in)
        warn_of_strangers(source, settings.report)

        def compute(blocks: list[Block], tick: Tick) -> Iterator[Rows]:
            for block in blocks:
                yield _gather(source, rows[block.start : block.stop])

        return run(job, compute, settings)


def _job(
    settings: Settings,
    source: Store,
    rows: Array,
    params: dict[str, Any],
    ids: PathLike | None,
    not_in: PathLike | None,
) -> Job:
    held = source.meta.get("limit") or {"of": len(source)}
    folder = (settings.output or source.path).parent
    inputs = {}
    if ids is not None:
        inputs["ids"] = fingerprint_file(Path(ids), folder)
    if not_in is not None:
        with open_store(Path(not_in)) as other:
            inputs["not_in"] = fingerprint_store(other, folder)
    return row_job(
        settings,
        "select",
        source.kind,
        source,
        params=params,
        inputs=inputs,
        fixed={
            name: source.whole(name)
            for name, spec in KINDS[source.kind].items()
            if spec.dims[0] == "class" and name in source
        },
        attributes=_attributes(source, folder),
        num_rows=len(rows),
        limit={"how": "select", "num_rows": len(rows), "of": held["of"]},
    )


def _attributes(source: Store, folder: Path) -> dict[str, Any]:
    """Return the source's own attributes, the pictures' folder as seen from `folder`."""
    attributes = {name: v for name, v in source.attributes.items() if name != "wsltool"}
    if "root" in attributes:
        attributes["root"] = rebased(attributes["root"], source.path.parent, folder)
    return attributes | inherited_weight(source, folder)


def _named(source: Store, ids: PathLike | None, not_in: PathLike | None) -> Array:
    """Return which rows --ids and --not-in leave, bool (N,)."""
    found = [str(name) for name in source.whole("image_id").tolist()]
    kept = np.ones(len(found), bool)
    if ids is not None:
        wanted = {line for _, line in read_lines(Path(ids))}
        lacking = sorted(wanted - set(found))
        if lacking:
            raise UsageError(
                f'{ids}: {len(lacking)} ids are not in {source.path.name}, first "{lacking[0]}". '
                "Leave them out of the file."
            )
        kept &= np.array([name in wanted for name in found])
    if not_in is not None:
        with open_store(Path(not_in)) as other:
            others = set(other.whole("image_id").tolist())
        kept &= np.array([name not in others for name in found])
    return kept


def _by_class(
    source: Store, kept: Array, class_: str | None, fraction: float | None, seed: int
) -> Array:
    """Return which of the rows `kept` a class and a stratified draw leave, bool (N,)."""
    with find_ancestor(source, "images", "--class and --fraction need labels") as images:
        label_NK = _labels(source, images)
        if class_ is not None:
            kept = kept & (label_NK[:, _class_index(images, class_)] == 1)
    if fraction is None:
        return kept
    present_NK = label_NK == 1
    count_K = present_NK[kept].sum(axis=0)
    rarity_NK = np.where(present_NK, count_K, np.iinfo(np.int64).max)
    stratum_N = np.where(present_NK.any(axis=1), rarity_NK.argmin(axis=1), -1)
    generator = np.random.default_rng(seed)
    drawn = np.zeros_like(kept)
    for stratum in np.unique(stratum_N[kept]):
        rows = np.flatnonzero(kept & (stratum_N == stratum))
        num = max(1, round(fraction * len(rows)))
        drawn[generator.permutation(rows)[:num]] = True
    return drawn


def _class_index(images: Store, name: str) -> int:
    for array in ("class_name", "class_id"):
        names = images.whole(array).tolist() if array in images else []
        if name in names:
            return int(names.index(name))
    listed = ", ".join(images.class_names()[:8])
    raise UsageError(f'--class "{name}": no such class in {images.path.name} ({listed}, …).')


def _labels(source: Store, images: Store) -> Array:
    """Return the labels of the rows of `source`, uint8 (N, K), from the images behind it."""
    total = len(images)
    parts = [
        images.rows("label", at, min(total, at + _READ_ROWS)) for at in range(0, total, _READ_ROWS)
    ]
    label = np.concatenate(parts)
    if images.path == source.path:
        return label
    where = {name: row for row, name in enumerate(images.whole("image_id").tolist())}
    wanted = source.whole("image_id").tolist()
    lacking = [name for name in wanted if name not in where]
    if lacking:
        raise LineageError(
            f'{images.path.name}: has no image "{lacking[0]}" of {source.path.name}, so its labels '
            "are not known. Use --ids instead."
        )
    return label[[where[name] for name in wanted]]


def _gather(source: Store, rows: Array) -> Rows:
    """Return the given rows of every array of the store."""
    specs = KINDS[source.kind].items()
    names = [name for name, spec in specs if spec.dims[0] == "image" and name in source]
    axes = [axis for axis, offsets in RAGGED[source.kind].items() if offsets in source]
    found = source.gather(rows, names, axes) | source.carried_rows(rows)
    return found | (source.patterns(rows) if "pattern_cell" in source else {})
