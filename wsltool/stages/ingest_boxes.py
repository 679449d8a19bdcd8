"""``ingest boxes``: detections of another detector become a boxes store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from wsltool.datasets.classes import ClassList
from wsltool.datasets.coco_results import (
    coco_category_ids,
    read_category_map,
    read_coco_results,
)
from wsltool.datasets.detections import Detections
from wsltool.datasets.voc_results import find_comp_files, read_comp_files
from wsltool.errors import BadImageError, DatasetError, UsageError
from wsltool.stages.options import PathLike, RunOptions, Settings, check_choice
from wsltool.stages.report import Reporter
from wsltool.stages.result_files import (
    class_list,
    image_names,
    num_rows,
    open_images,
    result_job,
)
from wsltool.stages.run import Block, Rows, Tick, leave_out, run
from wsltool.stores.lineage import fingerprint_file
from wsltool.stores.store import Store

__all__ = ["ingest_boxes"]

Array = np.ndarray[Any, Any]
BoxForm = Literal["coco", "voc"]

_BOX_BYTES = 64


def ingest_boxes(
    results: PathLike,
    *,
    images: PathLike,
    form: BoxForm = "coco",
    classes: PathLike | None = None,
    **options: Unpack[RunOptions],
) -> Path:
    """Read the detections of another detector.

    Parameters
    ----------
    results : path
        COCO's results format, a JSON list of ``image_id``, ``category_id``, ``bbox`` (x, y,
        width, height) and ``score``; or VOC's text files, one a class
        (``comp3_det_SPLIT_CLASS.txt``): their folder, one of them, or a pattern with ``*``.
    images : path
        The ``images`` store that the detections are about; row n of the output is its image n.
    form : {"coco", "voc"}
        Which of the two it is.
    classes : path, optional
        For ``coco``: JSON with ``categories``, such as COCO's annotations, where category ids
        are not the images' own class ids.
    **options
        See `wsltool.stages.options.RunOptions`.

    Returns
    -------
    Path
        The ``boxes`` store (default ``RESULTS.boxes.zarr`` beside the results). The classes of
        an image are ranked by their best box, its boxes by class and then by score; equal
        scores keep the order of the file. Detections of images that the store lacks are told
        in one warning.

    Raises
    ------
    DatasetError
        The files are malformed, or name a class that is not there.
    BadImageError
        A detection is not finite or ends before it begins, and ``on_bad`` is ``"stop"``.
    """
    settings = Settings.of(options)
    check_choice("--form", form, BoxForm)
    place = Path(results)
    with open_images(images, "ingest boxes") as store:
        detections, inputs = _read(place, form, classes, class_list(store), settings.report)
        ranked = _rank(detections, _rows(detections, store, settings.report), len(store))
        job, settings = result_job(
            settings,
            "boxes",
            store,
            place,
            params={"form": form},
            attributes={
                "classes": "all",
                "score_kind": "unknown",
                "box_score_kind": "detector",
            },
            row_bytes=ranked.row_bytes(num_rows(store, settings)),
        )
        job.inputs.update({role: _record(paths, job.output) for role, paths in inputs.items()})

        def compute(blocks: list[Block], tick: Tick) -> Iterator[Rows]:
            for block in blocks:
                yield _block(store, ranked, block, settings)

        return run(job, compute, settings)


def _read(
    place: Path, form: str, categories: PathLike | None, classes: ClassList, report: Reporter
) -> tuple[Detections, dict[str, list[Path]]]:
    """Return the detections and the files that they come from, by role."""
    if form == "voc":
        if categories is not None:
            raise UsageError(f"--classes {categories}: VOC's files name their classes. Leave it.")
        files, strangers = find_comp_files(place, classes)
        if strangers:
            report.warn(
                f"{place}: text files that belong to no class: {len(strangers)}, the first is "
                f"{strangers[0].name}. Not read."
            )
        return read_comp_files(files), {"listing": [path for _, path in sorted(files.items())]}
    if categories is None:
        index_of = _own_category_ids(classes, place)
        return read_coco_results(place, _class_finder(index_of)), {"file": [place]}
    path = Path(categories)
    index_of = read_category_map(path, classes)
    return read_coco_results(place, _class_finder(index_of)), {"file": [place], "classes": [path]}


def _own_category_ids(classes: ClassList, place: Path) -> dict[int, int]:
    numbers = coco_category_ids(classes.class_id)
    if numbers is None:
        raise UsageError(
            f"{place}: category ids are numbers, but the classes of {classes.origin} have the ids "
            f"{', '.join(classes.class_id[:3])}, …. Say with --classes FILE which is which: JSON "
            'with "categories", such as COCO\'s annotations.'
        )
    return {number: index for index, number in enumerate(numbers)}


def _class_finder(index_of: dict[int, int]) -> Any:
    def find(category: int) -> int:
        if category not in index_of:
            known = ", ".join(map(str, list(index_of)[:5])) + (", …" if len(index_of) > 5 else "")
            raise LookupError(f"{category} is none of the {len(index_of)} categories ({known})")
        return index_of[category]

    return find


def _record(paths: list[Path], output: Path) -> dict[str, Any]:
    """Return what the store records of the files: of several, their folder and one digest."""
    if len(paths) == 1:
        return fingerprint_file(paths[0], output.parent)
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.name}\0{fingerprint_file(path, output.parent)['digest']}\0".encode())
    where = Path(os.path.relpath(paths[0].parent.resolve(), output.parent.resolve())).as_posix()
    return {"path": where, "kind": "folder", "digest": "sha256:" + total.hexdigest()}


def _rows(detections: Detections, images: Store, report: Reporter) -> Array:
    """Return the row of the image of each detection, -1 where the store lacks it."""
    names = image_names(images)
    found = [names.row(name) for name in detections.image_name]
    row_U = np.array([-1 if row is None else row for row in found], np.int64)
    row_D: Array = row_U[detections.image_D] if len(detections) else np.zeros(0, np.int64)
    if len(row_U) and (row_U < 0).all():
        raise DatasetError(
            f'{detections.file_name[0]}: none of the {len(row_U)} images ("'
            f'{detections.image_name[0]}", …) is in {images.path.name}. Give the images store '
            "that they are about."
        )
    lost_D = np.flatnonzero(row_D < 0)
    if len(lost_D):
        first = detections.image_name[int(detections.image_D[lost_D[0]])]
        report.warn(
            f"{detections.file_name[0]}: {len(lost_D)} detections are of {int((row_U < 0).sum())} "
            f'images that {images.path.name} lacks, the first is "{first}". Not read.'
        )
    return row_D


@dataclass(frozen=True)
class _Ranked:
    """Detections in the order of the store: by row, then class by class, the best class first.

    ``start_N1`` are the offsets of the rows; ``order_B`` the detections; ``slot_B`` the place of
    their class among those of the image; ``first_B`` marks the best one of a class.
    """

    detections: Detections
    start_N1: Array
    order_B: Array
    slot_B: Array
    first_B: Array
    num_slots: int

    def row_bytes(self, num_rows: int) -> int:
        """Return about how many bytes a row takes, for the fullest block."""
        most = int(np.diff(self.start_N1[: num_rows + 1]).max(initial=0))
        return 256 + 8 * self.num_slots + _BOX_BYTES * most


def _rank(detections: Detections, row_D: Array, num_images: int) -> _Ranked:
    """Order detections; those of rows -1 are left out."""
    used = np.flatnonzero(row_D >= 0)
    score_B = np.nan_to_num(detections.score_D[used], nan=-np.inf)
    # Stable: equal scores stay in order.
    by_class = np.lexsort((-score_B, detections.class_D[used], row_D[used]))
    used, score_B = used[by_class], score_B[by_class]
    row_B, class_B = row_D[used], detections.class_D[used]
    first_B = np.ones(len(used), bool)
    first_B[1:] = (row_B[1:] != row_B[:-1]) | (class_B[1:] != class_B[:-1])
    group_B = np.cumsum(first_B) - 1
    start_G = np.flatnonzero(first_B)
    rank_G = np.lexsort((class_B[start_G], -score_B[start_G], row_B[start_G]))
    row_G = row_B[start_G][rank_G]
    slot_G = np.zeros(len(start_G), np.int64)
    slot_G[rank_G] = np.arange(len(start_G)) - np.searchsorted(row_G, row_G)
    slot_B = slot_G[group_B] if len(used) else np.zeros(0, np.int64)
    order = np.lexsort((slot_B, row_B))
    start_N1 = np.zeros(num_images + 1, np.int64)
    np.cumsum(np.bincount(row_B, minlength=num_images), out=start_N1[1:])
    num_slots = int(slot_B.max(initial=0)) + 1
    return _Ranked(detections, start_N1, used[order], slot_B[order], first_B[order], num_slots)


def _block(images: Store, ranked: _Ranked, block: Block, settings: Settings) -> Rows:
    rows = images.carried(block.start, block.stop)
    detections = ranked.detections
    edge_N1 = ranked.start_N1[block.start : block.stop + 1]
    where = slice(int(edge_N1[0]), int(edge_N1[-1]))
    order_B, slot_B, first_B = (a[where] for a in (ranked.order_B, ranked.slot_B, ranked.first_B))
    image_B = np.repeat(np.arange(block.num_rows), np.diff(edge_N1))
    fault_B = _faults(detections, order_B)
    for n in np.unique(image_B[fault_B]).tolist():
        if rows["image_status"][n] == 0:
            bad = order_B[(image_B == n) & fault_B]
            error = _told(detections, int(bad.min()))
            leave_out(images, settings, rows, block.start + n, n, error)
    kept_B = (rows["image_status"] == 0)[image_B]
    image_B, order_B, slot_B, first_B = (a[kept_B] for a in (image_B, order_B, slot_B, first_B))
    score_B = detections.score_D[order_B].astype(np.float32)
    class_B = detections.class_D[order_B]
    class_NS = np.full((block.num_rows, ranked.num_slots), -1, np.int32)
    score_NS = np.full((block.num_rows, ranked.num_slots), -np.inf, np.float32)
    slots = image_B[first_B], slot_B[first_B]
    class_NS[slots], score_NS[slots] = class_B[first_B], score_B[first_B]
    return rows | {
        "map_class": class_NS,
        "map_score": score_NS,
        "box_start": np.bincount(image_B, minlength=block.num_rows).astype(np.int64),
        "box": detections.box_xyxy_D4[order_B],
        "box_class": class_B,
        "box_score": score_B,
        "box_slot": slot_B.astype(np.int32),
    }


def _faults(detections: Detections, order_B: Array) -> Array:
    """Return which detections are not finite (as stored, too) or end before they begin."""
    box_B4, score_B = detections.box_xyxy_D4[order_B], detections.score_D[order_B]
    with np.errstate(over="ignore"):
        score_B = score_B.astype(np.float32)
    good_B: Array = np.isfinite(box_B4).all(axis=1) & np.isfinite(score_B)
    with np.errstate(invalid="ignore"):
        good_B &= (box_B4[:, 2:] >= box_B4[:, :2]).all(axis=1)
    return ~good_B


def _told(detections: Detections, detection: int) -> BadImageError:
    place = detections.place(detection)
    box, score = detections.box_xyxy_D4[detection].tolist(), detections.score_D[detection]
    if not np.isfinite(box).all():
        return BadImageError(f"{place}: box {box} is not finite.")
    if not abs(score) <= np.finfo(np.float32).max:
        return BadImageError(f"{place}: score {score} is not finite.")
    return BadImageError(f"{place}: box {box} (x0 y0 x1 y1) ends before it begins.")
