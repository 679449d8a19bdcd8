"""Several scales, padding and sliding windows, against a plain loop over pictures and cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsltool.errors import ModelError
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.catalogue import find_architecture
from wsltool.nets.closed_form import find_closed_form
from wsltool.nets.inference import run_cams
from wsltool.nets.map_grid import map_grid, usable_scales
from wsltool.nets.models import Model
from wsltool.nets.preprocess import Preprocess
from wsltool.nets.window import Window

CPU = torch.device("cpu")
SIX = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
SIZES = [(37, 61), (90, 23), (1, 50), (64, 64), (5, 1), (1, 1)]
"""Rows and columns of the pictures."""


class Sliding(nn.Module):
    """One convolution as large as the window, a ReLU, class maps and their mean; no padding."""

    def __init__(self, window: Window, num_classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.features = nn.Sequential(nn.Conv2d(3, 6, window.size_px, window.stride_px), nn.ReLU())
        self.head = nn.Conv2d(6, num_classes, 1)
        nn.init.normal_(self.head.weight)
        nn.init.normal_(self.head.bias)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        scores_NK: Tensor = self.head(self.features(x_NCHW)).mean((2, 3))
        return scores_NK


def sliding(
    fit: str = "letterbox",
    *,
    size: int = 64,
    window: Window = Window(16, 8),  # noqa: B008
    told: bool = True,
    **options: Any,
) -> Model:
    """A sliding-window model; one that is not `told` takes its cells for the whole input."""
    module = Sliding(window)
    form = find_closed_form(module, "sliding", 64)
    return Model(
        network=CamNetwork(module, form, window=window if told else None, **options),
        arch="sliding",
        class_name=None,
        class_id=None,
        preprocess=Preprocess(size, fit=fit),  # type: ignore[arg-type]
        loss="logistic",
        fingerprint="",
    )


def picture(row: int) -> NDArray[np.uint8]:
    """Blocks of noise, so that what is where matters."""
    rows, cols = SIZES[row]
    coarse = np.random.default_rng(row).integers(0, 256, (rows // 6 + 1, cols // 6 + 1, 3))
    return np.kron(coarse, np.ones((6, 6, 1)))[:rows, :cols].astype(np.uint8)


def every(rows: Sequence[int], score_NK: NDArray[np.float32]) -> NDArray[np.int64]:
    """All classes in their own order."""
    return np.tile(np.arange(score_NK.shape[1]), (len(rows), 1))


Arrays = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def found(model: Model, rows: Sequence[int], **options: Any) -> Arrays:
    """Scores, maps and extents of all classes."""
    (batch,) = run_cams(model, picture, [list(rows)], every, device=CPU, **options)
    assert batch.error == [None] * len(rows)
    return batch.class_score_NK, batch.map_NSHW, batch.extent_N4


def pool_loop(name: str, cells: NDArray[np.float64]) -> float:
    if name == "gap":
        return float(cells.mean())
    if name == "gmp":
        return float(cells.max())
    if name == "lse:2":
        return float(np.log(np.mean(np.exp(2 * cells))) / 2)
    weight = 0.99 ** (1681 / len(cells) * np.arange(len(cells)))
    return float((weight * np.sort(cells)[::-1]).sum() / weight.sum())


def counted(centre: list[float], low: float, high: float) -> list[int]:
    """Cells of one axis with their centre between two edges, else the nearest to the middle."""
    inside = [p for p, c in enumerate(centre) if low - 1e-5 <= c <= high + 1e-5]
    if inside:
        return inside
    away = [abs(c - (low + high) / 2) for c in centre]
    return [p for p, a in enumerate(away) if a <= min(away) + 1e-5]


def centres(num: int, input_px: int, window: Window | None) -> list[float]:
    if window is None:
        return [(p + 0.5) / num for p in range(num)]
    return [(window.size_px / 2 + window.stride_px * p) / input_px for p in range(num)]


def at(
    cells: NDArray[np.float64], where: list[float], step: float, place: float
) -> NDArray[np.float64] | None:
    """The value along the first axis at a place, None beyond the outer cells."""
    if not where[0] - step / 2 - 1e-9 <= place <= where[-1] + step / 2 + 1e-9:
        return None
    if place <= where[0]:
        return cells[0]
    if place >= where[-1]:
        return cells[-1]
    low = max(p for p, w in enumerate(where) if w <= place)
    share = (place - where[low]) / (where[low + 1] - where[low])
    return cells[low] * (1 - share) + cells[low + 1] * share


def one_scale(model: Model, row: int, scale: float, *, flip: bool) -> tuple[Any, ...]:
    """Scores, maps (class, row, column) and centres of the cells, for one picture."""
    preset, net = model.preprocess.scaled(scale), model.network
    shown = picture(row)
    input_CHW = preset.apply(shown)[0].astype(np.float64)
    if flip:
        input_CHW = input_CHW[:, :, ::-1]
    mean, std = np.array(preset.mean)[:, None, None], np.array(preset.std)[:, None, None]
    x = torch.tensor((input_CHW / 255 - mean) / std, dtype=torch.float32)[None]
    with torch.inference_mode():
        feature_CHW = net.module.get_submodule("features")(x)[0].double().numpy()
    map_KHW = np.einsum("kc,chw->khw", net.class_weight.detach().double().numpy(), feature_CHW)
    size = preset.size_px
    where = [centres(n, size, net.window) for n in map_KHW.shape[1:]]
    x0, y0, x1, y1 = preset.inside(shown.shape[1], shown.shape[0])
    if flip:
        x0, x1 = 1 - x1, 1 - x0
    used = np.ones(map_KHW.shape[1:], bool)
    if not net.count_padding:
        used[:] = False
        used[np.ix_(counted(where[0], y0, y1), counted(where[1], x0, x1))] = True
    bias = net.class_bias.detach().numpy()
    score = [pool_loop(net.pool, m[used]) + b for m, b in zip(map_KHW, bias, strict=True)]
    if flip:
        map_KHW, where[1] = map_KHW[:, :, ::-1], [1 - c for c in where[1][::-1]]
    return np.array(score), map_KHW, where, size


def resample_loop(model: Model, source: tuple[Any, ...], like: tuple[Any, ...]) -> Any:
    """Maps of one scale at the cell centres of another, NaN where it does not reach."""
    _, map_KHW, where, size = source
    window = model.network.window
    wanted = like[2]
    result = np.full((len(map_KHW), len(wanted[0]), len(wanted[1])), np.nan)
    steps = [window.stride_px / size if window else 1 / len(centre) for centre in where]
    for i, y in enumerate(wanted[0]):
        row = at(np.moveaxis(map_KHW, 1, 0), where[0], steps[0], y)
        for j, x in enumerate(wanted[1]):
            cell = None if row is None else at(np.moveaxis(row, 1, 0), where[1], steps[1], x)
            if cell is not None:
                result[:, i, j] = cell
    return result


def loop(model: Model, row: int, scales: Sequence[float], *, flip: bool = False) -> Any:
    """Score and maps of one picture, one scale after the other."""
    scores, scale_maps = [], []
    for scale in scales:
        plain = one_scale(model, row, scale, flip=False)
        scores.append(plain[0])
        if flip:
            other = one_scale(model, row, scale, flip=True)
            scores.append(other[0])
            back = resample_loop(model, other, plain)
            mean = (plain[1] + np.where(np.isnan(back), plain[1], back)) / 2
            plain = (plain[0], mean, *plain[2:])
        scale_maps.append(plain)
    finest = max(scale_maps, key=lambda made: made[3])
    merged = np.nanmax([resample_loop(model, made, finest) for made in scale_maps], axis=0)
    return np.mean(scores, axis=0), merged


@pytest.mark.parametrize("pool", ["gap", "gmp", "lse:2", "gwrp:0.99"])
@pytest.mark.parametrize("fit", ["letterbox", "warp"])
def test_pools_and_paddings(pool: str, fit: str) -> None:
    rows = range(len(SIZES))
    for options in ({}, {"count_padding": True}):
        model = sliding(fit, pool=pool, **options)
        score_NK, map_NKHW, _ = found(model, rows, scales=(0.5, 1.3))
        for row in rows:
            score, maps = loop(model, row, (0.5, 1.3))
            assert score_NK[row] == pytest.approx(score, rel=1e-4, abs=1e-4)
            assert map_NKHW[row] == pytest.approx(maps, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("flip", [True, False])
def test_six_scales(told: bool, flip: bool) -> None:
    """Sizes 31, 43, 61, 85, 122, 171: no scale's cells end where another's do."""
    model = sliding(size=61, pool="gmp", told=told)
    score_NK, map_NKHW, _ = found(model, range(6), scales=SIX, flip=flip)
    assert map_NKHW.shape == (6, 3, 20, 20)
    for row in range(6):
        score, maps = loop(model, row, SIX, flip=flip)
        assert score_NK[row] == pytest.approx(score, rel=1e-4, abs=1e-4)
        assert map_NKHW[row] == pytest.approx(maps, rel=1e-4, abs=1e-4)


def test_the_order_of_the_scales_is_of_no_account() -> None:
    model = sliding(size=61, pool="gmp")
    first, second = (found(model, range(6), scales=s, flip=True) for s in (SIX, SIX[::-1]))
    for one, two in zip(first, second, strict=True):
        assert one == pytest.approx(two, rel=1e-5, abs=1e-5)


def test_one_scale_is_the_network_as_it_is() -> None:
    """The same numbers as the bare network, bit for bit, where nothing is padded."""
    model = sliding("warp")
    score_NK, map_NKHW, extent_N4 = found(model, [0, 1])
    x = np.stack([model.preprocess.apply(picture(row))[0] for row in (0, 1)])
    with torch.inference_mode():
        wanted_NK = model.network.module(model.preprocess.normalise(torch.from_numpy(x)))
    assert score_NK == pytest.approx(wanted_NK.numpy(), abs=1e-6)
    assert map_NKHW.shape[2:] == map_grid(model) == (7, 7)
    assert found(sliding("warp", told=False), [0, 1])[0].tobytes() == score_NK.tobytes()
    # 7 cells of 8 pixels, the first from pixel 4 of 64; pictures are 61×37 and 23×90
    wide, high = np.array([61, 37, 61, 37]), np.array([23, 90, 23, 90])
    part = np.array([4, 4, 60, 60]) / 64
    assert extent_N4 == pytest.approx(np.stack([wide * part, high * part]), rel=1e-6)
    assert found(sliding("warp", told=False), [0, 1])[2].tolist() == [
        [0, 0, 61, 37],
        [0, 0, 23, 90],
    ]


def spot(size: tuple[int, int], row: int, col: int) -> NDArray[np.uint8]:
    """A light of 12×12 pixels on the mean colour."""
    picture_HWC = np.full((*size, 3), (124, 116, 104), np.uint8)
    picture_HWC[row : row + 12, col : col + 12] = 250
    return picture_HWC


class Brightness(Sliding):
    """The mean grey of the window, so the map peaks where the light is."""

    def __init__(self, window: Window) -> None:
        super().__init__(window, 2)
        with torch.no_grad():
            for part in self.parameters():
                part.fill_(1.0 if part.ndim == 1 else 0.01)
            self.head.weight[1] *= -1


@pytest.mark.parametrize("scales", [(1.0,), (0.7, 1.0, 2.8)])
@pytest.mark.parametrize(("size", "at_px"), [((60, 120), (30, 90)), ((120, 60), (70, 20))])
def test_the_extent_leads_back_to_the_light(
    size: tuple[int, int], at_px: tuple[int, int], scales: tuple[float, ...]
) -> None:
    """Pad offset and the window's border are removed: the best cells' middle is the light's."""
    window = Window(16, 4)
    module = Brightness(window)
    model = sliding(size=64, window=window, pool="gmp")
    model.network = CamNetwork(module, model.network.form, window=window, pool="gmp")
    shown = spot(size, *at_px)
    (batch,) = run_cams(model, lambda _row: shown, [[0]], every, device=CPU, scales=scales)
    map_HW, extent_4 = batch.map_NSHW[0, 0], batch.extent_N4[0]
    best_RC = np.argwhere(map_HW >= map_HW.max() - 0.01 * np.ptp(map_HW))  # several hold it all
    cell_px = (extent_4[2:] - extent_4[:2]) / map_HW.shape[::-1]
    middle_xy = extent_4[:2] + (best_RC.mean(0)[::-1] + 0.5) * cell_px
    assert np.abs(middle_xy - [at_px[1] + 6, at_px[0] + 6]).max() <= 0.6 * cell_px[0]


def test_extent_of_a_padded_sliding_window_by_hand() -> None:
    """100×50 in 64×64: 32 rows, 16 above; 7 cells from pixel 4 to 60; 1.5625 pixels a pixel."""
    model = sliding(pool="gmp")
    shown = np.zeros((50, 100, 3), np.uint8)
    (batch,) = run_cams(model, lambda _row: shown, [[0]], every, device=CPU)
    scale = 100 / 64
    wanted = [4 * scale, (4 - 16) * scale, 60 * scale, (60 - 16) * scale]
    assert batch.extent_N4[0] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("fit", ["letterbox", "crop", "warp"])
def test_the_extent_is_the_finest_scales(fit: str) -> None:
    """Exact whatever stands beside it, also where the letterbox rounds otherwise."""
    for told in (True, False):
        model = sliding(fit, size=61, told=told)
        several = found(model, range(6), scales=(2.8, 0.5, 1.0))[2]
        alone = found(model, range(6), scales=(2.8,))[2]
        assert several.tolist() == alone.tolist()


def test_scales_smaller_than_the_window_are_left_out() -> None:
    """64 pixels: the window of 16 fits from scale 1/4 on."""
    model = sliding()
    assert usable_scales(model, (0.2, 0.25, 1.0)) == [0.25, 1.0]
    some, wanted = (found(model, range(6), scales=s) for s in ((0.2, 0.25, 1.0), (0.25, 1.0)))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(some, wanted, strict=True))
    assert usable_scales(sliding(told=False), (0.2, 1.0)) == [0.2, 1.0]
    message = (
        r"^--scales 0\.1, 0\.2: the largest input has 13 pixels a side, sliding needs at least 16\."
        r" Pass larger --scales or --input-size\.$"
    )
    with pytest.raises(ModelError, match=message):
        found(model, range(6), scales=(0.1, 0.2))


def test_a_base_size_below_the_window() -> None:
    """The network is usable at its larger scales alone."""
    model = sliding(size=10)
    assert found(model, range(6), scales=(1.0, 4.0))[1].shape == (6, 3, 4, 4)


def test_no_slot() -> None:
    """No slot at all is borne at several scales too."""
    (batch,) = run_cams(
        sliding(), picture, [[0]], lambda rows, _: np.zeros((len(rows), 0)), device=CPU,
        scales=(0.5, 1.0), flip=True,
    )  # fmt: skip
    assert batch.map_NSHW.shape == (1, 0, 7, 7)


def test_oquabs_network() -> None:
    """Random weights; 250 and 350 pixels: 1×1 and 4×4 windows of 224, 32 apart."""
    architecture = find_architecture("alexnet_sliding")
    torch.manual_seed(0)
    module = architecture.build()
    form = find_closed_form(module, "alexnet_sliding")
    model = sliding()
    model.preprocess = architecture.preprocess
    model.network = CamNetwork(module, form, pool="gmp", window=architecture.window).eval()
    shown = np.random.default_rng(0).integers(0, 256, (300, 500, 3)).astype(np.uint8)
    (batch,) = run_cams(model, lambda _row: shown, [[0]], every, device=CPU, scales=(0.5, 0.7))
    assert map_grid(model, 0.5) == (1, 1)
    assert batch.map_NSHW.shape[2:] == map_grid(model, 0.7) == (4, 4)
    wide = 500 / 350  # 350 × 210 pixels, 70 rows above
    edge = np.array([96, 96 - 70, 96 + 128, 96 + 128 - 70]) * wide
    assert batch.extent_N4[0] == pytest.approx(edge, rel=1e-6)
    score = []
    for scale, rows in ((0.5, slice(0, 1)), (0.7, slice(0, 4))):
        preset = architecture.preprocess.scaled(scale)
        x_NCHW = preset.normalise(torch.from_numpy(preset.apply(shown)[0])[None])
        with torch.inference_mode():
            feature_NCHW = model.network(x_NCHW).feature_NCHW
            classes = torch.arange(model.num_classes)[None]
            map_KHW = model.network.class_maps(feature_NCHW, classes)[0]
        # rows are centred on pixels 112, 144, 176, 208 of 350, all between 70 and 280
        score.append(map_KHW[:, rows].amax((1, 2)) + model.network.class_bias)
    wanted = torch.stack(score).mean(0).detach().numpy()
    assert batch.class_score_NK[0] == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_empty_slots_stay_zero() -> None:
    def first(rows: Sequence[int], _score_NK: NDArray[np.float32]) -> NDArray[np.int64]:
        return np.array([[0, -1]] * len(rows))

    (batch,) = run_cams(sliding(), picture, [[0]], first, device=CPU, scales=SIX, flip=True)
    assert not batch.map_NSHW[0, 1].any()
    assert batch.map_NSHW[0, 0].any()


def test_half_precision_and_workers() -> None:
    model = sliding(pool="lse:2")
    exact = found(model, range(6), scales=SIX)
    again = found(model, range(6), scales=SIX, workers=1)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(exact, again, strict=True))
    half = found(model, range(6), scales=SIX, precision="bf16")
    for one, two in zip(exact, half, strict=True):
        assert two == pytest.approx(one, abs=0.05 * float(np.abs(one).max()))
