"""Features become clusters: what is read, what is written, what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wsltool.errors import StoreCorruptError, StoreError, StoreKindError, UsageError
from wsltool.localize.spectral import spectral_clusters
from wsltool.stages import class_patterns
from wsltool.stages.class_patterns import ClassPatterns
from wsltool.stages.cluster import cluster
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .features_made import write_features
from .making import Ears, arrays, assert_equal_arrays, meta, rewritten, write_images

SORTED = np.repeat(np.arange(5), 20)
SHUFFLED = np.random.default_rng(7).permutation(SORTED)


@pytest.fixture
def features(tmp_path):
    return write_features(tmp_path / "f.zarr", SHUFFLED)


def patterns_of(values, class_index):
    return values["feature"][values["pattern_cell"][values["pattern_class"] == class_index]]


@pytest.mark.parametrize("images", [SORTED, SHUFFLED], ids=["sorted", "shuffled"])
@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_every_class_has_the_clusters_of_its_own_patterns(tmp_path, suffix, images):
    source = write_features(tmp_path / f"f{suffix}", images)
    output = cluster(source, centroid="unit", seed=5, max_clusters=3)
    assert output == tmp_path / f"f.cluster{suffix}"
    found, values = arrays(output), arrays(source)
    assert found["class_name"].tolist() == values["class_name"].tolist()
    assert found["class_note"].tolist() == [""] * 5
    assert found["eigenvalue"].shape == (5, 3)
    assert found["centroid"].dtype == np.float32
    for index in range(5):
        pattern_PC = patterns_of(values, index)
        expected = spectral_clusters(lambda: [pattern_PC], most=3, seed=5, centroid="unit")  # noqa: B023
        mine = found["cluster_class"] == index
        np.testing.assert_array_equal(found["eigenvalue"][index], expected.eigenvalue_M)
        np.testing.assert_array_equal(found["centroid"][mine], expected.centroid_QC)
        assert found["cluster_size"][mine].tolist() == expected.size_Q.tolist()
        assert found["num_patterns"][index] == len(pattern_PC)
    assert found["num_zero"].tolist() == [0] * 5
    assert (np.diff(found["cluster_class"]) >= 0).all()
    verify(output)


def test_what_the_store_records(features, tmp_path):
    output = cluster(features)
    about = meta(output)
    assert about["kind"] == "clusters"
    assert about["params"] == {
        "eigenvalue_threshold": 0.7,
        "min_clusters": 2,
        "max_clusters": 4,
        "centroid": "mean",
        "seed": 0,
    }
    assert set(about["inputs"]) == {"features"}
    with open_store(output) as store:
        kept = {name: store.attributes[name] for name in ("layer", "input_size", "fit", "centroid")}
        assert store.attributes["num_classes_without"] == 0
        assert len(store) == 5
    assert kept == {"layer": "features.12", "input_size": 64, "fit": "warp", "centroid": "mean"}


def test_the_images_behind_are_recorded_as_seen_from_the_output(tmp_path):
    (tmp_path / "there").mkdir()
    images = write_images(tmp_path / "s.zarr", {"a": {}}, ["x"])
    features = write_features(tmp_path / "f.zarr", SORTED, made_from=[images])
    output = cluster(features, output=tmp_path / "there" / "c.zarr")
    assert meta(output)["inputs"]["images"]["path"] == "../s.zarr"
    assert meta(output)["inputs"]["features"]["path"] == "../f.zarr"


def test_classes_without_enough_patterns_are_listed(tmp_path):
    """Class 5 has no pattern; 6 and 7 have the same one, of zeros."""
    base = arrays(write_features(tmp_path / "base.zarr", SORTED, num_classes=8))
    base["feature"][-2:] = 0
    last = len(base["feature"])
    kept = base["pattern_class"] < 5
    source = rewritten(
        tmp_path / "f.zarr",
        tmp_path / "base.zarr",
        "features",
        feature=base["feature"],
        pattern_cell=np.append(base["pattern_cell"][kept], [last - 1] * 2),
        pattern_class=np.append(base["pattern_class"][kept], [6, 7]).astype(np.int32),
    )
    ears = Ears()
    output = cluster(source, report=ears)
    found = arrays(output)
    assert found["class_note"].tolist() == [
        *[""] * 5,
        "no patterns; 2 clusters need 2 or more",
        "no patterns, 1 of zeros left out; 2 clusters need 2 or more",
        "no patterns, 1 of zeros left out; 2 clusters need 2 or more",
    ]
    assert np.isnan(found["eigenvalue"][5:]).all()
    assert np.isfinite(found["eigenvalue"][:5]).all()
    assert found["num_patterns"][5:].tolist() == [0, 0, 0]
    assert found["num_zero"][5:].tolist() == [0, 1, 1]
    assert set(found["cluster_class"].tolist()) == set(range(5))
    assert ears.warnings == [
        "f.cluster.zarr: no clusters for 3 of 8 classes (class 5, class 6, class 7): "
        "too few patterns."
    ]
    with open_store(output) as store:
        assert store.attributes["num_classes_without"] == 3
    verify(output)


def test_no_class_has_patterns(tmp_path):
    none = np.zeros(0, np.int64)
    source = write_features(
        tmp_path / "f.zarr", SORTED, pattern_cell=none, pattern_class=none.astype(np.int32)
    )
    found = arrays(cluster(source))
    assert found["centroid"].shape == (0, 16)
    assert found["num_patterns"].tolist() == [0] * 5


@pytest.mark.parametrize("kept", [0, 1 << 30], ids=["read again", "kept"])
@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_patterns_come_in_order_by_4096_whatever_the_windows(tmp_path, monkeypatch, suffix, kept):
    images = np.random.default_rng(2).permutation(np.repeat(np.arange(3), 240))
    source = write_features(tmp_path / f"f{suffix}", images, cells=30, channels=4)
    values = arrays(source)
    monkeypatch.setattr(class_patterns, "_KEPT_BYTES", kept)
    for index_rows, feature_rows in ((1 << 20, 1 << 20), (977, 310)):
        rows = {"pattern_cell": index_rows, "feature": feature_rows}
        monkeypatch.setattr(
            class_patterns, "chunk_rows", lambda shape, dtype: rows["feature" if shape[1:] else "pattern_cell"]  # noqa: B023, E501
        )  # fmt: skip
        with open_store(source) as store:
            patterns = ClassPatterns(store)
            for index in range(3):
                pieces = list(patterns.of(index)())
                assert [len(piece) for piece in pieces[:-1]] == [4096] * (len(pieces) - 1)
                np.testing.assert_array_equal(np.concatenate(pieces), patterns_of(values, index))
                again = list(patterns.of(index)())
                assert [piece.tobytes() for piece in again] == [p.tobytes() for p in pieces]
    assert patterns.count_K.tolist() == np.bincount(values["pattern_class"]).tolist()


def test_only_the_chunks_of_a_class_are_read(tmp_path, monkeypatch):
    """Sorted images: a class is one run, read once for all of its pieces' neighbours."""
    source = write_features(tmp_path / "f.zarr", SORTED)
    with open_store(source) as store:
        patterns, reads = ClassPatterns(store), []
        plain = store.rows
        monkeypatch.setattr(
            store, "rows", lambda name, a, b: reads.append((name, a, b)) or plain(name, a, b)
        )
        list(patterns.of(2)())
    (_, first, last), *more = [read for read in reads if read[0] == "feature"]
    assert not more
    assert 20 * 12 <= first < last <= 60 * 12 + 12


@pytest.mark.parametrize("where", ["first", "later"])
def test_unusable_patterns_are_refused_with_their_place(tmp_path, where):
    base = arrays(write_features(tmp_path / "base.zarr", SHUFFLED))
    cells = base["pattern_cell"][base["pattern_class"] == 3]
    bad = int(cells[0 if where == "first" else 90])
    feature = base["feature"].copy()
    feature[bad, 7] = -1.5
    source = rewritten(tmp_path / "f.zarr", tmp_path / "base.zarr", "features", feature=feature)
    row, col = divmod(bad % 12, 4)
    said = (
        f'f.zarr image {bad // 12} "image {bad // 12}", cell at row {row}, column {col}: '
        "channel 7 is -1.5, expected 0 or more: similarities of patterns must not be negative. "
        "Take the features of a layer after a ReLU: wsltool inspect --layers MODEL lists them."
    )
    with pytest.raises(StoreError, match="^" + re.escape(said) + "$"):
        cluster(source)


def test_infinite_features_are_refused(tmp_path):
    base = arrays(write_features(tmp_path / "base.zarr", SHUFFLED))
    feature = base["feature"].copy()
    feature[:, 2] = np.inf
    source = rewritten(tmp_path / "f.zarr", tmp_path / "base.zarr", "features", feature=feature)
    with pytest.raises(StoreError, match=r"cell at row \d, column \d: channel 2 is inf, expected"):
        cluster(source)


def test_features_without_patterns_are_refused(tmp_path):
    source = write_features(tmp_path / "f.zarr", SORTED, pattern_cell=None, pattern_class=None)
    said = (
        "f.zarr: does not say which class fires where (no pattern_class), so there is nothing to "
        "cluster for a class. It was made from images alone; run wsltool extract-features on maps "
        "(wsltool cam)."
    )
    with pytest.raises(StoreError, match="^" + re.escape(said) + "$"):
        cluster(source)
    assert not (tmp_path / "f.cluster.zarr.wip").exists()


def test_a_pattern_of_a_class_that_there_is_not(tmp_path):
    base = arrays(write_features(tmp_path / "base.zarr", SORTED))
    pattern_class = base["pattern_class"].copy()
    pattern_class[11] = 5
    source = rewritten(
        tmp_path / "f.zarr", tmp_path / "base.zarr", "features", pattern_class=pattern_class
    )
    said = "f.zarr: pattern_class is 5 in row 11, expected 0 to 4. Make the features again."
    with pytest.raises(StoreCorruptError, match="^" + re.escape(said) + "$"):
        cluster(source)


@pytest.mark.parametrize("cells", [[7, 3], [-1, 0], [0, 1 << 40]])
def test_cells_that_there_are_not_or_that_fall(tmp_path, cells):
    source = write_features(
        tmp_path / "f.zarr", SORTED, pattern_cell=np.array(cells), pattern_class=np.zeros(2, "i4")
    )
    said = "f.zarr: pattern_cell of class 0 falls, or is not in 0 to "
    with pytest.raises(StoreCorruptError, match="^" + re.escape(said)):
        cluster(source)


def test_another_kind_is_refused(tmp_path):
    images = write_images(tmp_path / "s.zarr", {"a": {}}, ["x"])
    with pytest.raises(StoreKindError, match=r'kind is "images", but cluster reads "features"'):
        cluster(images)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"eigenvalue_threshold": 1.1}, "--eigenvalue-threshold must be in [0, 1], got 1.1."),
        (
            {"eigenvalue_threshold": float("nan")},
            "--eigenvalue-threshold must be in [0, 1], got nan.",
        ),
        ({"min_clusters": 0}, "--min-clusters must be in [1, 64], got 0."),
        ({"min_clusters": 2.0}, "--min-clusters must be a whole number, got 2.0."),
        ({"max_clusters": 1}, "--max-clusters must be in [2, 64], got 1."),
        ({"max_clusters": 65}, "--max-clusters must be in [2, 64], got 65."),
        ({"centroid": "median"}, '--centroid must be mean or unit, got "median".'),
        ({"seed": -1}, "--seed must be in [0, 9223372036854775808), got -1."),
        (
            {"limit": 3},
            "--limit: rows of clusters are classes, and all of them are made. Pass it to the "
            "stages before (wsltool cam --limit N).",
        ),
        (
            {"on_bad": "skip"},
            "--on-bad: rows of clusters are classes, and all of them are made. Leave it out.",
        ),
    ],
)
def test_options_out_of_range(features, options, said):
    with pytest.raises(UsageError, match="^" + re.escape(said) + "$"):
        cluster(features, **options)


def test_the_same_command_twice_and_a_different_one(features):
    output = cluster(features)
    before = meta(output)
    ears = Ears()
    assert cluster(features, report=ears) == output
    assert meta(output) == before
    assert ears.notes == [f"{output}: finished already, left alone."]
    with pytest.raises(StoreError, match=r"made with --centroid mean, now unit\."):
        cluster(features, centroid="unit")
    cluster(features, centroid="unit", overwrite=True)
    assert meta(output)["params"]["centroid"] == "unit"


def test_zarr_and_hdf5_hold_the_same(features, tmp_path):
    one = cluster(features)
    other = cluster(features, output=tmp_path / "c.h5")
    assert_equal_arrays(one, other)
    assert meta(one)["digest"] == meta(other)["digest"]
