"""What the benchmarks of micro-annotation share: hits pair by pair, and their comparison."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import wsltool
from wsltool.metrics.iou import iou_matrix
from wsltool.stages.map_rows import map_rows
from wsltool.stages.true_masks import true_masks

__all__ = ["HIT_IOU", "halves", "interval", "mask_ious", "pair_hits", "top_hits"]

Array = np.ndarray[Any, Any]

HIT_IOU = 0.5
NUM_SAMPLES = 10_000


def _true_boxes(images: Any) -> Iterator[dict[int, Array]]:
    """Yield the true boxes of each image by class."""
    for row in range(len(images)):
        found = images.ragged_rows("box", row, row + 1)
        yield {int(k): found["box"][found["box_class"] == k] for k in np.unique(found["box_class"])}


def _first_boxes(boxes: Any, row: int) -> dict[int, Array]:
    """Return the first box of each slot of an image."""
    found = boxes.ragged_rows("box", row, row + 1)
    slot_S, first_S = np.unique(found["box_slot"], return_index=True)
    return {int(slot): found["box"][at] for slot, at in zip(slot_S, first_S, strict=True)}


def pair_hits(boxes_path: Path, images_path: Path) -> dict[tuple[str, int], bool]:
    """Return for each image and class with a true box whether the class's box hits one (IoU .5)."""
    hits = {}
    with wsltool.open_store(images_path) as images, wsltool.open_store(boxes_path) as boxes:
        row_of = {name: row for row, name in enumerate(boxes.whole("image_id").tolist())}
        names = images.whole("image_id").tolist()
        for name, truth in zip(names, _true_boxes(images), strict=True):
            if name not in row_of:
                continue
            row = row_of[name]
            class_S = boxes.rows("map_class", row, row + 1)[0].tolist()
            first = _first_boxes(boxes, row)
            for k, box_B4 in truth.items():
                box = first.get(class_S.index(k)) if k in class_S else None
                hit = box is not None and iou_matrix(box[None], box_B4).max() >= HIT_IOU
                hits[str(name), k] = bool(hit)
    return hits


def top_hits(boxes_path: Path, images_path: Path, top: int) -> dict[tuple[str, int], bool]:
    """Return for each image and its class whether it is among the best `top` and its box hits."""
    known = pair_hits(boxes_path, images_path)
    with wsltool.open_store(boxes_path) as boxes:
        names = [str(name) for name in boxes.whole("image_id").tolist()]
        ranked = dict(zip(names, boxes.whole("map_class")[:, :top].tolist(), strict=True))
    return {(name, k): hit and k in ranked[name] for (name, k), hit in known.items()}


def mask_ious(
    maps_path: Path, images_path: Path, threshold_K: Array
) -> dict[tuple[str, int], float]:
    """Return the IoU of what lies above the threshold with the class's mask, of masked images.

    Pixels that the mask leaves out (255) count for nothing.
    """
    found = {}
    with wsltool.open_store(maps_path) as maps, wsltool.open_store(images_path) as images:
        masks = true_masks(images)
        row_of = {name: row for row, name in enumerate(images.whole("image_id").tolist())}
        for row, one in enumerate(map_rows(maps, 0, len(maps))):
            name = str(maps.rows("image_id", row, row + 1)[0])
            if one is None or not masks.annotated(row_of[name]):
                continue
            of_class = masks.of_row(row_of[name])
            for slot in one.slots():
                k = int(one.class_S[slot])
                true_HW = of_class(k)
                if not (true_HW == 1).any():
                    continue
                heat_HW = one.heat(slot)
                hot_HW = (heat_HW > threshold_K[k] * heat_HW.max()) & (heat_HW.max() > 0)
                counted_HW = true_HW != 255
                both = (hot_HW & (true_HW == 1)).sum()
                either = ((hot_HW | (true_HW == 1)) & counted_HW).sum()
                found[name, k] = float(both / either)
    return found


def halves(store: Path, folder: Path) -> tuple[Path, Path]:
    """Return two stores, of the images at even and at odd places of `store`."""
    with wsltool.open_store(store) as opened:
        names = opened.whole("image_id").tolist()
    made = []
    for part in (0, 1):
        ids = folder / f"{store.stem}.{part}.txt"
        ids.write_text("\n".join(names[part::2]) + "\n")
        made.append(wsltool.select(store, ids=ids, output=folder / f"{store.stem}.{part}.zarr"))
    return made[0], made[1]


def interval(before_M: Array, after_M: Array, image_M: Array) -> list[float]:
    """Return the mean difference in points and its 95 % interval, by resampling images."""
    gain_M = 100 * (np.asarray(after_M, float) - np.asarray(before_M, float))
    _, image_M = np.unique(image_M, return_inverse=True)
    num_images = image_M.max() + 1
    sum_N = np.bincount(image_M, gain_M, num_images)
    num_N = np.bincount(image_M, minlength=num_images)
    random = np.random.default_rng(0)
    taken = random.integers(0, num_images, (NUM_SAMPLES, num_images))
    samples = sum_N[taken].sum(axis=1) / num_N[taken].sum(axis=1)
    ends = np.percentile(samples, [2.5, 97.5])
    return [round(float(value), 1) for value in (gain_M.mean(), *ends)]
