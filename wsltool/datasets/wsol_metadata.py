"""The metadata lists of wsolevaluation (CUB, ILSVRC, OpenImages, and whatever copies them).

::

    metadata/OpenImages/val/
      image_ids.txt      val/01226z/32fdab44f6e415f1.jpg
      class_labels.txt   val/01226z/32fdab44f6e415f1.jpg,0
      image_sizes.txt    IMAGE,500,335                   (empty for OpenImages)
      localization.txt   IMAGE,60,27,385,331             a line a box, or
                         IMAGE,MASK.png,IGNORE.png       a line a mask, the first with the
                                                         mask of what is left out
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from wsltool.datasets.classes import ClassList, read_class_list
from wsltool.datasets.picture_files import size_and_bytes
from wsltool.datasets.pictures import read_size
from wsltool.datasets.records import ImageRecord, Labels
from wsltool.datasets.tables import BoxTable, LabelTable, read_boxes
from wsltool.datasets.textfiles import check_name, read_lines, require_folder
from wsltool.errors import BadImageError, DatasetError

__all__ = ["WsolDataset", "open_wsol"]

_MOST_CLASSES = 10_000  # where no list says how many there are
_IGNORE_MASK = -2

Masks = tuple[list[str], str]
Size = tuple[int, int]


def open_wsol(
    folder: Path,
    *,
    images: Path | None = None,
    masks: Path | None = None,
    classes: Path | None = None,
) -> WsolDataset:
    """Open the metadata of one split.

    Parameters
    ----------
    folder
        The folder with the four lists, such as ``metadata/CUB/test``.
    images
        The folder that image names are relative to; None for the metadata alone: the size of
        an image is then that of ``image_sizes.txt``, else that of its masks.
    masks
        The folder that mask names are relative to.
    classes
        Class list (see `read_class_list`) with a line for each class number, from 0; without
        one, the classes are called by their numbers.

    Raises
    ------
    DatasetError
        A list is missing or malformed (with its line); an image on two lines, or in one list
        only; masks in ``localization.txt``, but no folder of masks.

    Notes
    -----
    An image has one class. The four numbers of a box are kept exactly as they stand:
    wsolevaluation counts them as inclusive whole pixels, and `maxboxacc` does so too.
    ``localization.txt`` may be missing or empty, as it is for training images.
    """
    require_folder(folder)
    paths = {name: folder / f"{name}.txt" for name in ("image_ids", "class_labels")}
    row_of = _read_ids(paths["image_ids"])
    class_list = None if classes is None else read_class_list(classes)
    class_of = _read_classes(paths["class_labels"], row_of, class_list)
    numbers = [str(number) for number in range(max(class_of) + 1)]
    named = class_list or ClassList(numbers, origin=paths["class_labels"].name)
    sizes = folder / "image_sizes.txt"
    size_of = _read_sizes(sizes, row_of) if sizes.is_file() else {}
    localization = folder / "localization.txt"
    first = next(read_lines(localization), (0, ""))[1] if localization.is_file() else ""
    boxes: BoxTable | None = None
    masks_of: dict[int, Masks] = {}
    if first.count(",") == 2:
        masks_of = _read_masks(localization, row_of, masks)
    elif first:
        labels = LabelTable.one_class(np.array(class_of, np.int32))
        boxes = read_boxes(localization, lambda name: name, row_of, named, labels)
    if images is not None:
        require_folder(images)
    root = images or masks or folder
    paths |= {p.stem: p for p in (sizes, localization) if p.is_file()}
    sources = paths | ({} if classes is None else {"classes": classes})
    return WsolDataset(
        root, list(row_of), named, class_of, size_of, boxes, masks_of, sources, images, masks
    )


class WsolDataset:
    """The images of one split; see `wsltool.datasets.records.Dataset`."""

    box_extras: frozenset[str] = frozenset()
    excluded: frozenset[int] | None = None

    def __init__(
        self,
        root: Path,
        image_id: list[str],
        classes: ClassList,
        class_of: list[int],
        size_of: dict[int, Size],
        boxes: BoxTable | None,
        masks_of: dict[int, Masks],
        sources: dict[str, Path],
        images: Path | None,
        masks: Path | None,
    ) -> None:
        self.root = root
        self.image_id = image_id
        self.class_name, self.class_id = classes.class_name, classes.class_id
        self.sources = sources
        self.has_pictures = images is not None
        self.has_boxes = boxes is not None
        self.has_masks = bool(masks_of)
        self._class_of = class_of
        self._size_of = size_of
        self._boxes = boxes
        self._masks_of = masks_of
        mask_root = (masks or root).resolve()
        self._mask_prefix = Path(os.path.relpath(mask_root, root.resolve()))

    def path(self, row: int) -> str:
        """Picture path of a row relative to the root, which is its id too."""
        return self.image_id[row]

    def annotation(self, row: int) -> None:
        """Nothing: the lists say all."""

    def labels(self, row: int) -> Labels:
        """Labels of a row: its one class."""
        return (self._class_of[row],), ()

    def read(self, row: int) -> ImageRecord:
        """Read the picture's header, if there are pictures, and gather what the lists say.

        Raises
        ------
        BadImageError
            The picture is unusable or of another size than told; no size is known; a box is
            negative, ends before it begins or lies outside; a mask is not there.
        """
        masks = self._masks(row)
        told_wh, told_by = self._told_size(row, [path for path, _ in masks])
        picture = self.root / self.image_id[row] if self.has_pictures else None
        size_wh, num_bytes = size_and_bytes(picture, told_wh, told_by)
        rows = slice(0, 0)
        if self._boxes is not None:
            rows = slice(self._boxes.start_N1[row], self._boxes.start_N1[row + 1])
            _check_boxes(self._boxes, rows, size_wh)
        num_boxes = rows.stop - rows.start
        corners = np.zeros((0, 4)) if self._boxes is None else self._boxes.box_xyxy_B4[rows]
        return ImageRecord(
            image_id=self.image_id[row],
            image_path=self.image_id[row],
            size_wh=size_wh,
            num_bytes=num_bytes,
            present=(self._class_of[row],),
            box_xyxy_B4=corners.copy(),
            box_class_B=np.full(num_boxes, self._class_of[row], np.int32),
            box_difficult_B=np.zeros(num_boxes, np.uint8),
            masks=masks,
        )

    def _masks(self, row: int) -> tuple[tuple[str, int], ...]:
        names, ignored = self._masks_of.get(row, ([], ""))
        kinds = [(name, self._class_of[row]) for name in names]
        kinds += [(ignored, _IGNORE_MASK)] * bool(ignored)
        found = tuple(((self._mask_prefix / name).as_posix(), kind) for name, kind in kinds)
        for path, _ in found:
            if not (self.root / path).is_file():
                raise BadImageError(f"mask {path} is not there.")
        return found

    def _told_size(self, row: int, masks: list[str]) -> tuple[Size | None, str]:
        """Return the size told by the list, else, without pictures, by the masks."""
        if row in self._size_of or self.has_pictures or not masks:
            return self._size_of.get(row), "image_sizes.txt"
        sizes = {path: read_size(self.root / path) for path in masks}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{path} {w}x{h}" for path, (w, h) in sizes.items())
            raise BadImageError(f"masks of different sizes: {told}; expected one size.")
        return sizes[masks[0]], f"mask {masks[0]}"


def _check_boxes(boxes: BoxTable, rows: slice, size_wh: Size) -> None:
    """Refuse what wsolevaluation's own check refuses, and a box beyond the picture."""
    for (x0, y0, x1, y1), line in zip(boxes.box_xyxy_B4[rows], boxes.line_B[rows], strict=True):
        fault = ""
        if x1 < x0 or y1 < y0:
            fault = "ends before it begins"
        elif min(x0, y0) < 0 or x1 > size_wh[0] or y1 > size_wh[1]:
            fault = f"lies outside the {size_wh[0]}x{size_wh[1]} picture"
        if fault:
            raise BadImageError(
                f"localization.txt line {line}: box {x0:g} {y0:g} {x1:g} {y1:g} {fault}."
            )


def _read_ids(path: Path) -> dict[str, int]:
    line_of: dict[str, int] = {}
    for line, name in read_lines(path):
        check_name(name, f"{path} line {line}")
        if name in line_of:
            raise DatasetError(
                f'{path} line {line}: image "{name[:80]}" again, first on line {line_of[name]}. '
                "Give it one line."
            )
        line_of[name] = line
    if not line_of:
        raise DatasetError(f"{path}: no image in it; expected one a line.")
    return {name: row for row, name in enumerate(line_of)}


def _read_fields(path: Path, row_of: dict[str, int], expected: str) -> list[tuple[int, list[str]]]:
    """Read lines of a known image and further fields, as many as `expected` names."""
    width = expected.count(",") + 1
    found = []
    for line, text in read_lines(path):
        fields = [word.strip() for word in text.split(",")]
        if len(fields) != width:
            raise DatasetError(f'{path} line {line}: "{text[:80]}"; expected {expected}.')
        if fields[0] not in row_of:
            raise DatasetError(
                f'{path} line {line}: image "{fields[0][:80]}" is not in image_ids.txt.'
            )
        found.append((line, fields))
    return found


def _read_classes(path: Path, row_of: dict[str, int], classes: ClassList | None) -> list[int]:
    class_of = [-1] * len(row_of)
    num_classes = _MOST_CLASSES if classes is None else len(classes)
    for line, (name, word) in _read_fields(path, row_of, "IMAGE,CLASS"):
        if not _is_whole(word) or int(word) >= num_classes:
            cure = "" if classes else " Name the classes with --classes if there are more."
            raise DatasetError(
                f'{path} line {line}: class "{word[:40]}", expected a whole number from 0 to '
                f"{num_classes - 1}.{cure}"
            )
        if class_of[row_of[name]] >= 0:
            raise DatasetError(f'{path} line {line}: image "{name[:80]}" again. Give it one class.')
        class_of[row_of[name]] = int(word)
    if -1 in class_of:
        name = list(row_of)[class_of.index(-1)]
        raise DatasetError(f'{path}: image "{name}" of image_ids.txt has no class.')
    return class_of


def _read_sizes(path: Path, row_of: dict[str, int]) -> dict[int, Size]:
    size_of: dict[int, Size] = {}
    for line, (name, *words) in _read_fields(path, row_of, "IMAGE,WIDTH,HEIGHT"):
        if not all(_is_whole(word) and int(word) > 0 for word in words):
            raise DatasetError(
                f'{path} line {line}: size "{",".join(words)[:40]}", expected two positive whole '
                "numbers."
            )
        if row_of[name] in size_of:
            raise DatasetError(f'{path} line {line}: image "{name[:80]}" again. Give it one size.')
        size_of[row_of[name]] = (int(words[0]), int(words[1]))
    return size_of


def _read_masks(path: Path, row_of: dict[str, int], masks: Path | None) -> dict[int, Masks]:
    if masks is None:
        raise DatasetError(f"{path}: lists masks. Say where they lie with --masks.")
    require_folder(masks)
    masks_of: dict[int, Masks] = {}
    for line, (name, mask, ignored) in _read_fields(path, row_of, "IMAGE,MASK,IGNORE"):
        for word in (mask, *[ignored] * bool(ignored)):
            check_name(word, f"{path} line {line}")
        names, known = masks_of.get(row_of[name], ([], ""))
        if names and ignored:
            raise DatasetError(
                f'{path} line {line}: image "{name}" has a second mask of what is left out; '
                "expected one, on its first line."
            )
        if mask in names:
            raise DatasetError(f'{path} line {line}: mask "{mask}" again. Give it one line.')
        masks_of[row_of[name]] = ([*names, mask], known or ignored)
    return masks_of


def _is_whole(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) < 10
