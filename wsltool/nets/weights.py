"""Files of weights: read without unpickling, fetch published ones, load into a network."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from wsltool.errors import ModelError, WeightsMissingError

__all__ = [
    "OURS",
    "State",
    "current_names",
    "fetch_published",
    "file_sha256",
    "fit_head",
    "fsync_replace",
    "is_auxiliary",
    "load_strict",
    "one_line",
    "read_state",
    "set_head",
    "state_sha256",
]

State = dict[str, Tensor]
"""A state dict: names to arrays."""

OURS = "wsltool."
"""How the names of arrays begin that a model file holds beside those of its network."""

_TIMEOUT_S = 30.0


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def read_state(path: Path) -> State:
    """Read a state dict from a ``.safetensors`` file or a checkpoint of torch.

    A checkpoint is read with ``weights_only=True``, so nothing in it is run. One that keeps
    its arrays under ``state_dict`` or ``model``, or names them ``module.…`` (DataParallel),
    is understood. What a model file holds beside its network (`OURS`) is left out.

    Raises
    ------
    WeightsMissingError
        There is no such file.
    ModelError
        The file is cut off, or holds something else.
    """
    if not path.is_file():
        raise WeightsMissingError(f"{path}: no such file; expected weights.")
    try:
        if path.suffix == ".safetensors":
            held = load_file(path)
            return {name: held[name] for name in held if not name.startswith(OURS)}
        content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ModelError(
            f"{path}: not a complete safetensors file ({one_line(error)}). Fetch it again."
        ) from error
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: refused, it is no plain state dict: reading it could run code. Load it "
            "where you trust it and save module.state_dict() as safetensors."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path}: not a readable checkpoint ({one_line(error)}). Fetch it again."
        ) from error
    return _plain(content, path)


def _plain(content: object, path: Path) -> State:
    for name in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{path}: holds a {type(content).__name__}, expected a state dict.")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ModelError(
                f"{path}: entry {name!r} is a {type(value).__name__}, expected an array."
            )
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): value for name, value in content.items()}
    return dict(content)


def fetch_published(url: str, name: str) -> Path:
    """Return the file of published weights, downloaded where torch.hub keeps them.

    The hash in the file's name is checked after a download.

    Parameters
    ----------
    url
        Where it is published.
    name
        What the user calls the network, for messages.

    Raises
    ------
    WeightsMissingError
        It is not on this machine and cannot be fetched; one line says where to put it.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if path.is_file():
        return path
    digest = re.search(r"-([a-f0-9]*)\.", path.name)
    timeout_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(
            url, str(path), digest[1] if digest else None, progress=sys.stderr.isatty()
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsMissingError(
            f"{name}: weights are not here and {url} cannot be fetched ({one_line(error)}). "
            f"Put that file at {path}, or pass --weights FILE."
        ) from error
    finally:
        socket.setdefaulttimeout(timeout_s)
    return path


def set_head(module: nn.Module, name: str, num_classes: int) -> None:
    """Replace the layer `name` by a new one of the same kind with `num_classes` outputs."""
    old = cast(nn.Linear | nn.Conv2d, module.get_submodule(name))
    has_bias, num_in = old.bias is not None, int(old.weight.shape[1])
    new: nn.Module
    if isinstance(old, nn.Linear):
        new = nn.Linear(num_in, num_classes, bias=has_bias)
    else:
        new = nn.Conv2d(num_in, num_classes, 1, bias=has_bias)
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, new)


def fit_head(module: nn.Module, state: State) -> None:
    """Give the network as many classes as the weights have.

    Nothing happens unless the only arrays of another shape are the weight and the bias of one
    linear layer or convolution, and they differ in the number of outputs alone.
    """
    own = module.state_dict()
    other = [n for n in own if n in state and own[n].shape != state[n].shape]
    owners = {name.rpartition(".")[0] for name in other}
    if len(owners) != 1 or any(own[n].shape[1:] != state[n].shape[1:] for n in other):
        return
    name = owners.pop()
    part = module.get_submodule(name)
    if isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1)):
        set_head(module, name, int(state[f"{name}.weight"].shape[0]))


def load_strict(module: nn.Module, state: State, where: str) -> None:
    """Load weights; every array of the network must be there, and no other.

    Counters of batch normalisation (``num_batches_tracked``), auxiliary classifiers that
    the network was built without, and the names of torchvision's first DenseNet files are
    allowed for.

    Raises
    ------
    ModelError
        Arrays are missing, left over or of another shape; the first few are named.
    """
    own = module.state_dict()
    state = current_names(state, own)
    missing = [n for n in own if n not in state and not n.endswith("num_batches_tracked")]
    left_over = [n for n in state if n not in own]
    shapes = [
        f"{n} is {tuple(state[n].shape)}, expected {tuple(own[n].shape)}"
        for n in own
        if n in state and state[n].shape != own[n].shape
    ]
    for what, names in (
        ("misses", missing),
        ("has, beyond the architecture,", left_over),
        ("has other shapes:", shapes),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ModelError(
                f"{where}: {what} {', '.join(names[:3])}{more}. Pass weights of the same "
                "architecture."
            )
    module.load_state_dict(state, strict=False)


def current_names(state: State, own: Mapping[str, Tensor]) -> State:
    """Rename what older files of torchvision call otherwise; drop absent auxiliary heads."""
    renamed: State = {}
    for name, value in state.items():
        new = name if name in own else re.sub(r"\.(norm|relu|conv)\.([12])\.", r".\1\2.", name)
        if new in own or not is_auxiliary(new):
            renamed[new] = value
    return renamed


def is_auxiliary(name: str) -> bool:
    """Whether an array belongs to an auxiliary classifier of GoogLeNet or Inception."""
    return re.match(r"(aux[12]|AuxLogits)\.", name) is not None


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of all arrays with their names, types and shapes, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fsync_replace(temporary: Path, path: Path) -> None:
    """Put a finished file in place: its bytes first, then its name, then the folder."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
