"""Stage ``baseline``: what needs no method, so that every score has a floor to stand on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from wsltool.errors import StoreKindError, UsageError
from wsltool.localize.priors import centred_box, gaussian_map, random_map, whole_box
from wsltool.stages.options import PathLike, RunOptions, Settings, check_range
from wsltool.stages.run import Block, Rows, Tick, open_input, row_job, run
from wsltool.stores.lineage import fingerprint_store
from wsltool.stores.open import open_store
from wsltool.stores.store import Store

__all__ = ["baseline"]

Array = np.ndarray[Any, Any]


def baseline(
    input: PathLike,
    *,
    prior: Literal["whole", "centred", "gaussian", "random"] = "centred",
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
    """
    settings = Settings.of(options)
    check_range("--fraction", fraction, 0, 1, open_low=True, open_high=False)
    check_range("--sigma", sigma, 0, 100, open_low=True)
    check_range("--grid", grid, 1, 4096)
    params = {"prior": prior, "fraction": fraction, "sigma": sigma, "grid": grid, "seed": seed}
    with open_input(input, "images", "baseline") as images:
        other = _open_like(like, images)
        kind = "boxes" if prior in ("whole", "centred") else "maps"
        shared = {"classes": "present", "score_kind": "logit"}
        inputs = {}
        if other is not None:
            shared = {k: other.attributes.get(k, "") for k in shared}
            inputs["like"] = fingerprint_store(other, (settings.output or images.path).parent)
        job = row_job(
            settings,
            "baseline",
            kind,
            images,
            params=params,
            inputs=inputs,
            attributes=shared | ({"box_score_kind": "class"} if kind == "boxes" else {}),
            row_bytes=grid * grid * 4 * images.shape("class_name")[0],
        )

        def compute(blocks: list[Block], tick: Tick) -> Iterator[Rows]:
            for block in blocks:
                rows = images.carried(block.start, block.stop) | _ranking(images, other, block)
                gone_N = rows["image_status"] != 0
                rows["map_class"][gone_N], rows["map_score"][gone_N] = -1, -np.inf
                yield rows | (
                    _boxes(rows, params) if kind == "boxes" else _maps(rows, block, params)
                )

        return run(job, compute, settings)


def _open_like(like: PathLike | None, images: Store) -> Store | None:
    if like is None:
        return None
    other = open_store(Path(like))
    if other.kind not in ("maps", "boxes"):
        raise StoreKindError(
            f'--like {other.path.name}: kind is "{other.kind}", expected "maps" or "boxes".'
        )
    if other.class_names() != images.class_names() or len(other) < len(images):
        raise UsageError(
            f"--like {other.path.name}: has other classes or fewer images than "
            f"{images.path.name}. Give one that was made from these images."
        )
    return other


def _ranking(images: Store, other: Store | None, block: Block) -> Rows:
    """Return class and score of the slots, and the score of every class."""
    at, to = block.start, block.stop
    present_NK = images.rows("label", at, to) == 1
    if other is None:
        num_slots = max(1, int(present_NK.sum(axis=1).max(initial=0)))
        order = np.argsort(~present_NK, axis=1, kind="stable")[:, :num_slots]
        used = np.take_along_axis(present_NK, order, axis=1)
        return {
            "map_class": np.where(used, order, -1).astype(np.int32),
            "map_score": np.where(used, 0, -np.inf).astype(np.float32),
            "class_score": np.zeros(present_NK.shape, np.float32),
        }
    if (other.rows("image_id", at, to) != images.rows("image_id", at, to)).any():
        raise UsageError(f"--like {other.path.name}: rows {at} to {to} are other images.")
    rows = {name: other.rows(name, at, to) for name in ("map_class", "map_score")}
    num_classes = present_NK.shape[1]
    rows["class_score"] = (
        other.rows("class_score", at, to)
        if "class_score" in other
        else np.full((to - at, num_classes), -np.inf, np.float32)
    )
    return rows


def _boxes(rows: Rows, params: dict[str, Any]) -> Rows:
    """Return a box for every slot in use."""
    rows.pop("class_score")
    used_NS = rows["map_class"] >= 0
    image, slot = np.nonzero(used_NS)
    fraction = 1.0 if params["prior"] == "whole" else params["fraction"]
    size = rows["image_size"].astype(np.float64)
    box_N4 = whole_box(size) if fraction == 1 else centred_box(size, fraction)
    return {
        "box_start": used_NS.sum(axis=1).astype(np.int64),
        "box": box_N4[image],
        "box_class": rows["map_class"][used_NS].astype(np.int32),
        "box_score": rows["map_score"][used_NS].astype(np.float32),
        "box_slot": slot.astype(np.int32),
    }


def _maps(rows: Rows, block: Block, params: dict[str, Any]) -> Rows:
    """Return a map for every slot in use."""
    cells = (params["grid"], params["grid"])
    map_NSHW = np.zeros((*rows["map_class"].shape, *cells), np.float32)
    fixed = gaussian_map(cells, params["sigma"])
    for n in range(block.num_rows):
        generator = np.random.default_rng([params["seed"], block.start + n])
        for slot in np.flatnonzero(rows["map_class"][n] >= 0):
            gaussian = params["prior"] == "gaussian"
            map_NSHW[n, slot] = fixed if gaussian else random_map(cells, generator)
    size = rows["image_size"].astype(np.float32)
    return {"map": map_NSHW, "map_extent": np.concatenate([np.zeros_like(size), size], axis=1)}
