"""``cam --crops ten``: ten crops through networks that are worked out by hand, and a real one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from wsltool.errors import ModelError, UsageError
from wsltool.nets import models
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.closed_form import ClosedForm
from wsltool.nets.models import load_model
from wsltool.nets.ten_crops import cubic_weights
from wsltool.nets.window import Window
from wsltool.stages.boxes import boxes
from wsltool.stages.cam import cam
from wsltool.stages.ingest import ingest_folder
from wsltool.stages.score import score
from wsltool.stages.select import select
from wsltool.stages.verify import verify

from .colours import BIAS, CPU, HEAD, ME, colour_folder, colour_images
from .making import arrays, assert_equal_arrays, meta, put_picture
from .test_cam_scales import Window8

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def plain(tmp_path):
    """Two pictures of one colour each, not square."""
    put_picture(tmp_path / "set/red/a.png", np.full((12, 20, 3), (204, 51, 0), np.uint8))
    put_picture(tmp_path / "set/blue/b.png", np.full((12, 20, 3), (0, 102, 255), np.uint8))
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    return ingest_folder(tmp_path / "set", classes=tmp_path / "classes.txt", output="s.zarr")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def made(source, model="colours", **options):
    output = cam(source, model=f"{ME}:{model}", crops="ten", **(CPU | options))
    assert verify(output)["problems"] == []
    return output, arrays(output)


def test_one_colour(plain):
    """Input 8, so the warp has 9 x 9 pixels and the corners lie at 0 and 1, the centre at 1.

    Every crop has the same scores; each pixel adds the map's absolute value once a crop.
    """
    output, found = made(plain, classes="all")
    assert meta(output)["params"]["crops"] == "ten"
    assert found["map"].shape == (2, 3, 9, 9)
    assert found["map_extent"].tolist() == [[0, 0, 20, 12]] * 2
    column = np.array([2, 5, 5, 5, 5, 5, 5, 5, 3])  # crops that begin at 0: 2 of 5
    num = {(0, 0): 1, (0, 1): 1, (1, 0): 1, (1, 1): 2}
    crops = np.zeros((9, 9))
    for (row, col), times in num.items():
        crops[row : row + 8, col : col + 8] += 2 * times
    assert crops[4].tolist() == (2 * column).tolist()
    ids = found["image_id"].tolist()
    for name, colour in (("red/a.png", (204, 51, 0)), ("blue/b.png", (0, 102, 255))):
        row = ids.index(name)
        value = HEAD @ np.array(colour) / 255
        np.testing.assert_allclose(
            found["class_score"][row], log_softmax(value + BIAS), rtol=1e-5, atol=1e-6
        )
        for slot, index in enumerate(found["map_class"][row]):
            np.testing.assert_allclose(
                found["map"][row, slot], crops * abs(value[index]), rtol=1e-5
            )


def test_probabilities_add_up_to_1(tmp_path):
    source = colour_images(colour_folder(tmp_path))
    found = made(source, classes="all", scores="probability")[1]
    assert found["class_score"].sum(axis=1) == pytest.approx(1)
    assert found["map_score"][:, 0] == pytest.approx(found["class_score"].max(axis=1))


def test_maps_of_a_real_picture_by_hand(tmp_path):
    """The crops of a 9 x 9 picture, each through the four-by-four cells by numpy."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (9, 9, 3), np.uint8)
    put_picture(tmp_path / "set/red/a.png", picture)
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    source = ingest_folder(tmp_path / "set", classes=tmp_path / "classes.txt", output="s.zarr")
    found = made(source, classes="all")[1]
    weight = cubic_weights(2, 8)
    total, logits = np.zeros((3, 9, 9)), []
    for mirrored in (False, True):
        for row, col in ((0, 0), (0, 1), (1, 0), (1, 1), (1, 1)):
            crop = picture[row : row + 8, col : col + 8] / 255
            crop = crop[:, ::-1] if mirrored else crop
            cells = crop.reshape(2, 4, 2, 4, 3).mean(axis=(1, 3))
            maps = np.einsum("kc,rsc->krs", HEAD, cells)
            logits.append(maps.mean(axis=(1, 2)) + BIAS)
            large = np.abs(weight @ maps @ weight.T)
            total[:, row : row + 8, col : col + 8] += large[:, :, ::-1] if mirrored else large
    np.testing.assert_allclose(found["map"][0], total[found["map_class"][0]], rtol=1e-4, atol=1e-5)
    mean = np.log(np.exp(log_softmax(np.array(logits), axis=1)).mean(axis=0))
    np.testing.assert_allclose(found["class_score"][0], mean, rtol=1e-5, atol=1e-6)


def test_top_classes_shards_and_containers(tmp_path):
    source = colour_images(colour_folder(tmp_path))
    output, found = made(source, classes="top2")
    assert found["map"].shape == (5, 2, 9, 9)
    assert (found["map_score"][:, :1] == found["class_score"].max(axis=1)[:, None]).all()
    other, _ = made(source, classes="top2", output="o.h5", shard="0/1", batch_size=32)
    assert_equal_arrays(output, other)


def test_a_bad_picture_is_left_out(plain, tmp_path):
    (tmp_path / "set/red/a.png").write_bytes(b"\0" * (tmp_path / "set/red/a.png").stat().st_size)
    found = made(plain, on_bad="skip")[1]
    row = found["image_id"].tolist().index("red/a.png")
    assert found["image_status"].tolist() == [int(n == row) for n in range(2)]
    assert not found["map"][row].any()
    assert (found["map_extent"][row] == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": True}, r"^--flip and --crops ten exclude each other:"),
        ({"scales": (0.5, 1)}, r"^--scales and --crops ten exclude each other:"),
        ({"scales": (2,)}, r"^--scales and --crops ten exclude each other:"),
        ({"fit": "letterbox"}, r"^--crops ten cuts crops out of a warped picture, got --fit lett"),
        ({"fit": "crop"}, r"^--crops ten cuts crops out of a warped picture, got --fit crop\.$"),
    ],
)
def test_what_does_not_go_with_it(options, message):
    with pytest.raises(UsageError, match=message):
        cam("nowhere.zarr", model="m", crops="ten", **options)


def test_another_number_of_crops_is_refused():
    with pytest.raises(UsageError, match=r'^--crops must be one or ten, got "five"\.$'):
        cam("nowhere.zarr", model="m", crops="five")


def test_a_sliding_window_is_refused(plain, monkeypatch):
    network = CamNetwork(Window8(), ClosedForm("features", False, "head"), window=Window(8, 4))
    model = load_model(f"{ME}:colours")
    model.network, model.arch = network.eval(), "sliding"
    monkeypatch.setattr(models, "load_model", lambda name, **_options: model)
    with pytest.raises(ModelError, match=r"^--crops ten needs maps of the whole input, but the ce"):
        cam(plain, model="sliding", crops="ten", **CPU)


@pytest.mark.real
def test_the_whole_pipeline_on_real_pictures(data_dir, tmp_path):
    """On 60 ILSVRC images the released pipeline localizes about as well as one crop does."""
    imagenette = data_dir / "imagenette"
    source = ingest_folder(
        imagenette / "test",
        boxes=imagenette / "metadata/test/localization.txt",
        classes=data_dir / "weights/imagenet_classes.txt",
        output="t.zarr",
    )
    some = select(source, fraction=0.2, output="some.zarr")
    network = {"weights": data_dir / "weights/squeezenet1_0.safetensors", **CPU}
    maps = cam(some, model="squeezenet1_0", crops="ten", images=imagenette / "test", **network)
    found = arrays(maps)
    assert found["map"].shape == (60, 5, 64, 64)
    assert (found["map"] >= 0).all()
    drawn = boxes(maps, rule="zhou")
    (result,) = score(drawn, protocol="ilsvrc-top5")["results"]
    assert result["extra"]["cls_error"][0] < 50
    assert result["value"] < 65
