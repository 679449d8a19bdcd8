import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsltool.localize.oracle import (
    cells_in_boxes,
    cells_in_mask,
    judged_by_share,
    shuffled_words,
)


@pytest.mark.parametrize(
    ("inside", "counted", "words"),
    [
        # 11 of 20 cells: .55, and .2 is under half of it.
        ([9, 2], [10, 10], ("object", "distractor")),
        # The mean over cells, .27; that of the two shares, .2 and .9, would be .55.
        ([18, 9], [90, 10], ("object", "object")),
        # As on VOC: the mean of .85, .84 and .35 is .68, and .35 over half of it; the third is
        # small, so the mean over cells is .78.
        ([3757, 3338, 460], [4420, 3998, 1308], ("object", "object", "distractor")),
        # car's masks: nothing has half of its cells inside, and yet not all are distractors.
        ([30, 25, 5], [100, 100, 100], ("object", "object", "distractor")),
        # 1/3 and 1: the mean is 2/3, and 1/3 is just half of it.
        ([1, 3], [3, 3], ("object", "object")),
        ([1, 1, 7], [7, 49, 7], ("object", "distractor", "object")),
        ([0, 0], [5, 8], ("object", "object")),
        ([4], [4], ("object",)),
        ([4, 0, 0], [4, 0, 9], ("object", "unsure", "distractor")),
        ([0, 0], [0, 0], None),
    ],
)
def test_shares_by_hand(inside, counted, words):
    assert judged_by_share(np.array(inside), np.array(counted)) == words


@pytest.mark.parametrize(
    ("inside", "counted", "words"),
    [
        ([18, 9], [90, 10], ("distractor", "object")),  # by the mean, .27, both are objects
        ([5, 4, 10], [10, 10, 10], ("object", "distractor", "object")),
        ([30, 25, 30], [100, 100, 100], ("object", "distractor", "object")),  # never all
        ([0, 0], [5, 8], ("object", "object")),
        ([1, 0], [3, 0], ("object", "unsure")),
        ([0], [0], None),
    ],
)
def test_shares_against_a_half_by_hand(inside, counted, words):
    assert judged_by_share(np.array(inside), np.array(counted), "half") == words


@st.composite
def _counts(draw):
    counted = draw(st.lists(st.integers(0, 60), min_size=1, max_size=5))
    return [draw(st.integers(0, num)) for num in counted], counted


@given(_counts(), st.integers(1, 9), st.randoms())
def test_laws_of_shares(counts, times, random):
    inside, counted = np.array(counts[0]), np.array(counts[1])
    words = judged_by_share(inside, counted)
    if words is None:
        assert not counted.any()
        return
    assert "object" in words
    assert [word == "unsure" for word in words] == (counted == 0).tolist()
    assert judged_by_share(inside * times, counted * times) == words
    order = list(range(len(words)))
    random.shuffle(order)
    assert judged_by_share(inside[order], counted[order]) == tuple(words[n] for n in order)
    mean = inside.sum() / counted.sum()
    for one, of, word in zip(*counts, words, strict=True):
        if word == "distractor":
            assert one / of < mean / 2 + 1e-12
        elif word == "object":
            assert one / of > mean / 2 - 1e-12


def test_chance_keeps_the_words_and_asks_the_class_alone():
    words = ("distractor", "object", "object", "unsure")
    drawn = {shuffled_words(words, seed, 3) for seed in range(200)}
    assert len(drawn) == 12  # 4! / 2!
    assert all(sorted(one) == sorted(words) for one in drawn)
    assert shuffled_words(words, 5, 3) == shuffled_words(words, 5, 3)
    by_class = {shuffled_words(words, 0, index) for index in range(50)}
    assert len(by_class) > 6
    assert shuffled_words(("distractor",), 0, 0) == ("distractor",)


def test_each_place_is_as_likely_by_chance():
    places = [
        shuffled_words(("distractor", "object", "object"), s, 0).index("distractor")
        for s in range(600)
    ]
    assert (np.bincount(places) > 160).all()


def test_points_in_boxes():
    x = np.array([0, 9.99, 10, 5, 25.0])
    y = np.array([0, 0, 5, 10, 5.0])
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10.0]])
    assert cells_in_boxes(x, y, boxes).tolist() == [True, True, False, False, True]
    assert cells_in_boxes(x, y, boxes.astype(np.float32)).tolist()[:2] == [True, True]
    assert not cells_in_boxes(x, y, np.zeros((0, 4))).any()
    assert cells_in_boxes(x[:0], y[:0], boxes).shape == (0,)


def test_points_on_a_mask():
    mask = np.array([[1, 0, 255], [0, 1, 1]], np.uint8)
    x = np.array([0.5, 1.5, 2.5, 2.999, 3, -0.1, 1.5, 1.5])
    y = np.array([0.5, 0.5, 0.5, 1.999, 1, 0, 2, -0.5])
    on, counted = cells_in_mask(x, y, mask)
    assert on.tolist() == [True, False, False, True] + [False] * 4
    assert counted.tolist() == [True, True, False] + [True] * 5


@given(st.integers(0, 2**32 - 1))
def test_a_box_is_its_mask(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 12, 2)
    x0, x1 = np.sort(rng.integers(0, width + 1, 2))
    y0, y1 = np.sort(rng.integers(0, height + 1, 2))
    mask = np.zeros((height, width), np.uint8)
    mask[y0:y1, x0:x1] = 1
    x, y = rng.uniform(-2, 14, (2, 50))
    on, counted = cells_in_mask(x, y, mask)
    assert counted.all()
    np.testing.assert_array_equal(on, cells_in_boxes(x, y, np.array([[x0, y0, x1, y1]])))
