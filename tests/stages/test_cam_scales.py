"""``cam --scales`` with a sliding-window network on letterboxed pictures, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from wsltool.errors import ModelError
from wsltool.nets import models
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.closed_form import ClosedForm
from wsltool.nets.preprocess import Preprocess
from wsltool.nets.window import Window
from wsltool.stages.boxes import boxes
from wsltool.stages.cam import cam
from wsltool.stages.ingest import ingest_folder
from wsltool.stages.verify import verify

from .colours import CPU
from .making import Ears, arrays, put_picture
from .tiny_networks import BIAS, WEIGHTS

pytestmark = pytest.mark.usefixtures("one_thread")


class Window8(nn.Module):
    """Mean colour of every 8 × 8 pixels, 4 apart; scores are the mean of the weighted colours."""

    def __init__(self):
        super().__init__()
        self.features = nn.AvgPool2d(8, 4)
        self.head = nn.Linear(3, 3)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor(WEIGHTS))
            self.head.bias.copy_(torch.tensor(BIAS))

    def forward(self, x_NCHW):
        return self.head(self.features(x_NCHW).mean((2, 3)))


@pytest.fixture
def sliding(monkeypatch):
    """Makes that network, with a pooling of one's choice, what ``--model sliding`` stands for."""

    def choose(**options):
        form = ClosedForm("features", False, "head")
        network = CamNetwork(Window8(), form, window=Window(8, 4), **options).eval()
        black = Preprocess(32, fit="letterbox", mean=(0.0,) * 3, std=(1.0,) * 3)
        model = models.Model(network, "sliding", None, None, black, "logistic", "sha256:0")
        monkeypatch.setattr(models, "load_model", lambda name, **_options: model)

    return choose


@pytest.fixture
def wide(tmp_path):
    """32 × 16: one blue picture, and one black with a red light on the right."""
    light = np.zeros((16, 32, 3), np.uint8)
    light[4:12, 20:28, 0] = 255
    put_picture(tmp_path / "wide/blue/a.png", np.full((16, 32, 3), (0, 0, 255), np.uint8))
    put_picture(tmp_path / "wide/red/b.png", light)
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    return ingest_folder(tmp_path / "wide", classes=tmp_path / "classes.txt")


def made(source, **options):
    output = cam(source, model="sliding", **(CPU | {"classes": "all"} | options))
    assert verify(output)["problems"] == []
    return output, arrays(output)


@pytest.mark.parametrize(
    ("options", "blue"),
    [
        # the frame is half padding; windows centred on the edge of the picture are half blue
        ({"pool": "gmp"}, 0.5),
        # counted: from scale 1 on there is a window of nothing but padding, whose blue is 0
        ({"pool": "gmp", "count_padding": True}, (0.5 + 1 + 1) / 3),
    ],
)
def test_scores_without_and_with_padding(sliding, wide, options, blue):
    sliding(**options)
    found = made(wide, scales=(0.5, 1, 2))[1]
    assert found["image_id"].tolist() == ["red/b.png", "blue/a.png"]
    assert found["class_score"][1] == pytest.approx([0.5, 0.0, blue], abs=1e-6)


def test_the_light_is_found_where_it_is(sliding, wide, tmp_path):
    """Frame 64 at scale 2, 15 × 15 cells from pixel 2 to 62: picture x 1 to 31, y −7 to 23."""
    sliding(pool="gmp")
    output, found = made(wide, scales=(0.5, 1, 2))
    assert found["map_extent"].tolist() == [[1, -7, 31, 23]] * 2
    assert found["map"].shape == (2, 3, 15, 15)
    red = found["map"][0, found["map_class"][0].tolist().index(0)]
    assert red.max() == pytest.approx(1.0)
    rows, cols = np.nonzero(red > 0.999)
    x = 1 + (cols.mean() + 0.5) * 2
    y = -7 + (rows.mean() + 0.5) * 2
    assert [x, y] == pytest.approx([24, 8])
    boxed = arrays(boxes(output, threshold=0.6, output=tmp_path / "b.zarr"))
    start, stop = boxed["box_start"][:2]
    own = boxed["box"][start:stop][boxed["box_class"][start:stop] == 0]
    assert own[0] == pytest.approx([20, 4, 28, 12], abs=2)


def test_scores_are_the_mean_and_maps_the_maximum(sliding, wide, tmp_path):
    """One scale at a time; on the finest grid the coarse scale counts where it reaches."""
    sliding(pool="lse:5")
    both = made(wide, scales=(0.5, 2), output=tmp_path / "both.zarr")[1]
    coarse = made(wide, scales=(0.5,), output=tmp_path / "coarse.zarr")[1]
    fine = made(wide, scales=(2,), output=tmp_path / "fine.zarr")[1]
    mean = (coarse["class_score"] + fine["class_score"]) / 2
    assert both["class_score"] == pytest.approx(mean, abs=1e-6)
    assert both["map_extent"].tolist() == fine["map_extent"].tolist()
    # scale .5: 16 pixels, cells of 1/4 of the frame from 1/8 to 7/8; 2: 1/16 from 1/32 on
    centre = (2 + 4 * (np.arange(15) + 0.5)) / 64
    reached = (centre >= 1 / 8) & (centre <= 7 / 8)
    assert not reached.all()
    for image in range(2):
        for slot, index in enumerate(both["map_class"][image].tolist()):
            one, two = (
                part["map"][image, part["map_class"][image].tolist().index(index)]
                for part in (coarse, fine)
            )
            assert (both["map"][image, slot][~reached] == two[~reached]).all()
            assert (both["map"][image, slot][:, ~reached] == two[:, ~reached]).all()
            middle = both["map"][image, slot, 7, 7]  # the frame's centre, as the coarse 1, 1
            assert middle == pytest.approx(max(one[1, 1], two[7, 7]), abs=1e-6)


def test_a_scale_below_the_window_is_left_out_and_told(sliding, wide, tmp_path):
    sliding(pool="gmp")
    ears = Ears()
    some = made(wide, scales=(0.2, 1), report=ears, output=tmp_path / "some.zarr")[1]
    assert ears.warnings == ["--scales 0.2: the input is smaller than the window of sliding. "
                             "Left out."]  # fmt: skip
    wanted = made(wide, output=tmp_path / "one.zarr")[1]
    for name in ("map", "class_score", "map_extent"):
        np.testing.assert_array_equal(some[name], wanted[name])
    with pytest.raises(ModelError, match=r"^--scales 0\.1, 0\.2: the largest input has 6 pixels"):
        made(wide, scales=(0.1, 0.2), output=tmp_path / "none.zarr")
    assert not list(tmp_path.glob("none*"))
