"""Boxes, predicted or true, in the forms of others."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from wsltool.datasets.coco_results import coco_category_ids
from wsltool.datasets.decimals import minus, shortest
from wsltool.datasets.export_texts import (
    coco_bbox,
    coco_image_id,
    comp_line,
    csv_line,
    number,
    voc_xml,
)
from wsltool.errors import DatasetError
from wsltool.stages.export_places import Draft
from wsltool.stages.export_rows import (
    ImageBoxes,
    box_rows,
    class_words,
    plain_word,
    starts_and_stops,
)
from wsltool.stores.store import Store

__all__ = [
    "categories",
    "write_coco_results",
    "write_coco_truth",
    "write_comp_files",
    "write_csv",
    "write_voc_xml",
]

_FLAGS = ("truncated", "difficult")
_CSV_FLAGS = ("difficult", "truncated")
_MOST_HELD = 1 << 16


def categories(images: Store) -> tuple[list[dict[str, Any]], bool]:
    """Return COCO's categories, and whether their ids are the classes' own.

    Ids are the classes' own where all are whole numbers; otherwise they count from 1.
    """
    names = images.class_names()
    ids = [str(word) for word in images.whole("class_id").tolist()]
    own = coco_category_ids(ids)
    numbers = list(range(1, len(names) + 1)) if own is None else own
    words = class_words(images)
    listed = [{"id": index, "name": word} for index, word in zip(numbers, words, strict=True)]
    return listed, own is not None


def write_coco_results(store: Store, images: Store, path: Path) -> None:
    """Write predicted boxes in COCO's results format, a line a box."""
    category = [one["id"] for one in categories(images)[0]]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        written = _List(file)
        for image, image_id in _with_coco_id(store):
            name = json.dumps(image_id, ensure_ascii=False)
            more = image.more
            for box, index, score in zip(
                image.box, more["box_class"], more["box_score"], strict=True
            ):
                written.add(
                    f'{{"image_id": {name}, "category_id": {category[index]}, '
                    f'"bbox": {coco_bbox(box)}, "score": {number(score)}}}'
                )
        written.end()


class _List:
    """Writes a JSON list, an element a line."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._num = file, 0

    def add(self, text: str) -> None:
        self._file.write((",\n" if self._num else "[\n") + text)
        self._num += 1

    def end(self) -> None:
        self._file.write("\n]" if self._num else "[]")


def _with_coco_id(store: Store) -> Iterator[tuple[ImageBoxes, int | str]]:
    """Yield every image with its COCO id, which no other image may have."""
    seen: dict[int | str, str] = {}
    for image in box_rows(store):
        image_id = coco_image_id(image.image_id)
        other = seen.setdefault(image_id, image.image_id)
        if other != image.image_id:
            raise DatasetError(
                f'{store.path.name}: images "{other}" and "{image.image_id}" would both be number '
                f"{image_id}. Export the form csv."
            )
        yield image, image_id


def write_coco_truth(images: Store, path: Path) -> None:
    """Write the truth as COCO's instances, with masks where the store has them."""
    listed = categories(images)[0]
    paths = _paths(images)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(
            f'{{"info": {{}},\n"categories": {json.dumps(listed, ensure_ascii=False)},\n"images": '
        )
        pictures = _List(file)
        for image, image_id in _with_coco_id(images):
            about = {"id": image_id, "file_name": next(paths)}
            about |= {"width": image.size_wh[0], "height": image.size_wh[1]}
            pictures.add(json.dumps(about, ensure_ascii=False))
        pictures.end()
        file.write(',\n"annotations": ')
        objects = _List(file)
        num = 0
        for image in box_rows(images):
            for at in range(len(image.box)):
                num += 1
                objects.add(_annotation(image, at, num, listed))
        objects.end()
        file.write("}\n")


def _annotation(image: ImageBoxes, at: int, num: int, listed: list[dict[str, Any]]) -> str:
    """Return one object as JSON; ids begin with 1, since 0 means unmatched to COCO's evaluator."""
    x0, y0, x1, y1 = image.box[at]
    wide, high = (minus(shortest(b), shortest(a)) for a, b in ((x0, x1), (y0, y1)))
    crowd = image.more.get("box_crowd")
    about: dict[str, Any] = {
        "id": num,
        "image_id": coco_image_id(image.image_id),
        "category_id": listed[image.more["box_class"][at]]["id"],
        "area": image.more["box_area"][at] if "box_area" in image.more else wide * high,
        "iscrowd": 0 if crowd is None else crowd[at],
    }
    rle = image.more.get("box_rle")
    if rle is not None and rle[at]:
        size = [image.size_wh[1], image.size_wh[0]]
        about["segmentation"] = {"size": size, "counts": str(rle[at])}
    text = json.dumps(about, ensure_ascii=False)
    return f'{text[:-1]}, "bbox": {coco_bbox(image.box[at])}}}'


def _paths(images: Store) -> Iterator[str]:
    for start, stop in starts_and_stops(images):
        yield from (str(path) for path in images.rows("image_path", start, stop).tolist())


def write_voc_xml(store: Store, images: Store, draft: Draft) -> None:
    """Write an annotation an image; predicted boxes have a score."""
    words = class_words(images)
    paths = dict(zip(_ids(images), _paths(images), strict=True))
    for image in box_rows(store):
        more = image.more
        objects = []
        for at, box in enumerate(image.box):
            tags = {flag: str(more.get(f"box_{flag}", [0] * len(image.box))[at]) for flag in _FLAGS}
            if "box_score" in more:
                tags["score"] = number(more["box_score"][at])
            objects.append((words[more["box_class"][at]], tags, box))
        filename = Path(paths.get(image.image_id, image.image_id)).name
        text = voc_xml(filename, image.size_wh, objects)
        draft.file(image.image_id, ".xml").write_text(text, "utf-8", newline="\n")


def _ids(images: Store) -> Iterator[str]:
    for start, stop in starts_and_stops(images):
        yield from (str(name) for name in images.rows("image_id", start, stop).tolist())


def write_comp_files(store: Store, images: Store, draft: Draft, split: str) -> None:
    """Write detections for VOC's evaluation server, a file a class."""
    words = class_words(images)
    paths = [draft.file(f"comp3_det_{split}_{plain_word(word)}", ".txt") for word in words]
    lines: dict[int, list[str]] = defaultdict(list)
    num_held = 0
    for path in paths:
        path.touch()
    for image in box_rows(store):
        more = image.more
        for box, index, score in zip(image.box, more["box_class"], more["box_score"], strict=True):
            lines[index].append(comp_line(image.image_id, score, box))
        num_held += len(image.box)
        if num_held > _MOST_HELD:
            _append(paths, lines)
            num_held = 0
    _append(paths, lines)


def _append(paths: list[Path], lines: dict[int, list[str]]) -> None:
    for index, texts in lines.items():
        with paths[index].open("a", encoding="utf-8", newline="\n") as file:
            file.writelines(texts)
    lines.clear()


def write_csv(store: Store, images: Store, path: Path) -> None:
    """Write boxes as CSV, half-open pixels, a line a box."""
    words = class_words(images)
    flags = [flag for flag in _CSV_FLAGS if f"box_{flag}" in store]
    extras = ["score"] if "box_score" in store else []
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line(["image", "x0", "y0", "x1", "y1", "label", *extras, *flags]))
        for image in box_rows(store):
            more = image.more
            for at, box in enumerate(image.box):
                fields = [image.image_id, *map(number, box), words[more["box_class"][at]]]
                fields += [number(more["box_score"][at]) for _ in extras]
                fields += [more[f"box_{flag}"][at] for flag in flags]
                file.write(csv_line(fields))
