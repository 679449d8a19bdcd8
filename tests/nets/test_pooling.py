"""Pooling heads: by hand, their limits, their laws, masks, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wsltool.errors import ModelError
from wsltool.nets.pooling import POOLS, canonical_pool, find_pool, gap, gmp, gwrp, lse

SPECS = ["gap", "gmp", "lse:0.5", "lse:10", "gwrp:0", "gwrp:0.9", "gwrp:0.9995", "gwrp:1"]
HAND = torch.tensor([[[[1.0, 4.0], [2.0, -3.0]]]])


def by_hand(spec: str, cells: np.ndarray) -> float:
    """The definitions in float64, over the cells that count."""
    name, _, text = spec.partition(":")
    x = np.sort(np.asarray(cells, np.float64).ravel())[::-1]
    if name == "gap":
        return float(x.mean())
    if name == "gmp":
        return float(x.max())
    if name == "lse":
        r = float(text)
        return float(x[0] + np.log(np.mean(np.exp(r * (x - x[0])))) / r)
    weight = np.power(float(text) ** (1681 / len(x)), np.arange(len(x)))
    return float((weight * x).sum() / weight.sum())


@st.composite
def batches(draw: st.DrawFn) -> Tensor:
    """Maps of a few images and classes, of any size from one cell on."""
    shape = [draw(st.integers(1, n)) for n in (3, 3, 6, 6)]
    seed = draw(st.integers(0, 999))
    size = draw(st.sampled_from([0.0, 1e-3, 1.0, 30.0]))
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * size + draw(st.sampled_from([0.0, -50.0]))


def masks(map_NKHW: Tensor, seed: int) -> Tensor:
    """Random cells, at least one an image."""
    num, _, rows, cols = map_NKHW.shape
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand((num, 1, rows * cols), generator=generator) < 0.5
    valid[torch.arange(num), 0, torch.randint(rows * cols, (num,), generator=generator)] = True
    return valid.reshape(num, 1, rows, cols)


def close(value: Tensor, wanted: Tensor | float, scale: Tensor) -> bool:
    size = 1e-5 * (1.0 + float(scale.abs().max()))
    return bool(((value - wanted).abs() <= size).all())


def test_hand_worked() -> None:
    assert gap(HAND).item() == 1.0
    assert gmp(HAND).item() == 4.0
    mean = (math.exp(1) + math.exp(4) + math.exp(2) + math.exp(-3)) / 4
    assert lse(HAND).item() == pytest.approx(math.log(mean))
    # four cells: the ratio of weights is q^(1681/4)
    ratio = 0.5
    q = ratio ** (4 / 1681)
    wanted = (4 + 2 * 0.5 + 1 * 0.25 - 3 * 0.125) / 1.875
    assert gwrp(HAND, q=q).item() == pytest.approx(wanted, rel=1e-5)


def test_hand_worked_with_a_mask() -> None:
    valid = torch.tensor([[[[True, False], [True, True]]]])
    assert gap(HAND, valid).item() == 0.0
    assert gmp(HAND, valid).item() == 2.0
    mean = (math.exp(1) + math.exp(2) + math.exp(-3)) / 3
    assert lse(HAND, valid).item() == pytest.approx(math.log(mean))
    q = 0.5 ** (3 / 1681)
    wanted = (2 + 1 * 0.5 - 3 * 0.25) / 1.75
    assert gwrp(HAND, valid, q=q).item() == pytest.approx(wanted, rel=1e-5)


def test_weights_of_sec() -> None:
    """On 41×41 cells .996 sums to Z = 249.7, and a tenth of the cells carries 49 %."""
    ones = torch.zeros((1, 1, 41, 41), dtype=torch.float64)
    ones[0, 0, 0, 0] = 1.0  # the score is the weight of the first rank, 1 / Z
    assert 1 / gwrp(ones).item() == pytest.approx(249.7, abs=0.1)
    assert 1 / gwrp(ones, q=0.999).item() == pytest.approx(814.0, abs=0.1)
    for side in (13, 41, 60):
        ones = torch.zeros((1, 1, side * side, 1), dtype=torch.float64)
        ones[0, 0, : round(side * side / 10)] = 1.0
        assert gwrp(ones).item() == pytest.approx(0.49, abs=0.01)


@settings(max_examples=80, deadline=None)
@given(batches(), st.sampled_from(SPECS), st.integers(0, 99))
def test_every_head_is_its_definition(map_NKHW: Tensor, spec: str, seed: int) -> None:
    """Masked or not; so leaving cells out is the same as never having had them."""
    valid = masks(map_NKHW, seed)
    plain, masked = find_pool(spec)(map_NKHW), find_pool(spec)(map_NKHW, valid)
    for n, image in enumerate(map_NKHW):
        for k, cells in enumerate(image):
            assert close(plain[n, k], by_hand(spec, cells.numpy()), map_NKHW)
            some = cells[valid[n, 0]].numpy()
            assert close(masked[n, k], by_hand(spec, some), map_NKHW)


@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from(SPECS), st.integers(0, 99))
def test_laws(map_NKHW: Tensor, spec: str, seed: int) -> None:
    pool, before = find_pool(spec), map_NKHW.clone()
    score = pool(map_NKHW)
    low, high = gap(map_NKHW), gmp(map_NKHW)
    assert close(score.clamp(low, high), score, map_NKHW)  # between mean and maximum
    assert close(pool(map_NKHW, torch.ones_like(map_NKHW[:, :1], dtype=torch.bool)), score, before)
    assert close(pool(map_NKHW + 7.0), score + 7.0, map_NKHW)
    order = torch.randperm(map_NKHW[0, 0].numel(), generator=torch.Generator().manual_seed(seed))
    shuffled = map_NKHW.flatten(2)[:, :, order].reshape(map_NKHW.shape)
    assert close(pool(shuffled), score, map_NKHW)
    assert close(pool(map_NKHW.transpose(2, 3)), score, map_NKHW)
    assert torch.equal(map_NKHW, before)


@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from(SPECS), st.integers(0, 3), st.integers(0, 3))
def test_masking_is_cropping(map_NKHW: Tensor, spec: str, top: int, left: int) -> None:
    """A frame of rubbish, NaN and infinity included, changes nothing."""
    num, classes, rows, cols = map_NKHW.shape
    framed = torch.full((num, classes, top + rows + 1, left + cols + 2), 1e30)
    framed[:, :, -1], framed[:, :, :, -1] = torch.nan, torch.inf
    valid = torch.zeros_like(framed[:, :1], dtype=torch.bool)
    part = np.s_[:, :, top : top + rows, left : left + cols]
    framed[part], valid[part] = map_NKHW, True
    assert close(find_pool(spec)(framed, valid), find_pool(spec)(map_NKHW), map_NKHW)


def test_lse_reaches_its_limits() -> None:
    generator = torch.Generator().manual_seed(3)
    for size in (1e-4, 1.0, 1e4):
        maps = size * torch.randn((2, 3, 7, 5), generator=generator)
        for r in (5e-324, 1e-40, 1e-12, 1e-6):
            assert torch.allclose(lse(maps, r=r / size), gap(maps), atol=1e-5 * size)
        for r in (1e8, 1e30, 1e38, 1e308):
            assert torch.allclose(lse(maps, r=r / size), gmp(maps), rtol=1e-5)
        exact = lse(maps.double(), r=1 / size).float()
        assert torch.allclose(lse(maps, r=1 / size), exact, rtol=1e-5, atol=1e-6 * size)
    grow = [lse(maps / 1e4, r=r)[0, 0].item() for r in np.geomspace(1e-3, 1e3, 25)]
    assert np.all(np.diff(grow) > 0)


def test_lse_with_scores_far_from_zero() -> None:
    """exp(1e4) and exp(−1e4) are no float32 numbers."""
    for shift in (1e4, -1e4):
        maps = HAND + shift
        assert lse(maps).item() == pytest.approx(lse(HAND).item() + shift, rel=1e-6)
    lone = torch.full((1, 1, 300, 300), -1e6)
    lone[0, 0, 5, 5] = 0.0
    assert lse(lone).item() == pytest.approx(-math.log(90000))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("shape", [(2, 2, 3, 4), (1, 3, 1, 1)])
def test_gradients(spec: str, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    maps = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    maps.requires_grad_()
    pool = find_pool(spec)
    assert torch.autograd.gradcheck(pool, (maps,))
    valid = masks(maps, 5)
    assert torch.autograd.gradcheck(lambda x: pool(x, valid), (maps,))


@pytest.mark.parametrize("spec", [*SPECS, "lse:1e-40", "lse:1e38", "gwrp:1e-300"])
def test_gradients_sum_to_one_and_leave_padding_alone(spec: str) -> None:
    """Every head moves with its map; float32, with NaN and infinity in cells left out."""
    maps = torch.linspace(-40, 90, 30).reshape(1, 1, 5, 6).clone()
    maps[0, 0, 0], maps[0, 0, 1, 0] = torch.nan, torch.inf
    valid = torch.ones((1, 1, 5, 6), dtype=torch.bool)
    valid[0, 0, 0], valid[0, 0, 1, 0] = False, False
    maps.requires_grad_()
    find_pool(spec)(maps, valid).sum().backward()
    assert maps.grad is not None
    assert not maps.grad[~valid].any()
    assert maps.grad.sum().item() == pytest.approx(1.0, rel=1e-4)


def test_tied_maxima_share_the_gradient() -> None:
    maps = torch.tensor([[[[2.0, 2.0, 1.0]]]], requires_grad=True)
    gmp(maps).sum().backward()
    assert maps.grad is not None
    assert maps.grad.tolist() == [[[[0.5, 0.5, 0.0]]]]


@pytest.mark.parametrize("spec", SPECS)
def test_a_mask_of_its_own_for_every_class(spec: str) -> None:
    maps = torch.randn((2, 3, 4, 5), generator=torch.Generator().manual_seed(2))
    valid = torch.cat([masks(maps, seed) for seed in range(3)], 1)
    score = find_pool(spec)(maps, valid)
    for k in range(3):
        alone = find_pool(spec)(maps[:, k : k + 1], valid[:, k : k + 1])
        assert torch.allclose(score[:, k : k + 1], alone, atol=1e-6)


@pytest.mark.parametrize("spec", SPECS)
def test_constant_maps_and_one_cell(spec: str) -> None:
    assert find_pool(spec)(torch.full((1, 2, 9, 7), -3.5)).tolist() == [
        [pytest.approx(-3.5, rel=1e-6)] * 2
    ]
    assert find_pool(spec)(torch.tensor([[[[6.25]]]])).item() == 6.25


@pytest.mark.parametrize("spec", SPECS)
def test_nan_is_told(spec: str) -> None:
    maps = torch.zeros((2, 1, 2, 2))
    maps[0, 0, 1, 1] = torch.nan
    assert find_pool(spec)(maps).isnan().tolist() == [[True], [False]]
    masked = find_pool(spec)(maps, torch.ones((2, 1, 2, 2), dtype=torch.bool))
    assert masked.isnan().tolist() == [[True], [False]]


@pytest.mark.parametrize("spec", SPECS)
def test_half_precision_is_pooled_in_float32(spec: str) -> None:
    maps = torch.randn((2, 3, 30, 30), generator=torch.Generator().manual_seed(2)).half()
    exact = find_pool(spec)(maps.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for valid in (None, torch.ones((2, 1, 30, 30), dtype=torch.bool)):
            score = find_pool(spec)(maps, valid)
            assert score.dtype == torch.float32
            assert torch.allclose(score.double(), exact, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "valid", "message"),
    [
        ((1, 2, 0, 3), None, r"^pooling: the maps have no cell, their shape is \(1, 2, 0, 3\)\.$"),
        (
            (3, 2, 1, 2),
            torch.tensor([[[[True, False]]], [[[False, False]]], [[[True, True]]]]),
            r"^pooling: image 1 of the batch has no cell that counts\.$",
        ),
        (
            (1, 2, 1, 2),
            torch.ones((1, 1, 1, 1), dtype=torch.bool),
            r"^pooling: the mask is torch\.bool \(1, 1, 1, 1\), expected torch\.bool "
            r"\(1, 1, 1, 2\)\.$",
        ),
        ((1, 2, 1, 2), torch.ones((1, 1, 1, 2)), r"the mask is torch\.float32 \(1, 1, 1, 2\), exp"),
    ],
)
@pytest.mark.parametrize("name", list(POOLS))
def test_what_cannot_be_pooled(
    name: str, shape: tuple[int, ...], valid: Tensor | None, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        find_pool(name)(torch.zeros(shape), valid)


@pytest.mark.parametrize("name", list(POOLS))
def test_no_image(name: str) -> None:
    assert find_pool(name)(torch.zeros((0, 2, 3, 3))).shape == (0, 2)
    none = torch.zeros((0, 1, 3, 3), dtype=torch.bool)
    assert find_pool(name)(torch.zeros((0, 2, 3, 3)), none).shape == (0, 2)


def test_canonical_specs() -> None:
    wanted = {
        "gap": "gap",
        "gmp": "gmp",
        "lse": "lse:1",
        "lse:1.0": "lse:1",
        "lse:2.50": "lse:2.5",
        "lse:1e-9": "lse:1e-09",
        "gwrp": "gwrp:0.996",
        "gwrp:.996": "gwrp:0.996",
        "gwrp:-0": "gwrp:0",
        "gwrp:1": "gwrp:1",
    }
    assert {spec: canonical_pool(spec) for spec in wanted} == wanted
    assert all(canonical_pool(spec) == spec for spec in wanted.values())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mean", '^pool must be gap, gmp, lse, lse:R, gwrp or gwrp:Q, got "mean"'),
        ("", 'gwrp or gwrp:Q, got ""'),
        ("gap:1", 'gwrp or gwrp:Q, got "gap:1"'),
        ("gmp:", 'gwrp or gwrp:Q, got "gmp:"'),
        ("lse:", '^pool lse:R: R must be a number above 0, got "lse:"'),
        ("lse:0", 'above 0, got "lse:0"'),
        ("lse:-1", 'above 0, got "lse:-1"'),
        ("lse:inf", 'above 0, got "lse:inf"'),
        ("lse:nan", 'above 0, got "lse:nan"'),
        ("lse:a", 'above 0, got "lse:a"'),
        ("gwrp:1.1", r'^pool gwrp:Q: Q must be a number in 0 \.\.\. 1, got "gwrp:1.1"'),
        ("gwrp:-0.1", 'got "gwrp:-0.1"'),
        ("gwrp:nan", 'got "gwrp:nan"'),
    ],
)
def test_specs_that_are_none(spec: str, message: str) -> None:
    for read in (find_pool, canonical_pool):
        with pytest.raises(ModelError, match=message):
            read(spec)
