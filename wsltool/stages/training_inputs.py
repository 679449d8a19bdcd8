"""What `train-cls` hands to the network's room: labelled pictures, boxes, earlier networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsltool.errors import BadImageError, UsageError
from wsltool.metrics.cls_map import classification_ap
from wsltool.stages.pictures import Pictures
from wsltool.stages.report import Reporter
from wsltool.stores.open import open_store
from wsltool.stores.store import Store

if TYPE_CHECKING:
    from wsltool.nets.training import Labelled

__all__ = ["TrueBoxes", "labelled", "measure", "placed", "same_classes"]

Array = np.ndarray[Any, Any]


class TrueBoxes:
    """Loads the true boxes of a row; picklable, so that worker processes can hold it."""

    def __init__(self, images: Store) -> None:
        self._path = images.path
        self._images: Store | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_images": None}

    def __call__(self, row: int) -> tuple[Array, Array]:
        """Return boxes ``x0 y0 x1 y1`` in pixels (B, 4) and their classes (B,) of a row."""
        if self._images is None:
            self._images = open_store(self._path)
        found = self._images.ragged_rows("box", row, row + 1)
        return found["box"].astype(np.float64), found["box_class"]


def labelled(
    source: Store, num_rows: int, root: Path | None, report: Reporter | None = None
) -> Labelled:
    """Return the rows of an images store that were not skipped, with labels and boxes.

    Raises
    ------
    UsageError
        Every image was left out.
    """
    from wsltool.nets.training import Labelled

    row_N = np.arange(num_rows)
    if "image_status" in source:
        row_N = row_N[source.rows("image_status", 0, num_rows) == 0]
    if not len(row_N):
        raise UsageError(f"{source.path.name}: every image was left out, nothing to train on.")
    label_NK = source.gather(row_N, ["label"])["label"]
    names = source.class_names()
    empty = [names[k] for k in np.flatnonzero(~(label_NK == 1).any(axis=0))]
    if empty and report is not None:
        listed = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
        report.warn(
            f"{len(empty)} of {len(names)} classes have no image and cannot be learnt ({listed})."
        )
    ids = source.whole("class_id").tolist() if "class_id" in source else names
    return Labelled(
        load_picture=Pictures(source, root),
        label_NK=label_NK,
        rows=row_N.tolist(),
        class_name=names,
        class_id=ids,
        boxes=TrueBoxes(source) if "box_start" in source else None,
        key=str(source.meta.get("digest") or source.meta.get("id") or source.compute_digest()),
    )


def same_classes(source: Store, other: Store) -> None:
    """Check that two images stores have the same classes in the same order.

    Raises
    ------
    UsageError
        They have not.
    """
    own, theirs = source.class_names(), other.class_names()
    if own != theirs:
        pairs = zip(own, theirs, strict=False)
        place = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(own), len(theirs)))
        raise UsageError(
            f"--validate {other.path.name}: has {len(theirs)} classes, {source.path.name} "
            f"{len(own)}; the first that differs is number {place}. Ingest both with the same "
            "--classes."
        )


def measure(score_NK: Array, label_NK: Array) -> dict[str, float]:
    """Return the classification mAP in per cent, and the top-1 share where classes exclude."""
    _, mean_ap = classification_ap(score_NK, label_NK)
    measures = {"cls_map": mean_ap}
    if ((label_NK == 1).sum(axis=1) == 1).all():
        right_N = label_NK[np.arange(len(label_NK)), score_NK.argmax(axis=1)] == 1
        measures["top1"] = 100 * float(right_N.mean())
    return measures


def placed(source: Store, error: BadImageError) -> BadImageError:
    """Say of a bad picture in which store it is, and what to do."""
    return BadImageError(
        f"{source.path.name} {error} Leave the image out: ingest again without it, or keep "
        "the others with wsltool select --ids."
    )
