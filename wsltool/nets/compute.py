"""Where and how exactly a network is computed: device, precision, memory layout."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from wsltool.errors import ModelError, UsageError
from wsltool.nets.closed_form import evaluating
from wsltool.nets.weights import one_line

__all__ = [
    "Precision",
    "computing",
    "fastest_layout",
    "parse_device",
    "reuse_memory",
    "told_in_one_line",
    "torch_record",
]

Precision = Literal["float32", "tf32", "bf16", "fp16"]

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_PRECISIONS = ("float32", "tf32", "bf16", "fp16")


def parse_device(text: str) -> torch.device:
    """Read ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    ``auto`` is the first CUDA device, else Apple's GPU, else the CPU.

    Raises
    ------
    UsageError
        Another word, or a device that this machine lacks.
    """
    if text == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, number = text.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdigit())):
        raise UsageError(f'--device must be auto, cpu, cuda, cuda:N or mps, got "{text}".')
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {text}: this machine has {torch.cuda.device_count()} CUDA devices that "
            "torch can use. Pass --device cpu."
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: torch finds no Apple GPU here. Pass --device cpu.")
    return torch.device(text)


def reuse_memory() -> None:
    """Let this process keep the memory that it frees, for the next batch.

    On the CPU torch asks for the memory of every large array anew, and glibc gives it back to
    the system each time, so that half of the time can go into clearing pages. Elsewhere than
    with glibc on Linux nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 64 << 20)


def torch_record(device: torch.device) -> dict[str, object]:
    """Return what an output keeps of what torch computed on: device, version, threads."""
    return {
        "device": str(device),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
    }


@contextmanager
def computing(device: torch.device, precision: Precision) -> Iterator[None]:
    """Compute the block in a precision, with repeatable kernels; then set all back.

    ``float32`` and ``tf32`` are the same except on CUDA, ``bf16`` and ``fp16`` are torch's
    autocast.

    Raises
    ------
    UsageError
        There is no such precision.
    """
    if precision not in _PRECISIONS:
        raise UsageError(f'--precision must be one of {", ".join(_PRECISIONS)}, got "{precision}".')
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic)
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    cudnn.benchmark, cudnn.deterministic = False, True
    half = _AUTOCAST.get(precision)
    try:
        with torch.autocast(device.type, dtype=half, enabled=half is not None):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before


@contextmanager
def told_in_one_line(what: str) -> Iterator[None]:
    """Turn what torch raises inside a network into one line that begins with `what`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{what}: out of memory. Pass a smaller --batch-size.") from error
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if isinstance(error, ModelError):
            raise
        cure = " Pass a smaller --batch-size." if "allocate memory" in str(error) else ""
        raise ModelError(f"{what}: failed ({one_line(error)}).{cure}") from error


@torch.no_grad()
def fastest_layout(network: nn.Module, size_px: int, device: torch.device) -> torch.memory_format:
    """Return channels-last, in which convolutions run faster, where the network bears it.

    A network that reshapes its maps with ``view`` may not; one random picture tells.
    """
    picture_NCHW = torch.zeros((2, 3, size_px, size_px), device=device)
    try:
        network.to(memory_format=torch.channels_last)
        with evaluating(network):
            network(picture_NCHW.to(memory_format=torch.channels_last))
    except RuntimeError:
        network.to(memory_format=torch.contiguous_format)
        return torch.contiguous_format
    return torch.channels_last
