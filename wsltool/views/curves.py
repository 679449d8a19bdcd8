"""A picture of a training log: loss, learning rate, validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.errors import UsageError
from wsltool.views.figure import COLOURS, SOFT, bare, draw_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["smoothed", "training_curve"]

FloatArray: TypeAlias = npt.NDArray[np.float64]

_PANEL_IN: Final = {"loss": 3.0, "lr": 1.2, "validation": 1.9}
_MOST_POINTS: Final = 4000


def training_curve(records: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw a training log as a picture.

    The loss against the iteration, as it is (faint) and smoothed over a fiftieth of the log
    (`smoothed`); below it the learning rate; below that whatever begins with ``val_``, a panel
    for what is named ``…loss`` and one for the rest. Values that are missing or not finite
    leave gaps. The same records give the same bytes (with the same matplotlib).

    Parameters
    ----------
    records : sequence of mappings
        Each with ``iteration`` and any of ``loss``, ``lr`` and ``val_…``; in any order; other
        keys are ignored. Of a log of more than 4000 values every n-th is drawn, the smoothed
        line from all.
    path : Path
        Ends in ``.png`` or ``.svg``; replaced where it exists.
    title : str
        Above the picture; mathematical text is not interpreted.

    Raises
    ------
    UsageError
        No record has a finite ``iteration``, or the path has another suffix.
    ExtraMissingError
        matplotlib is not installed.
    """
    kept = [one for one in records if math.isfinite(_number(one.get("iteration")))]
    kept.sort(key=lambda one: _number(one["iteration"]))
    if not kept:
        raise UsageError(f"{path}: none of {len(records)} records has an iteration to draw.")
    panels = _panels(kept)

    def draw(axes: Sequence[Axes]) -> None:
        for panel, (kind, names) in zip(axes, panels, strict=True):
            _draw(panel, kept, kind, names)
        axes[-1].set_xlabel("iteration")

    draw_figure(path, title, [_PANEL_IN[kind] for kind, _ in panels], draw, shared_x=True)


def smoothed(value_N: npt.NDArray[Any] | Sequence[float], window: int) -> FloatArray:
    """Return the mean of the finite values among the `window` ones around each.

    At the ends the window is cut; NaN where it holds no finite value. `window` is made odd
    upwards; 1 or less changes nothing but infinities, which become NaN.
    """
    value = np.asarray(value_N, np.float64)
    fine_N = np.isfinite(value)
    half = max(0, window // 2)
    edge = np.arange(len(value))
    low, high = np.maximum(edge - half, 0), np.minimum(edge + half + 1, len(value))
    # Against the middle value, so that one huge loss does not blur the sums of all others.
    shift = float(np.median(value[fine_N])) if fine_N.any() else 0.0
    total = np.concatenate([[0.0], np.cumsum(np.where(fine_N, value - shift, 0.0))])
    count = np.concatenate([[0], np.cumsum(fine_N)])
    count_N = count[high] - count[low]
    mean_N = (total[high] - total[low]) / np.maximum(count_N, 1) + shift
    return np.where(count_N > 0, mean_N, np.nan)


def _number(value: object) -> float:
    """Return a number as float; NaN for anything else."""
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return float(value) if is_number else math.nan  # type: ignore[arg-type]


def _panels(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return kind and keys of each panel, from the top."""
    keys = {key for one in records for key in one}
    measures = sorted(key for key in keys if key.startswith("val_"))
    losses = [key for key in measures if key.endswith("loss")]
    found = [("loss", ["loss"]), ("lr", ["lr"] if "lr" in keys else [])]
    found += [("validation", losses), ("validation", [k for k in measures if k not in losses])]
    return [(kind, names) for kind, names in found if names]


def _draw(axes: Axes, records: Sequence[Mapping[str, Any]], kind: str, names: list[str]) -> None:
    for name, colour in zip(names, COLOURS * len(names), strict=False):
        pairs = [(_number(one["iteration"]), _number(one[name])) for one in records if name in one]
        at_N, value_N = np.array(pairs, np.float64).reshape(-1, 2).T
        value_N = np.where(np.isfinite(value_N), value_N, np.nan)
        step = max(1, -(-len(at_N) // _MOST_POINTS))
        thin = at_N[::step], value_N[::step]
        lone: dict[str, Any] = {"marker": "o"} if np.isfinite(value_N).sum() == 1 else {}
        if kind == "loss":
            window = len(value_N) // 50
            mean_N = smoothed(value_N, window)[::step]
            axes.plot(*thin, color=colour, alpha=0.3 if window > 1 else 1, linewidth=0.8, **lone)
            if window > 1:
                axes.plot(thin[0], mean_N, color=colour, linewidth=1.8)
            _limit(axes, value_N)
        elif kind == "lr":
            axes.plot(*thin, color=SOFT, drawstyle="steps-post", **lone)
            fine = value_N[np.isfinite(value_N)]
            if len(fine) and fine.min() > 0 and fine.max() >= 10 * fine.min():
                axes.set_yscale("log")
        else:
            axes.plot(*thin, color=colour, marker="o", markersize=3, label=name)
            axes.legend(loc="best", frameon=False)
        if not np.isfinite(value_N).any():
            axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center")
    axes.set_ylabel("learning rate" if kind == "lr" else kind)
    _tidy(axes)


def _limit(axes: Axes, value_N: FloatArray) -> None:
    """Leave rare peaks of the loss out of the frame, so that they do not flatten the rest."""
    fine = value_N[np.isfinite(value_N)]
    if len(fine) < 20:
        return
    low, high = float(fine.min()), float(np.quantile(fine, 0.99))
    if high > low and fine.max() > low + 2 * (high - low):
        room = 0.08 * (high - low)
        axes.set_ylim(low - room, high + room)
        num = int((fine > high + room).sum())
        text = f"{num} value{'s'[: num != 1]} above, up to {fine.max():.3g}"
        axes.text(0.99, 0.97, text, transform=axes.transAxes, ha="right", va="top", color=SOFT)


def _tidy(axes: Axes) -> None:
    bare(axes)
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    axes.locator_params(axis="x", integer=True)
    if axes.get_yscale() == "linear":
        axes.ticklabel_format(axis="y", useOffset=False)
    axes.margins(x=0.01)
