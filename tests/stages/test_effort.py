"""What annotation gained: the numbers of score, the order of the eigenvalues, what is refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from wsltool.errors import (
    DatasetError,
    LineageError,
    ProtocolError,
    StoreExistsError,
    StoreKindError,
    UsageError,
)
from wsltool.stages.convert import convert
from wsltool.stages.effort import effort
from wsltool.stages.score import score

from .clustered import write_clusters, write_words
from .making import Ears, write_boxes, write_images, write_maps
from .scoring import AWAY, CLASSES, LABELS, RIGHT, SLOTS, five_images, mapped

ONE = [((1, 0), 3), ((0, 1), 2)]
# Cat (a, b), dog (c, d) and cow (e) have images; hen has clusters, but nothing to score.
CLUSTERS = {0: (0.5, ONE), 1: (0.2, [*ONE, ((1, 1), 1)]), 2: (0.9, ONE), 3: (0.1, ONE)}


@pytest.fixture
def images(tmp_path):
    return five_images(tmp_path)


@pytest.fixture
def before(images):
    """a, c and d are right: cat 50, dog 100, cow 0."""
    return write_boxes(images.with_name("old.zarr"), images, SLOTS, classes="all")


@pytest.fixture
def after(images):
    """a, b, c and e are right: cat 100, dog 50, cow 100."""
    slots = SLOTS | {"b": [(0, 1.0, RIGHT)], "d": [(1, 1.0, AWAY)], "e": [(2, 1.0, RIGHT)]}
    return write_boxes(images.with_name("new.zarr"), images, slots, classes="all")


@pytest.fixture
def clusters(tmp_path):
    return write_clusters(tmp_path / "c.zarr", CLASSES, CLUSTERS)


def one(*args, **options):
    return effort(*args, bootstrap=200, **options)["results"][0]


def test_by_hand(after, before, clusters):
    """Dogs first: the class loses 50 points on 2 of 5 images; cats gain 50 on 2, cows 100 on 1."""
    found = one(after, before=before, clusters=clusters)
    gained = found["effort"]
    assert (found["value"], found["compared"]["value"], gained["gain"]) == (80, 60, 20)
    curve = gained["curve"]
    assert curve["fraction"] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert curve["gain"] == pytest.approx([0, -20, 0, 20])
    assert curve["share"] == pytest.approx([0, -1, 0, 1])
    assert gained["area"] == pytest.approx((-0.5 - 0.5 + 0.5) / 3)
    assert gained["fraction_for_share"] == {"0.5": 1, "0.85": 1}
    assert gained["num_annotated"] == 3
    rows = [(r["class_name"], r["before"], r["after"], r["gain"]) for r in gained["classes"]]
    assert rows == [("cow", 0, 100, 100), ("cat", 50, 100, 50), ("dog", 100, 50, -50)]
    assert [row["place"] for row in gained["classes"]] == [3, 2, 1]
    assert [row["second_eigenvalue"] for row in gained["classes"]] == [0.9, 0.5, 0.2]
    assert [row["num_clusters"] for row in gained["classes"]] == [2, 2, 3]
    assert gained["counts"] == {
        "classes": 6,
        "scored": 3,
        "with_clusters": 4,
        "with_more_than_two_clusters": 1,
        "labelled": None,
        "with_distractors": None,
        "changed": 3,
        "changed_up": 2,
        "changed_down": 1,
    }
    assert gained["mean_change_with_distractors"] is None


def test_values_are_those_of_score(after, before, clusters):
    found = one(after, before=before, clusters=clusters, seed=4)
    scored = score(after, protocol="gt-known", compare=before, bootstrap=200, seed=4)["results"][0]
    for name in ("value", "baselines", "per_class", "extra", "images", "parameters", "made_by"):
        assert found[name] == scored[name], name
    for name in ("value", "difference", "low", "high", "per_class", "inputs", "seed"):
        assert found["compared"][name] == scored["compared"][name], name
    assert {row["class_name"]: row["after"] for row in found["effort"]["classes"]} == {
        row["class_name"]: row["value"] for row in scored["per_class"] if row["value"] is not None
    }
    assert found["inputs"]["clusters"]["path"].endswith("c.zarr")


def test_only_labelled_classes_are_in_the_order(tmp_path, after, before, clusters):
    labels = write_words(tmp_path / "l.json", clusters, {0: "od", 2: "oo", 3: "do"})
    ears = Ears()
    found = one(after, before=before, clusters=clusters, labels=labels, report=ears)
    gained = found["effort"]
    assert gained["curve"]["gain"] == pytest.approx([0, 20, 40])
    assert gained["curve"]["share"] == pytest.approx([0, 0.5, 1])
    assert gained["fraction_for_share"] == {"0.5": 0.5, "0.85": 1}
    assert gained["counts"]["labelled"] == 3
    assert gained["counts"]["with_distractors"] == 2
    assert gained["mean_change_with_distractors"] == 50  # cat; hen has no image
    assert gained["seconds"] == 6
    assert [row["num_distractors"] for row in gained["classes"]] == [0, 1, None]
    assert ears.warnings == [
        "gt-known: 1 classes changed though they could not be annotated (dog); they are not in "
        "the curve"
    ]
    assert found["inputs"]["labels"]["path"].endswith("l.json")


def test_an_error_that_falls_is_a_gain(images, after, before, clusters):
    found = one(after, before=before, clusters=clusters, protocol="ilsvrc-top1", classes=None)
    gained = found["effort"]
    assert (found["compared"]["value"], found["value"], gained["gain"]) == (40, 20, 20)
    assert gained["curve"]["gain"] == pytest.approx([0, -20, 0, 20])
    compared = found["compared"]
    assert compared["difference"] == -20
    assert (compared["low"], compared["high"]) == (-gained["high"], -gained["low"])


def test_no_gain_no_shares(tmp_path, after, before, clusters):
    """The other way round 20 points are lost."""
    ears = Ears()
    gained = one(before, before=after, clusters=clusters, report=ears)["effort"]
    assert gained["gain"] == -20
    assert gained["curve"]["share"] is None
    assert gained["curve"]["gain"] == pytest.approx([0, 20, 0, -20])
    assert gained["area"] is None
    assert gained["fraction_for_share"] == {"0.5": None, "0.85": None}
    assert ears.warnings == [
        "gt-known: the classes of the curve gain -20.00 points together, not more than 0, so "
        "shares of the gain have no meaning and the curve is given in points"
    ]
    same = one(before, before=before, clusters=clusters, plot=tmp_path / "p.png")["effort"]
    assert (same["gain"], same["low"], same["high"]) == (0, 0, 0)
    assert same["curve"]["share"] is None
    assert same["counts"]["changed"] == 0


def test_chosen_classes_and_protocols_that_take_means(after, before, clusters):
    options = {"before": before, "clusters": clusters, "protocol": "corloc"}
    gained = one(after, **options)["effort"]
    assert gained["gain"] == pytest.approx(100 / 3)  # 50 - 50 + 100 over three classes
    assert gained["curve"]["gain"] == pytest.approx([0, -50 / 3, 0, 100 / 3])
    gained = one(after, **options, classes="cow, cat")["effort"]
    assert gained["gain"] == gained["curve"]["gain"][-1] == 75
    assert [row["class_name"] for row in gained["classes"]] == ["cow", "cat"]
    assert gained["counts"]["scored"] == 2


def test_maps_are_read_where_the_protocol_does(images, clusters):
    label = dict(zip("abcde", LABELS, strict=True))
    old = mapped(images, {name: [(k, 1.0, 19, 1.0)] for name, k in label.items()})
    slots = {name: [(k, 1.0, 2, 1.0)] for name, k in label.items()}
    new = mapped(images, slots, name="n.zarr")
    found = one(new, before=old, clusters=clusters, protocol="peak-in-box")
    assert (found["compared"]["value"], found["value"]) == (0, 100)
    assert found["effort"]["curve"]["share"] == pytest.approx([0, 0.4, 0.8, 1])


def test_another_list_of_classes_is_matched_by_name(tmp_path, after, before):
    names = ["dog", "owl", "fox", "cow"]
    found = {0: (0.6, ONE), 2: (0.1, ONE), 3: (0.3, ONE)}
    other = write_clusters(tmp_path / "o.zarr", names, found)
    gained = one(after, before=before, clusters=other)["effort"]
    places = {row["class_name"]: row["place"] for row in gained["classes"]}
    assert places == {"cow": 1, "dog": 2, "cat": None}
    assert gained["counts"]["with_clusters"] == 2
    none = write_clusters(tmp_path / "n.zarr", ["fox"], {0: (0.1, ONE)})
    with pytest.raises(
        ProtocolError, match=r"^n\.zarr and s\.zarr have different classes \(1: fox"
    ):
        one(after, before=before, clusters=none)
    twice = write_clusters(tmp_path / "t.zarr", ["dog", "dog"], {0: (0.1, ONE)})
    with pytest.raises(ProtocolError, match=r"and a name stands twice\. Give the clusters of thes"):
        one(after, before=before, clusters=twice)


def test_missing_images_count_as_missed_before(images, after, clusters):
    few = write_boxes(images.with_name("few.zarr"), images, {"a": SLOTS["a"]}, classes="all")
    ears = Ears()
    found = one(after, before=few, clusters=clusters, report=ears)
    assert found["compared"]["value"] == 20
    assert any("before, few.zarr: 4 of 5 images of s.zarr are not in" in w for w in ears.warnings)


def test_stored_as_a_result_that_score_reads(tmp_path, after, before, clusters):
    path = tmp_path / "e.json"
    found = effort(after, before=before, clusters=clusters, bootstrap=50, output=path)
    assert json.loads(path.read_text()) == found
    again = score(before, protocol="gt-known", compare=path)["results"][0]
    assert again["compared"]["difference"] == -20
    effort(before, before=after, clusters=clusters, bootstrap=50, output=path)
    assert json.loads(path.read_text())["results"][0]["value"] == 60
    path.write_text("mine")
    with pytest.raises(StoreExistsError, match=r"^-o .*e\.json: something stands there that is no"):
        effort(after, before=before, clusters=clusters, output=path)
    assert path.read_text() == "mine"


def test_containers_are_alike(tmp_path, after, before, clusters):
    def plain(found):
        return {name: found[name] for name in ("value", "per_class", "effort")}

    other = [convert(path, output=path.with_suffix(".h5")) for path in (after, before, clusters)]
    one_way = one(after, before=before, clusters=clusters)
    assert plain(one(other[0], before=other[1], clusters=other[2])) == plain(one_way)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"min_change": -1}, UsageError, r"^--min-change must be in \[0, 100\], got -1\.$"),
        ({"min_change": float("nan")}, UsageError, r"^--min-change must be in \[0, 100\], got na"),
        ({"bootstrap": 0}, UsageError, r"^--bootstrap must be in \[1, 100000\], got 0\.$"),
        ({"seed": -1}, UsageError, r"^--seed must be in"),
        ({"plot": "x.gif"}, UsageError, r"^--plot x\.gif: a plot is a \.png or a \.svg"),
        ({"plot": "no/x.png"}, UsageError, r"^--plot no/x\.png: the folder no does not exist"),
        ({"output": "no/x.json"}, UsageError, r"^-o no/x\.json: the folder no does not exist"),
        ({"protocol": "gt"}, UsageError, r'^--protocol "gt" is not known'),
        ({"protocol": "peak-distance"}, UsageError, r"^--protocol peak-distance has neither a be"),
        ({"protocol": "pxap"}, UsageError, r"^--protocol pxap has no value for each class, so no"),
        ({"classes": "cat"}, UsageError, r"^--classes cat has no meaning for gt-known\."),
        ({"iou": 2.0}, UsageError, r"^--iou must be in \(0, 1\], got 2\.$"),
    ],
)
def test_options_that_cannot_be(options, error, message):
    """They are refused before any store is opened."""
    with pytest.raises(error, match=message):
        effort("a.zarr", before="b.zarr", clusters="c.zarr", **options)


def test_stores_that_do_not_belong_together(tmp_path, images, after, before, clusters):
    with pytest.raises(StoreKindError, match=r'^new\.zarr: kind is "boxes", but effort --clusters'):
        effort(after, before=before, clusters=after)
    other = write_images(tmp_path / "z.zarr", {"z": {"boxes": [(0, *RIGHT)]}}, CLASSES)
    strange = write_boxes(tmp_path / "y.zarr", other, {"z": [(0, 1.0, RIGHT)]}, classes="all")
    with pytest.raises(ProtocolError, match=r"^y\.zarr and s\.zarr: no image is left to score"):
        effort(after, before=strange, clusters=clusters)
    maps = write_maps(tmp_path / "m.zarr", images, {"a": (None, [(0, 1.0, np.ones((2, 2)))])})
    with pytest.raises(StoreKindError, match=r'^m\.zarr: kind is "maps", but score --protocol gt-'):
        effort(after, before=maps, clusters=clusters)


def test_labels_that_do_not_fit(tmp_path, after, before, clusters):
    other = write_clusters(tmp_path / "o.zarr", CLASSES, {0: (0.5, ONE)})
    labels = write_words(tmp_path / "l.json", other, {0: "od"})
    with pytest.raises(LineageError, match=r"^l\.json: was made for o\.zarr, which c\.zarr is not"):
        effort(after, before=before, clusters=clusters, labels=labels)
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"^x\.json"):
        effort(after, before=before, clusters=clusters, labels=tmp_path / "x.json")
    hens = write_words(tmp_path / "h.json", clusters, {3: "od"})
    with pytest.raises(ProtocolError, match=r"^none of the 3 scored classes has labelled clusters"):
        effort(after, before=before, clusters=clusters, labels=hens)
    none = write_clusters(tmp_path / "n.zarr", CLASSES, {5: (0.1, ONE)})
    with pytest.raises(ProtocolError, match=r"^none of the 3 scored classes has clusters, so ther"):
        effort(after, before=before, clusters=none)


class TestCommand:
    """``wsltool effort`` itself."""

    @pytest.fixture
    def call(self, after, before, clusters):
        import wsltool.cli.effort  # noqa: F401
        from wsltool.cli.app import app

        given = ["effort", str(after), "--before", str(before), "--clusters", str(clusters)]
        return lambda *more: CliRunner().invoke(app, [*given, "--bootstrap", "50", *more])

    @pytest.fixture(autouse=True)
    def caught(self, monkeypatch, tmp_path):
        """Keep what goes to the private stdout."""
        self.said = []
        monkeypatch.setattr("wsltool.cli.tables.write_result", self.said.append)

    def test_a_table(self, call):
        found = call()
        assert found.exit_code == 0, found.output
        text = "".join(self.said)
        assert re.search(r"gt-known +60\.0 → 80\.0 % +5 images", text)
        assert re.search(r"gain +\+20\.00 \[", text)
        assert re.search(r"classes with more than two clusters +1\n", text)
        assert re.search(r"85 % of the gain +100 % +of the classes annotated", text)
        assert re.search(r"dog +100\.0 +50\.0 +-50\.0 .* 0\.200 +3 +– +1\n", text)

    def test_json(self, call, tmp_path):
        assert call("--json", "--plot", str(tmp_path / "p.svg")).exit_code == 0
        assert json.loads("".join(self.said))["results"][0]["effort"]["gain"] == 20
        assert (tmp_path / "p.svg").read_text().startswith("<?xml")

    def test_needs_both(self):
        import wsltool.cli.effort  # noqa: F401
        from wsltool.cli.app import app

        found = CliRunner().invoke(app, ["effort", "a.zarr"])
        assert found.exit_code == 2
        assert "Missing option '--before'" in found.output
