"""Stage ``baseline``: what needs no method, so that every score has a floor to stand on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from wsltool.errors import StoreKindError, UsageError
from wsltool.localize.priors import centred_box, gaussian_map, random_map
from wsltool.stages.options import (
    PathLike,
    RunOptions,
    Settings,
    check_choice,
    check_range,
    check_seed,
)
from wsltool.stages.plan import Job
from wsltool.stages.run import Block, Rows, Tick, limited, open_input, row_job, run
from wsltool.stores.lineage import fingerprint_store
from wsltool.stores.open import open_store
from wsltool.stores.store import Store

__all__ = ["baseline"]

Array = np.ndarray[Any, Any]
Prior = Literal["whole", "centred", "gaussian", "random"]

_READ_ROWS = 4096


def baseline(
    input: PathLike,
    *,
    prior: Prior = "centred",
    fraction: float = 0.8,
    sigma: float = 0.25,
    grid: int = 14,
    like: PathLike | None = None,
    seed: int = 0,
    **options: Unpack[RunOptions],
) -> Path:
    """Make boxes or maps that look at no picture.

    Parameters
    ----------
    input : path
        An ``images`` store.
    prior : {"whole", "centred", "gaussian", "random"}
        The whole image or a centred box (a ``boxes`` store), or a centred Gaussian or a
        uniformly random map (a ``maps`` store).
    fraction : float
        Side of the centred box as a share (0, 1] of each side of the image.
    sigma : float
        Standard deviation of the Gaussian as a share of each side of the image, > 0.
    grid : int
        Rows and columns of the maps.
    like : path, optional
        A ``maps`` or ``boxes`` store over the same images, whose classes and scores are
        taken. By default the classes present, so that protocols which rank classes refuse
        the result.
    seed : int
        Seed of the random maps; each row has its own stream.
    **options
        See `wsltool.stages.options.RunOptions`.

    Returns
    -------
    Path
        The ``boxes`` or ``maps`` store.

    Raises
    ------
    UsageError
        An option is out of its range, or `like` is over other images.
    StoreKindError
        `like` holds neither maps nor boxes.
    """
    settings = Settings.of(options)
    check_choice("--prior", prior, Prior)
    check_range("--fraction", fraction, 0, 1, open_low=True, open_high=False)
    check_range("--sigma", sigma, 0, 100, open_low=True)
    check_range("--grid", grid, 1, 4096, whole=True)
    check_seed(seed)
    params = {"prior": prior, "fraction": fraction, "sigma": sigma, "grid": grid, "seed": seed}
    make = _boxes if prior in ("whole", "centred") else _maps
    with ExitStack() as stack:
        images = stack.enter_context(open_input(input, "images", "baseline"))
        other = None if like is None else stack.enter_context(open_store(Path(like)))
        if other is not None:
            _check_like(other, images, limited(images, settings.limit)[0])
        job = _job(settings, images, other, params)

        def compute(blocks: list[Block], tick: Tick) -> Iterator[Rows]:
            for block in blocks:
                yield make(_ranking(images, other, block), block, params)

        return run(job, compute, settings)


def _job(settings: Settings, images: Store, other: Store | None, params: dict[str, Any]) -> Job:
    attributes, inputs = {"classes": "present", "score_kind": "logit"}, {}
    if other is not None:
        attributes = {name: other.attributes.get(name, "") for name in attributes}
        inputs["like"] = fingerprint_store(other, (settings.output or images.path).parent)
    kind = "maps"
    if params["prior"] in ("whole", "centred"):
        kind, attributes["box_score_kind"] = "boxes", "class"
    return row_job(
        settings,
        "baseline",
        kind,
        images,
        params=params,
        inputs=inputs,
        attributes=attributes,
        row_bytes=params["grid"] ** 2 * 4 * images.shape("class_name")[0],
    )


def _check_like(other: Store, images: Store, num_rows: int) -> None:
    """Refuse a store that does not rank the classes of the first `num_rows` images."""
    name = f"--like {other.path.name}"
    if other.kind not in ("maps", "boxes"):
        raise StoreKindError(f'{name}: kind is "{other.kind}", expected "maps" or "boxes".')
    if other.class_names() != images.class_names() or len(other) < num_rows:
        raise UsageError(
            f"{name}: has other classes or fewer images than {images.path.name}. "
            "Give one that was made from these images."
        )
    for at in range(0, num_rows, _READ_ROWS):
        to = min(num_rows, at + _READ_ROWS)
        differ = other.rows("image_id", at, to) != images.rows("image_id", at, to)
        if differ.any():
            row = at + int(differ.argmax())
            raise UsageError(
                f'{name}: row {row} is "{other.rows("image_id", row, row + 1)[0]}", but '
                f'"{images.rows("image_id", row, row + 1)[0]}" in {images.path.name}. '
                "Give one that was made from these images."
            )


def _ranking(images: Store, other: Store | None, block: Block) -> Rows:
    """Return what is carried, class and score of the slots, and the score of every class.

    An image that `other` skipped is skipped here too.
    """
    at, to = block.start, block.stop
    rows = images.carried(at, to)
    if other is None:
        rows |= _present_slots(images.rows("label", at, to) == 1)
    else:
        seen = other.carried(at, to)
        gone_N = seen["image_status"] != 0
        for name in ("image_status", "image_note"):
            rows[name][gone_N] = seen[name][gone_N]
        unknown_NK = np.full((to - at, images.shape("label")[1]), -np.inf, np.float32)
        rows["class_score"] = unknown_NK
        names = [n for n in ("map_class", "map_score", "class_score") if n in other]
        rows |= {name: other.rows(name, at, to) for name in names}
    gone_N = rows["image_status"] != 0
    rows["map_class"][gone_N], rows["map_score"][gone_N] = -1, -np.inf
    return rows


def _present_slots(present_NK: Array) -> Rows:
    """Return the classes present as slots, all scored 0."""
    num_slots = max(1, int(present_NK.sum(axis=1).max(initial=0)))
    order_NS = np.argsort(~present_NK, axis=1, kind="stable")[:, :num_slots]
    used_NS = np.take_along_axis(present_NK, order_NS, axis=1)
    return {
        "map_class": np.where(used_NS, order_NS, -1).astype(np.int32),
        "map_score": np.where(used_NS, 0, -np.inf).astype(np.float32),
        "class_score": np.zeros(present_NK.shape, np.float32),
    }


def _boxes(rows: Rows, _block: Block, params: dict[str, Any]) -> Rows:
    """Add a box for every slot in use."""
    del rows["class_score"]
    used_NS = rows["map_class"] >= 0
    image, slot = np.nonzero(used_NS)
    fraction = 1.0 if params["prior"] == "whole" else params["fraction"]
    box_N4 = centred_box(rows["image_size"].astype(np.float64), fraction)
    return rows | {
        "box_start": used_NS.sum(axis=1).astype(np.int64),
        "box": box_N4[image],
        "box_class": rows["map_class"][used_NS].astype(np.int32),
        "box_score": rows["map_score"][used_NS].astype(np.float32),
        "box_slot": slot.astype(np.int32),
    }


def _maps(rows: Rows, block: Block, params: dict[str, Any]) -> Rows:
    """Add a map for every slot in use."""
    cells = (params["grid"], params["grid"])
    map_NSHW = np.zeros((*rows["map_class"].shape, *cells), np.float32)
    fixed = gaussian_map(cells, params["sigma"])
    for n in range(block.num_rows):
        generator = np.random.default_rng([params["seed"], block.start + n])
        for slot in np.flatnonzero(rows["map_class"][n] >= 0):
            gaussian = params["prior"] == "gaussian"
            map_NSHW[n, slot] = fixed if gaussian else random_map(cells, generator)
    size = rows["image_size"].astype(np.float32)
    extent_N4 = np.concatenate([np.zeros_like(size), size], axis=1)
    return rows | {"map": map_NSHW, "map_extent": extent_N4}
