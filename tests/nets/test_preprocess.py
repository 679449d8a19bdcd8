"""What the network sees, and which part of the picture that is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import models as zoo

from wsltool.errors import BadImageError, ModelError
from wsltool.nets.catalogue import find_architecture
from wsltool.nets.preprocess import Preprocess

SIDES = st.integers(1, 700)


def picture(width: int, height: int) -> np.ndarray:
    """A smooth coloured picture."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    planes = [x, y, (np.sin(9 * x) + np.cos(7 * y) + 2) / 4]
    return np.round(255 * np.stack(planes, 2)).astype(np.uint8)


def test_warp_shows_everything() -> None:
    input_CHW, extent = Preprocess(224).apply(picture(500, 333))
    assert input_CHW.shape == (3, 224, 224)
    assert input_CHW.dtype == np.uint8
    assert extent.tolist() == [0, 0, 500, 333]
    assert extent.dtype == np.float32


def test_crop_by_hand() -> None:
    # 500x375: shorter side 375 -> 256, longer int(256 * 500 / 375) = 341
    # left round((341 - 224) / 2) = round(58.5) = 58 (to even), top 16
    extent = Preprocess(224, fit="crop", resize=256).apply(picture(500, 375))[1]
    wanted = [58 * 500 / 341, 16 * 375 / 256, 282 * 500 / 341, 240 * 375 / 256]
    assert extent == pytest.approx(wanted, rel=1e-6)


def test_squash_and_crop_by_hand() -> None:
    extent = Preprocess(227, fit="crop", resize=256, squash=True).apply(picture(512, 128))[1]
    assert extent == pytest.approx([14 * 2, 14 * 0.5, 241 * 2, 241 * 0.5], rel=1e-6)


def test_letterbox_by_hand() -> None:
    # 500x333 -> 100x67 (66.6), 16 rows above and 17 below
    preprocess = Preprocess(100, fit="letterbox", mean=(1.0, 0.0, 0.5))
    input_CHW, extent = preprocess.apply(np.full((333, 500, 3), 77, np.uint8))
    row_px = 333 / 67
    assert extent == pytest.approx([0, -16 * row_px, 500, 84 * row_px], rel=1e-6)
    assert input_CHW[:, 15, 50].tolist() == [255, 0, 128]
    assert input_CHW[:, 16, 50].tolist() == [77, 77, 77]
    assert input_CHW[:, 82, 50].tolist() == [77, 77, 77]
    assert input_CHW[:, 83, 50].tolist() == [255, 0, 128]


def test_inside_by_hand() -> None:
    # 500x333 -> 100x67, 16 rows above and 17 below; at scale .5 50x33 with 8 above, 9 below
    preprocess = Preprocess(100, fit="letterbox")
    assert preprocess.inside(500, 333) == (0.0, 0.16, 1.0, 0.83)
    assert preprocess.inside(333, 500) == (0.16, 0.0, 0.83, 1.0)
    assert preprocess.scaled(0.5).inside(500, 333) == (0.0, 8 / 50, 1.0, 41 / 50)
    assert preprocess.inside(7, 7) == (0.0, 0.0, 1.0, 1.0)
    for fit in ("warp", "crop"):
        assert preprocess.at(fit=fit).inside(500, 333) == (0.0, 0.0, 1.0, 1.0)


@settings(max_examples=100, deadline=None)
@given(SIDES, SIDES, st.sampled_from([0.5, 0.7, 1.0, 1.4, 2.8]))
def test_inside_is_where_the_picture_was_put(width: int, height: int, scale: float) -> None:
    """White on a black frame: the white pixels are those inside, at least one of them."""
    preprocess = Preprocess(37, fit="letterbox", mean=(0.0, 0.0, 0.0)).scaled(scale)
    input_CHW = preprocess.apply(np.full((height, width, 3), 255, np.uint8))[0]
    x0, y0, x1, y1 = (round(preprocess.size_px * part) for part in preprocess.inside(width, height))
    wanted = np.zeros_like(input_CHW)
    wanted[:, y0:y1, x0:x1] = 255
    assert np.array_equal(input_CHW, wanted)
    assert wanted.any()


def test_padding_is_zero_to_half_a_grey_level() -> None:
    preprocess = Preprocess(20, fit="letterbox")
    input_CHW = preprocess.apply(np.zeros((10, 20, 3), np.uint8))[0]
    x_CHW = preprocess.normalise(torch.from_numpy(input_CHW)[None])[0]
    assert float(x_CHW[:, :5].abs().max()) <= 0.5 / 255 / min(preprocess.std) + 1e-6


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b0", "inception_v3", "vgg16"])
@pytest.mark.parametrize(("width", "height"), [(500, 375), (333, 500), (224, 900), (60, 41)])
def test_crop_is_what_torchvision_publishes(name: str, width: int, height: int) -> None:
    array = picture(width, height)
    weights = zoo.get_model_weights(name).DEFAULT
    reference = weights.transforms()(Image.fromarray(array))
    preprocess = find_architecture(name).preprocess.at(fit="crop")
    ours = preprocess.normalise(torch.from_numpy(preprocess.apply(array)[0])[None])[0]
    step = 1 / 255 / min(preprocess.std)  # one grey level
    assert float((ours - reference).abs().max()) <= 1.01 * step
    # Pillow takes the frame as float32, so a few values round the other way
    assert float(((ours - reference).abs() > 1e-4).float().mean()) < 0.02


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.sampled_from(["warp", "crop", "letterbox"]), st.booleans())
def test_pixels_lie_where_the_extent_says(width: int, height: int, fit: str, big: bool) -> None:
    """A ramp over x comes back: its value in each input column is that column's place."""
    preprocess = Preprocess(64, fit=fit, resize=80).scaled(2.0 if big else 1.0)  # type: ignore[arg-type]
    ramp = np.broadcast_to(np.linspace(0, 255, width)[None, :, None], (height, width, 3))
    input_CHW, (x0, y0, x1, y1) = preprocess.apply(np.round(ramp).astype(np.uint8))
    size = preprocess.size_px
    assert input_CHW.shape == (3, size, size)
    centre_px = x0 + (np.arange(size) + 0.5) * (x1 - x0) / size
    inside = (centre_px > 0.1 * width) & (centre_px < 0.9 * width)
    wanted = np.clip((centre_px - 0.5) / max(width - 1, 1), 0, 1) * 255
    if width >= 32 and inside.any():
        row = input_CHW[0, int((height / 2 - y0) / (y1 - y0) * size)]
        assert np.abs(row[inside] - wanted[inside]).max() <= 255 / width + 2


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES)
def test_extents(width: int, height: int) -> None:
    x0, y0, x1, y1 = Preprocess(64, fit="crop", resize=80).extent(width, height)
    assert -1e-9 <= x0 < x1 <= width + 1e-9
    assert -1e-9 <= y0 < y1 <= height + 1e-9
    x0, y0, x1, y1 = Preprocess(64, fit="letterbox").extent(width, height)
    assert x0 <= 0
    assert y0 <= 0
    assert x1 >= width - 1e-9
    assert y1 >= height - 1e-9
    assert x0 == 0 or y0 == 0


def test_scaled_crop_shows_the_same() -> None:
    preprocess = Preprocess(100, fit="crop", resize=130)
    for scale in (0.5, 0.77, 2.8):
        scaled = preprocess.scaled(scale)
        input_CHW, extent = scaled.apply(picture(333, 500))
        assert input_CHW.shape[1] == scaled.size_px == round(100 * scale)
        assert extent.tolist() == preprocess.apply(picture(333, 500))[1].tolist()


def test_huge_ratio_needs_no_huge_picture() -> None:
    input_CHW, extent = Preprocess(224, fit="crop", resize=256).apply(
        np.zeros((1, 20000, 3), np.uint8)
    )
    assert input_CHW.shape == (3, 224, 224)
    assert extent[2] - extent[0] == pytest.approx(224 / 256, rel=1e-4)


def test_at_keeps_the_proportion_of_the_crop() -> None:
    made = Preprocess(224, resize=256).at(448, "crop")
    assert (made.size, made.resize, made.fit) == (448, 512, "crop")
    assert Preprocess(224).at() == Preprocess(224)


def test_normalise() -> None:
    preprocess = Preprocess(2, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    batch = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2).expand(1, 3, 2, 2)
    value = preprocess.normalise(batch)
    assert value.dtype == torch.float32
    assert torch.allclose(value[0, :, 0, 0], torch.tensor([-1.0, -1.0, 0.0]))
    assert torch.allclose(value[0, :, 0, 1], torch.tensor([1.0, 3.0, 1.0]))
    assert batch.max() == 255


def test_header_round_trip() -> None:
    import json

    made = Preprocess(240, fit="letterbox", interpolation="bicubic", mean=(0.1, 0.2, 0.3))
    assert Preprocess.from_header(json.loads(json.dumps(made.to_header()))) == made


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5), np.uint8), r"the picture is uint8 \(4, 5\), expected uint8"),
        (np.zeros((4, 5, 4), np.uint8), r"the picture is uint8 \(4, 5, 4\), expected uint8"),
        (np.zeros((4, 5, 3), np.float32), r"the picture is float32 \(4, 5, 3\), expected uint8"),
        (np.zeros((0, 5, 3), np.uint8), r"the picture is uint8 \(0, 5, 3\), expected uint8"),
    ],
)
def test_bad_pictures(array: np.ndarray, message: str) -> None:
    with pytest.raises(BadImageError, match=message):
        Preprocess(8).apply(array)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, r"size must be a whole number in 1 ... 8192, got 0"),
        ({"size": 22.4}, r"size must be a whole number in 1 ... 8192, got 22.4"),
        ({"size": 8, "fit": "stretch"}, 'fit must be one of warp, crop, letterbox, got "stretch"'),
        ({"size": 8, "interpolation": "area"}, 'must be bilinear or bicubic, got "area"'),
        ({"size": 8, "fit": "crop", "resize": 4}, "resize must be at least size 8, got 4"),
        ({"size": 8, "std": [1, 0, 1]}, r"std must be three numbers .* got \(1, 0, 1\)"),
        ({"size": 8, "mean": [0.5]}, r"mean must be three numbers .* got \(0.5,\)"),
        ({"size": 8, "mean": [0.5, float("nan"), 0]}, "mean must be three numbers"),
        ({"size": 8, "scale": 0.0}, "scale must be above 0"),
        ({"sise": 8}, "'sise' is unknown; expected size"),
        ({"fit": "warp"}, "'size' is missing; expected size"),
    ],
)
def test_impossible_values(values: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Preprocess.from_header(values)
