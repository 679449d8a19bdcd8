"""``score --compare RESULT.json``: an earlier result beside a new one."""

from __future__ import annotations

import json
import re

import pytest

from wsltool.errors import StoreError, UsageError
from wsltool.stages.score import score

from .making import Ears, write_boxes, write_images
from .scoring import AWAY, CLASSES, LABELS, SLOTS, five_images, result


@pytest.fixture
def images(tmp_path):
    return five_images(tmp_path)


@pytest.fixture
def boxes(images):
    return write_boxes(images.with_name("b.zarr"), images, SLOTS, classes="all")


@pytest.fixture
def before(images):
    """A result of 20 % where `boxes` have 60 %."""
    slots = SLOTS | {name: [(SLOTS[name][0][0], 1.0, AWAY)] for name in "cd"}
    other = write_boxes(images.with_name("other.zarr"), images, slots, classes="all")
    path = images.with_name("before.json")
    score(other, protocol="gt-known", output=path)
    return path


def test_it_stands_in_the_file_too(boxes, before, tmp_path):
    path = tmp_path / "r.json"
    returned = score(boxes, protocol="gt-known", compare=before, output=path)
    assert json.loads(path.read_text()) == returned
    assert returned["results"][0]["compared"]["difference"] == 40


def test_and_in_that_of_shards(boxes, before, tmp_path):
    """Another earlier result is another request."""
    options = {"protocol": "gt-known", "output": tmp_path / "r.json"}
    score(boxes, shard="0/2", compare=before, **options)
    for shard in ("1/2", "0/2"):  # the second finds it finished
        found = score(boxes, shard=shard, compare=before, **options)
        assert found["results"][0]["compared"]["difference"] == 40
    again = tmp_path / "again.json"
    score(boxes, protocol="gt-known", output=again)
    score(boxes, shard="0/2", compare=again, **options)
    found = score(boxes, shard="1/2", compare=again, **options)
    assert found["results"][0]["compared"]["difference"] == 0


def test_what_it_lacks_is_known_before_anything_is_counted(boxes, before, tmp_path):
    path = tmp_path / "r.json"
    with pytest.raises(UsageError, match=r"^--compare: the result holds gt-known, none of it voc-"):
        score(boxes, protocol=["gt-known", "voc-ap"], compare=before, output=path)
    assert not path.exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda entry: [1],
        lambda entry: [{}],
        lambda entry: [entry | {"value": "60"}],
        lambda entry: [entry | {"inputs": {}}],
        lambda entry: [entry | {"inputs": {"boxes": "b.zarr"}}],
        lambda entry: [entry | {"per_class": [1]}],
        lambda entry: [entry | {"value": float("nan")}],
    ],
)
def test_something_else_is_refused(boxes, before, spoil):
    found = json.loads(before.read_text())
    before.write_text(json.dumps(found | {"results": spoil(found["results"][0])}))
    line = f"{before}: is no result of wsltool score. Make one: score … -o {before}"
    with pytest.raises(StoreError, match=f"^{re.escape(line)}$"):
        score(boxes, protocol="gt-known", compare=before)


def test_an_empty_result(boxes, before):
    before.write_text('{"results": []}')
    with pytest.raises(UsageError, match=r"^--compare: the result holds nothing, none of it gt-kn"):
        score(boxes, protocol="gt-known", compare=before)


def test_other_classes_are_refused(boxes, before):
    before.write_text(before.read_text().replace('"class_name": "cat"', '"class_name": "fox"'))
    line = "--compare: the result is of 6 other classes (fox, dog, cow, …). Give one of the same"
    with pytest.raises(UsageError, match=f"^{re.escape(line)} classes\\.$"):
        score(boxes, protocol="gt-known", compare=before)


def test_another_truth_is_told(boxes, before, tmp_path):
    assert not [w for w in result(boxes, "gt-known", compare=before)["warnings"] if "truth" in w]
    listed = {name: {"boxes": [(k, *AWAY)]} for name, k in zip("abcde", LABELS, strict=True)}
    ears, other = Ears(), write_images(tmp_path / "x.zarr", listed, CLASSES)
    found = score(boxes, protocol="gt-known", truth=other, compare=before, report=ears)
    (line,) = [w for w in found["results"][0]["warnings"] if "truth" in w]
    assert line.startswith("it is compared with a result of another truth, ")
    assert f"gt-known: {line}" in ears.warnings
