"""``ingest masks``: label images of another segmenter become a masks store."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from PIL import Image

from wsltool.errors import BadImageError
from wsltool.stages.options import PathLike, RunOptions, Settings
from wsltool.stages.result_files import (
    FilesOfImages,
    files_of_images,
    image_names,
    listing_record,
    num_rows,
    open_images,
    result_job,
)
from wsltool.stages.run import Block, Rows, Tick, leave_out, run
from wsltool.stages.true_masks import indexed_picture
from wsltool.stores.store import Store

__all__ = ["ingest_masks"]

Array = np.ndarray[Any, Any]

_ENDING = ".png"
_MAGIC = b"\x89PNG\r\n\x1a\n"
_TWO_LEVELS = "1"
_LEFT_OUT = 255


def ingest_masks(folder: PathLike, *, images: PathLike, **options: Unpack[RunOptions]) -> Path:
    """Read a folder of label images, one indexed or grey 8-bit PNG an image.

    A pixel holds 0 for background and otherwise the number of its class, from 1, in the order
    of the images' classes, as in VOC's ``SegmentationClass``. 255 is no answer: a true mask
    leaves such pixels out, a prediction answers every pixel, so it is refused (the devkit
    refuses it too).

    Parameters
    ----------
    folder : path
        Files named ``ID.png``, with or without folders and the picture's own ending.
    images : path
        The ``images`` store that the masks are about; row n of the output is its image n.
    **options
        See `wsltool.stages.options.RunOptions`.

    Returns
    -------
    Path
        The ``masks`` store (default ``FOLDER.masks.zarr`` beside the folder). The files are
        kept byte by byte (those of 1 bit become 8 bits).

    Raises
    ------
    DatasetError
        No file belongs to an image, or two belong to one.
    BadImageError
        A file is missing, no PNG of 8 bits without colours, of another size than its image, or
        holds a label that is no class; and ``on_bad`` is ``"stop"``.
    """
    settings = Settings.of(options)
    place = Path(folder)
    with open_images(images, "ingest masks") as store:
        names = image_names(store)
        files = files_of_images(place, _ENDING, names, settings.report)
        used = files.file_N[: num_rows(store, settings)]
        job, settings = result_job(settings, "masks", store, place, params={"form": "masks"})
        job.inputs["listing"] = listing_record(used, place, job.output.parent)

        def compute(blocks: list[Block], tick: Tick) -> Iterator[Rows]:
            for block in blocks:
                yield _block(store, files, block, settings)

        return run(job, compute, settings)


def _block(images: Store, files: FilesOfImages, block: Block, settings: Settings) -> Rows:
    rows = images.carried(block.start, block.stop)
    num_classes = images.shape("class_name")[0]
    found = [b""] * block.num_rows
    for n in np.flatnonzero(rows["image_status"] == 0).tolist():
        row = block.start + n
        try:
            found[n] = _read(files.file(row, _ENDING), rows["image_size"][n], num_classes)
        except BadImageError as error:
            leave_out(images, settings, rows, row, n, error)
    rows["mask_start"] = np.array([len(data) for data in found], np.int64)
    rows["mask_byte"] = np.frombuffer(b"".join(found), np.uint8)
    return rows


def _read(path: Path, size_wh: Array, num_classes: int) -> bytes:
    """Return the bytes of a label image, checked."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadImageError(f"{path.name}: cannot be read, {error.strerror}.") from error
    if not data.startswith(_MAGIC):
        raise BadImageError(f"{path.name}: is no PNG, it starts with {data[:8]!r}.")
    mode = _check_header(path.name, data, size_wh)
    label_HW = indexed_picture(data, path.name)
    odd_HW = label_HW > num_classes
    if odd_HW.any():
        label = int(label_HW[odd_HW][0])
        cure = "A prediction answers every pixel: write 0 there." if label == _LEFT_OUT else ""
        raise BadImageError(
            f"{path.name}: holds the label {label}, expected 0 (background) to {num_classes}, the "
            f"number of the class. {cure}".rstrip()
        )
    return _as_png(label_HW) if mode == _TWO_LEVELS else data


def _check_header(name: str, data: bytes, size_wh: Array) -> str:
    """Return the mode of a picture of the right size; nothing is unpacked."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            mode, size = picture.mode, picture.size
    except (OSError, SyntaxError, ValueError) as error:
        raise BadImageError(f"{name}: PNG header is broken: {error}.") from error
    if size != tuple(size_wh.tolist()):
        raise BadImageError(
            f"{name}: is {size[0]}x{size[1]} pixels, its image {size_wh[0]}x{size_wh[1]}; expected "
            "the same. Bring it to the size of its image (nearest neighbour)."
        )
    return mode


def _as_png(label_HW: Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(label_HW).save(file, "PNG")
    return file.getvalue()
