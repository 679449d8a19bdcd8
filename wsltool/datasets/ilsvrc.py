"""ILSVRC's classification and localization data (CLS-LOC), in its two layouts.

::

    ILSVRC/                                     or, as first released, a flat folder
      Data/CLS-LOC/train/n01440764/….JPEG         ILSVRC2012_img_train/n01440764/….JPEG
      Data/CLS-LOC/val/….JPEG                     ILSVRC2012_img_val/….JPEG
      Annotations/CLS-LOC/{train/n01440764,val}   ILSVRC2012_bbox_{train_v2,val_v3}/…
      ImageSets/CLS-LOC/{train_cls,val}.txt       ILSVRC2012_validation_ground_truth.txt
    LOC_synset_mapping.txt                        ILSVRC2012_devkit_t12/data/meta.mat
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsltool.datasets.classes import ClassList, read_class_list
from wsltool.datasets.ilsvrc_lists import (
    find_devkit_order,
    image_number,
    read_blacklist,
    read_devkit_order,
    read_truth,
)
from wsltool.datasets.picture_files import size_and_bytes
from wsltool.datasets.records import OVERHANG_PX, ImageRecord, Labels
from wsltool.datasets.textfiles import check_name, read_lines, require_folder
from wsltool.datasets.voc_xml import check_size, parse_annotation, read_boxes, read_classes
from wsltool.errors import BadImageError, DatasetError

__all__ = ["IlsvrcDataset", "open_ilsvrc"]

_ENDING = ".JPEG"
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_FIRST_PIXEL = 0


@dataclass(frozen=True)
class _Layout:
    """Where the files of one split lie; folders are relative to `root`."""

    root: Path
    pictures: str
    annotations: str | None
    image_set: Path | None
    devkit: tuple[Path, ...]


def open_ilsvrc(
    folder: Path,
    split: Literal["train", "val"],
    *,
    classes: Path | None = None,
    labels: Path | None = None,
    blacklist: Path | None = None,
) -> IlsvrcDataset:
    """Open the training or the validation images.

    Parameters
    ----------
    folder
        ``ILSVRC``, the folder that holds it, or a folder in the flat layout.
    split
        ``train`` (all images of ``train_cls.txt``) or ``val``. Without a list, the pictures
        that are there, sorted.
    classes
        Class list (see `read_class_list`): ``LOC_synset_mapping.txt`` or ``map_clsloc.txt``;
        the classes have its order. Without one ``LOC_synset_mapping.txt`` in or beside the
        folder is taken, else the devkit's classes, else the folders of the training images,
        both in the order of their WordNet ids (that of published networks).
    labels
        Ground truth of the validation images, in line k the devkit's number of the class of
        image k; ``map_clsloc.txt`` or ``meta.mat`` must lie beside it. Without it (and
        without such a file in a flat folder) the class is that of the boxes.
    blacklist
        Numbers of the validation images that localization leaves out.

    Raises
    ------
    DatasetError
        The layout is another one, or a list is missing or malformed.

    Notes
    -----
    The corners of a box lie inside it and are counted from 0: ``xmin ymin xmax ymax``
    becomes ``xmin ymin xmax+1 ymax+1``. (Of the 80 477
    validation boxes in wsolevaluation's metadata 7388 have ``xmin`` 0, and ``xmax`` is never
    more than the width minus 1.)
    Overlaps are those of the devkit, which adds 1 to the differences of corners.
    """
    layout = _layout(folder, split)
    image_id = _image_ids(layout, split)
    truth = labels or next((p for d in layout.devkit if (p := d / _TRUTH).is_file()), None)
    class_list, class_file = _classes(layout, classes)
    sources = {"classes": class_file} if class_file else {}
    class_of: list[int] | None = None
    if split == "train":
        class_of = [_class_of(name, class_list) for name in image_id]
    elif truth is not None:
        sources["labels"] = truth
        class_of = _true_classes(truth, layout, image_id, class_list, sources)
    excluded = None
    if blacklist is not None:
        sources["blacklist"] = blacklist
        excluded = read_blacklist(blacklist, image_id)
    if layout.image_set is not None:
        sources["split"] = layout.image_set
    return IlsvrcDataset(layout, image_id, class_list, class_of, excluded, sources)


class IlsvrcDataset:
    """The images of one split; see `wsltool.datasets.records.Dataset`."""

    has_masks = False
    has_pictures = True
    box_extras = frozenset(("box_truncated",))

    def __init__(
        self,
        layout: _Layout,
        image_id: list[str],
        classes: ClassList,
        class_of: list[int] | None,
        excluded: frozenset[int] | None,
        sources: dict[str, Path],
    ) -> None:
        self.root = layout.root
        self.image_id = image_id
        self.class_name, self.class_id = classes.class_name, classes.class_id
        self.excluded = excluded
        self.sources = sources
        self.has_boxes = layout.annotations is not None
        self._layout = layout
        self._classes = classes
        self._class_of = class_of

    def path(self, row: int) -> str:
        """Picture path of a row relative to the root."""
        return f"{self._layout.pictures}/{self.image_id[row]}{_ENDING}"

    def annotation(self, row: int) -> Path | None:
        """XML file of a row, None where there is none."""
        if self._layout.annotations is None:
            return None
        path = self.root / self._layout.annotations / f"{self.image_id[row]}.xml"
        return path if path.is_file() else None

    def labels(self, row: int) -> Labels | None:
        """Labels of a row; None where only the boxes tell the class, and they cannot be read."""
        if self._class_of is not None:
            return (self._class_of[row],), ()
        try:
            return (self._told_class(row),), ()
        except BadImageError:
            return None

    def read(self, row: int) -> ImageRecord:
        """Read the picture's header and the boxes of one row.

        Raises
        ------
        BadImageError
            The picture is unusable or of another size than its boxes were drawn on; the XML
            is broken, has an unknown class or one that is not the image's, or a box that
            leaves the picture by more than `OVERHANG_PX`; nothing tells the class.
        """
        size_wh, num_bytes = size_and_bytes(self.root / self.path(row), None, self.image_id[row])
        klass = self._told_class(row) if self._class_of is None else self._class_of[row]
        record = ImageRecord(
            image_id=self.image_id[row],
            image_path=self.path(row),
            size_wh=size_wh,
            num_bytes=num_bytes,
            present=(klass,),
        )
        annotation = self.annotation(row)
        return record if annotation is None else self._with_boxes(record, annotation, klass)

    def _with_boxes(self, record: ImageRecord, annotation: Path, klass: int) -> ImageRecord:
        place = f"annotation {annotation.name}"
        tree = parse_annotation(annotation, place)
        check_size(tree, record.size_wh, place)
        class_B, difficult_B, truncated_B = read_classes(tree, self._classes, place)
        for number, other in enumerate(class_B.tolist(), 1):
            if other != klass:
                raise BadImageError(
                    f"{place} object {number}: is a {self.class_id[other]}, but the image is "
                    f"labelled {self.class_id[klass]}."
                )
        box_xyxy_B4 = read_boxes(
            tree, record.size_wh, place, first=_FIRST_PIXEL, overhang_px=OVERHANG_PX
        )
        return dataclasses.replace(
            record,
            box_xyxy_B4=box_xyxy_B4,
            box_class_B=class_B,
            box_difficult_B=difficult_B,
            box_truncated_B=truncated_B,
        )

    def _told_class(self, row: int) -> int:
        """Return the one class that the boxes of a validation image tell."""
        annotation = self.annotation(row)
        if annotation is None:
            raise BadImageError(
                f"{self.image_id[row]}: no XML and no ground truth tells its class. Give the "
                "ground truth file with --labels."
            )
        place = f"annotation {annotation.name}"
        found = read_classes(parse_annotation(annotation, place), self._classes, place)[0]
        if len(set(found.tolist())) != 1:
            raise BadImageError(
                f"{place}: objects of {len(set(found.tolist()))} classes, expected 1. Give the "
                "ground truth file with --labels."
            )
        return int(found[0])


def _layout(folder: Path, split: str) -> _Layout:
    require_folder(folder)
    for root in (folder, folder / "ILSVRC"):
        if (root / f"Data/CLS-LOC/{split}").is_dir():
            annotations = f"Annotations/CLS-LOC/{split}"
            sets = root / "ImageSets/CLS-LOC"
            names = ("train_cls.txt", "train.txt") if split == "train" else ("val.txt",)
            image_set = next((p for name in names if (p := sets / name).is_file()), None)
            found = annotations if (root / annotations).is_dir() else None
            devkit = tuple(
                place / sub for place in (root, root.parent) for sub in ("", "devkit/data")
            )
            return _Layout(root, f"Data/CLS-LOC/{split}", found, image_set, devkit)
    pictures = f"ILSVRC2012_img_{split}"
    if not (folder / pictures).is_dir():
        raise DatasetError(
            f"{folder}: neither Data/CLS-LOC/{split} nor {pictures} in it; expected ILSVRC or the "
            "folder that its archives were unpacked in."
        )
    stem = f"ILSVRC2012_bbox_{split}"
    places = [f"{stem}{version}{sub}" for version in ("_v3", "_v2", "") for sub in ("/val", "")]
    found = next((place for place in places if (folder / place).is_dir()), None)
    devkit = (folder, folder / "ILSVRC2012_devkit_t12/data")
    return _Layout(folder, pictures, found, None, devkit)


def _image_ids(layout: _Layout, split: str) -> list[str]:
    place = layout.root / layout.pictures
    if layout.image_set is None:
        pattern = f"*/*{_ENDING}" if split == "train" else f"*{_ENDING}"
        found = sorted(path.relative_to(place).as_posix() for path in place.glob(pattern))
        if not found:
            raise DatasetError(
                f"{place}: no {pattern} in it. Pictures sorted into a folder a class are read by "
                "ingest folder."
            )
        return [name.removesuffix(_ENDING) for name in found]
    line_of: dict[str, int] = {}
    for line, text in read_lines(layout.image_set):
        name, *number = text.split()
        where = f"{layout.image_set} line {line}"
        check_name(name, where)
        if len(number) > 1 or not all(word.isdecimal() for word in number):
            raise DatasetError(f'{where}: "{text[:80]}"; expected an image id and its number.')
        if name in line_of:
            raise DatasetError(f'{where}: id "{name[:80]}" again, first on line {line_of[name]}.')
        line_of[name] = line
    if not line_of:
        raise DatasetError(f"{layout.image_set}: no image id in it.")
    return list(line_of)


def _classes(layout: _Layout, given: Path | None) -> tuple[ClassList, Path | None]:
    """Return the classes, and the file that tells them."""
    places = [layout.root / "LOC_synset_mapping.txt", layout.root.parent / "LOC_synset_mapping.txt"]
    path = given or next((place for place in places if place.is_file()), None)
    if path is not None:
        return read_class_list(path), path
    path = find_devkit_order(list(layout.devkit))
    if path is not None:
        order = read_devkit_order(path)
        rows = sorted(zip(order.class_id, order.class_name, strict=True))
        return ClassList(
            [name for _, name in rows], [wnid for wnid, _ in rows], origin=path.name
        ), path
    training = layout.root / layout.pictures.replace("val", "train")
    wnids = sorted(path.name for path in training.glob("n*") if path.is_dir())
    if not wnids:
        raise DatasetError(
            f"{layout.root}: no LOC_synset_mapping.txt, no devkit and no training images tell the "
            "classes. Give them with --classes."
        )
    return ClassList(wnids, origin=training.name), None


def _class_of(image_id: str, classes: ClassList) -> int:
    try:
        return classes.index(image_id.partition("/")[0])
    except LookupError as error:
        raise DatasetError(f'image "{image_id}": class {error.args[0]}.') from error


def _true_classes(
    truth: Path,
    layout: _Layout,
    image_id: list[str],
    classes: ClassList,
    sources: dict[str, Path],
) -> list[int]:
    order_file = find_devkit_order([truth.parent, *layout.devkit])
    if order_file is None:
        raise DatasetError(
            f"{truth}: counts classes in the devkit's order, which map_clsloc.txt or meta.mat "
            "tells. Put one of them beside it."
        )
    sources["devkit"] = order_file
    order = read_devkit_order(order_file)
    wnid_of_number = read_truth(truth, order)
    found = []
    for name in image_id:
        number = image_number(name)
        if number is None or not 1 <= number <= len(wnid_of_number):
            raise DatasetError(
                f'{truth}: has {len(wnid_of_number)} lines; which is that of image "{name}"? '
                "Expected names such as ILSVRC2012_val_00000001."
            )
        found.append(_class_of(wnid_of_number[number - 1], classes))
    return found
