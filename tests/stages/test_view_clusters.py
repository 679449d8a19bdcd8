"""Clusters as object parts: which images show them, their heat and outline, what is told."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wsltool.errors import (
    LineageError,
    StoreCorruptError,
    StoreExistsError,
    StoreKindError,
    UsageError,
)
from wsltool.stages.ingest import ingest_folder
from wsltool.stages.parts import Example, Parts, strongest
from wsltool.stages.view import view
from wsltool.stores.open import open_store

from .clustered import write_clusters, write_features, write_words
from .making import Ears, put_picture, write_boxes

NAMES = ["cat/a.png", "cat/b.png", "dog/c.png"]
CLASSES = ["cat", "dog"]
X, Y, Z = (1, 0, 0), (0, 1, 0), (0, 0, 1)
# Two cells of the cat in a, one in b; c has a cell of both classes, and one of neither.
CELLS = {
    "cat/a.png": [(0, 0, X, [0]), (1, 3, (3, 1, 0), [0])],
    "cat/b.png": [(0, 1, (0, 2, 1), [0])],
    "dog/c.png": [(0, 0, (1, 1, 0), [0, 1]), (0, 1, Z, [])],
}
CLUSTERS = {0: (0.5, [((0.9, 0, 0), 3), ((0, 0.8, 0), 1)]), 1: (0.25, [((0.5, 0.5, 0), 1)])}


@pytest.fixture
def images(tmp_path):
    for seed, name in enumerate(NAMES):
        put_picture(
            tmp_path / "pets" / name,
            np.random.default_rng(seed).integers(0, 256, (10, 20, 3), np.uint8),
        )
    return ingest_folder(tmp_path / "pets", output=tmp_path / "s.zarr")


@pytest.fixture
def features(images, tmp_path):
    return write_features(tmp_path / "f.zarr", images, CLASSES, CELLS)


@pytest.fixture
def clusters(features, tmp_path):
    return write_clusters(tmp_path / "c.zarr", CLASSES, CLUSTERS, made_from=[features])


def cards(page):
    """Return class, cluster and image of every card, in the order of the page."""
    found, place = [], ["", ""]
    marks = r"<h2>([^<]*)</h2>|<h3>([^<]*)</h3>|<span class=\"id\" title=\"([^\"]*)\">"
    for name, cluster, image in re.findall(marks, page.read_text()):
        place = [name, ""] if name else place
        place = [place[0], cluster] if cluster else place
        if image:
            found.append((*place, image))
    return found


def test_the_images_that_show_a_cluster_best(features):
    centroids = {k: np.array([mean for mean, _ in one]) for k, (_, one) in CLUSTERS.items()}
    with open_store(features) as store:
        found = strongest(store, centroids, 4, Ears())
        few = strongest(store, {0: centroids[0]}, 1, Ears())
    # a: X wins with .9; (3, 1, 0) with .9 * 3/sqrt 10. b: Y wins with .8 * 2/sqrt 5.
    # c: .9/sqrt 2 against .8/sqrt 2; for the dog .5 * 2/sqrt 2.
    assert found[0, 0].examples == [
        Example(pytest.approx(-0.9), 0),
        Example(pytest.approx(-0.9 / 2**0.5), 2),
    ]
    assert found[0, 1].examples == [Example(pytest.approx(-1.6 / 5**0.5, rel=1e-6), 1)]
    assert found[1, 0].examples == [Example(pytest.approx(-(0.5**0.5)), 2)]
    assert {key: one.num_won for key, one in found.items()} == {(0, 0): 3, (0, 1): 1, (1, 0): 1}
    assert {key: one.examples for key, one in few.items()} == {
        (0, 0): found[0, 0].examples[:1],
        (0, 1): found[0, 1].examples,
    }
    assert few[0, 0].num_won == 3  # all of them, not only those on the images shown


def test_the_page(clusters, tmp_path):
    ears = Ears()
    page = view(clusters, report=ears)
    assert page == tmp_path / "c.view/index.html"
    assert ears.announced == [page]
    assert ears.warnings == []
    assert cards(page) == [
        ("dog", "Cluster 1", "dog/c.png"),  # lower second eigenvalue: first in the queue
        ("cat", "Cluster 1", "cat/a.png"),
        ("cat", "Cluster 1", "dog/c.png"),
        ("cat", "Cluster 2", "cat/b.png"),
    ]
    text = page.read_text()
    assert "Number 2 in the queue. 4 patterns; eigenvalues 0.00  0.50  –  –." in text
    assert "3 patterns, 75 %; wins 75 %" in text
    assert "2 of 2 with clusters" in text
    assert "labelled by" not in text
    assert 'href="#class-1">dog</a>' in text
    for place in re.findall(r'(?:src|href)="(?!data:)([^"#][^"]*)"', text):
        assert (page.parent / place).is_file()


def test_labels_are_shown(clusters, tmp_path):
    labels = write_words(tmp_path / "l.json", clusters, {0: "od"})
    text = view(clusters, labels=labels).read_text()
    assert "Cluster 1: object" in text
    assert "Cluster 2: distractor" in text
    assert "person: 1 object, 1 distractor" in text
    assert re.findall(r'class="card (\w+)" id="class-\d-(\d)-1"', text) == [
        ("none", "1"),
        ("hit", "1"),
        ("miss", "2"),
    ]
    # another answer is another gallery
    with pytest.raises(StoreExistsError, match="overwrite"):
        view(clusters, labels=write_words(tmp_path / "l.json", clusters, {0: "oo"}))


def test_heat_and_outline(clusters, features):
    """Of a 20 x 10 picture a cell of the 2 x 4 grid is 5 x 5; cells not stored are bare."""
    with open_store(clusters) as store, open_store(features) as behind:
        parts = Parts.of(store, behind, None, None)
        centroids = {0: np.array([mean for mean, _ in CLUSTERS[0][1]])}
        shown = [(0, 0, 0, Example(-0.9, 0)), (0, 1, 1, Example(-0.5, 2))]
        (_, one), (_, two) = parts.cases(shown, centroids, Ears())
    known = np.zeros((10, 20), bool)
    known[:5, :5] = known[5:, 15:] = True
    np.testing.assert_array_equal(np.isfinite(one.heat_HW), known)
    np.testing.assert_array_equal(one.region_HW, known)  # both cells are the first cluster's
    np.testing.assert_allclose(one.heat_HW[:5, :5], 0.9)
    np.testing.assert_allclose(one.heat_HW[5:, 15:], 2.7 / 10**0.5, rtol=1e-6)
    # c: the cell at 0, 0 is the first cluster's; that at 0, 1 fits none, and goes to the first
    assert not two.region_HW.any()
    np.testing.assert_allclose(two.heat_HW[0, :3], 0.8 / 2**0.5, rtol=1e-6)
    assert (one.verdict, one.class_name) == (("none", "heat 0.90"), "cat")


def test_numbers_of_classes_and_samples(clusters):
    assert cards(view(clusters, num=1, output=clusters.with_name("one"))) == [
        ("dog", "Cluster 1", "dog/c.png")
    ]
    page = view(clusters, samples=1, output=clusters.with_name("two"))
    assert [card[2] for card in cards(page)] == ["dog/c.png", "cat/a.png", "cat/b.png"]
    none = view(clusters, samples=0, output=clusters.with_name("none"))
    assert cards(none) == []
    assert "Cluster 2" in none.read_text()


def test_many_classes_are_not_all_in_the_bar(images, tmp_path):
    names = CLASSES + [f"class {n}" for n in range(12)]
    features = write_features(tmp_path / "f.zarr", images, names, CELLS)
    found = {k: (k / 20, CLUSTERS[1][1]) for k in range(14)}
    text = view(write_clusters(tmp_path / "c.zarr", names, found, made_from=[features])).read_text()
    assert 'href="#class-' not in text
    assert 'href="#made"' in text
    assert text.count("<h2>") == 15


def test_the_same_again_is_left_alone(clusters, features):
    page = view(clusters)
    stamp = page.stat().st_mtime_ns
    assert view(clusters) == view(clusters, features=features) == page
    assert page.stat().st_mtime_ns == stamp
    with pytest.raises(StoreExistsError, match="overwrite"):
        view(clusters, samples=1)


def test_a_picture_that_is_gone(clusters, tmp_path):
    (tmp_path / "pets/cat/b.png").unlink()
    ears = Ears()
    page = view(clusters, report=ears)
    assert ears.num_skipped == 1
    assert ears.warnings[0].startswith('f.zarr row 1 "cat/b.png": picture cat/b.png cannot be rea')
    assert "Cluster 2" in page.read_text()
    put_picture(tmp_path / "pets/cat/b.png", np.zeros((10, 20, 3), np.uint8))
    (tmp_path / "pets").rename(tmp_path / "moved")
    with pytest.raises(
        LineageError, match=r"s\.zarr: its pictures' folder pets is not there.*--im"
    ):
        view(clusters, output=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_features_that_are_gone_or_have_no_patterns(clusters, features, images, tmp_path):
    features.rename(tmp_path / "g.zarr")
    with pytest.raises(
        LineageError, match=r"^c\.zarr: its features f\.zarr is not there\..*--featur"
    ):
        view(clusters)
    assert cards(view(clusters, features=tmp_path / "g.zarr"))
    with pytest.raises(StoreKindError, match=r'^s\.zarr: kind is "images", but view --features re'):
        view(clusters, features=images)


def test_a_feature_that_is_not_finite_is_named(images, tmp_path):
    cells = CELLS | {"cat/b.png": [(0, 1, (0, np.nan, 1), [0])]}
    features = write_features(tmp_path / "f.zarr", images, CLASSES, cells)
    clusters = write_clusters(tmp_path / "c.zarr", CLASSES, CLUSTERS, made_from=[features])
    with pytest.raises(
        StoreCorruptError, match=r'^f\.zarr row 1 "cat/b\.png": features of 1 cells are not finite'
    ):
        view(clusters)
    assert not (tmp_path / "c.view").exists()


def test_options_that_clusters_do_not_read(clusters, images, features):
    for option in ("before", "compare", "truth"):
        with pytest.raises(
            UsageError, match=rf'^--{option} has no meaning for c\.zarr, whose kind is "clusters"'
        ):
            view(clusters, **{option: clusters})
    with pytest.raises(UsageError, match=r"^--over has no meaning for c\.zarr"):
        view(clusters, over=[clusters])
    found = write_boxes(
        images.with_name("b.zarr"), images, {name: [(0, 1.0)] for name in NAMES}, classes="all"
    )
    for option in ("labels", "features"):
        with pytest.raises(
            UsageError, match=rf'^--{option} has no meaning for b\.zarr, whose kind is "boxes"'
        ):
            view(found, **{option: features})
