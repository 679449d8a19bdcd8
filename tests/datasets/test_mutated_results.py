"""Damaged results end in one clear line, or are read; never in a traceback."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from wsltool.datasets.classes import ClassList
from wsltool.datasets.coco_results import read_category_map, read_coco_results
from wsltool.datasets.image_names import ImageNames
from wsltool.datasets.map_files import read_maps
from wsltool.datasets.map_listing import read_class_scores, read_map_listing
from wsltool.datasets.voc_results import read_comp_files
from wsltool.errors import BadImageError, DatasetError

NUM_MUTATIONS = 200
CLASSES = ClassList(["cat", "dog"], ["1", "18"], origin="val.zarr")
NAMES = ImageNames(["a.jpg", "b.jpg"], ["a.jpg", "b.jpg"], origin="val.zarr")


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.random.default_rng(0).random((2, 3, 4)))
    return file.getvalue()


def _class_of(category: int) -> int:
    if category not in (1, 18):
        raise LookupError(f"{category} is none of the 2 categories")
    return 0


_RESULTS = [
    {"image_id": n, "category_id": 18, "bbox": [1.5, 2, 3.25, 4e0], "score": 0.5} for n in range(3)
]
_LISTING = {"images": {"a": {"label": ["cat"], "score": [1.5], "extent": [0, 0, 4, 5]}}}
FORMS = {
    "r.json": (json.dumps(_RESULTS).encode(), lambda p: read_coco_results(p, _class_of)),
    "c.json": (
        json.dumps({"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}).encode(),
        lambda p: read_category_map(p, CLASSES),
    ),
    "comp3_det_val_dog.txt": (
        b"a 0.5 1 2 3.5 4\nb.jpg 1e-3 1 2 300 400\n" * 2,
        lambda p: read_comp_files({1: p}),
    ),
    "a.npy": (_npy(), read_maps),
    "m.json": (json.dumps(_LISTING).encode(), lambda p: read_map_listing(p, NAMES, CLASSES)),
    "s.csv": (
        b"image,dog,cat\na,1.5,2\nb,-3,4e5\n",
        lambda p: read_class_scores(p, NAMES, CLASSES),
    ),
}


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the content with bytes flipped, cut, doubled, or exchanged for telling ones."""
    at = int(rng.integers(len(content)))
    to = at + int(rng.integers(1, 12))
    telling = [
        b"",
        b"NaN",
        b"null",
        b"1e999",
        b"\xff",
        b"\x00",
        b'"',
        b"{",
        b"[",
        b"-",
        b",,",
        b"9" * 30,
    ]
    how = rng.integers(4)
    if how == 0:
        return content[:at] + bytes([int(rng.integers(256))]) + content[at + 1 :]
    if how == 1:
        return content[:at]
    if how == 2:
        return content[:to] + content[at:]
    return content[:at] + telling[rng.integers(len(telling))] + content[to:]


@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning")
@pytest.mark.parametrize("name", FORMS)
def test_every_mutation_is_read_or_refused(tmp_path, name):
    content, read = FORMS[name]
    rng = np.random.default_rng(len(name))
    path, told = tmp_path / name, []
    for _ in range(NUM_MUTATIONS):
        path.write_bytes(mutated(content, rng))
        try:
            read(path)
        except (DatasetError, BadImageError) as error:
            told.append(str(error))
    assert len(told) > NUM_MUTATIONS // 4
    assert [line for line in told if name not in line or "\n" in line or len(line) > 600] == []
    path.write_bytes(content)
    read(path)
