"""Rows of a store in any order are what reading them one by one gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.stores.open import open_store
from wsltool.stores.store import Store

from .examples import example_arrays, write_store

NUM = 12


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("gather")
    return open_store(write_store(folder / "a.zarr", "images", example_arrays("images", NUM)))


@settings(deadline=None)
@given(rows=st.lists(st.integers(0, NUM - 1), min_size=1, max_size=20))
def test_gathered_rows_are_those_read_one_by_one(store: Store, rows: list[int]) -> None:
    found = store.gather(np.array(rows), ["image_id", "label"], ["box", "mask"])
    single = [store.ragged_rows("box", row, row + 1) for row in rows]
    single_mask = [store.ragged_rows("mask", row, row + 1) for row in rows]
    for name in single[0]:
        assert np.array_equal(found[name], np.concatenate([one[name] for one in single])), name
    for name in single_mask[0]:
        expected = np.concatenate([one[name] for one in single_mask])
        assert np.array_equal(found[name], expected), name
    for name in ("image_id", "label"):
        expected = np.concatenate([store.rows(name, row, row + 1) for row in rows])
        assert np.array_equal(found[name], expected), name


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("patterns")
    return open_store(write_store(folder / "a.zarr", "features", example_arrays("features", NUM)))


@settings(deadline=None)
@given(rows=st.lists(st.integers(0, NUM - 1), min_size=1, max_size=20))
def test_patterns_of_rows_in_any_order_name_the_same_features(
    features: Store, rows: list[int]
) -> None:
    cells = features.gather(np.array(rows), [], ["cell"])
    found = features.patterns(np.array(rows))
    start = features.whole("cell_start")
    every_cell, every_class = (features.whole(f"pattern_{name}") for name in ("cell", "class"))
    expected_feature, expected_class = [], []
    for row in rows:
        own = (every_cell >= start[row]) & (every_cell < start[row + 1])
        expected_feature.append(features.whole("feature")[every_cell[own]])
        expected_class.append(every_class[own])
    taken = cells["feature"][found["pattern_cell"]]
    assert np.array_equal(taken, np.concatenate(expected_feature))
    assert np.array_equal(found["pattern_class"], np.concatenate(expected_class))


@pytest.mark.parametrize("chunk", [1, 4])
def test_patterns_are_found_by_halving_whatever_the_chunks(
    features: Store, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("wsltool.stores.store.chunk_rows", lambda shape, dtype: chunk)
    edge, cell = features.whole("cell_start"), features.whole("pattern_cell")
    for start in range(NUM):
        for stop in (start, start + 1, NUM):
            where = features.pattern_rows(start, stop)
            inside = (cell >= edge[start]) & (cell < edge[stop])
            assert np.array_equal(np.flatnonzero(inside), np.arange(where.start, where.stop))
