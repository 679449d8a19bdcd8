"""Tallies: joined, drawn, taken apart."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import ProtocolError
from wsltool.metrics.tally import Gathering, Tally


def _tally(rows, entries=(), sums=None, num_classes=3):
    """Make a tally of images, and of entries ``(row, class, value)``."""
    row, class_, value = np.array(entries, np.int64).reshape(-1, 3).T
    return Tally(
        num_classes,
        {
            "image": {"row": np.array(rows, np.int64), "big": np.array(rows, np.int64) > 4},
            "entry": {"row": row, "class": class_.astype(np.int32), "value": value},
        },
        {name: np.array(one) for name, one in (sums or {}).items()},
    )


ONE = _tally([7, 2], [(7, 1, 10), (7, 0, 20), (2, 1, 30)], {"px": [1, 2]})
OTHER = _tally([5], [(5, 2, 40)], {"px": [3, 4], "more": [9]})


class TestJoined:
    def test_by_hand_in_either_order(self):
        for tally in (Tally.joined([ONE, OTHER]), OTHER + ONE, Tally.joined(iter([OTHER, ONE]))):
            assert tally.row_N.tolist() == [2, 5, 7]
            assert tally.column("image", "big").tolist() == [False, True, True]
            assert tally.column("entry", "row").tolist() == [2, 5, 7, 7]
            assert tally.column("entry", "value").tolist() == [30, 40, 10, 20]
            assert {name: one.tolist() for name, one in tally.sums.items()} == {
                "more": [9],
                "px": [4, 6],
            }

    def test_one_alone_is_sorted_too(self):
        assert Tally.joined([ONE]).row_N.tolist() == [2, 7]
        assert ONE.row_N.tolist() == [7, 2]

    def test_sums_of_the_parts_stay_as_they_are(self):
        Tally.joined([ONE, OTHER])
        assert ONE.sums["px"].tolist() == [1, 2]

    def test_no_entries(self):
        tally = Tally.joined([_tally([]), _tally([])])
        assert tally.num("image") == tally.num("entry") == 0
        assert tally.num_by("entry").tolist() == [0, 0, 0]

    def test_no_parts(self):
        line = "0 blocks of images were counted; expected at least one."
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            Tally.joined([])

    def test_image_counted_twice(self):
        line = "row 2 was counted twice; expected every image once."
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            Tally.joined([ONE, _tally([2])])

    def test_other_classes(self):
        line = "a block of images has 4 classes, those before it 3; expected the same."
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            Tally.joined([ONE, _tally([9], num_classes=4)])

    def test_gathering_may_go_on(self):
        gathering = Gathering()
        gathering.add(ONE)
        assert gathering.joined().sums["px"].tolist() == [1, 2]
        gathering.add(OTHER)
        assert gathering.joined().row_N.tolist() == [2, 5, 7]


class TestDrawn:
    TALLY = Tally.joined([ONE, OTHER])

    def test_once_each(self):
        assert self.TALLY.num("entry") == 4
        assert self.TALLY.num_by("entry").tolist() == [1, 2, 1]
        assert self.TALLY.total("entry", "value") == 100
        assert self.TALLY.weight("image").tolist() == [1, 1, 1]

    def test_by_hand(self):
        drawn = self.TALLY.drawn(np.array([3, 0, 2]))
        assert drawn.weight("image").tolist() == [3, 0, 2]
        assert drawn.weight("entry").tolist() == [3, 0, 2, 2]
        assert drawn.num("image") == 5
        assert drawn.num("entry", np.array([True, True, False, False])) == 3
        assert drawn.num_by("entry").tolist() == [2, 5, 0]
        assert drawn.num_by("entry", where=drawn.column("entry", "value") < 25).tolist() == [
            2,
            2,
            0,
        ]
        assert drawn.num_by("image", "big", num_keys=2).tolist() == [3, 2]
        assert drawn.total("entry", "value") == 150

    def test_total_of_further_axes(self):
        columns = {"row": np.array([1, 2]), "bins": np.array([[[1, 2]], [[3, 4]]], np.int8)}
        tally = Tally(1, {"image": columns}).drawn(np.array([100, 1]))
        assert tally.total("image", "bins").tolist() == [[103, 204]]

    def test_made_once_for_all_samples(self):
        made = []

        def make():
            made.append(1)
            return len(made)

        for times in ([1, 1, 1], [0, 3, 0]):
            assert self.TALLY.drawn(np.array(times)).once("made", make) == 1
        assert self.TALLY.once("made", make) == 1
        assert Tally.joined([self.TALLY]).once("made", make) == 2

    def test_not_one_number_for_each_image(self):
        line = (
            "2 numbers of times are given for 3 images; expected one each, and rows that rise. "
            "Draw from a joined tally."
        )
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            self.TALLY.drawn(np.array([1, 1]))

    def test_not_joined(self):
        with pytest.raises(ProtocolError, match=r"^2 numbers of times are given for 2 images; exp"):
            ONE.drawn(np.array([1, 1]))


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.randoms(use_true_random=False))
def test_law_any_division_in_any_order_and_apart_and_back(seed, num_parts, random):
    rng = np.random.default_rng(seed)
    rows = rng.permutation(12).tolist()
    entries = [(row, rng.integers(3), rng.integers(100)) for row in rows for _ in range(row % 3)]
    parts = [
        _tally(
            rows[at::num_parts],
            [entry for entry in entries if entry[0] in rows[at::num_parts]],
            {"rows": [sum(rows[at::num_parts])]},
        )
        for at in range(num_parts)
    ]
    whole = Tally.joined([_tally(rows, entries, {"rows": [66]})]).as_arrays()
    random.shuffle(parts)
    joined = Tally.joined(parts)
    for found in (joined, Tally.from_arrays(joined.as_arrays()), joined + _tally([])):
        assert found.num_classes == 3
        arrays = found.as_arrays()
        assert set(arrays) == set(whole)
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, whole[name])
            assert array.dtype == whole[name].dtype
