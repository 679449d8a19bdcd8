"""Beam search as the package batches and shares it, beside one candidate at a time."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from wsltool.cli import beam_search as _beam_search  # noqa: F401  (declares the command)
from wsltool.cli.app import app
from wsltool.errors import BadImageError, ModelError
from wsltool.localize.beam import Candidates
from wsltool.nets.beam_search import BeamSettings, run_beam_search
from wsltool.nets.models import load_model
from wsltool.stages.ingest import ingest_folder
from wsltool.stores.open import open_store

from . import beam_networks
from .beam_networks import blobs, features_of, head_of
from .plain_beam_search import WHOLE, PlainSearch, children_of, in_pixels, plain_heat

pytestmark = pytest.mark.usefixtures("one_thread")

ME = beam_networks.__name__
CPU = torch.device("cpu")
CLASSES = [2, 0, 1]

SIZES = [(40, 30), (31, 57), (24, 24)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    loaded.cache_clear()  # most of a gigabyte


class Pictures:
    """Pictures in memory; None is one that cannot be read."""

    def __init__(self, pictures):
        self.pictures = pictures

    def __call__(self, row):
        if self.pictures[row] is None:
            raise BadImageError("torn.")
        return self.pictures[row]


@cache
def loaded(name):
    return load_model(f"{ME}:{name}", maps=False)


def network(name, *, loss="softmax", **preprocess):
    model = loaded(name)
    return replace(model, loss=loss, preprocess=replace(model.preprocess, **preprocess))


def searched(model, pictures, classes=CLASSES, *, batches=None, batch_size=32, **options):
    """The batches that come of it."""

    def choose(rows, _score_NK):
        return np.tile(np.array(classes), (len(rows), 1))

    return list(
        run_beam_search(
            model,
            Pictures(pictures),
            batches or [range(len(pictures))],
            choose,
            settings=BeamSettings(**{"map_size": 8} | options),
            device=CPU,
            batch_size=batch_size,
        )
    )


def rows_of(batches):
    """Every row of every batch: its error, classes, extent, heat and candidates."""
    return [
        (text, *(one[n] for one in (b.class_NS.tolist(), b.extent_N4, b.map_NSHW, b.candidates)))
        for b in batches
        for n, text in enumerate(b.error)
    ]


def plain(model, mode="grid", beam=8, counted=None, levels=10, children=4, map_size=8):
    """The reference on the same network, and the size of its heat maps."""
    module = model.network.module
    search = PlainSearch(
        torch.inference_mode()(features_of(module)),
        torch.inference_mode()(head_of(module)),
        model.preprocess,
        mode,
        model.loss,
        beam,
        counted,
        levels,
        children,
    )
    return search, map_size


def decisive(search, size, classes):
    """A picture of that size on which no rank hangs on rounding, and what is found in it."""
    for seed in range(20):
        picture = blobs(*size, seed)
        found = [search(picture, k) if k >= 0 else None for k in classes]
        if all(one is None or one.least_gap > 3e-6 for one in found):
            return picture, found
    raise AssertionError("every picture has two candidates of nearly the same score")


def assert_slot(search, map_size, picture, found, heat_HW, candidates):
    """One class of one picture against what the reference found."""
    extent = search.preprocess.extent(picture.shape[1], picture.shape[0])
    box_B4 = np.array([in_pixels(c.box, extent) for c in found.candidates]).reshape(-1, 4)
    np.testing.assert_array_equal(candidates.level_B, [c.level for c in found.candidates])
    np.testing.assert_allclose(candidates.box_B4, box_B4, rtol=0, atol=1e-9)
    score_B = [c.score for c in found.candidates]
    np.testing.assert_allclose(candidates.score_B, score_B, rtol=0, atol=1e-5)
    expected_HW = plain_heat(found.candidates, map_size)
    limit = 1e-5 * expected_HW.max()
    np.testing.assert_allclose(heat_HW, expected_HW, rtol=0, atol=limit)


def assert_row(search, map_size, picture, expected, row):
    """One picture: its frame, and every slot."""
    text, slots, extent, map_SHW, candidates_S = row
    assert text is None
    height_px, width_px = picture.shape[:2]
    np.testing.assert_allclose(extent, search.preprocess.extent(width_px, height_px), rtol=1e-6)
    for slot, found in enumerate(expected):
        if found is None:
            assert slots[slot] == -1
            assert not map_SHW[slot].any()
            assert len(candidates_S[slot].score_B) == 0
        else:
            assert_slot(search, map_size, picture, found, map_SHW[slot], candidates_S[slot])


def assert_same(model, sizes=SIZES, classes=CLASSES, *, batches=None, batch_size=32, **options):
    """Every class of every picture, all together and one by one; None is a torn picture."""
    search, map_size = plain(model, **options)
    known = [(None, None) if size is None else decisive(search, size, classes) for size in sizes]
    pictures = [picture for picture, _ in known]
    options |= {"batches": batches, "batch_size": batch_size}
    rows = rows_of(searched(model, pictures, classes, **options))
    for (picture, expected), row in zip(known, rows, strict=True):
        if picture is not None:
            assert row[1] == classes
            assert_row(search, map_size, picture, expected, row)
        else:
            assert row[0] == "torn."
            assert row[1] == [-1] * len(classes)
            assert not row[3].any()
            assert not any(len(one.score_B) for one in row[4])
    return [one for _, expected in known if expected for one in expected if one]


BOTH = pytest.mark.parametrize("mode", ["grid", "recrop"])


class TestSmall:
    """Small networks at every edge."""

    @BOTH
    @pytest.mark.parametrize("loss", ["softmax", "logistic"])
    def test_as_the_paper_does(self, mode, loss):
        """M 8 and H 10 on a grid of 6 x 6; the grid's tree ends at single cells."""
        found = assert_same(network("small_six", loss=loss), mode=mode)
        assert {c.level for one in found for c in one.candidates} == set(range(1, 11))

    @BOTH
    def test_greedy(self, mode):
        found = assert_same(network("small_six"), mode=mode, beam=1)
        assert [len(one.candidates) for one in found] == [10] * 9

    @pytest.mark.parametrize(("mode", "levels"), [("grid", 10), ("recrop", 3)])
    def test_beam_wider_than_the_candidates(self, mode, levels):
        """In the grid all 440 sub-grids below the whole are kept.

        Crops: left then right off is another box than right then left off, but sides and ends
        change places freely: 4, then 4 + 4 + 4 (both across, both down, one each), then
        8 + 8 + 8 + 8.
        """
        found = assert_same(network("small_six"), SIZES[:1], mode=mode, beam=999, levels=levels)
        assert {len(one.candidates) for one in found} == {440 if mode == "grid" else 48}

    @BOTH
    def test_one_level(self, mode):
        found = assert_same(network("small_six"), mode=mode, levels=1, beam=3)
        assert {len(one.candidates) for one in found} == {3}

    @pytest.mark.parametrize(("mode", "last"), [("grid", 10), ("recrop", 14)])
    def test_levels_beyond_the_smallest_grid(self, mode, last):
        """A crop always has six cells a side, however small it is."""
        found = assert_same(network("small_six"), mode=mode, beam=2, levels=14)
        assert {one.candidates[-1].level for one in found} == {last}

    @pytest.mark.parametrize("counted", [None, 1, 3])
    def test_all(self, counted):
        found = assert_same(network("small_four_classes"), beam=None, counted=counted)
        if counted is None:
            assert {len(one.candidates) for one in found} == {99}

    @BOTH
    @pytest.mark.parametrize("beam", [1, 5])
    def test_nine_children(self, mode, beam):
        """The box itself is among its children, so the search always goes on."""
        found = assert_same(network("small_six"), mode=mode, children=9, beam=beam, levels=6)
        assert {one.candidates[-1].level for one in found} == {6}

    @BOTH
    @pytest.mark.parametrize("children", [4, 9])
    @pytest.mark.parametrize("name", ["small_wide", "small_high", "small_row"])
    def test_other_grids(self, mode, name, children):
        """2 x 6, 8 x 3 and 1 x 4 cells; where a side has one cell, it never shrinks."""
        found = assert_same(network(name), mode=mode, children=children, beam=4, levels=7)
        if name == "small_row":
            assert {c.box[1::2] for one in found for c in one.candidates} == {(0, 1)}

    @pytest.mark.parametrize("mode", ["grid", "recrop"])
    def test_one_cell(self, mode):
        with pytest.raises(ModelError, match=r"no fully connected layer reads a grid"):
            searched(network("small_one"), [blobs(9, 9)], mode=mode)

    @BOTH
    def test_empty_slots_and_repeated_rows(self, mode):
        assert_same(network("small_six"), classes=[1, -1, 2], mode=mode, beam=3, levels=4)
        assert_same(network("small_six"), classes=[-1, 0], mode=mode, beam=3, levels=4)

    @BOTH
    def test_many_classes(self, mode):
        assert_same(
            network("small_twenty"), SIZES[:1], list(range(20)), mode=mode, beam=3, levels=5
        )

    @BOTH
    @pytest.mark.parametrize("batch_size", [1, 3, 64])
    def test_batches(self, mode, batch_size):
        """One torn picture among them; rows by two and by four."""
        sizes = [SIZES[0], None, SIZES[1], SIZES[2]]
        for batches in ([[0, 1], [2, 3]], [[0, 1, 2, 3]]):
            assert_same(
                network("small_six"),
                sizes,
                batches=batches,
                batch_size=batch_size,
                mode=mode,
                beam=3,
                levels=4,
            )

    @BOTH
    @pytest.mark.parametrize("resize", [None, 32])
    def test_crop(self, mode, resize):
        """The frame is the middle of the picture, and candidates are parts of it."""
        model = network("small_six", fit="crop", resize=resize, interpolation="bicubic")
        assert_same(model, mode=mode, beam=3, levels=5)

    def test_letterbox_on_the_grid(self):
        """The frame is larger than the picture."""
        assert_same(network("small_six", fit="letterbox"), mode="grid", beam=3, levels=5)

    @BOTH
    @pytest.mark.parametrize("map_size", [1, 7, 56])
    def test_map_sizes(self, mode, map_size):
        assert_same(network("small_six"), SIZES[:1], mode=mode, beam=3, levels=5, map_size=map_size)

    def test_class_activation_network(self):
        """A head that pools reads a grid of any size, so that sub-grids are scored as well."""
        assert_same(network("small_gap"), mode="grid", beam=3, levels=4)

    @BOTH
    @pytest.mark.parametrize("beam", [1, 2, 5])
    def test_a_tie_goes_to_the_upper_left(self, mode, beam):
        """Numbers without rounding: a flat picture and one that is its own mirror image."""
        flat = np.full((8, 8, 3), 64, np.uint8)
        half = np.random.default_rng(0).integers(0, 256, (8, 4, 3), np.uint8)
        model = network("even", loss="logistic")
        least = []
        for picture in (flat, np.concatenate([half, half[:, ::-1]], axis=1)):
            search, map_size = plain(model, mode=mode, beam=beam, levels=3)
            expected = [search(picture, k) for k in (0, 1)]
            least += [one.least_gap for one in expected]
            options = {"mode": mode, "beam": beam, "levels": 3}
            (row,) = rows_of(searched(model, [picture], [0, 1], **options))
            assert_row(search, map_size, picture, expected, row)
        assert least[:2] == [0, 0]
        assert 0 in least[2:] or beam == 1


class TestShared:
    """What is shared between classes, counted from what the reference kept."""

    @BOTH
    @pytest.mark.parametrize("children", [4, 9])
    def test_evaluations(self, mode, children):
        """Crops and sub-grids, each once a picture; alone, once a class."""
        model, options = network("small_six"), {"mode": mode, "children": children, "beam": 3}
        search, _ = plain(model, **options)
        picture, expected = decisive(search, SIZES[0], CLASSES)
        ((batch,)) = searched(model, [picture], **options)
        asked = []
        for k, one in enumerate(expected):
            for box, _, level in [(WHOLE, 0, 0), *one.candidates]:
                if level == search.levels:
                    continue
                cells = (0, 0, 6, 6) if mode == "recrop" else tuple(int(6 * side) for side in box)
                crop = box if mode == "recrop" else WHOLE
                asked += [(k, level, crop, child) for child in children_of(cells, children)]
        found = batch.num_evaluated
        counted = {
            "num_heads": {(crop, child) for _, _, crop, child in asked},
            "num_crops": {crop for _, _, crop, _ in asked if crop != WHOLE},
            "num_heads_alone": {(k, crop, child) for k, _, crop, child in asked},
            "num_crops_alone": {(k, crop) for k, _, crop, _ in asked if crop != WHOLE},
        }
        for name, least in counted.items():
            if children == 4:  # no box is met at two levels
                assert getattr(found, name) == len(least)
            else:  # a box that goes and comes back is scored again
                assert len(least) <= getattr(found, name) <= len(least) + len(asked) // 20


SETTINGS = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["grid", "recrop"]),
        "beam": st.integers(1, 6),
        "levels": st.integers(1, 6),
        "children": st.sampled_from([4, 9]),
        "map_size": st.integers(1, 12),
        "batch_size": st.integers(1, 9),
    }
)


@st.composite
def pictures_of_noise(draw):
    width, height = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return rng.integers(0, draw(st.sampled_from([1, 3, 256])), (height, width, 3), np.uint8)


class TestLaws:
    """What holds of every search."""

    @settings(max_examples=40, deadline=None)
    @given(st.lists(pictures_of_noise(), min_size=1, max_size=3), SETTINGS)
    def test_heat_holds_the_scores_over_their_areas(self, pictures, options):
        """Never negative, and what is laid on the frame is there in sum."""
        for text, _, extent, map_SHW, candidates_S in rows_of(
            searched(network("even"), pictures, **options)
        ):
            assert text is None
            assert (map_SHW >= 0).all()
            frame = (extent[2] - extent[0]) * (extent[3] - extent[1])
            for map_HW, found in zip(map_SHW, candidates_S, strict=True):
                sides_B2 = found.box_B4[:, 2:] - found.box_B4[:, :2]
                laid = (found.score_B * sides_B2.prod(axis=1)).sum() / frame
                np.testing.assert_allclose(map_HW.mean(dtype=np.float64), laid, rtol=1e-6)
                assert np.bincount(found.level_B, minlength=1).max() <= options["beam"]

    @settings(max_examples=40, deadline=None)
    @given(st.lists(pictures_of_noise(), min_size=1, max_size=3), SETTINGS, st.data())
    def test_classes_and_pictures_do_not_meet(self, pictures, options, data):
        """Other classes, other pictures and other batches beside one change no bit of it."""
        order = data.draw(st.permutations(CLASSES))
        together = rows_of(searched(network("even"), pictures, CLASSES, **options))
        options["batch_size"] = data.draw(st.integers(1, 9))
        for picture, (_, _, _, map_SHW, candidates_S) in zip(pictures, together, strict=True):
            (alone,) = rows_of(searched(network("even"), [picture], order, **options))
            for slot, class_index in enumerate(order):
                other = CLASSES.index(class_index)
                np.testing.assert_array_equal(alone[3][slot], map_SHW[other])
                for one, same in zip(alone[4][slot], candidates_S[other], strict=True):
                    np.testing.assert_array_equal(one, same)


@BOTH
def test_the_whole_way_to_the_store(mode, tmp_path, monkeypatch):
    """Files, the command, and what the store holds of every image."""
    monkeypatch.chdir(tmp_path)
    search, _ = plain(network("small_six"), mode, beam=3, levels=4)
    pictures = {}
    for n, size in enumerate(SIZES):
        pictures[f"red/{n}.png"], _ = decisive(search, size, [0, 1, 2])
    (tmp_path / "in/red").mkdir(parents=True)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(tmp_path / "in" / name)
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    ingest_folder(tmp_path / "in", classes=tmp_path / "classes.txt", output=tmp_path / "s.zarr")
    line = f"beam-search s.zarr -o m.zarr --model {ME}:small_six --classes all --mode {mode}"
    line += " --beam 3 --levels 4 --map-size 8 --keep-candidates --device cpu --workers 0 -q"
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code == 0, done.output
    with open_store(tmp_path / "m.zarr") as store:
        found = {name: store.whole(name) for name in store.names}
    for row, name in enumerate(found["image_id"].tolist()):
        part = slice(*found["candidate_start"][row : row + 2])
        slot_B = found["candidate_slot"][part]
        assert (np.diff(slot_B) >= 0).all()
        for slot, class_index in enumerate(found["map_class"][row].tolist()):
            kept = Candidates(
                *(
                    found[array][part][slot_B == slot]
                    for array in ("candidate", "candidate_score", "candidate_level")
                )
            )
            expected = search(pictures[name], class_index)
            assert_slot(search, 8, pictures[name], expected, found["map"][row, slot], kept)


class TestLarge:
    """The shapes of the paper, random weights; a fuller sweep is `TestSweep`."""

    @pytest.mark.parametrize(("mode", "loss"), [("grid", "softmax"), ("recrop", "logistic")])
    def test_alexnet(self, mode, loss):
        model = network("alexnet_random", loss=loss)
        assert model.network.grid == (6, 6)
        assert_same(model, SIZES[:2], [1, 0], mode=mode, beam=2, levels=3)

    @BOTH
    def test_alexnet_adapted(self, mode):
        model = network("alexnet_adapted_random")
        assert_same(model, SIZES[1:2], [2, 0], mode=mode, beam=2, levels=2)

    @BOTH
    def test_vgg16(self, mode):
        model = network("vgg16_random")
        assert model.network.grid == (7, 7)
        assert_same(model, SIZES[1:2], [2], mode=mode, beam=2, levels=2)


@pytest.mark.benchmark
class TestSweep:
    """M 8 and H 10 on the paper's networks; many settings on small ones."""

    @BOTH
    @pytest.mark.parametrize("loss", ["softmax", "logistic"])
    @pytest.mark.parametrize("name", ["alexnet_random", "alexnet_adapted_random", "vgg16_random"])
    def test_as_the_paper_does(self, name, loss, mode):
        assert_same(network(name, loss=loss), SIZES[:1], [2, 0], mode=mode)

    @pytest.mark.parametrize("name", ["alexnet_random", "vgg16_random"])
    def test_all(self, name):
        assert_same(network(name), SIZES[1:2], [1], beam=None, levels=14)

    @pytest.mark.parametrize("seed", range(60))
    def test_settings(self, seed):
        rng = np.random.default_rng(seed)
        names = ["small_six", "small_wide", "small_high", "small_row", "small_four_classes"]
        model = network(
            str(rng.choice(names)),
            loss=str(rng.choice(["softmax", "logistic"])),
            fit=str(rng.choice(["warp", "crop"])),
            interpolation=str(rng.choice(["bilinear", "bicubic"])),
        )
        sizes = [tuple(rng.integers(2, 90, 2).tolist()) for _ in range(3)]
        assert_same(
            model,
            sizes,
            batches=[[0], [1, 2]],
            batch_size=int(rng.integers(1, 20)),
            mode=str(rng.choice(["grid", "recrop"])),
            beam=int(rng.integers(1, 12)),
            levels=int(rng.integers(1, 12)),
            children=int(rng.choice([4, 9])),
            map_size=int(rng.integers(1, 30)),
        )
