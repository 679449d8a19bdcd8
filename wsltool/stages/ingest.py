"""Stage ``ingest``: other people's files become an images store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from wsltool.datasets.folder import open_folder
from wsltool.datasets.records import Dataset, ImageRecord
from wsltool.datasets.voc import open_voc
from wsltool.errors import BadImageError, UsageError
from wsltool.stages.options import PathLike, RunOptions, Settings
from wsltool.stages.plan import Job
from wsltool.stages.run import Block, Rows, Tick, run
from wsltool.stores.lineage import fingerprint_file
from wsltool.stores.schema import string_array

__all__ = ["ingest_folder", "ingest_voc"]

_UNDECIDED = 255
_SAMPLED_FILES = 64
_STATUS_SKIPPED = 1


def ingest_voc(
    folder: PathLike,
    *,
    split: str = "trainval",
    classes: PathLike | None = None,
    embed: bool = False,
    **options: Unpack[RunOptions],
) -> Path:
    """Read a data set in the layout of PASCAL VOC 2007 or 2012.

    Parameters
    ----------
    folder : path
        The year's folder, with ``JPEGImages``, ``Annotations`` and ``ImageSets``.
    split : str
        Name of an image set, looked up in ``ImageSets/Main`` first, or ``Segmentation/val``.
    classes : path, optional
        Class list of a data set with other classes than VOC's twenty.
    embed : bool
        Pack the encoded pictures into the store.
    **options
        See `wsltool.stages.options.RunOptions`.

    Returns
    -------
    Path
        The images store (default ``FOLDER.SPLIT.zarr`` beside the folder).

    Raises
    ------
    DatasetError
        The layout is not VOC's, or the image set is not there.
    BadImageError
        A picture or its annotation is unusable and ``on_bad`` is ``"stop"``.
    """
    place = _folder(folder)
    data = open_voc(place, split, _path(classes))
    word = split.replace("/", "_")
    return _ingest("voc", data, place, word, {"split": split, "embed": embed}, options)


def ingest_folder(
    folder: PathLike,
    *,
    labels: PathLike | None = None,
    boxes: PathLike | None = None,
    classes: PathLike | None = None,
    embed: bool = False,
    **options: Unpack[RunOptions],
) -> Path:
    """Read a folder of pictures: a folder a class, or a CSV of image-level labels.

    Parameters
    ----------
    folder : path
        Where the pictures lie.
    labels : path, optional
        CSV ``image,label`` (a pair a line) or ``image,CLASS,CLASS,…`` with 1, 0, 255.
    boxes : path, optional
        CSV ``image,x0,y0,x1,y1[,label,difficult,truncated]``, half-open pixels.
    classes : path, optional
        Class list: a class a line, ``name`` or ``index id name``.
    embed : bool
        Pack the encoded pictures into the store.
    **options
        See `wsltool.stages.options.RunOptions`.

    Returns
    -------
    Path
        The images store (default ``FOLDER.images.zarr`` beside the folder).

    Raises
    ------
    DatasetError
        A CSV or class list is malformed, or names what is not there.
    BadImageError
        A picture or its boxes are unusable and ``on_bad`` is ``"stop"``.
    """
    place = _folder(folder)
    data = open_folder(place, labels=_path(labels), boxes=_path(boxes), classes=_path(classes))
    return _ingest("folder", data, place, "images", {"embed": embed}, options)


def _path(given: PathLike | None) -> Path | None:
    return None if given is None else Path(given)


def _folder(given: PathLike) -> Path:
    place = Path(given)
    if not place.is_dir():
        raise UsageError(f"{place}: there is no such folder. Give the data set's folder.")
    return place


def _ingest(
    form: str,
    data: Dataset,
    folder: Path,
    word: str,
    params: dict[str, Any],
    options: RunOptions,
) -> Path:
    settings = Settings.of(options)
    beside = folder.resolve()
    output = settings.output or beside.with_name(f"{beside.name}.{word}.zarr")
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
        row_bytes=_row_bytes(data, embed=bool(params["embed"])),
        limit=cut,
        fixed={
            "class_name": string_array(data.class_name),
            "class_id": string_array(data.class_id),
        },
        attributes={"root": root, "orientation": "ignored"},
    )

    def compute(blocks: list[Block], tick: Tick) -> Iterator[Rows]:
        for block in blocks:
            yield _read_block(data, block, output, settings, embed=bool(params["embed"]))

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
        num_bytes = _num_bytes(data.root / path)
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
    if data.has_boxes:
        rows |= _box_rows(records)
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


def _box_rows(records: list[ImageRecord]) -> Rows:
    return {
        "box_start": _counts(r.box_class_B for r in records),
        "box": np.concatenate([r.box_xyxy_B4 for r in records]).astype(np.float64),
        "box_class": np.concatenate([r.box_class_B for r in records]).astype(np.int32),
        "box_difficult": np.concatenate([r.box_difficult_B for r in records]).astype(np.uint8),
        "box_truncated": np.concatenate([r.box_truncated_B for r in records]).astype(np.uint8),
    }


def _mask_rows(records: list[ImageRecord]) -> Rows:
    masks = [mask for record in records for mask in record.masks]
    return {
        "mask_start": _counts(r.masks for r in records),
        "mask_path": string_array([path for path, _ in masks]),
        "mask_class": np.array([kind for _, kind in masks], np.int32),
    }
