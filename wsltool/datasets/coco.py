"""Data sets in the JSON form of COCO's instances (``instances_val2017.json`` and the like)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from wsltool.datasets.coco_outlines import encode_outline, load_pycocotools
from wsltool.datasets.picture_files import size_and_bytes
from wsltool.datasets.records import OVERHANG_PX, ImageRecord, Labels, outside
from wsltool.datasets.textfiles import check_name, read_json
from wsltool.errors import BadImageError, DatasetError

__all__ = ["CocoDataset", "find_pictures", "open_coco"]

_SEARCHED_PICTURES = 16
_KEPT = ("id", "category_id", "bbox", "area", "iscrowd", "segmentation")

Entry = dict[str, Any]


def open_coco(
    annotations: Path, images: Path | None = None, *, pictures: bool = True, masks: bool = True
) -> CocoDataset:
    """Open an instances JSON.

    Parameters
    ----------
    annotations
        The JSON, with the lists ``images``, ``annotations`` and ``categories``.
    images
        The folder that each ``file_name`` is relative to; looked for where left out
        (`find_pictures`).
    pictures
        False for the annotations alone, with the sizes that they tell.
    masks
        Whether segmentations are kept; they need pycocotools.

    Raises
    ------
    DatasetError
        No JSON or not of this form; an id that is no whole number or repeats; an annotation
        of an image that is not there; no folder of pictures.
    ExtraMissingError
        There are segmentations, but no pycocotools.

    Notes
    -----
    Images and classes stand in the order of their ids, as in COCO's own evaluation, and the
    boxes of an image in the order of the file. Within an image a box ``x y w h`` becomes
    ``x y x+w y+h``. One without area (real ones exist, in val2014) is kept, a negative size
    refused, and so is a box that leaves the picture by more than `OVERHANG_PX`. A *crowd* is
    marked as difficult too. A class is *present* when any of its instances is no crowd,
    *undecided* when all are.
    """
    data = _load(annotations)
    image_list, entries, categories = (
        _entries(data, name, annotations) for name in ("images", "annotations", "categories")
    )
    image_list.sort(key=lambda entry: entry["id"])
    categories.sort(key=lambda entry: entry["id"])
    for entry in image_list:
        place = f"{annotations.name} image {entry['id']}"
        check_name(_text(entry.get("file_name"), "file_name", place), place)
    if not image_list or not categories:
        empty = "categories" if image_list else "images"
        raise DatasetError(f'{annotations}: "{empty}" is empty; expected at least one.')
    if not pictures:
        root = annotations.parent
    else:
        root = images or find_pictures(annotations, [e["file_name"] for e in image_list])
    kept = {key for key in _KEPT if any(key in entry for entry in entries)}
    if masks and any(entry.get("segmentation") for entry in entries):
        load_pycocotools()
    else:
        kept.discard("segmentation")
    of_image = _by_image(entries, image_list, kept, annotations)
    return CocoDataset(annotations, root, image_list, categories, of_image, pictures, kept)


class CocoDataset:
    """The images of an instances JSON; see `wsltool.datasets.records.Dataset`."""

    has_boxes = True
    has_masks = False
    excluded: frozenset[int] | None = None

    def __init__(
        self,
        annotations: Path,
        root: Path,
        images: list[Entry],
        categories: list[Entry],
        of_image: list[bytes],
        pictures: bool,
        kept: set[str],
    ) -> None:
        self.root = root
        self.has_pictures = pictures
        self.image_id = [str(entry["id"]) for entry in images]
        self.class_id = [str(entry["id"]) for entry in categories]
        self.class_name = [
            _text(entry.get("name"), "name", f"{annotations.name} category {entry['id']}")
            for entry in categories
        ]
        self.sources = {"annotations": annotations}
        extras = {"area": "box_area", "segmentation": "box_rle"}
        self.box_extras = frozenset(
            {"box_crowd"} | {name for key, name in extras.items() if key in kept}
        )
        self._file = annotations.name
        self._index = {entry["id"]: index for index, entry in enumerate(categories)}
        self._path = [entry["file_name"] for entry in images]
        self._told = [(entry.get("width"), entry.get("height")) for entry in images]
        self._of_image = of_image

    def path(self, row: int) -> str:
        """Picture path of a row relative to the root, its ``file_name``."""
        return str(self._path[row])

    def annotation(self, row: int) -> None:
        """Nothing: the JSON says all."""

    def labels(self, row: int) -> Labels | None:
        """Labels of a row; None where an annotation has no known class or crowd flag."""
        try:
            return _labels([self._class_and_crowd(entry) for entry in self._entries(row)])
        except BadImageError:
            return None

    def read(self, row: int) -> ImageRecord:
        """Read the picture's header and gather the annotations of one row.

        Raises
        ------
        BadImageError
            The picture is unusable or of another size than told; a class, flag, box, area or
            segmentation is not what it should be, with the id of the annotation.
        """
        entries = self._entries(row)
        told_wh = self._told_size(row)
        picture = self.root / self._path[row] if self.has_pictures else None
        told_by = f"{self._file} image {self.image_id[row]}"
        size_wh, num_bytes = size_and_bytes(picture, told_wh, told_by)
        classes = [self._class_and_crowd(entry) for entry in entries]
        present, undecided = _labels(classes)
        crowd_B = np.array([crowd for _, crowd in classes], np.uint8)
        boxes = [_box(entry, size_wh, self._place(entry)) for entry in entries]
        return ImageRecord(
            image_id=self.image_id[row],
            image_path=self._path[row],
            size_wh=size_wh,
            num_bytes=num_bytes,
            present=present,
            undecided=undecided,
            box_xyxy_B4=np.array(boxes, np.float64).reshape(-1, 4),
            box_class_B=np.array([index for index, _ in classes], np.int32),
            box_difficult_B=crowd_B,
            box_crowd_B=crowd_B,
            box_area_B=np.array(self._areas(entries), np.float64),
            box_rle=self._outlines(entries, size_wh),
        )

    def _entries(self, row: int) -> list[Entry]:
        found: list[Entry] = json.loads(self._of_image[row])
        return found

    def _place(self, entry: Entry) -> str:
        return f"{self._file} annotation {entry['id']}"

    def _told_size(self, row: int) -> tuple[int, int]:
        width, height = self._told[row]
        if not (_is_whole(width) and _is_whole(height) and min(width, height) > 0):
            raise BadImageError(
                f"{self._file} image {self.image_id[row]}: size {_shown(width)} x "
                f"{_shown(height)}; expected two positive whole numbers."
            )
        return width, height

    def _class_and_crowd(self, entry: Entry) -> tuple[int, int]:
        category, crowd = entry.get("category_id"), entry.get("iscrowd", 0)
        if not _is_whole(category) or category not in self._index:
            raise BadImageError(
                f"{self._place(entry)}: category_id {_shown(category)} is none of the "
                f"{len(self._index)} categories."
            )
        if not _is_number(crowd) or crowd not in (0, 1):
            raise BadImageError(
                f"{self._place(entry)}: iscrowd is {_shown(crowd)}, expected 0 or 1."
            )
        return self._index[category], int(crowd)

    def _areas(self, entries: list[Entry]) -> list[float]:
        if "box_area" not in self.box_extras:
            return []
        for entry in entries:
            area = entry.get("area")
            if not _is_number(area) or not 0 <= area < math.inf:
                raise BadImageError(
                    f"{self._place(entry)}: area is {_shown(area)}, expected a number of at "
                    "least 0."
                )
        return [_as_float(entry["area"]) for entry in entries]

    def _outlines(self, entries: list[Entry], size_wh: tuple[int, int]) -> tuple[str, ...]:
        if "box_rle" not in self.box_extras:
            return ()
        return tuple(
            encode_outline(entry.get("segmentation"), size_wh, self._place(entry))
            for entry in entries
        )


def find_pictures(annotations: Path, names: list[str]) -> Path:
    """Find the folder of the pictures of a JSON.

    The first that holds one of the first pictures: for ``annotations/instances_val2017.json``
    the folders ``val2017`` and ``images``, beside the JSON and one above, ``images/val2017``
    one above, and the JSON's own.

    Raises
    ------
    DatasetError
        None does; the message names ``--images``.
    """
    here, above = annotations.parent, annotations.resolve().parent.parent
    word = annotations.stem.rpartition("_")[2] or annotations.stem
    places = [above / word, here / word, above / "images" / word, above / "images"]
    places += [here / "images", here]
    for place in places:
        if any((place / name).is_file() for name in names[:_SEARCHED_PICTURES]):
            return place
    raise DatasetError(
        f'{annotations}: its pictures ("{names[0]}", …) are not in {above / word} or beside it. '
        "Say where with --images, or pass --no-images."
    )


def _load(annotations: Path) -> Entry:
    data = read_json(annotations)
    if not isinstance(data, dict):
        raise DatasetError(
            f"{annotations}: the JSON is a {type(data).__name__}; expected an object with images, "
            "annotations and categories."
        )
    return data


def _entries(data: Entry, name: str, annotations: Path) -> list[Entry]:
    """Return one of the lists, each entry with an id of its own."""
    found = data.get(name)
    if not isinstance(found, list):
        raise DatasetError(
            f'{annotations}: "{name}" is {_shown(found)}; expected the list of an instances JSON.'
        )
    seen: set[int] = set()
    for place, entry in enumerate(found):
        where = f'{annotations}: "{name}" entry {place + 1}'
        if not isinstance(entry, dict):
            raise DatasetError(f"{where} is {_shown(entry)}, expected an object.")
        number = entry.get("id")
        if not _is_whole(number):
            raise DatasetError(f"{where} has the id {_shown(number)}, expected a whole number.")
        if number in seen:
            raise DatasetError(f"{where} has the id {number} of an entry before it.")
        seen.add(number)
    return found


def _by_image(
    entries: list[Entry], images: list[Entry], kept: set[str], annotations: Path
) -> list[bytes]:
    """Return the annotations of each image as one piece of JSON, far smaller than its objects."""
    row_of = {image["id"]: row for row, image in enumerate(images)}
    parts: list[list[bytes]] = [[] for _ in images]
    for entry in entries:
        image = entry.get("image_id")
        if not _is_whole(image) or image not in row_of:
            raise DatasetError(
                f"{annotations} annotation {entry['id']}: image_id {_shown(image)} is none of the "
                f"{len(images)} images."
            )
        reduced = {key: entry[key] for key in kept if key in entry}
        parts[row_of[image]].append(_dump(reduced, f"{annotations} annotation {entry['id']}"))
    return [b"[" + b",".join(of_image) + b"]" for of_image in parts]


def _dump(entry: Entry, place: str) -> bytes:
    try:
        return json.dumps(entry, separators=(",", ":")).encode()
    except RecursionError as error:
        raise DatasetError(f"{place}: no valid JSON, nested too deep.") from error


def _labels(classes: list[tuple[int, int]]) -> Labels:
    """Present: any instance is no crowd; undecided: all are."""
    single = {index for index, crowd in classes if not crowd}
    return tuple(sorted(single)), tuple(sorted({index for index, _ in classes} - single))


def _box(entry: Entry, size_wh: tuple[int, int], place: str) -> tuple[float, ...]:
    corners = entry.get("bbox")
    if not isinstance(corners, list) or len(corners) != 4 or not all(map(_is_number, corners)):
        raise BadImageError(f"{place}: bbox is {_shown(corners)}, expected four numbers x y w h.")
    x, y, width, height = (_as_float(value) for value in corners)
    told = f"{place}: bbox {x:g} {y:g} {width:g} {height:g}"
    if not np.isfinite([x, y, width, height]).all():
        raise BadImageError(f"{told} is not finite.")
    if width < 0 or height < 0:
        raise BadImageError(f"{told} has a negative size.")
    box_xyxy = (x, y, x + width, y + height)
    if outside(box_xyxy, size_wh, OVERHANG_PX):
        raise BadImageError(f"{told} lies outside the {size_wh[0]}x{size_wh[1]} picture.")
    return box_xyxy


def _text(value: object, key: str, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DatasetError(f"{place}: {key} is {_shown(value)}, expected a text.")
    if any(letter < " " or "\ud800" <= letter <= "\udfff" for letter in value):
        raise DatasetError(f"{place}: {key} {_shown(value)} cannot be stored as text.")
    return value


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf


def _shown(value: object) -> str:
    """Return the beginning of a JSON value, in one line."""
    if isinstance(value, list | dict):
        return "an empty " * (not value) + ("list" if isinstance(value, list) else "object")
    return "missing" if value is None else repr(value)[:60]
