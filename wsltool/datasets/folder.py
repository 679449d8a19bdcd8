"""Folders of pictures: a folder a class, or a CSV of image-level labels."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt

from wsltool.datasets.classes import ClassList, read_class_list
from wsltool.datasets.pictures import EXTENSIONS, read_size
from wsltool.datasets.records import ImageRecord, Labels, outside
from wsltool.datasets.tables import BoxTable, LabelTable, image_names, read_boxes, read_labels
from wsltool.datasets.textfiles import require_folder
from wsltool.errors import BadImageError, DatasetError

__all__ = ["FolderDataset", "open_folder"]


def open_folder(
    folder: Path,
    *,
    labels: Path | None = None,
    boxes: Path | None = None,
    classes: Path | None = None,
) -> FolderDataset:
    """Open a folder of pictures.

    Parameters
    ----------
    folder
        Without `labels`, each of its folders is a class and every picture anywhere below
        one is an image of it: classes in the order of the class list or sorted by name,
        pictures sorted by path. Symbolic links are followed, into a loop once. Files
        without a picture's ending (`wsltool.datasets.pictures.EXTENSIONS`), hidden files
        and folders without pictures are left out.
    labels
        CSV of image-level labels (see `read_labels`); the rows are the images that it
        names, in order of first appearance.
    boxes
        CSV of boxes (see `read_boxes`); an image without a line simply has none.
    classes
        Class list (see `read_class_list`). A folder or label is matched with the ids
        first and the names second.

    Raises
    ------
    DatasetError
        The folder is missing or empty, a picture lies in no class folder, a class is not
        in the list, or a CSV is malformed (with its line).
    """
    require_folder(folder)
    class_list = None if classes is None else read_class_list(classes)
    relative = image_names(folder)
    if labels is None:
        image_id, class_list, class_N = _scan(folder, class_list)
        label_table = LabelTable.one_class(class_N)
    else:
        image_id, class_list, label_table = read_labels(labels, relative, class_list)
    box_table = None
    if boxes is not None:
        row_of = {image: row for row, image in enumerate(image_id)}
        box_table = read_boxes(boxes, relative, row_of, class_list, label_table)
    named = {"labels": labels, "boxes": boxes, "classes": classes}
    sources = {option: path for option, path in named.items() if path is not None}
    return FolderDataset(folder, image_id, class_list, label_table, box_table, sources)


class FolderDataset:
    """A folder of pictures; see `wsltool.datasets.records.Dataset`."""

    has_masks = False
    has_pictures = True
    box_extras = frozenset(("box_truncated",))
    excluded: frozenset[int] | None = None

    def __init__(
        self,
        root: Path,
        image_id: list[str],
        classes: ClassList,
        labels: LabelTable,
        boxes: BoxTable | None,
        sources: dict[str, Path],
    ) -> None:
        self.root = root
        self.image_id = image_id
        self.class_name = classes.class_name
        self.class_id = classes.class_id
        self.has_boxes = boxes is not None
        self.sources = sources
        self._labels = labels
        self._boxes = boxes

    def path(self, row: int) -> str:
        """Picture path of a row relative to the root, which is also its id."""
        return self.image_id[row]

    def labels(self, row: int) -> Labels:
        """Labels of a row, from its folder or the CSV."""
        return self._labels.of(row, 1), self._labels.of(row, 255)

    def annotation(self, row: int) -> None:
        """Nothing: folders and CSVs say all."""

    def read(self, row: int) -> ImageRecord:
        """Read the picture's header and gather what the CSVs say of it.

        Raises
        ------
        BadImageError
            The picture is missing or no picture, or a box is empty or lies outside it.
        """
        image_id = self.image_id[row]
        size_wh = read_size(self.root / image_id)
        present, undecided = self.labels(row)
        record = ImageRecord(
            image_id=image_id,
            image_path=image_id,
            size_wh=size_wh,
            num_bytes=(self.root / image_id).stat().st_size,
            present=present,
            undecided=undecided,
        )
        return record if self._boxes is None else self._with_boxes(record, row, self._boxes)

    def _with_boxes(self, record: ImageRecord, row: int, boxes: BoxTable) -> ImageRecord:
        rows = slice(boxes.start_N1[row], boxes.start_N1[row + 1])
        for box_xyxy, line in zip(boxes.box_xyxy_B4[rows], boxes.line_B[rows], strict=True):
            x0, y0, x1, y1 = box_xyxy
            fault = ""
            if x1 <= x0 or y1 <= y0:
                fault = "is empty; expected x0 < x1 and y0 < y1"
            elif outside(box_xyxy, record.size_wh):
                fault = f"lies outside the {record.size_wh[0]}x{record.size_wh[1]} picture"
            if fault:
                place = f"{self.sources['boxes'].name} line {line}"
                raise BadImageError(f"{place}: box {x0:g} {y0:g} {x1:g} {y1:g} {fault}.")
        return dataclasses.replace(
            record,
            box_xyxy_B4=boxes.box_xyxy_B4[rows].copy(),
            box_class_B=boxes.class_B[rows].copy(),
            box_difficult_B=boxes.difficult_B[rows].copy(),
            box_truncated_B=boxes.truncated_B[rows].copy(),
        )


def _scan(
    folder: Path, classes: ClassList | None
) -> tuple[list[str], ClassList, npt.NDArray[np.int32]]:
    """Image paths, classes and the class of each image, one folder a class."""
    found = _pictures_by_folder(folder)
    if not found:
        raise DatasetError(f"{folder}: no pictures in it; expected a folder a class.")
    if classes is None:
        classes = ClassList(sorted(found), origin=folder.name)
    index_of = {name: _class_of(folder / name, classes) for name in found}
    image_id: list[str] = []
    class_of_image: list[npt.NDArray[np.int32]] = []
    for name in sorted(found, key=lambda name: (index_of[name], name)):
        image_id += sorted(found[name])
        class_of_image.append(np.full(len(found[name]), index_of[name], np.int32))
    for image in image_id:
        if not image.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in image):
            raise DatasetError(f"{folder}: file name {os.fsencode(image)!r} is not UTF-8.")
    return image_id, classes, np.concatenate(class_of_image)


def _pictures_by_folder(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        for entry in _visible(folder):
            if entry.is_dir():
                if pictures := list(_pictures_below(entry, entry.name, {_place(folder.stat())})):
                    found[entry.name] = pictures
            elif _is_picture(entry.name):
                raise DatasetError(
                    f'{folder}: picture "{entry.name}" lies in no class folder. Move it into one '
                    "or give image-level labels as a CSV."
                )
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be searched, {error}.") from error
    return found


def _pictures_below(
    folder: os.DirEntry[str], prefix: str, above: set[tuple[int, int]]
) -> Iterator[str]:
    place = _place(folder.stat())
    if place in above:  # a link back to a folder that we are in
        return
    for entry in _visible(folder):
        name = f"{prefix}/{entry.name}"
        if entry.is_dir():
            yield from _pictures_below(entry, name, above | {place})
        elif _is_picture(entry.name):
            yield name


def _visible(folder: os.PathLike[str]) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _place(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_picture(name: str) -> bool:
    return PurePath(name).suffix.lower() in EXTENSIONS


def _class_of(folder: Path, classes: ClassList) -> int:
    try:
        return classes.index(folder.name)
    except LookupError as error:
        raise DatasetError(f"{folder}: class {error.args[0]}.") from error
