"""The images store of a data set: its plan, and its rows in blocks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wsltool.datasets.records import Dataset, ImageRecord
from wsltool.errors import BadImageError
from wsltool.stages.options import RunOptions, Settings
from wsltool.stages.plan import Job
from wsltool.stages.run import Block, Rows, Tick, run
from wsltool.stores.lineage import fingerprint_file
from wsltool.stores.schema import string_array

__all__ = ["ingest_dataset"]

_UNDECIDED = 255
_SAMPLED_FILES = 64
_STATUS_SKIPPED = 1
_EVERY_BOX = frozenset(("box_start", "box", "box_class", "box_difficult"))


def ingest_dataset(
    form: str, data: Dataset, default: Path, params: dict[str, Any], options: RunOptions
) -> Path:
    """Write the images store of a data set.

    Parameters
    ----------
    form : str
        What `ingest` calls the form of its files.
    data : Dataset
        Where the rows are read.
    default : Path
        The output where none is given.
    params : dict
        What the store records as its parameters; ``embed`` among them.
    options : RunOptions
        Those of every stage.

    Returns
    -------
    Path
        The store.

    Raises
    ------
    BadImageError
        A row is unusable and ``on_bad`` is ``"stop"``.
    """
    settings = Settings.of(options)
    output = settings.output or default
    embed = bool(params["embed"])
    total = len(data.image_id)
    num_rows = min(total, settings.limit or total)
    cut = None if num_rows == total else {"how": "limit", "num_rows": num_rows, "of": total}
    root = Path(os.path.relpath(data.root.resolve(), output.parent.resolve())).as_posix()
    inputs = {role: fingerprint_file(p, output.parent) for role, p in data.sources.items()}
    listing = _listing_digest(data, num_rows)
    inputs["listing"] = {"path": root, "kind": "folder", "digest": listing}
    job = Job(
        stage="ingest",
        kind="images",
        output=output,
        params={"form": form, **params},
        inputs=inputs,
        num_rows=num_rows,
        row_bytes=_row_bytes(data, embed=embed),
        limit=cut,
        fixed={
            "class_name": string_array(data.class_name),
            "class_id": string_array(data.class_id),
        },
        attributes={"root": root, "orientation": "ignored"},
    )

    def compute(blocks: list[Block], tick: Tick) -> Iterator[Rows]:
        for block in blocks:
            yield _read_block(data, block, output, settings, embed=embed)

    return run(job, compute, settings)


def _listing_digest(data: Dataset, num_rows: int) -> str:
    """Return the digest of the classes, and of names, sizes and annotations of the pictures.

    A picture that was replaced or came back is seen by its size in bytes.
    """
    total = hashlib.sha256()
    for word in (*data.class_name, *data.class_id):
        total.update(f"{word}\0".encode(errors="surrogateescape"))
    for row in range(num_rows):
        path = data.path(row)
        num_bytes = _num_bytes(data.root / path) if data.has_pictures else -1
        name = f"{data.image_id[row]}\0{path}\0{num_bytes}\0"
        total.update(name.encode(errors="surrogateescape"))
        annotation = data.annotation(row)
        if annotation is not None:
            total.update(_content_digest(annotation))
    return "sha256:" + total.hexdigest()


def _num_bytes(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1


def _content_digest(file: Path) -> bytes:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return b""


def _row_bytes(data: Dataset, *, embed: bool) -> int:
    """Return about how many bytes a row takes in a part."""
    row_bytes = 1024 + len(data.class_id)
    if embed:
        sampled = range(min(_SAMPLED_FILES, len(data.image_id)))
        row_bytes += max(_num_bytes(data.root / data.path(row)) for row in sampled)
    return row_bytes


def _read_block(
    data: Dataset, block: Block, output: Path, settings: Settings, *, embed: bool
) -> Rows:
    records, notes, files = [], [], []
    for row in range(block.start, block.stop):
        try:
            record = data.read(row)
            content = (data.root / record.image_path).read_bytes() if embed else b""
            note = ""
        except BadImageError as error:
            place = f'{output.name} row {row} "{data.image_id[row]}"'
            note = settings.bad_row(place, error)
            record, content = _empty_record(data, row), b""
        records.append(record)
        notes.append(note)
        files.append(content)
    rows = _image_rows(records, notes, len(data.class_id))
    if data.excluded is not None:
        excluded = [row in data.excluded for row in range(block.start, block.stop)]
        rows["image_excluded"] = np.array(excluded, np.uint8)
    if data.has_boxes:
        rows |= _box_rows(records, data.box_extras)
    if data.has_masks:
        rows |= _mask_rows(records)
    if embed:
        rows["byte_start"] = _counts(files)
        rows["byte"] = np.frombuffer(b"".join(files), np.uint8)
    return rows


def _empty_record(data: Dataset, row: int) -> ImageRecord:
    """Return the row of an image that was left out: its labels, if they are known, no more.

    So it counts as missed in its classes; where its labels are not known, all are undecided.
    """
    present, undecided = data.labels(row) or ((), tuple(range(len(data.class_id))))
    return ImageRecord(
        image_id=data.image_id[row],
        image_path=data.path(row),
        size_wh=(0, 0),
        num_bytes=0,
        present=present,
        undecided=undecided,
    )


def _counts(items: Iterable[Any]) -> np.ndarray[Any, Any]:
    return np.array([len(item) for item in items], np.int64)


def _image_rows(records: list[ImageRecord], notes: list[str], num_classes: int) -> Rows:
    label_NK = np.zeros((len(records), num_classes), np.uint8)
    for n, record in enumerate(records):
        label_NK[n, list(record.undecided)] = _UNDECIDED
        label_NK[n, list(record.present)] = 1
    return {
        "image_id": string_array([r.image_id for r in records]),
        "image_size": np.array([r.size_wh for r in records], np.int32).reshape(-1, 2),
        "image_status": np.array([bool(note) * _STATUS_SKIPPED for note in notes], np.uint8),
        "image_note": string_array(notes),
        "image_path": string_array([r.image_path for r in records]),
        "image_num_bytes": np.array([r.num_bytes for r in records], np.int64),
        "label": label_NK,
    }


def _box_rows(records: list[ImageRecord], extras: frozenset[str]) -> Rows:
    rows = {
        "box_start": _counts(r.box_class_B for r in records),
        "box": np.concatenate([r.box_xyxy_B4 for r in records]).astype(np.float64),
        "box_class": np.concatenate([r.box_class_B for r in records]).astype(np.int32),
        "box_difficult": np.concatenate([r.box_difficult_B for r in records]).astype(np.uint8),
        "box_truncated": np.concatenate([r.box_truncated_B for r in records]).astype(np.uint8),
        "box_crowd": np.concatenate([r.box_crowd_B for r in records]).astype(np.uint8),
        "box_area": np.concatenate([r.box_area_B for r in records]).astype(np.float64),
        "box_rle": string_array([code for r in records for code in r.box_rle]),
    }
    return {name: found for name, found in rows.items() if name in _EVERY_BOX | extras}


def _mask_rows(records: list[ImageRecord]) -> Rows:
    masks = [mask for record in records for mask in record.masks]
    return {
        "mask_start": _counts(r.masks for r in records),
        "mask_path": string_array([path for path, _ in masks]),
        "mask_class": np.array([kind for _, kind in masks], np.int32),
    }
