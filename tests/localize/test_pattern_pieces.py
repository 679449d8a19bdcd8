"""Pieces in order whatever the threads, and float16 by its bits."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from wsltool.localize.pattern_pieces import in_order, tiles, to_double


def test_results_come_in_order_though_later_pieces_are_done_first():
    pieces = [np.zeros((num, 2)) for num in (3, 1, 4, 1, 5)]

    def compute(at, piece):
        time.sleep(0.02 if at == 0 else 0)
        return at, len(piece)

    assert list(in_order(pieces, compute)) == [(0, 3), (3, 1), (4, 4), (8, 1), (9, 5)]


def test_few_pieces_are_read_ahead(monkeypatch):
    monkeypatch.setattr("wsltool.localize.pattern_pieces._num_threads", lambda: 2)
    read = []

    def pieces():
        for number in range(20):
            read.append(number)
            yield np.zeros((1, 1))

    for number, _ in enumerate(in_order(pieces(), lambda at, piece: at)):
        assert len(read) <= number + 3


def test_the_error_of_the_first_bad_piece_is_raised_and_no_thread_stays():
    before = threading.active_count()

    def compute(at, piece):
        time.sleep(0.02 if at == 1 else 0)
        if at:
            raise ValueError(f"piece at {at}")

    with pytest.raises(ValueError, match=r"^piece at 1$"):
        list(in_order([np.zeros((1, 1))] * 6, compute))
    assert threading.active_count() == before


@pytest.mark.parametrize("first", [0x0000, 0x8000])
def test_every_float16_becomes_the_float64_that_it_is(first):
    bits = np.arange(first, first + 0x8000, dtype=np.uint32).astype(np.uint16).reshape(-1, 64)
    half = bits.view(np.float16)
    for row_PC in (half, *np.split(half, len(half))):  # finite rows alone take the fast way
        found = to_double(row_PC, np.empty(row_PC.shape))
        np.testing.assert_array_equal(found, row_PC.astype(np.float64))
        np.testing.assert_array_equal(np.signbit(found), np.signbit(row_PC))


@pytest.mark.parametrize("dtype", [">f2", np.float32, np.float64, np.int16])
def test_other_numbers_become_float64(dtype):
    raw = np.array([[0, 1, 2], [7, 5, 300]], dtype)
    assert to_double(raw, np.empty((2, 3))).tolist() == raw.tolist()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("num", [0, 1, 1024, 1025, 4096])
def test_tiles_are_the_piece(num, order):
    wide = np.random.default_rng(0).random((num, 6)).astype(np.float16)
    for piece in (np.array(wide, order=order), wide[:, ::2], wide[::-1]):
        found = np.full(piece.shape, np.nan)
        for here, tile_PC in tiles(piece):
            found[here] = tile_PC
        np.testing.assert_array_equal(found, piece.astype(np.float64))
