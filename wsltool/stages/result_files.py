"""Other tools' results about the images of a store: which file belongs to which image."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wsltool.datasets.classes import ClassList
from wsltool.datasets.image_names import ImageNames
from wsltool.errors import BadImageError, DatasetError, UsageError
from wsltool.stages.options import PathLike, Settings
from wsltool.stages.plan import Job
from wsltool.stages.report import Reporter
from wsltool.stages.run import limited, open_input, row_job
from wsltool.stores.store import Store

__all__ = [
    "FilesOfImages",
    "class_list",
    "files_of_images",
    "image_names",
    "listing_record",
    "num_rows",
    "open_images",
    "result_job",
]


def open_images(images: PathLike, reader: str) -> Store:
    """Open the images store that results are about."""
    return open_input(images, "images", reader)


def class_list(images: Store) -> ClassList:
    """Return the classes of the images, found by id first and by name second."""
    ids = [str(word) for word in images.whole("class_id").tolist()]
    return ClassList(images.class_names(), ids, origin=images.path.name)


def image_names(images: Store) -> ImageNames:
    """Return what finds the images by the names of other tools."""
    ids = [str(name) for name in images.whole("image_id").tolist()]
    paths = [str(path) for path in images.whole("image_path").tolist()]
    return ImageNames(ids, paths, origin=images.path.name)


@dataclass(frozen=True)
class FilesOfImages:
    """The files of a folder, image by image.

    Attributes
    ----------
    folder : Path
        Where they lie.
    file_N : list of Path or None
        The file of each image of the store.
    """

    folder: Path
    file_N: list[Path | None]

    def file(self, row: int, ending: str) -> Path:
        """Return the file of an image; BadImageError where it has none."""
        found = self.file_N[row]
        if found is None:
            raise BadImageError(
                f"there is no file of it in {self.folder}; expected its id and {ending}."
            )
        return found


def files_of_images(
    folder: Path,
    ending: str,
    names: ImageNames,
    report: Reporter,
    aside: Sequence[Path] = (),
) -> FilesOfImages:
    """Find the file of every image: its id, with or without folders and picture ending.

    Files that belong to no image are told in one warning; hidden ones and those `aside` are
    not looked at.

    Raises
    ------
    UsageError
        There is no such folder.
    DatasetError
        It holds no file of that ending, none that belongs to an image, or two of one image.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder. Give the folder of the results.")
    found = _listed(folder, ending, {path.resolve() for path in aside})
    if not found:
        raise DatasetError(f"{folder}: no {ending} file in it; expected one an image.")
    file_N: list[Path | None] = [None] * len(names)
    strangers = []
    for path in found:
        name = path.relative_to(folder).as_posix()[: -len(ending)]
        row = names.row(name)
        if row is None:
            strangers.append(path)
            continue
        other = file_N[row]
        if other is not None:
            raise DatasetError(
                f"{folder}: image {row} has two files ({other.relative_to(folder)}, "
                f"{path.relative_to(folder)}). Leave one."
            )
        file_N[row] = path
    if len(strangers) == len(found):
        raise DatasetError(
            f"{folder}: none of the {len(found)} files belongs to an image "
            f"({strangers[0].relative_to(folder)}, …); expected the image's id and {ending}."
        )
    if strangers:
        report.warn(
            f"{folder}: files that belong to no image: {len(strangers)}, the first is "
            f"{strangers[0].relative_to(folder)}. Not read."
        )
    return FilesOfImages(folder, file_N)


def _listed(folder: Path, ending: str, aside: set[Path]) -> list[Path]:
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in sorted(names) if name.endswith(ending)]
    return [path for path in found if path.name[0] != "." and path.resolve() not in aside]


def listing_record(
    files: Iterable[Path | None], folder: Path, output_folder: Path
) -> dict[str, Any]:
    """Return what a store records of a folder of results.

    The digest is over names, sizes and times of change: results that are made again often have
    the sizes of before, and reading all of them would take as long as the stage itself.
    """
    total = hashlib.sha256()
    for path in files:
        if path is None:
            total.update(b"none\0")
            continue
        state = path.stat()
        words = path.relative_to(folder).as_posix(), state.st_size, state.st_mtime_ns
        total.update("\0".join(map(str, words)).encode(errors="surrogateescape") + b"\0")
    where = Path(os.path.relpath(folder.resolve(), output_folder.resolve())).as_posix()
    return {"path": where, "kind": "folder", "digest": "sha256:" + total.hexdigest()}


def result_job(
    settings: Settings, kind: str, images: Store, source: Path, **more: Any
) -> tuple[Job, Settings]:
    """Return the job of an ``ingest`` of results, and the settings with the output's name.

    Without ``-o`` the store stands beside the results: ``FOLDER.maps.zarr``.
    """
    beside = source.resolve()
    stem = beside.name if beside.is_dir() else beside.stem
    stem = stem.replace("*", "").strip("_-. ") or kind
    output = settings.output or beside.with_name(f"{stem}.{kind}.zarr")
    settings = replace(settings, output=output)
    return row_job(settings, "ingest", kind, images, **more), settings


def num_rows(images: Store, settings: Settings) -> int:
    """Return how many images are read."""
    return limited(images, settings.limit)[0]
