"""Beam search on grids of two by two cells, worked out by hand."""

from __future__ import annotations

import random
import re
import shutil
import time
from itertools import combinations, product

import numpy as np
import pytest
import torch

from wsltool.errors import BadImageError, ModelError, UsageError
from wsltool.nets.beam_search import BeamSettings, check_search, run_beam_search
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.closed_form import find_closed_form
from wsltool.nets.models import Model
from wsltool.nets.preprocess import Preprocess
from wsltool.nets.window import Window
from wsltool.stages.beam_search import beam_search
from wsltool.stages.boxes import boxes
from wsltool.stages.cam import cam
from wsltool.stages.convert import convert
from wsltool.stages.ingest import ingest_folder
from wsltool.stages.select import select
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from ..cli.processes import Command
from . import tiny_networks
from .colours import BIAS, CPU, HEAD, ME, A, cells_picture
from .fake_stage import contents
from .making import arrays, assert_equal_arrays, meta, put_picture
from .test_extract_features_runs import write_pictures

OWN = f"{ME}:named"
pytestmark = pytest.mark.usefixtures("one_thread")


def letterboxed():
    return tiny_networks.Colours(), tiny_networks.PLAIN | {"fit": "letterbox"}


def wide_letterboxed():
    return tiny_networks.Colours(), tiny_networks.PLAIN | {"fit": "letterbox", "size": 16}


def found(source, **options):
    """Arrays of a search."""
    return arrays(beam_search(source, **({"model": OWN, "classes": "all"} | CPU | options)))


def by_hand(cells):
    """Scores of every sub-grid of 2 x 2 cells but the whole: {(x0, y0, x1, y1): (3,) float64}.

    A sub-grid that is stretched keeps its mean, and the head reads no more than that.
    """
    colour = np.array(cells) / 255
    sides = list(combinations(range(3), 2))
    scores = {}
    for (x0, x1), (y0, y1) in product(sides, sides):
        logit = HEAD @ colour[y0:y1, x0:x1].mean(axis=(0, 1)) + BIAS
        power = np.exp(logit - logit.max())
        scores[x0, y0, x1, y1] = power / power.sum()
    return scores


class TestNumbers:
    def test_every_sub_grid(self, images, tmp_path):
        """All kept: each cell is under its row, its column and itself."""
        output = beam_search(
            images, model=OWN, classes="all", beam="all", map_size=2, keep_candidates=True, **CPU
        )
        assert output == tmp_path / "s.beam-search.zarr"
        assert verify(output)["problems"] == []
        made, score = arrays(output), by_hand(A)
        assert made["image_id"].tolist()[0] == "red/a.png"
        for slot, k in enumerate(made["map_class"][0]):
            expected = [
                [
                    score[0, row, 2, row + 1][k]
                    + score[col, 0, col + 1, 2][k]
                    + score[col, row, col + 1, row + 1][k]
                    for col in range(2)
                ]
                for row in range(2)
            ]
            np.testing.assert_allclose(made["map"][0, slot], expected, rtol=1e-6)
            whole = score[0, 0, 2, 2][k]
            np.testing.assert_allclose(made["map_score"][0, slot], whole, rtol=1e-6)
            np.testing.assert_allclose(made["class_score"][0, k], whole, rtol=1e-6)
        assert made["map_extent"].tolist() == [[0, 0, 8, 8]] * 5

    def test_candidates_are_those_of_the_heat(self, images):
        """Greedy: one box a level, and the heat is their sum; 8 pixels a side, so 4 a cell."""
        made, score = found(images, beam=1, map_size=2, keep_candidates=True), by_hand(A)
        assert made["candidate_start"].tolist() == list(range(0, 31, 6))
        for slot, k in enumerate(made["map_class"][0]):
            mine = made["candidate_slot"][:6] == slot
            box, level = made["candidate"][:6][mine], made["candidate_level"][:6][mine]
            assert level.tolist() == [1, 2]
            cells = [tuple((one / 4).astype(int).tolist()) for one in box]
            halves = [(0, 0, 1, 2), (0, 0, 2, 1), (0, 1, 2, 2), (1, 0, 2, 2)]
            assert cells[0] == max(halves, key=lambda one, k=k: score[one][k])
            np.testing.assert_allclose(
                made["candidate_score"][:6][mine], [score[one][k] for one in cells], rtol=1e-6
            )
            heat = np.zeros((2, 2))
            for x0, y0, x1, y1 in cells:
                heat[y0:y1, x0:x1] += score[x0, y0, x1, y1][k]
            np.testing.assert_allclose(made["map"][0, slot], heat, rtol=1e-6)

    def test_the_best_of_all(self, images):
        """Everything is scored, the best of each level is kept: no other box beats it."""
        made, score = found(images, beam="all:1", keep_candidates=True), by_hand(A)
        for slot, k in enumerate(made["map_class"][0]):
            mine = made["candidate_slot"][:6] == slot
            best = [
                max(one[k] for box, one in score.items() if size(box) == area) for area in (2, 1)
            ]
            np.testing.assert_allclose(made["candidate_score"][:6][mine], best, rtol=1e-6)

    def test_a_cell_is_covered_in_part(self, images):
        """On a map of one cell a box counts with its area."""
        made, score = found(images, beam="all", map_size=1), by_hand(A)
        for slot, k in enumerate(made["map_class"][0]):
            expected = sum(one[k] * size(box) / 4 for box, one in score.items() if size(box) < 4)
            np.testing.assert_allclose(made["map"][0, slot], [[expected]], rtol=1e-6)

    def test_levels(self, images):
        made = found(images, levels=1, keep_candidates=True)
        assert (made["candidate_level"] == 1).all()
        assert len(made["candidate"]) == 5 * 3 * 4

    def test_nine_children(self, images):
        """The box itself, the four halves and the four cells; the whole adds to every cell."""
        made = found(images, children=9, beam=9, levels=1, keep_candidates=True, map_size=2)
        assert len(made["candidate"]) == 5 * 3 * 9
        score, first = by_hand(A), made["map_class"][0, 0]
        under = [box for box in score if box[0] == 0 and box[1] == 0]
        expected = sum(score[box][first] for box in under)
        np.testing.assert_allclose(made["map"][0, 0, 0, 0], expected, rtol=1e-6)

    def test_recrop_of_even_colours(self, tmp_path):
        """A picture of one colour: every crop looks like the whole, so every score is equal."""
        for name in ("red", "green", "blue"):
            colour = np.full((12, 20, 3), (200, 100, 0), np.uint8)
            put_picture(tmp_path / f"even/{name}/a.png", colour)
        source = ingest_folder(tmp_path / "even", output=tmp_path / "e.zarr")
        made = found(source, model=f"{ME}:colours", mode="recrop", levels=3, keep_candidates=True)
        each = made["map_score"][:, :, None]
        assert len(made["candidate"]) == 3 * 3 * (4 + 8 + 8)
        np.testing.assert_allclose(
            made["candidate_score"].reshape(3, 3, 20), np.broadcast_to(each, (3, 3, 20)), rtol=1e-6
        )
        assert made["candidate"][:, 2].max() == 20
        width = made["candidate"][:, 2] - made["candidate"][:, 0]
        assert set(width.tolist()) <= {20, 10, 5, 2.5}

    def test_classes(self, images, tmp_path):
        """Fewer classes are the same maps."""
        every = found(images)
        top = found(images, classes="top1", output=tmp_path / "top.zarr")
        np.testing.assert_array_equal(top["map"][:, 0], every["map"][:, 0])
        np.testing.assert_array_equal(top["class_score"], every["class_score"])


def size(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def test_what_is_recorded(images):
    output = beam_search(images, model=OWN, beam=4, **CPU)
    said = meta(output)
    assert said["kind"] == "maps"
    assert said["stage"] == "beam-search"
    assert said["params"] == {
        "model": OWN,
        "classes": "top5",
        "mode": "grid",
        "beam": "4",
        "levels": 10,
        "children": 4,
        "map_size": 56,
        "map_dtype": "float32",
        "keep_candidates": False,
        "precision": "float32",
    }
    with open_store(output) as store:
        assert store.attributes["score_kind"] == "probability"
        assert "candidate" not in store


def test_boxes_of_a_search(images):
    """Maps like any others: a box for each component, its score the mean heat inside."""
    maps = beam_search(images, model=OWN, classes="all", **CPU)
    drawn = arrays(boxes(maps, components="all", box_score="box-mean"))
    assert len(drawn["box"]) >= 15
    assert (drawn["box_score"] > 0).all()


class TestBadPictures:
    def test_stops(self, broken):
        line = r'^b\.zarr row 2 "red/t\.jpg": JPEG is truncated at byte \d+\. Pass --on-bad skip'
        with pytest.raises(BadImageError, match=line):
            found(broken)

    @pytest.mark.parametrize("mode", ["grid", "recrop"])
    def test_is_left_out(self, images, broken, mode):
        options = {"mode": mode, "levels": 3, "keep_candidates": True}
        made = found(broken, on_bad="skip", **options)
        assert made["image_status"].tolist() == [0, 0, 1, 0, 0, 0]
        assert made["map_class"][2].tolist() == [-1, -1, -1]
        assert not made["map"][2].any()
        assert made["candidate_start"][2] == made["candidate_start"][3]
        good = found(images, **options)
        for name in ("candidate", "candidate_score", "candidate_level", "candidate_slot"):
            np.testing.assert_array_equal(made[name], good[name])

    def test_a_score_that_is_not_finite(self, images):
        """The last cell of a is black: the whole picture has no score."""
        line = (
            's.zarr row 0 "red/a.png": the network\'s output is not finite (NaN or infinity). '
            "Pass --on-bad skip to leave it out."
        )
        with pytest.raises(BadImageError, match=f"^{re.escape(line)}$"):
            found(images, model=f"{ME}:nan_on_black")
        made = found(images, model=f"{ME}:nan_on_black", on_bad="skip")
        assert made["image_status"].tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
@pytest.mark.filterwarnings("error")
def test_a_candidate_whose_logit_is_not_finite(loss):
    """3e38 for red and for green: finite of the whole picture, infinite where a cell is both."""
    module = tiny_networks.Colours([[3e38, 3e38, 0], [0, 0, 1]], [0, 0])
    network = CamNetwork(module, find_closed_form(tiny_networks.Colours(), "colours", 8))
    preprocess = Preprocess.from_header(tiny_networks.PLAIN)
    model = Model(network, "colours", None, None, preprocess, loss, "")
    cells = [[[255, 255, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]
    (batch,) = run_beam_search(
        model,
        lambda _row: cells_picture(cells),
        [[0]],
        lambda rows, _logit_NK: np.tile([0, 1], (len(rows), 1)),
        settings=BeamSettings(),
        device=torch.device("cpu"),
    )
    assert batch.error == ["the network's output is not finite (NaN or infinity)."]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """300 pictures, so two blocks; one is broken once it has been ingested."""
    folder = tmp_path_factory.mktemp("beam") / "set"
    source = write_pictures(folder, 300)
    path = folder / "green/0007.jpg"
    path.write_bytes(path.read_bytes()[:40] + bytes(path.stat().st_size - 40))
    return source


class TestRuns:
    """Shards and containers."""

    @pytest.mark.parametrize("mode", ["grid", "recrop"])
    def test_the_same_bytes(self, many, tmp_path, mode):
        options = {
            "model": f"{ME}:colours",
            "classes": "top2",
            "mode": mode,
            "levels": 3,
            "beam": 2,
        }
        options |= {"on_bad": "skip", "batch_size": 50, "keep_candidates": True, "device": "cpu"}
        options |= {"map_size": 5}
        whole = beam_search(many, output=tmp_path / "whole.zarr", workers=0, **options)
        assert meta(whole)["skipped"] == 1
        assert verify(whole)["problems"] == []
        other = beam_search(many, output=tmp_path / "one.h5", workers=2, **options)
        assert meta(other)["digest"] == meta(whole)["digest"]
        for shard in ("2/3", "0/3", "1/3"):
            done = beam_search(
                many, output=tmp_path / "parts.zarr", workers=0, shard=shard, **options
            )
        assert meta(done)["digest"] == meta(whole)["digest"]
        some = select(whole, fraction=0.5, output=tmp_path / "some.zarr")
        assert verify(some)["problems"] == []
        assert_equal_arrays(some, convert(some, output=tmp_path / "some.h5"))

    @pytest.mark.slow
    def test_killed_gives_the_same_bytes(self, many, tmp_path):
        rng = random.Random(3)
        options = ["--model", "tests.cli.networks:small", "--beam", "2", "--keep-candidates"]
        options += ["--on-bad", "skip", "--batch-size", "50", "--device", "cpu", "--map-size", "9"]

        def start(name):
            return Command(tmp_path, "beam-search", str(many), "-o", name, *options)

        for _ in range(2):  # the first may have to warm the process that forks
            began = time.monotonic()
            assert start("whole.zarr").wait() == 3
            life_s = time.monotonic() - began
            whole = contents(tmp_path / "whole.zarr")
            shutil.rmtree(tmp_path / "whole.zarr")
        num_killed = 0
        while num_killed < 3:
            command = start("out.zarr")
            time.sleep(rng.uniform(0.3, 1) * life_s)
            num_killed += command.kill()
            shutil.rmtree(tmp_path / "out.zarr", ignore_errors=True)
        assert start("out.zarr").wait() == 3
        assert contents(tmp_path / "out.zarr") == whole

    def test_limit(self, many, tmp_path):
        output = beam_search(many, model=f"{ME}:colours", limit=2, output=tmp_path / "l.h5", **CPU)
        assert len(arrays(output)["image_id"]) == 2
        assert meta(output)["limit"] == {"how": "limit", "num_rows": 2, "of": 300}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "crop"}, '--mode must be recrop or grid, got "crop".'),
        ({"beam": 0}, '--beam must be a whole number from 1, all, or all:T, got "0".'),
        ({"beam": -1}, '--beam must be a whole number from 1, all, or all:T, got "-1".'),
        ({"beam": "00"}, '--beam must be a whole number from 1, all, or all:T, got "00".'),
        ({"beam": "all:00"}, '--beam must be a whole number from 1, all, or all:T, got "all:00".'),
        ({"beam": "all:0"}, '--beam must be a whole number from 1, all, or all:T, got "all:0".'),
        ({"beam": 1.5}, '--beam must be a whole number from 1, all, or all:T, got "1.5".'),
        (
            {"beam": "all", "mode": "recrop"},
            "--beam all: crops of crops have no end, so --mode recrop cannot score them all. "
            "Pass --mode grid, or a number.",
        ),
        ({"levels": 0}, "--levels must be in [1, 100], got 0."),
        ({"levels": 2.0}, "--levels must be a whole number, got 2.0."),
        ({"children": 5}, '--children must be 4 or 9, got "5".'),
        ({"map_size": 0}, "--map-size must be in [1, 1024], got 0."),
        ({"map_dtype": "int8"}, '--map-dtype must be float32 or float16, got "int8".'),
        ({"keep_candidates": 1}, "--keep-candidates must be true or false, got 1."),
        ({"cooccurrence": -1}, "--cooccurrence must be in [0, inf), got -1."),
    ],
)
def test_wrong_options(images, options, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        found(images, **options)
    assert not list(images.parent.glob("*.wip"))


def test_recrop_of_a_letterbox(images):
    line = (
        f"{__name__}:letterboxed: its pictures are letterboxed, but --mode recrop warps every "
        "crop. Pass --mode grid, or a model with --fit warp or crop."
    )
    with pytest.raises(ModelError, match=f"^{re.escape(line)}$"):
        found(images, model=f"{__name__}:letterboxed", mode="recrop")
    assert found(images, model=f"{__name__}:letterboxed")["map"].max() > 0


def test_the_scores_of_a_letterbox_are_those_of_cam(tmp_path):
    """Cells in the padding take no part in the scores of the whole picture."""
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    put_picture(tmp_path / "set/red/a.png", cells_picture([A[0]], px=8))
    source = ingest_folder(
        tmp_path / "set", classes=tmp_path / "classes.txt", output=tmp_path / "s.zarr"
    )
    own = {"model": f"{__name__}:wide_letterboxed", "classes": "all"} | CPU
    expected = arrays(cam(source, scores="probability", **own))["class_score"]
    np.testing.assert_array_equal(arrays(beam_search(source, **own))["class_score"], expected)


def test_a_network_that_slides():
    """Its cells are scores of windows."""
    module = tiny_networks.Colours()
    form = find_closed_form(module, "colours", 8)
    network = CamNetwork(module, form, window=Window(8, 4))
    model = Model(network, "colours", None, None, Preprocess(8), "softmax", "")
    line = (
        "colours: slides a window over its input, so its head reads no grid that could be "
        "searched. Its maps come from: wsltool cam --model colours"
    )
    with pytest.raises(ModelError, match=f"^{re.escape(line)}$"):
        check_search(model, BeamSettings())


def test_a_single_cell(images):
    line = f"{__name__}:one_cell: its head reads a single cell at 4 pixels, expected a"
    with pytest.raises(ModelError, match=re.escape(line)):
        found(images, model=f"{__name__}:one_cell")


def one_cell():
    return tiny_networks.Colours(), tiny_networks.PLAIN | {"size": 4}
