"""PASCAL VOC data sets, in the layout of the 2007 and 2012 devkits.

::

    VOC2007/
      JPEGImages/000001.jpg
      Annotations/000001.xml
      ImageSets/{Main,Segmentation,Layout,Action}/SPLIT.txt
      SegmentationClass/000001.png
"""

from __future__ import annotations

from pathlib import Path

from wsltool.datasets.classes import ClassList, read_class_list
from wsltool.datasets.pictures import read_size
from wsltool.datasets.records import ImageRecord, Labels
from wsltool.datasets.textfiles import read_lines, require_folder
from wsltool.datasets.voc_xml import check_size, parse_annotation, read_boxes, read_classes
from wsltool.errors import BadImageError, DatasetError

__all__ = ["VOC_CLASSES", "VocDataset", "open_voc"]

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""The twenty classes in alphabetical order: value 1 to 20 of a segmentation mask."""

_SET_FOLDERS = ("Main", "Segmentation", "Layout", "Action")
_OBJECT_LISTS = ("Layout", "Action")  # one line an object, so an image may repeat
_ENDINGS = (".jpg", ".jpeg", ".JPEG", ".JPG", ".png", ".PNG")


def open_voc(folder: Path, split: str, classes: Path | None = None) -> VocDataset:
    """Open one image set of a folder in VOC layout.

    Parameters
    ----------
    folder
        The year's folder, such as ``VOCdevkit/VOC2007``.
    split
        Name of an image set, looked up in ``ImageSets/Main`` and then in the other
        folders there, or with its folder: ``Segmentation/val``. A class list such as
        ``car_test`` gives all of its images, as the devkit's reader does.
    classes
        Class list (see `read_class_list`) of another data set in this layout; the twenty
        VOC classes where left out.

    Raises
    ------
    DatasetError
        A folder, image set or class list is missing or malformed, or an id repeats.

    Notes
    -----
    A class is *present* when any of its objects is not difficult, *undecided* when all
    are difficult, else absent: the 1, 0 and -1 of the devkit's class lists. A box
    ``xmin ymin xmax ymax``, counted from 1 with both ends inside, becomes the half-open
    ``xmin-1 ymin-1 xmax ymax``. Parts (``<part>``) are left out.
    """
    require_folder(folder)
    for name in ("ImageSets", "Annotations", "JPEGImages"):
        if not (folder / name).is_dir():
            inner = next((sub.parent for sub in sorted(folder.glob("*/ImageSets"))), None)
            hint = f" Did you mean {inner}?" if inner else ""
            raise DatasetError(f"{folder}: no {name} in it; expected a folder like VOC2007.{hint}")
    class_list = (
        ClassList(VOC_CLASSES, origin="PASCAL VOC") if classes is None else read_class_list(classes)
    )
    split_file = _find_split(folder / "ImageSets", split, class_list)
    sources = {"split": split_file} | ({"classes": classes} if classes else {})
    return VocDataset(folder, _read_ids(split_file), class_list, sources)


class VocDataset:
    """An image set in VOC layout; see `wsltool.datasets.records.Dataset`."""

    has_boxes = has_pictures = True
    box_extras = frozenset(("box_truncated",))
    excluded: frozenset[int] | None = None

    def __init__(
        self, root: Path, image_id: list[str], classes: ClassList, sources: dict[str, Path]
    ) -> None:
        self.root = root
        self.image_id = image_id
        self.class_name = classes.class_name
        self.class_id = classes.class_id
        self.sources = sources
        self._classes = classes
        masks = {path.stem for path in (root / "SegmentationClass").glob("*.png")}
        self._masked = masks.intersection(image_id)
        self.has_masks = bool(self._masked)

    def path(self, row: int) -> str:
        """Picture path of a row relative to the root; ``.jpg`` where none is found."""
        stem = f"JPEGImages/{self.image_id[row]}"
        found = (stem + end for end in _ENDINGS if (self.root / (stem + end)).is_file())
        return next(found, stem + _ENDINGS[0])

    def annotation(self, row: int) -> Path:
        """XML file of a row."""
        return self.root / "Annotations" / f"{self.image_id[row]}.xml"

    def labels(self, row: int) -> Labels | None:
        """Labels of a row; None for XML that is missing, broken or names an unknown class."""
        annotation = self.annotation(row)
        place = f"annotation {annotation.name}"
        try:
            tree = parse_annotation(annotation, place)
            class_B, difficult_B, _ = read_classes(tree, self._classes, place)
            return _labels(class_B.tolist(), difficult_B.tolist())
        except BadImageError:
            return None

    def read(self, row: int) -> ImageRecord:
        """Read picture header and annotation of one row.

        Raises
        ------
        BadImageError
            Picture or annotation missing, broken or at odds with each other; an unknown
            class; a box that is no box or lies outside the picture.
        """
        image_id, image_path = self.image_id[row], self.path(row)
        size_wh = read_size(self.root / image_path)
        annotation = self.annotation(row)
        place = f"annotation {annotation.name}"
        tree = parse_annotation(annotation, place)
        check_size(tree, size_wh, place)
        box_xyxy_B4 = read_boxes(tree, size_wh, place)
        class_B, difficult_B, truncated_B = read_classes(tree, self._classes, place)
        present, undecided = _labels(class_B.tolist(), difficult_B.tolist())
        return ImageRecord(
            image_id=image_id,
            image_path=image_path,
            size_wh=size_wh,
            num_bytes=(self.root / image_path).stat().st_size,
            present=present,
            undecided=undecided,
            box_xyxy_B4=box_xyxy_B4,
            box_class_B=class_B,
            box_difficult_B=difficult_B,
            box_truncated_B=truncated_B,
            masks=((f"SegmentationClass/{image_id}.png", -1),) if image_id in self._masked else (),
        )


def _find_split(image_sets: Path, split: str, classes: ClassList) -> Path:
    name = f"{split}.txt"
    folders = sorted(sub.name for sub in image_sets.iterdir() if sub.is_dir())
    order = [sub for sub in _SET_FOLDERS if sub in folders]
    order += [sub for sub in folders if sub not in order]
    for path in [image_sets / sub / name for sub in order] + [image_sets / name]:
        if path.is_file():
            return path
    words = set(classes.class_name)
    found = [path for sub in order for path in sorted((image_sets / sub).glob("*.txt"))]
    sets = [path for path in found if path.stem.rpartition("_")[0] not in words]
    told = ", ".join(f"{path.parent.name}/{path.stem}" for path in sets) or "none"
    if len(found) > len(sets):
        told += f" (and {len(found) - len(sets)} lists of one class each)"
    raise DatasetError(f'{image_sets}: no image set "{split}"; there are {told}.')


def _read_ids(path: Path) -> list[str]:
    """Read the first column: an id a line, behind it at most two whole numbers."""
    first_line: dict[str, int] = {}
    may_repeat = path.parent.name in _OBJECT_LISTS
    for line, text in read_lines(path):
        image_id, *numbers = text.split()
        if len(numbers) > 2 or not all(_is_whole(word) for word in numbers):
            raise DatasetError(
                f'{path} line {line}: "{text[:80]}"; expected an image id and at most two whole '
                "numbers."
            )
        if image_id.startswith("/") or ".." in image_id.split("/"):
            raise DatasetError(f'{path} line {line}: id "{image_id[:80]}" leaves the data set.')
        if image_id in first_line and not may_repeat:
            raise DatasetError(
                f'{path} line {line}: id "{image_id[:80]}" again, first on line '
                f"{first_line[image_id]}. Give each image one line."
            )
        first_line.setdefault(image_id, line)
    if not first_line:
        raise DatasetError(f"{path}: no image id in it.")
    return list(first_line)


def _is_whole(word: str) -> bool:
    return word.removeprefix("-").isdecimal()


def _labels(classes: list[int], difficult: list[int]) -> Labels:
    """Present: any object is not difficult; undecided: all are."""
    easy = {index for index, flag in zip(classes, difficult, strict=True) if not flag}
    return tuple(sorted(easy)), tuple(sorted(set(classes) - easy))
