"""Caltech-UCSD Birds 200-2011, in the layout of its archive.

::

    CUB_200_2011/
      images.txt               1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg
      image_class_labels.txt   1 1
      classes.txt              1 001.Black_footed_Albatross
      bounding_boxes.txt       1 60.0 27.0 325.0 304.0
      train_test_split.txt     1 0
      images/001.Black_footed_Albatross/….jpg
      segmentations/001.Black_footed_Albatross/….png   (an archive of its own, here or beside)
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import numpy.typing as npt

from wsltool.datasets.picture_files import size_and_bytes
from wsltool.datasets.records import OVERHANG_PX, ImageRecord, Labels, outside
from wsltool.datasets.textfiles import check_name, read_lines, require_folder
from wsltool.errors import BadImageError, DatasetError

__all__ = ["CubDataset", "open_cub"]

_LISTS = ("images", "image_class_labels", "classes", "bounding_boxes", "train_test_split")


def open_cub(folder: Path, split: Literal["train", "test"]) -> CubDataset:
    """Open the training or the test images.

    Parameters
    ----------
    folder
        ``CUB_200_2011``.
    split
        Which images of ``train_test_split.txt``: 1 is train, 0 is test.

    Raises
    ------
    DatasetError
        A list is missing or malformed (with its line), an id repeats, or the lists speak of
        different images.

    Notes
    -----
    The id of an image is its path below ``images``. A box ``x y w h`` becomes
    ``x y x+w y+h``: the same four numbers as in wsolevaluation's metadata (whose 11 788
    boxes begin at 0 and never pass the picture's last pixel). The masks of
    ``segmentations`` hold how many of five annotators saw the bird, in steps of 51; every
    pixel that one of them saw belongs to the mask, as to any mask of a class.
    """
    require_folder(folder)
    paths = {name: folder / f"{name}.txt" for name in _LISTS}
    images = _read_list(paths["images"], "an image's number and path")
    for number, name in images.items():
        check_name(name, f"{paths['images']} image {number}")
    if len(set(images.values())) < len(images):
        raise DatasetError(f"{paths['images']}: an image stands there twice. Give it one line.")
    classes = _read_list(paths["classes"], "a class's number and name")
    class_of = _matched(paths["image_class_labels"], images, "an image's number and class")
    box_of = _matched(paths["bounding_boxes"], images, "an image's number and x y w h")
    split_of = _matched(paths["train_test_split"], images, "an image's number and 0 or 1")
    _check_values(paths["image_class_labels"], class_of, set(classes))
    _check_values(paths["train_test_split"], split_of, {"0", "1"})
    wanted = "1" if split == "train" else "0"
    numbers = [number for number in images if split_of[number] == wanted]
    if not numbers:
        raise DatasetError(f'{paths["train_test_split"]}: no image is in the split "{split}".')
    index = {number: place for place, number in enumerate(classes)}
    return CubDataset(
        folder,
        image_id=[images[number] for number in numbers],
        classes=classes,
        class_N=[index[class_of[number]] for number in numbers],
        box_xywh_N4=np.array([_box(box_of, number, paths) for number in numbers], np.float64),
        sources=paths,
    )


class CubDataset:
    """The images of one split; see `wsltool.datasets.records.Dataset`."""

    has_boxes = has_pictures = True
    box_extras: frozenset[str] = frozenset()
    excluded: frozenset[int] | None = None

    def __init__(
        self,
        root: Path,
        *,
        image_id: list[str],
        classes: dict[str, str],
        class_N: list[int],
        box_xywh_N4: npt.NDArray[np.float64],
        sources: dict[str, Path],
    ) -> None:
        self.root = root
        self.image_id = image_id
        self.class_id, self.class_name = list(classes), list(classes.values())
        self.sources = sources
        self._class_N = class_N
        self._box_xywh_N4 = box_xywh_N4
        places = ("segmentations", "../segmentations")
        self._masks = next((place for place in places if (root / place).is_dir()), None)
        self.has_masks = self._masks is not None

    def path(self, row: int) -> str:
        """Picture path of a row relative to the root."""
        return f"images/{self.image_id[row]}"

    def annotation(self, row: int) -> None:
        """Nothing: the lists say all."""

    def labels(self, row: int) -> Labels:
        """Labels of a row: its one class."""
        return (self._class_N[row],), ()

    def read(self, row: int) -> ImageRecord:
        """Read the picture's header and gather what the lists say of it.

        Raises
        ------
        BadImageError
            The picture is unusable, its mask is missing, or its box has no size or leaves it
            by more than `OVERHANG_PX`.
        """
        size_wh, num_bytes = size_and_bytes(self.root / self.path(row), None, "images.txt")
        x, y, width, height = self._box_xywh_N4[row].tolist()
        box_xyxy = (x, y, x + width, y + height)
        told = f"bounding_boxes.txt: box {x:g} {y:g} {width:g} {height:g}"
        if width <= 0 or height <= 0:
            raise BadImageError(f"{told} has no size; expected x y w h.")
        if outside(box_xyxy, size_wh, OVERHANG_PX):
            raise BadImageError(f"{told} lies outside the {size_wh[0]}x{size_wh[1]} picture.")
        return ImageRecord(
            image_id=self.image_id[row],
            image_path=self.path(row),
            size_wh=size_wh,
            num_bytes=num_bytes,
            present=(self._class_N[row],),
            box_xyxy_B4=np.array([box_xyxy]),
            box_class_B=np.array([self._class_N[row]], np.int32),
            box_difficult_B=np.zeros(1, np.uint8),
            masks=self._mask(row),
        )

    def _mask(self, row: int) -> tuple[tuple[str, int], ...]:
        if self._masks is None:
            return ()
        mask = f"{self._masks}/{PurePosixPath(self.image_id[row]).with_suffix('.png')}"
        if not (self.root / mask).is_file():
            raise BadImageError(f"mask {mask} is not there.")
        return ((mask, self._class_N[row]),)


def _read_list(path: Path, expected: str) -> dict[str, str]:
    """Read lines of a whole number from 1 and a text, in the order of the file."""
    found: dict[str, str] = {}
    for line, text in read_lines(path):
        number, rest = (*text.split(None, 1), "")[:2]
        if not number.isascii() or not number.isdecimal() or not rest:
            raise DatasetError(f'{path} line {line}: "{text[:80]}"; expected {expected}.')
        if number in found:
            raise DatasetError(
                f"{path} line {line}: number {number} again. Give each number one line."
            )
        found[number] = rest
    if not found:
        raise DatasetError(f"{path}: nothing in it; expected {expected} in each line.")
    return found


def _matched(path: Path, images: dict[str, str], expected: str) -> dict[str, str]:
    """Read a list that must speak of exactly the images."""
    found = _read_list(path, expected)
    for name, numbers in (
        ("is not in images.txt", found.keys() - images.keys()),
        ("is missing", images.keys() - found.keys()),
    ):
        if numbers:
            raise DatasetError(f"{path}: image {min(numbers)} {name} ({len(numbers)} such images).")
    return found


def _check_values(path: Path, found: dict[str, str], known: set[str]) -> None:
    for number, word in found.items():
        if word not in known:
            raise DatasetError(
                f'{path}: image {number} has "{word[:40]}", expected one of {len(known)} values '
                f"({', '.join(sorted(known)[:3])}, …)."
            )


def _box(box_of: dict[str, str], number: str, paths: dict[str, Path]) -> list[float]:
    words = box_of[number].split()
    try:
        corners = [float(word) for word in words]
    except ValueError:
        corners = []
    if len(corners) != 4 or not np.isfinite(corners).all():
        raise DatasetError(
            f'{paths["bounding_boxes"]}: image {number} has the box "{box_of[number]}"; expected '
            "four finite numbers x y w h."
        )
    return corners
