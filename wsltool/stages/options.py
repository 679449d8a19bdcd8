"""The options that every stage shares, and what follows from them."""

from __future__ import annotations

import math
import numbers
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast, get_args

from wsltool.errors import BadImageError, UsageError
from wsltool.stages.report import Reporter

if TYPE_CHECKING:
    import torch

__all__ = [
    "PathLike",
    "RunOptions",
    "Settings",
    "Shard",
    "TorchOptions",
    "check_choice",
    "check_input_size",
    "check_range",
    "check_seed",
    "parse_shard",
]

_LARGEST_SEED = 2**63
_LARGEST_PX = 8192

PathLike = str | os.PathLike[str]
Precision = Literal["float32", "tf32", "bf16", "fp16"]


class RunOptions(TypedDict, total=False):
    """Options of every stage that writes a store.

    ``output`` (default: the input's stem plus the stage's word), ``overwrite`` (replace
    what differs), ``shard`` (``"I/N"`` or ``"slurm"``), ``limit`` (the first N rows),
    ``on_bad`` (``"stop"`` or ``"skip"``), ``report`` (who hears of progress and warnings).
    """

    output: PathLike | None
    overwrite: bool
    shard: str | None
    limit: int | None
    on_bad: Literal["stop", "skip"]
    report: Reporter


class TorchOptions(RunOptions, total=False):
    """`RunOptions` and those of stages that compute with torch.

    ``device`` (``"auto"``, ``"cpu"``, ``"cuda:0"``…), ``batch_size``, ``workers``
    (processes that read pictures), ``precision`` (``float32``, ``tf32``, ``bf16``, ``fp16``).
    """

    device: str
    batch_size: int
    workers: int | None
    precision: str


def check_range(
    option: str,
    value: Any,
    low: float,
    high: float,
    *,
    open_low: bool = False,
    open_high: bool = True,
    whole: bool = False,
) -> None:
    """Raise UsageError unless `value` is a number between `low` and `high`; NaN never is."""
    if isinstance(value, bool) or not isinstance(
        value, numbers.Integral if whole else numbers.Real
    ):
        kind = "whole number" if whole else "number"
        raise UsageError(f"{option} must be a {kind}, got {value!r}.")
    number: Any = value
    inside = (low < number if open_low else low <= number) and (
        number < high if open_high else number <= high
    )
    if not inside:
        brackets = ("(["[not open_low], ")]"[not open_high])
        raise UsageError(
            f"{option} must be in {brackets[0]}{low}, {high}{brackets[1]}, got {value}."
        )


def check_seed(seed: int) -> None:
    """Raise UsageError unless `seed` is a number that every generator takes."""
    check_range("--seed", seed, 0, _LARGEST_SEED, whole=True)


def check_input_size(size_px: int | None) -> None:
    """Raise UsageError unless `size_px` is None or a size that a picture may be brought to."""
    if size_px is not None:
        check_range("--input-size", size_px, 1, _LARGEST_PX, open_high=False, whole=True)


def check_choice(option: str, value: object, choices: Any) -> None:
    """Raise UsageError unless `value` is one of the words of `choices`, a ``Literal`` type."""
    words = get_args(choices)
    if value not in words:
        listed = f"{', '.join(map(str, words[:-1]))} or {words[-1]}"
        raise UsageError(f'{option} must be {listed}, got "{value}".')


@dataclass(frozen=True)
class Shard:
    """Place of a process among several that share the blocks of one store."""

    index: int
    count: int

    def has(self, block: int) -> bool:
        """Return whether a block belongs to this process's share."""
        return block % self.count == self.index


def parse_shard(text: str | None, environment: Mapping[str, str] = os.environ) -> Shard:
    """Return the place among shards: ``I/N`` with 0 <= I < N, or from SLURM's job array.

    Raises
    ------
    UsageError
        Malformed, out of range, no job array around, or an array with gaps.
    """
    if text is None:
        return Shard(0, 1)
    if text == "slurm":
        return _slurm_shard(environment)
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UsageError(
            f'--shard must be I/N with 0 <= I < N, or slurm, got "{text}". For 4 processes: '
            "0/4, 1/4, 2/4 and 3/4."
        )
    return Shard(int(match[1]), int(match[2]))


def _slurm_shard(environment: Mapping[str, str]) -> Shard:
    names = ("ID", "MIN", "MAX", "STEP", "COUNT")
    try:
        task, low, high, step, count = (int(environment[f"SLURM_ARRAY_TASK_{n}"]) for n in names)
    except (KeyError, ValueError):
        raise UsageError(
            "--shard slurm: there is no SLURM job array around this process "
            "(SLURM_ARRAY_TASK_ID, _MIN, _MAX, _STEP, _COUNT). Start it with sbatch --array, "
            "or pass --shard I/N."
        ) from None
    if step < 1 or (high - low) // step + 1 != count or (task - low) % step:
        raise UsageError(
            f"--shard slurm: the job array has gaps ({count} tasks between {low} and {high}, "
            f"step {step}), so shares would be left out. Submit all tasks of the array, or pass "
            "--shard I/N."
        )
    return Shard((task - low) // step, count)


@dataclass(frozen=True)
class Settings:
    """`RunOptions` with defaults filled in and checked."""

    output: Path | None = None
    overwrite: bool = False
    shard: Shard = field(default_factory=lambda: Shard(0, 1))
    limit: int | None = None
    on_bad: Literal["stop", "skip"] = "stop"
    report: Reporter = field(default_factory=Reporter)

    @classmethod
    def of(cls, options: RunOptions | TorchOptions) -> Settings:
        """Check the options and fill in the defaults.

        Raises
        ------
        UsageError
            An option is unknown or out of its range.
        """
        unknown = set(options) - set(TorchOptions.__annotations__)
        if unknown:
            raise UsageError(
                f'unknown option "{min(unknown)}"; expected one of this stage\'s own or '
                f"{', '.join(sorted(TorchOptions.__annotations__))}."
            )
        limit = options.get("limit")
        if limit is not None:
            check_range("--limit", limit, -math.inf, math.inf, whole=True)
            if limit < 1:
                raise UsageError(f"--limit must be at least 1, got {limit}.")
        on_bad = options.get("on_bad", "stop")
        if on_bad not in ("stop", "skip"):
            raise UsageError(f'--on-bad must be stop or skip, got "{on_bad}".')
        output = options.get("output")
        return cls(
            output=None if output is None else Path(output),
            overwrite=options.get("overwrite", False),
            shard=parse_shard(options.get("shard")),
            limit=limit,
            on_bad=on_bad,
            report=options.get("report") or Reporter(),
        )

    def bad_row(self, place: str, error: BadImageError) -> str:
        """Return the note of a row that is left out, or raise if bad rows stop the stage."""
        if self.on_bad == "stop":
            raise error.where(place) from error
        self.report.warn(f"{place}: {error} Left out.")
        return str(error)


@dataclass(frozen=True)
class TorchSettings:
    """The torch part of `TorchOptions` with defaults filled in and checked."""

    device: torch.device
    batch_size: int
    workers: int
    precision: Precision

    def record(self) -> dict[str, object]:
        """Return what the output keeps of how it was computed."""
        from wsltool.nets.compute import torch_record

        return torch_record(self.device) | {"batch_size": self.batch_size, "workers": self.workers}


def torch_settings(options: TorchOptions, batch_size: int = 32) -> TorchSettings:
    """Check the torch options and fill in the defaults.

    Raises
    ------
    UsageError
        An option is out of its range, or the device is not there.
    """
    precision: str = options.get("precision", "float32")
    if precision not in get_args(Precision):
        raise UsageError(f'--precision must be float32, tf32, bf16 or fp16, got "{precision}".')
    size = options.get("batch_size", batch_size)
    check_range("--batch-size", size, 1, 1 << 20, whole=True)
    workers = options.get("workers")
    check_range("--workers", workers or 0, 0, 1024, whole=True)
    from wsltool.nets.compute import parse_device, reuse_memory
    from wsltool.nets.loading import default_workers

    device = parse_device(options.get("device", "auto"))
    if workers is None:
        workers = default_workers(device)
    if device.type == "cpu":
        reuse_memory()
    return TorchSettings(device, size, workers, cast("Precision", precision))
