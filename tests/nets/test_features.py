"""From pictures to activations: against a plain forward hook, bad pictures, windows, bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.nets.conftest import Files, Squares
from wsltool.errors import ModelError, StoreCorruptError
from wsltool.nets.architectures import SmallGap
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.closed_form import find_closed_form
from wsltool.nets.features import FeatureBatch, run_features
from wsltool.nets.inference import run_cams
from wsltool.nets.layers import find_layer
from wsltool.nets.models import Model, load_model
from wsltool.nets.preprocess import Preprocess
from wsltool.nets.window import Window

CPU = torch.device("cpu")
BATCHES = [[0, 1, 2], [3, 4], [5]]


def build(module: nn.Module | None = None, size_px: int = 64, **options: Any) -> Model:
    torch.manual_seed(0)
    module = module or SmallGap(3)
    network = CamNetwork(module, find_closed_form(module, "own"), **options)
    return Model(network.eval(), "own", None, None, Preprocess(size_px), "softmax", "")


def run(model: Model, name: str | None = None, load: Any = None, **options: Any) -> Any:
    """Return (feature, extent, errors) of all rows."""
    options = {"device": CPU, "batches": BATCHES} | options
    layer, batches = find_layer(model, name), options.pop("batches")
    found = list(run_features(model, load or Squares(), batches, layer, **options))
    assert [batch.rows for batch in found] == batches
    joined = [np.concatenate([getattr(one, n) for one in found]) for n in FIELDS]
    return (*joined, [text for batch in found for text in batch.error])


FIELDS = ("feature_NCHW", "extent_N4")


def by_hook(model: Model, place: str, rows: list[int], load: Any = None) -> NDArray[Any]:
    """Return what a plain hook catches, one picture after the other."""
    kept: list[Tensor] = []
    hook = model.network.module.get_submodule(place).register_forward_hook(
        lambda _part, _args, output: kept.append(output.clone())
    )
    for row in rows:
        picture = torch.from_numpy(model.preprocess.apply((load or Squares())(row))[0])[None]
        with torch.inference_mode():
            model.network.module(model.preprocess.normalise(picture))
    hook.remove()
    return torch.cat(kept).numpy()


def test_activations_are_those_of_a_plain_hook() -> None:
    """Also of a layer on whose output a ReLU works in place."""
    model = build()
    for place in ("features", "features.1", "features.5"):
        feature_NCHW, extent_N4, error = run(model, place)
        wanted = by_hook(model, place, list(range(6)))
        assert (feature_NCHW.dtype, feature_NCHW.shape) == (np.float32, wanted.shape)
        assert feature_NCHW == pytest.approx(wanted, rel=1e-4, abs=1e-5)
        assert extent_N4.dtype == np.float32
        assert extent_N4.tolist() == [[0, 0, 56, 40]] * 6
        assert error == [None] * 6
    assert run(model, "features.1")[0].min() < 0


def test_the_features_under_the_head_give_the_maps() -> None:
    """Zhou et al. 2016, eq. 2: map_k = w_k · f."""
    model = build()
    feature_NCHW = run(model)[0]
    class_NS = np.tile(np.arange(3), (3, 1))
    maps = run_cams(model, Squares(), BATCHES, lambda rows, _: class_NS[: len(rows)], device=CPU)
    map_NSHW = np.concatenate([batch.map_NSHW for batch in maps])
    weight_KC = model.cam_network.class_weight.detach().numpy()
    wanted = np.einsum("kc,nchw->nkhw", weight_KC, feature_NCHW)
    assert map_NSHW == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_same_bytes_with_and_without_workers_and_again(one_thread: object) -> None:
    model, random_before = build(), torch.get_rng_state()
    first = run(model)[0].tobytes()
    assert run(model)[0].tobytes() == first
    assert run(model, workers=2)[0].tobytes() == first
    assert torch.equal(torch.get_rng_state(), random_before)
    parts = list(model.network.modules())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in parts)


def test_a_bad_picture_spoils_nothing_else(one_thread: object) -> None:
    model = build()
    good, bad = run(model), run(model, load=Squares(bad_rows=(1, 5)))
    assert bad[2] == [
        None,
        "JPEG is truncated at byte 1.",
        *[None] * 3,
        "JPEG is truncated at byte 5.",
    ]
    for one, other in zip(good[:2], bad[:2], strict=True):
        assert one[[0, 2, 3, 4]].tobytes() == other[[0, 2, 3, 4]].tobytes()
        assert not other[[1, 5]].any()


class Poisoned(SmallGap):
    """Gives infinity where a picture's first pixel is red."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        poison_N = torch.where(x_NCHW[:, 0, 0, 0] > 2.2, torch.inf, 0.0)
        return super().forward(x_NCHW + poison_N[:, None, None, None])


def red(row: int) -> NDArray[np.uint8]:
    picture_HWC = Squares()(row).copy()
    if row == 3:
        picture_HWC[:8, :8] = [255, 0, 0]
    return picture_HWC


def test_a_picture_on_which_the_layer_is_not_finite() -> None:
    model = build(Poisoned(3))
    feature_NCHW, extent_N4, error = run(model, "features.0", red)
    line = "the network's layer features.0 is not finite (NaN or infinity)."
    assert error == [None, None, None, line, None, None]
    assert np.isfinite(feature_NCHW).all()
    assert not feature_NCHW[3].any()
    assert not extent_N4[3].any()


@pytest.mark.parametrize(
    ("fit", "size_px", "extent"),
    [("crop", 40, [8, 0, 48, 40]), ("letterbox", 56, [0, -8, 56, 48])],
)
def test_the_extent_of_every_fit(fit: Any, size_px: int, extent: list[float]) -> None:
    model = build()
    model.preprocess = Preprocess(size_px, fit=fit)
    for place in ("features", "features.0"):
        assert run(model, place)[1].tolist() == [extent] * 6


class Sliding(nn.Module):
    """A layer ahead of the window, the window, and two layers behind it; no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = nn.Conv2d(3, 4, 3, padding=1)
        self.window = nn.Conv2d(4, 5, 16, 8)
        self.behind = nn.Conv2d(5, 6, 1)
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        feature_NCHW = self.behind(self.window(self.ahead(x_NCHW)).relu()).relu()
        scores_NK: Tensor = self.head(feature_NCHW).mean((2, 3))
        return scores_NK


def test_cells_of_a_sliding_window_cover_what_the_maps_cover() -> None:
    """7 × 7 windows of 16 pixels, 8 apart, on 64: cells of 8 pixels from pixel 4 to 60."""
    model = build(Sliding(), window=Window(16, 8))
    assert find_layer(model).name == "head:input"
    covered = [[56 / 16, 40 / 16, 56 * 15 / 16, 40 * 15 / 16]] * 6
    for place in (None, "window", "behind"):
        assert run(model, place)[1] == pytest.approx(np.array(covered), abs=1e-5)
    feature_NCHW, extent_N4, _ = run(model, "ahead")
    assert feature_NCHW.shape[1:] == (4, 64, 64)
    assert extent_N4.tolist() == [[0, 0, 56, 40]] * 6


def test_half_precision_comes_out_as_float32() -> None:
    feature_NCHW = run(build(), precision="bf16")[0]
    assert feature_NCHW.dtype == np.float32
    assert feature_NCHW == pytest.approx(run(build())[0], abs=0.1)


def lost(row: int) -> NDArray[np.uint8]:
    raise StoreCorruptError(f"chunk {row} is missing.")


def test_what_is_no_bad_picture_stops() -> None:
    with pytest.raises(StoreCorruptError, match=r"^chunk 0 is missing\.$"):
        run(build(), load=lost)


def test_it_computes_only_what_is_asked_for() -> None:
    """The next batch is read ahead at most; nothing is computed before it is asked for."""
    seen: list[int] = []

    def load(row: int) -> NDArray[np.uint8]:
        seen.append(row)
        return Squares()(row)

    model = build()
    found = run_features(model, load, BATCHES, find_layer(model), device=CPU)
    first: FeatureBatch = next(found)
    found.close()
    assert first.rows == seen == [0, 1, 2]


def test_another_size_than_the_networks_only_one() -> None:
    model = build()
    layer = find_layer(model)
    model.network.form = type(model.cam_network.form)("features", False, "fc", False, (32, 32))
    with pytest.raises(ModelError, match=r"^the network takes 32x32 pictures only, got 64x64\."):
        next(run_features(model, Squares(), BATCHES, layer, device=CPU))


@pytest.mark.real
def test_squeezenet_against_a_plain_hook(data_dir: Path) -> None:
    """Real weights and pictures; the default layer, one in the middle and one before a ReLU."""
    model = load_model("squeezenet1_0", weights=data_dir / "weights" / "squeezenet1_0.safetensors")
    files = Files(tuple(sorted((data_dir / "weights" / "check-images").iterdir())[:6]))
    for name, place in ((None, "features"), ("features.5", "features.5"), ("features.0",) * 2):
        feature_NCHW = run(model, name, files)[0]
        wanted = by_hook(model, place, list(range(6)), files)
        largest = np.abs(wanted).max()
        assert np.abs(feature_NCHW - wanted).max() <= 1e-5 * largest, name
        assert largest > 1
