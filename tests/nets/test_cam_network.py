"""Which cells take part in pooling, and whose scores are used."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from wsltool.errors import ModelError
from wsltool.nets.architectures import SmallGap
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.closed_form import ClosedForm, find_closed_form
from wsltool.nets.pooling import find_pool
from wsltool.nets.window import Window

FULL = [0.0, 0.0, 1.0, 1.0]
FORM = ClosedForm("features", False, "head")


class Cells(nn.Module):
    """Mean colour of every ``px`` by ``px`` pixels, a linear head, their mean."""

    def __init__(self, px: int = 4, num_classes: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.AvgPool2d(px)
        self.head = nn.Linear(3, num_classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        scores_NK: Tensor = self.head(self.features(x_NCHW).mean((2, 3)))
        return scores_NK


class Rectified(nn.Module):
    """As SqueezeNet: the bias and a ReLU between maps and mean."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.head(x_NCHW).relu().mean((2, 3))


def pictures(rows: int, cols: int, num: int = 2) -> Tensor:
    return torch.randn((num, 3, rows, cols), generator=torch.Generator().manual_seed(7))


def network(pool: str = "gap", **options: object) -> CamNetwork:
    return CamNetwork(Cells(), FORM, pool=pool, **options).eval()  # type: ignore[arg-type]


def valid(inside: list[list[float]], grid: tuple[int, int], **options: object) -> list[list[str]]:
    """The mask of each image, a row of cells a word of 0 and 1."""
    input_px = options.pop("input_px", None)
    net = network(**options)  # type: ignore[arg-type]
    mask = net.valid_cells(torch.tensor(inside), grid, input_px)  # type: ignore[arg-type]
    assert mask is not None
    assert mask.dtype == torch.bool
    assert mask.shape == (len(inside), 1, *grid)
    return [["".join(str(int(cell)) for cell in row) for row in image[0]] for image in mask]


def test_window_by_hand() -> None:
    """A 2048×1024 input has 58×26 cells; the first is centred on pixel 112."""
    window = Window(224, 32)
    assert window.covered(58, 2048) == (96 / 2048, (96 + 58 * 32) / 2048)
    assert window.covered(26, 1024) == (96 / 1024, (96 + 26 * 32) / 1024)
    assert window.covered(1, 224) == (96 / 224, 128 / 224)
    assert Window(8, 8).covered(5, 40) == (0.0, 1.0)


@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_windows_that_are_none(value: object) -> None:
    for name in ("size_px", "stride_px"):
        with pytest.raises(ModelError, match=rf"^window: {name} must be a whole .*, got {value}"):
            Window(**({"size_px": 8, "stride_px": 4} | {name: value}))  # type: ignore[arg-type]


def test_cells_whose_centre_is_inside() -> None:
    """Four columns, centres at 1/8, 3/8, 5/8, 7/8; the edge belongs to the picture."""
    assert valid([[0.25, 0, 0.75, 1], [0, 0, 0.625, 1], [0.1251, 0, 1, 1]], (1, 4)) == [
        ["0110"],
        ["1110"],
        ["0111"],
    ]
    assert valid([[0, 0.3, 1, 0.7]], (3, 2)) == [["00", "11", "00"]]


def test_where_no_centre_is_inside() -> None:
    """The nearest cells of that axis; two if they are equally near."""
    assert valid([[0, 0.4, 1, 0.41]], (4, 3)) == [["000", "111", "000", "000"]]
    assert valid([[0, 0.49, 1, 0.51]], (4, 3)) == [["000", "111", "111", "000"]]
    assert valid([[0.99, 0.0, 1, 0.01]], (2, 2)) == [["01", "00"]]


def test_cells_of_a_window() -> None:
    """16 pixels, window 8, stride 4: three cells centred on pixels 4, 8, 12."""
    options = {"window": Window(8, 4), "input_px": (16, 16)}
    assert valid([[0, 0.3, 1, 0.7]], (3, 3), **options) == [["000", "111", "000"]]
    assert valid([[0.25, 0, 1, 0.74]], (3, 3), **options) == [["111", "111", "000"]]
    assert valid([[0.8, 0, 1, 1]], (3, 3), **options) == [["001", "001", "001"]]


def test_all_cells_count() -> None:
    part, full = torch.tensor([[0, 0.3, 1, 0.7]]), torch.tensor([FULL])
    assert network().valid_cells(None, (4, 4)) is None
    assert network().valid_cells(full, (4, 4)) is None
    assert network().valid_cells(torch.tensor([[0.0, 0.1, 1.0, 0.9]]), (4, 4)) is None
    assert network(count_padding=True).valid_cells(part, (4, 4)) is None
    assert network().valid_cells(torch.zeros((0, 4)), (4, 4)) is None


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(*[st.floats(0, 1, width=32)] * 4), st.integers(1, 9), st.integers(1, 9), st.booleans()
)
def test_mirrored_and_never_empty(
    corners: tuple[float, ...], rows: int, cols: int, turned: bool
) -> None:
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    net = network()

    def cells(inside: list[float], grid: tuple[int, int]) -> Tensor:
        mask = net.valid_cells(torch.tensor([inside]), grid)
        return torch.ones((1, 1, *grid), dtype=torch.bool) if mask is None else mask

    mask = cells([x0, y0, x1, y1], (rows, cols))
    assert mask.any()
    if turned:
        assert torch.equal(cells([y0, x0, y1, x1], (cols, rows)), mask.transpose(2, 3))
    else:
        centre = (np.arange(cols) + 0.5) / cols
        if np.abs(np.subtract.outer(centre, [x0, x1])).min() > 1e-4:
            assert torch.equal(cells([1 - x1, y0, 1 - x0, y1], (rows, cols)), mask.flip(3))


@pytest.mark.parametrize("pool", ["gap", "gmp", "lse:3", "gwrp:0.99"])
def test_padded_scores_are_those_of_the_picture_alone(pool: str) -> None:
    """Two pictures, one of 8 × 16 pixels in the middle of 16 × 16, the other whole."""
    x_NCHW = pictures(16, 16)
    inside = torch.tensor([[0, 0.25, 1, 0.75], FULL])
    net = network(pool)
    feature_NCHW, logit_NK = net(x_NCHW, inside)
    assert torch.allclose(logit_NK[:1], net(x_NCHW[:1, :, 4:12]).logit_NK, atol=1e-6)
    assert torch.allclose(logit_NK[1:], net(x_NCHW[1:]).logit_NK, atol=1e-6)
    assert torch.equal(net.pooled_logits(feature_NCHW, inside), logit_NK)
    counted = network(pool, count_padding=True)
    assert torch.equal(counted(x_NCHW, inside).logit_NK, net(x_NCHW).logit_NK)
    assert not torch.allclose(counted(x_NCHW, inside).logit_NK[0], logit_NK[0])


@pytest.mark.parametrize("pool", ["gap", "gmp", "lse:3", "gwrp:0.99"])
def test_scores_by_hand(pool: str) -> None:
    x_NCHW = pictures(12, 8)
    net = network(pool)
    head = net.head
    map_NKHW = torch.einsum("kc,nchw->nkhw", head.weight, nn.functional.avg_pool2d(x_NCHW, 4))
    assert torch.allclose(net(x_NCHW).logit_NK, find_pool(pool)(map_NKHW) + head.bias, atol=1e-6)


def test_own_scores_only_where_they_are_the_pooling() -> None:
    """The architecture's output is told apart by a trick: its head is shifted afterwards."""
    net = network()
    net.module.register_forward_hook(lambda _part, _args, output: output + 100)
    x_NCHW = pictures(16, 16, 1)
    far = torch.tensor([[0, 0.1, 1, 0.9]])  # all centres inside
    for inside in (None, torch.tensor([FULL]), far):
        assert (net(x_NCHW, inside).logit_NK > 50).all()
    assert (net(x_NCHW, torch.tensor([[0, 0.3, 1, 0.7]])).logit_NK < 50).all()
    other = network("lse:1e-6")
    other.module.register_forward_hook(lambda _part, _args, output: output + 100)
    assert (other(x_NCHW).logit_NK < 50).all()


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize("pool", ["gap", "gmp"])
def test_rectified(pool: str, rectified: bool) -> None:
    """The bias and the ReLU come before any pooling, or the bias after it."""
    module = Rectified()
    form = ClosedForm("head", False, "head", rectified=True)
    net = CamNetwork(module, form, pool=pool, rectified=rectified).eval()
    x_NCHW, inside = pictures(4, 4), torch.tensor([[0, 0, 1, 0.5]] * 2)
    map_NKHW = module.head(x_NCHW)[:, :, :2]
    wanted_NK = find_pool(pool)(map_NKHW.relu() if rectified else map_NKHW)
    assert torch.allclose(net(x_NCHW, inside).logit_NK, wanted_NK, atol=1e-6)
    whole_NK = find_pool(pool)(module.head(x_NCHW).relu() if rectified else module.head(x_NCHW))
    assert torch.allclose(net(x_NCHW).logit_NK, whole_NK, atol=1e-6)


class Dropping(Cells):
    """Dropout between pooling and head."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(p)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        scores_NK: Tensor = self.head(self.drop(self.features(x_NCHW).mean((2, 3))))
        return scores_NK


@pytest.mark.parametrize("pool", ["gap", "gmp", "lse:3", "gwrp:0.99"])
def test_dropout_under_every_head(pool: str) -> None:
    """Channels are dropped whole and the others scaled, in training alone."""
    x_NCHW, inside = pictures(16, 16), torch.tensor([[0, 0.25, 1, 0.75]] * 2)
    none = CamNetwork(Dropping(1.0), FORM, pool=pool)
    assert torch.equal(none.train()(x_NCHW, inside).logit_NK, none.class_bias.expand(2, 2))
    evaluated_NK = none.eval()(x_NCHW, inside).logit_NK
    assert torch.allclose(evaluated_NK, network(pool)(x_NCHW, inside).logit_NK)
    half = CamNetwork(Dropping(0.5), FORM, pool=pool).train()
    feature_NCHW, logit_NK = half(x_NCHW, inside)
    wanted = []
    for factors in itertools.product([0.0, 2.0], repeat=3):
        kept_NCHW = feature_NCHW * torch.tensor(factors)[:, None, None]
        wanted.append(half.pooled_logits(kept_NCHW, inside))
    assert (torch.stack(wanted) - logit_NK).abs().amax(2).amin(0).max() < 1e-5
    assert not any(part._forward_hooks for part in half.modules())


def test_the_pool_is_kept_with_its_parameter() -> None:
    assert network("lse").pool == "lse:1"
    assert network("gwrp").pool == "gwrp:0.996"
    with pytest.raises(ModelError, match=r'^pool must be gap, gmp, .*, got "max"'):
        network("max")


def test_a_window_needs_the_input_size() -> None:
    net = network("gmp", window=Window(8, 4))
    feature_NCHW, part = torch.zeros((1, 3, 3, 3)), torch.tensor([[0, 0, 1, 0.5]])
    with pytest.raises(ModelError, match=r"sliding-window network need input_px, got None"):
        net.pooled_logits(feature_NCHW, part)
    assert net.pooled_logits(feature_NCHW, part, input_px=(16, 16)).shape == (1, 2)
    assert net.pooled_logits(feature_NCHW).shape == (1, 2)
    assert net.covered((3, 3), (16, 16)) == ((0.125, 0.875), (0.125, 0.875))
    assert network().covered((3, 3), None) == ((0.0, 1.0), (0.0, 1.0))


@pytest.mark.parametrize("pool", ["gap", "gmp", "lse:3", "gwrp:0.99"])
def test_half_precision(pool: str) -> None:
    module = SmallGap(3)
    net = CamNetwork(module, find_closed_form(module, "own"), pool=pool).eval()
    x_NCHW, inside = pictures(48, 48), torch.tensor([[0, 0.25, 1, 0.75], FULL])
    with torch.inference_mode():
        exact_NK = net(x_NCHW, inside).logit_NK
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half_NK = net(x_NCHW, inside).logit_NK
    assert half_NK.dtype == torch.float32
    assert torch.allclose(half_NK, exact_NK, atol=0.05 * float(exact_NK.abs().max()))


def test_gradients_stay_out_of_the_padding() -> None:
    net = network("gmp")
    x_NCHW = pictures(16, 16, 1).requires_grad_()
    net(x_NCHW, torch.tensor([[0, 0.25, 1, 0.75]])).logit_NK.sum().backward()
    assert x_NCHW.grad is not None
    assert not x_NCHW.grad[:, :, :4].any()
    assert not x_NCHW.grad[:, :, 12:].any()
    assert x_NCHW.grad[:, :, 4:12].any()
