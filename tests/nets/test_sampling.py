"""What an epoch shows: order, batches, balance."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsltool.errors import TrainingError
from wsltool.nets.augment import Augment
from wsltool.nets.sampling import Draw, _turns, epoch_batches, ordered_batches, stream

BALANCE = Augment(balance=True)


def flat(batches: list[list[Draw]]) -> list[Draw]:
    return [draw for batch in batches for draw in batch]


def places(batches: list[list[Draw]]) -> list[int]:
    return [draw.place for draw in flat(batches)]


@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 2**70), st.integers(0, 5))
def test_order_of_an_epoch(num: int, batch_size: int, seed: int, epoch: int) -> None:
    augment = Augment(mirror=True, scale=(0.7, 1.4))
    batches = epoch_batches(num, batch_size, seed, epoch, augment)
    assert places(batches) == np.random.default_rng((seed, epoch)).permutation(num).tolist()
    assert [draw.position for draw in flat(batches)] == list(range(num))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    if batches and num > 1 and batch_size > 1:
        assert 2 <= len(batches[-1]) <= batch_size + 1
    for batch in batches:
        assert len({draw.scale for draw in batch}) == 1
        assert 0.7 <= batch[0].scale < 1.4


def test_by_hand() -> None:
    order = np.random.default_rng((1, 2)).permutation(25).tolist()
    batches = epoch_batches(25, 8, seed=1, epoch=2)
    assert [len(batch) for batch in batches] == [8, 8, 9]
    assert batches[0][:2] == [(order[0], 0, False, 1.0), (order[1], 1, False, 1.0)]
    assert batches != epoch_batches(25, 8, seed=1, epoch=3)
    assert batches != epoch_batches(25, 8, seed=2, epoch=2)
    assert [len(batch) for batch in epoch_batches(1, 8, 0, 0)] == [1]
    assert epoch_batches(0, 8, 0, 0) == []


def test_mirror_and_scale_are_drawn_evenly() -> None:
    batches = epoch_batches(20_000, 4, 0, 0, Augment(mirror=True, scale=(0.5, 2.5)))
    assert np.mean([draw.mirrored for draw in flat(batches)]) == pytest.approx(0.5, abs=0.02)
    quarter_Q = np.histogram([batch[0].scale for batch in batches], 4, (0.5, 2.5))[0] / 5000
    assert quarter_Q == pytest.approx(0.25, abs=0.03)


def test_one_option_does_not_move_the_others() -> None:
    both = flat(epoch_batches(40, 8, 0, 1, Augment(mirror=True, scale=(0.7, 1.4))))
    mirror = flat(epoch_batches(40, 8, 0, 1, Augment(mirror=True, noise_std=3)))
    scale = flat(epoch_batches(40, 8, 0, 1, Augment(scale=(0.7, 1.4))))
    assert [draw.mirrored for draw in both] == [draw.mirrored for draw in mirror]
    assert [draw.scale for draw in both] == [draw.scale for draw in scale]
    other = flat(epoch_batches(40, 8, 0, 2, Augment(mirror=True, scale=(0.7, 1.4))))
    assert [draw.mirrored for draw in other] != [draw.mirrored for draw in mirror]
    assert not {draw.scale for draw in other} & {draw.scale for draw in scale}


def test_in_order() -> None:
    assert ordered_batches(5, 2) == [
        [(0, 0, False, 1), (1, 1, False, 1)],
        *ordered_batches(5, 2, 2),
    ]
    assert places(ordered_batches(5, 2, 2)) == [2, 3, 4]
    assert ordered_batches(5, 2, 5) == []


def test_streams_are_apart() -> None:
    """`default_rng((3, 4))` and `default_rng((3, 4, 0))` are one stream; these are not."""
    keys: list[tuple[int, ...]] = [(4,), (4, 0), (4, 0, 0), (0, 4), ()]
    first = {stream(3, *key).integers(2**62) for key in keys}
    first |= {np.random.default_rng((3, 4)).integers(2**62)}
    assert len(first) == 6


labels = st.integers(1, 5).flatmap(
    lambda num_classes: st.lists(
        st.lists(st.sampled_from([0, 0, 1, 255]), min_size=num_classes, max_size=num_classes),
        min_size=1,
        max_size=30,
    ).map(lambda rows: np.array(rows, np.uint8))
)


@given(labels, st.integers(0, 9), st.integers(1, 7))
def test_balanced_epochs(label_NK: NDArray[np.uint8], seed: int, num_epochs: int) -> None:
    """Each class has its share of draws, to one, over any number of epochs."""
    num = len(label_NK)
    counts: Counter[int] = Counter()
    for epoch in range(num_epochs):
        batches = epoch_batches(num, 4, seed, epoch, BALANCE, label_NK)
        assert batches == epoch_batches(num, 4, seed, epoch, BALANCE, label_NK)
        assert len(flat(batches)) == num
        counts.update(places(batches))
    is_present_NK = label_NK == 1
    without = np.flatnonzero(~is_present_NK.any(axis=1)).tolist()
    assert [counts[place] for place in without] == [num_epochs] * len(without)
    present = [k for k in range(label_NK.shape[1]) if is_present_NK[:, k].any()]
    num_dealt = num_epochs * (num - len(without))
    low, high = np.zeros(num), np.zeros(num)
    for k in present:
        members = np.flatnonzero(is_present_NK[:, k])
        low[members] += num_dealt // len(present) // len(members)
        high[members] += -(-(num_dealt // len(present) + 1) // len(members))
    drawn = np.array([counts[place] for place in range(num)])
    labelled = is_present_NK.any(axis=1)
    assert (low[labelled] <= drawn[labelled]).all()
    assert (drawn[labelled] <= high[labelled]).all()


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(1, 6))
def test_classes_and_their_examples_differ_by_one_draw(sizes: list[int], num_epochs: int) -> None:
    """With one class an example, what is drawn for a class can be counted exactly."""
    class_N = np.repeat(np.arange(len(sizes)), sizes)
    label_NK = np.eye(len(sizes), dtype=np.uint8)[class_N]
    drawn_N: NDArray[Any] = np.zeros(len(class_N), int)
    for epoch in range(num_epochs):
        np.add.at(drawn_N, places(epoch_batches(len(class_N), 5, 3, epoch, BALANCE, label_NK)), 1)
    drawn_K = np.bincount(class_N, drawn_N)
    assert np.ptp(drawn_K) <= 1
    assert all(np.ptp(drawn_N[class_N == k]) <= 1 for k in range(len(sizes)))


def test_rare_class_by_hand() -> None:
    """Nine cats, one dog, two pictures of neither: 5 cats and 5 dogs of twelve draws."""
    label_NK = np.zeros((12, 3), np.uint8)
    label_NK[:9, 0] = label_NK[9, 1] = 1
    label_NK[11, 0] = 255
    for epoch in (0, 1):
        counts = Counter(places(epoch_batches(12, 4, 0, epoch, BALANCE, label_NK)))
        assert (counts[9], counts[10], counts[11]) == (5, 1, 1)
        assert sum(counts[place] for place in range(9)) == 5
    nobody = np.zeros((12, 3), np.uint8)
    assert sorted(places(epoch_batches(12, 4, 0, 0, BALANCE, nobody))) == list(range(12))


def test_balanced_order_is_random_in_every_round() -> None:
    """An epoch goes through each class four times: never in one order, the classes mixed."""
    label_NK = np.eye(2, dtype=np.uint8)[[0] * 8 + [1] * 56]
    order = places(epoch_batches(64, 8, 0, 0, BALANCE, label_NK))
    assert sum(place < 8 for place in order[:32]) in range(9, 24)
    rounds = [
        tuple(_turns(np.arange(8), start, start + 8, seed=0, k=0)) for start in range(0, 32, 8)
    ]
    assert len(set(rounds)) == 4
    assert all(sorted(one) == list(range(8)) for one in rounds)
    middle = _turns(np.arange(8), 5, 19, seed=0, k=0).tolist()
    assert middle == [*rounds[0][5:], *rounds[1], *rounds[2][:3]]


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(TrainingError, match=r"^batch size must be at least 1, got 0\.$"):
        epoch_batches(4, 0, 0, 0)
    with pytest.raises(TrainingError, match=r"labels of shape \(4, num_classes\), got None\.$"):
        epoch_batches(4, 2, 0, 0, BALANCE)
    with pytest.raises(TrainingError, match=r"of shape \(4, num_classes\), got \(3, 2\)\.$"):
        epoch_batches(4, 2, 0, 0, BALANCE, np.zeros((3, 2), np.uint8))
