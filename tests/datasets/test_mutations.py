"""Broken truth files, 200 of each form: one clear line, a listed skip, or sound data.

Never another traceback, never a hang, and never another number in a row that was not touched:
such rows are told apart by reading the mutated file with the standard library alone.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wsltool.datasets.coco import open_coco
from wsltool.datasets.coco_rle import decode_rle
from wsltool.datasets.records import Dataset, ImageRecord
from wsltool.datasets.voc import open_voc
from wsltool.datasets.wsol_metadata import open_wsol
from wsltool.errors import BadImageError, DatasetError, UsageError, WslError
from wsltool.stages.ingest import ingest_coco, ingest_voc, ingest_wsol

from ..stages.making import Ears, arrays

NUM_MUTATIONS = 200
STORED_EACH = 20
"""Every so many mutations the whole stage runs too."""

OBJECT = (
    "<object>\n<name>{}</name>\n<truncated>1</truncated>\n<difficult>{}</difficult>\n<bndbox>"
    "<xmin>{}</xmin>\n<ymin>{}</ymin>\n<xmax>{}</xmax>\n<ymax>{}</ymax>\n</bndbox>\n</object>\n"
)
WORDS = (
    *("nan", "NaN", "-inf", "Infinity", "1e999", "9" * 5000, "9" * 30, "-5", "0", "1e3", "2.5", ""),
    *("x", "null", "[]", '"7"', "true", "\0", "\n", "é", "<b>", "&x;", ",", '"'),
)
VALUES = (
    *(None, True, "", "x", "7", [], {}, [[]], -5, 0, 1, 2, 7, 18, 1e3, 2.5, 10**400, "\ud800"),
    *(float("nan"), float("inf"), "a\nb", [1] * 6, [[1] * 6], {"size": [10, 20], "counts": "1"}),
)


# Mutations of bytes: any text file.


def flip(data, rng):
    for _ in range(rng.choice((1, 1, 3))):
        place = rng.randrange(len(data))
        data = data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    return data


def cut(data, rng):
    return data[: rng.randrange(len(data))]


def without_line(data, rng):
    lines = data.splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    return b"".join(lines)


def line_again(data, rng):
    lines = data.splitlines(keepends=True)
    return b"".join([*lines, lines[rng.randrange(len(lines))]])


def other_number(data, rng):
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data))
    one = rng.choice(found)
    return data[: one.start()] + rng.choice(WORDS).encode() + data[one.end() :]


def other_encoding(data, rng):
    how = rng.choice(("utf-16", "utf-32", "utf-8-sig", "cp500"))
    return data.decode().encode(how)


def windows(data, rng):
    return data.replace(b"\n", b"\r\n")


def latin(data, rng):
    place = rng.randrange(len(data))
    return data[:place] + b"\xe9" + data[place:]


def nothing(data, rng):
    return rng.choice((b"", b"\n", b"\0" * 40, b"\xef\xbb\xbf"))


BYTES = (flip, flip, flip, cut, without_line, line_again, other_number, other_number, other_number)
BYTES += (other_encoding, windows, latin, nothing)


# Mutations that keep the form: JSON values, XML elements.


def json_value(data, rng):
    """Replace, remove or repeat a value somewhere in the tree."""
    tree = json.loads(data)
    holder = tree
    for _ in range(rng.randrange(1, 6)):
        children = list(holder.values() if isinstance(holder, dict) else holder)
        inner = [child for child in children if isinstance(child, dict | list) and child]
        if not inner:
            break
        holder = rng.choice(inner)
    key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    how = rng.choice(("replace", "replace", "remove", "repeat"))
    if how == "replace":
        holder[key] = rng.choice(VALUES)
    elif how == "remove":
        del holder[key]
    elif isinstance(holder, list):
        holder.append(holder[key])
    return json.dumps(tree).encode()


def json_bomb(data, rng):
    deep = b"[" * 500 + b"]" * 500 if rng.random() < 0.5 else b'{"a":' * 100_000
    return data.replace(b'"segmentation": []', b'"segmentation": ' + deep)


def xml_bomb(data, rng):
    levels = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    head = f'<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY a0 "ha">{levels}]>'
    bomb = head.encode() + data.replace(b"<name>", b"<name>&a9;")
    return rng.choice((bomb, b"<annotation>" + b"<a>" * 100_000, data + data))


def same(one: ImageRecord, other: ImageRecord) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in (
            *("size_wh", "num_bytes", "present", "undecided", "box_xyxy_B4", "box_class_B"),
            *("box_difficult_B", "box_truncated_B", "box_crowd_B", "box_area_B", "box_rle"),
            *("masks", "image_path"),
        )
    )


def check_line(error: WslError) -> None:
    told = str(error)
    assert "\n" not in told, told
    assert "\r" not in told, told
    assert told.endswith((".", "?")), told
    assert len(told) < 700, told
    assert re.search(r"\.(xml|json|txt|jpg|png)\b|cannot be opened", told), told


def check_sound(record: ImageRecord, num_classes: int) -> None:
    width, height = record.size_wh
    assert width > 0
    assert height > 0
    boxes = record.box_xyxy_B4
    assert np.isfinite(boxes).all()
    assert (boxes[:, :2] <= boxes[:, 2:]).all()
    assert (boxes >= -1).all()
    assert (boxes <= [width + 1, height + 1] * 2).all()
    labelled = {*record.present, *record.undecided}
    assert all(0 <= index < num_classes for index in labelled)
    assert not set(record.present) & set(record.undecided)
    assert set(record.box_class_B.tolist()) <= labelled
    assert len(record.box_class_B) == len(record.box_difficult_B) == len(boxes)
    assert np.isfinite(record.box_area_B).all()
    for code in record.box_rle:
        assert code == "" or decode_rle(code, (height, width)).shape == (height, width)


def check(open_data: Callable[[], Dataset], touched: Callable[[str], bool], sound) -> str:
    """Read all rows of a mutated data set; returns what became of it, in a word."""
    try:
        data = open_data()
    except (DatasetError, UsageError) as error:
        check_line(error)
        return "refused"
    num_skipped = 0
    for row, name in enumerate(data.image_id):
        try:
            record = data.read(row)
        except BadImageError as error:
            check_line(error)
            record = None
        if record is None:
            assert touched(name), name
            data.labels(row)
            num_skipped += 1
            continue
        check_sound(record, len(data.class_name))
        if not touched(name):
            assert same(record, sound[name]), name
    missing = set(sound) - set(data.image_id)
    assert all(touched(name) for name in missing)
    return "skipped" if num_skipped else "read"


def check_store(seed: int, ingest: Callable[..., Path], outcome: str) -> None:
    """The stage ends as the reader does, with the skipped rows listed."""
    if seed % STORED_EACH:
        return
    ears = Ears()
    if outcome == "refused":
        with pytest.raises((DatasetError, UsageError), match=r"."):
            ingest(on_bad="skip", report=ears)
        return
    found = arrays(ingest(on_bad="skip", report=ears))
    skipped = found["image_status"] == 1
    assert ears.num_skipped == skipped.sum() == len(ears.warnings)
    assert (outcome == "skipped") == bool(skipped.any())
    assert all(bool(note) == bad for note, bad in zip(found["image_note"], skipped, strict=True))
    if "box" in found:
        owner = np.repeat(np.arange(len(skipped)), np.diff(found["box_start"]))
        assert (found["label"][owner, found["box_class"]] > 0).all()


def mutated(seed: int, data: bytes, mutations) -> bytes:
    rng = random.Random(seed)
    return rng.choice(mutations)(data, rng)


def test_voc_xml(tmp_path, put_picture):
    root = tmp_path / "VOC"
    for name in "abc":
        put_picture(root / f"JPEGImages/{name}.jpg")
    (root / "Annotations").mkdir()
    head = "<annotation>\n<size><width>20</width>\n<height>10</height></size>\n"
    for name in "abc":
        text = OBJECT.format("dog", 0, 1, 1, 20, 10) + OBJECT.format("cow", 1, 3, 4, 5, 6)
        (root / f"Annotations/{name}.xml").write_text(f"{head}{text}</annotation>\n")
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "ImageSets/Main/val.txt").write_text("a\nb\nc\n")
    sound = {name: open_voc(root, "val").read(row) for row, name in enumerate("abc")}
    file = root / "Annotations/b.xml"
    original = file.read_bytes()
    tally = Counter[str]()
    for seed in range(NUM_MUTATIONS):
        file.write_bytes(mutated(seed, original, (*BYTES, xml_bomb)))
        outcome = check(lambda: open_voc(root, "val"), lambda name: name == "b", sound)
        assert outcome != "refused"
        check_store(
            seed,
            lambda **more: ingest_voc(root, split="val", output=tmp_path / f"{seed}.h5", **more),  # noqa: B023
            outcome,
        )
        tally[outcome] += 1
    assert set(tally) == {"read", "skipped"}


def coco_content() -> bytes:
    images = [{"id": n, "file_name": f"{n}.png", "width": 20, "height": 10} for n in (2, 5, 7)]
    square = [[2, 1, 8, 1, 8, 6, 2, 6]]
    runs = {"size": [10, 20], "counts": [20, 30, 150]}
    sound = {"bbox": [2, 1, 6, 5], "area": 30.5, "iscrowd": 0, "segmentation": square}
    annotations = [
        {"id": n, "image_id": (2, 5, 7)[n % 3], "category_id": (3, 18)[n % 2], **sound}
        for n in range(1, 8)
    ]
    annotations[2] |= {"iscrowd": 1, "segmentation": runs}
    annotations[3] |= {"segmentation": []}
    categories = [{"id": 3, "name": "cat"}, {"id": 18, "name": "dog"}]
    tree = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(tree, indent=1).replace("[\n   ", "[").encode()


def coco_rows(data: bytes):
    """What a JSON says of each image: the standard library's reading of it."""
    tree = json.loads(data)
    rows = {}
    for image in tree["images"]:
        of_image = [one for one in tree["annotations"] if one["image_id"] == image["id"]]
        rows[str(image["id"])] = repr((image, of_image, tree["categories"]))
    return rows


def test_coco_json(tmp_path, put_picture):
    for number in (2, 5, 7):
        put_picture(tmp_path / f"pics/{number}.png")
    file = tmp_path / "instances.json"
    original = coco_content()
    file.write_bytes(original)

    def opened() -> Dataset:
        return open_coco(file, tmp_path / "pics")

    data = opened()
    sound = {name: data.read(row) for row, name in enumerate(data.image_id)}
    before = coco_rows(original)
    tally = Counter[str]()
    for seed in range(NUM_MUTATIONS):
        spoilt = mutated(seed, original, (*BYTES[:7], *[json_value] * 12, *BYTES[7:], json_bomb))
        file.write_bytes(spoilt)
        try:
            after = coco_rows(spoilt)
        except (ValueError, RecursionError, KeyError, TypeError):
            after = {}
        outcome = check(
            opened,
            lambda name: after.get(name) != before.get(name),  # noqa: B023
            sound,
        )
        check_store(
            seed,
            lambda **more: ingest_coco(
                file,
                images=tmp_path / "pics",
                output=tmp_path / f"{seed}.h5",  # noqa: B023
                **more,
            ),
            outcome,
        )
        tally[outcome] += 1
    assert set(tally) == {"read", "skipped", "refused"}


def lines_of(name: str, text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(name)]


def test_metadata_lists(tmp_path):
    folder = tmp_path / "meta"
    folder.mkdir()
    names = [f"x/{letter}1.png" for letter in "abcdef"]
    lists = {
        "image_ids": "".join(f"{name}\n" for name in names),
        "class_labels": "".join(f"{name},{n % 3}\n" for n, name in enumerate(names)),
        "image_sizes": "".join(f"{name},20,10\n" for name in names),
        "localization": "".join(
            f"{name},{n},1,{n + 9},9\n{name},1,1,2,2.5\n" for n, name in enumerate(names)
        ),
    }
    for name, text in lists.items():
        (folder / f"{name}.txt").write_text(text)
    data = open_wsol(folder)
    sound = {name: data.read(row) for row, name in enumerate(data.image_id)}
    tally = Counter[str]()
    for seed in range(NUM_MUTATIONS):
        which = list(lists)[seed % 4]
        file = folder / f"{which}.txt"
        spoilt = mutated(seed, lists[which].encode(), BYTES)
        file.write_bytes(spoilt)
        text = spoilt.decode("utf-8-sig", "replace")
        outcome = check(
            lambda: open_wsol(folder),
            lambda name: lines_of(name, text) != lines_of(name, lists[which]),  # noqa: B023
            sound,
        )
        check_store(
            seed,
            lambda **more: ingest_wsol(
                folder,
                no_images=True,
                output=tmp_path / f"{seed}.h5",  # noqa: B023
                **more,
            ),
            outcome,
        )
        tally[outcome] += 1
        file.write_text(lists[which])
    assert set(tally) == {"read", "skipped", "refused"}
