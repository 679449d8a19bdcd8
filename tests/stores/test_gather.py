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
