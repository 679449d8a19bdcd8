"""One process, four shards in any order, killed and resumed: the same result, byte for byte."""

from __future__ import annotations

import contextlib
import json
import re

import numpy as np
import pytest

from wsltool.errors import StoreCorruptError, StoreExistsError, UsageError
from wsltool.stages.score import score
from wsltool.stores.wip import WorkInProgress

from .making import Ears, arrays, rewritten, write_boxes, write_images, write_maps

NUM_IMAGES = 780  # four blocks of 256
CLASSES = ["cat", "dog", "cow"]
BOX_PROTOCOLS = ["ilsvrc-top1", "gt-known", "voc-ap", "voc07-ap", "coco-ap", "corloc", "point"]
MAP_PROTOCOLS = ["peak-in-box", "cls-map", "point", "maxboxacc-v2", "maxboxacc", "pointing-game"]


def near(rng, box):
    x0, y0, x1, y1 = np.asarray(box) + rng.integers(-2, 3, 4)
    return int(x0), int(y0), int(max(x1, x0 + 1)), int(max(y1, y0 + 1))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """780 images of one class each, with boxes beside the true ones, and maps of 3 x 4 cells."""
    folder, rng = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    truth, found, mapped = {}, {}, {}
    for number in range(NUM_IMAGES):
        name, label = f"i{number:03}", int(rng.integers(3))
        corner = rng.integers(0, 6, 2)
        box = (*corner.tolist(), *(corner + rng.integers(2, 5, 2)).tolist())
        truth[name] = {"boxes": [(label, *box)]}
        order = rng.permutation(3).tolist()
        scores = np.sort(rng.integers(0, 5, 3))[::-1].astype(float)  # many are equal
        ranked = list(zip(order, scores.tolist(), strict=True))
        found[name] = [(k, s, near(rng, box)) for k, s in ranked]
        mapped[name] = (None, [(k, s, rng.normal(size=(3, 4))) for k, s in ranked])
    images = write_images(folder / "s.zarr", truth, CLASSES, size=(12, 10))
    return (
        images,
        write_boxes(folder / "b.zarr", images, found, classes="all"),
        write_maps(folder / "m.zarr", images, mapped),
    )


def sharded(path, output, order, **options):
    results = [
        score(path, output=output, shard=f"{index}/{len(order)}", **options) for index in order
    ]
    assert [len(one["results"]) for one in results[:-1]] == [0] * (len(order) - 1)
    assert not WorkInProgress(output).folder.exists()
    return results[-1]


@pytest.mark.parametrize("kind", ["boxes", "maps"])
def test_four_shards_in_any_order_are_one(stores, tmp_path, kind):
    _, boxes, maps = stores
    path, protocols = (boxes, BOX_PROTOCOLS) if kind == "boxes" else (maps, MAP_PROTOCOLS)
    options = {"protocol": protocols, "bootstrap": 20}
    options |= {"interval": 0.05} if kind == "maps" else {}
    alone = tmp_path / "alone.json"
    values = [one["value"] for one in score(path, output=alone, **options)["results"]]
    assert not any(np.isnan(values))
    for order in ([0, 1, 2, 3], [3, 0, 2, 1]):
        output = tmp_path / f"{order[0]}.json"
        assert sharded(path, output, order, **options)["results"]
        assert output.read_bytes() == alone.read_bytes()


def test_two_processes_are_one(stores, tmp_path):
    _, _, maps = stores
    alone, both = tmp_path / "alone.json", tmp_path / "both.json"
    options = {"protocol": ["maxboxacc-v2", "point"], "bootstrap": 10, "compare": maps}
    score(maps, output=alone, **options)
    score(maps, output=both, workers=2, **options)
    assert both.read_bytes() == alone.read_bytes()


def test_an_error_in_a_process_is_told_as_elsewhere(stores, tmp_path):
    _, _, maps = stores
    map_NSHW = arrays(maps)["map"].copy()
    map_NSHW[700, 0, 0, 0] = np.nan
    images = stores[0]
    made = {"made_from": [images], "map": map_NSHW}
    broken = rewritten(tmp_path / "nan.zarr", maps, "maps", **made)
    with pytest.raises(StoreCorruptError, match=r'^nan\.zarr row 700 "i700": map has'):
        score(broken, protocol="point", workers=2)


def test_a_finished_result_is_left_alone_by_a_late_shard(stores, tmp_path):
    output = tmp_path / "r.json"
    found = sharded(stores[1], output, [0, 1], protocol="voc-ap")
    before = output.stat().st_mtime_ns
    late = score(stores[1], output=output, shard="1/2", protocol="voc-ap")
    assert output.stat().st_mtime_ns == before
    assert json.dumps(late["results"]) == json.dumps(found["results"])


def test_other_options_take_the_place_of_an_older_result(stores, tmp_path):
    output = tmp_path / "r.json"
    sharded(stores[1], output, [0, 1], protocol="voc-ap")
    assert not score(stores[1], output=output, shard="0/2", protocol="gt-known")["results"]
    found = score(stores[1], output=output, shard="1/2", protocol="gt-known")
    assert [one["protocol"] for one in found["results"]] == ["gt-known"]
    assert json.loads(output.read_text())["results"][0]["protocol"] == "gt-known"


def test_a_shard_started_twice_finds_the_result_of_the_other(stores, tmp_path, monkeypatch):
    """The slower one commits when the faster has made the result and taken the parts away."""
    output, commit = tmp_path / "r.json", WorkInProgress.commit
    options = {"protocol": "voc-ap", "output": output}

    def late(self, index, rows):
        monkeypatch.setattr(WorkInProgress, "commit", commit)
        for shard in ("0/2", "1/2"):
            found.append(score(stores[1], shard=shard, **options))
        return commit(self, index, rows)

    found = []
    monkeypatch.setattr(WorkInProgress, "commit", late)
    assert score(stores[1], shard="0/2", **options)["results"] == found[1]["results"]


def test_a_share_says_what_is_missing(stores, tmp_path):
    ears = Ears()
    score(stores[1], output=tmp_path / "r.json", shard="1/4", protocol="voc-ap", report=ears)
    note = f"{tmp_path / 'r.json'}: this share is done, 3 of 4 blocks of other shards are missing."
    assert ears.notes == [note]


@pytest.mark.parametrize("shard", ["1/2", None])
def test_a_stranger_at_the_output_is_left_alone(stores, tmp_path, shard):
    output = tmp_path / "notes.json"
    output.write_text('{"mine": 1}')
    said = re.escape(f"-o {output}: something stands there that is no result of score.")
    with pytest.raises(StoreExistsError, match=f"^{said}"):
        score(stores[1], output=output, shard=shard, protocol="voc-ap")
    assert output.read_text() == '{"mine": 1}'


class _Late(Ears):
    """Another shard finishes everything right after this one's last block."""

    def __init__(self, finish):
        super().__init__()
        self.finish = finish

    @contextlib.contextmanager
    def progress(self, label, total, unit):
        left = [total]

        def advance(num):
            left[0] -= num
            if not left[0]:
                self.finish()

        yield advance


def test_the_other_shard_finishes_in_between(stores, tmp_path):
    options = {"protocol": "voc-ap", "output": tmp_path / "r.json"}
    late = _Late(lambda: score(stores[1], shard="1/2", **options))
    found = score(stores[1], shard="0/2", report=late, **options)
    assert found == json.loads((tmp_path / "r.json").read_text())
    assert not late.notes


def test_shards_need_a_place_to_meet(stores):
    with pytest.raises(UsageError, match=r"^--shard needs -o: the shares meet beside the result\."):
        score(stores[1], shard="0/2", protocol="voc-ap")
