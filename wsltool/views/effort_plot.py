"""Figure 6 of Kolesnikov and Lampert 2016: which classes changed, and the order of annotation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wsltool.views.figure import COLOURS, INK, LINE, SOFT, bare, draw_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["effort_plot"]

_MOST_BARS: Final = 80
_MOST_DOTS: Final = 40
_BAR_IN, _BARS_LEAST_IN, _CURVE_IN = 0.19, 1.0, 3.4
_UP, _DOWN = COLOURS[0], COLOURS[1]

Entry = Mapping[str, Any]
Row = Mapping[str, Any]


def effort_plot(entry: Entry, path: Path) -> None:
    """Draw what `wsltool.stages.effort.effort` found.

    Above, a bar for each class that changed by at least ``min_change`` points, the largest gain
    first, its 95 % interval as a thin line, and the values before and after beside its name; of
    more than 80 those that changed most. Below, the share of the gain against the share of
    classes annotated, in steps, beside the expectation of a random order; in points where there
    is no gain to take shares of.

    Parameters
    ----------
    entry : mapping
        The one entry of the result.
    path : Path
        Ends in ``.png`` or ``.svg``; replaced where it exists.

    Raises
    ------
    UsageError
        The path has another suffix.
    ExtraMissingError
        matplotlib is not installed.
    """
    effort = entry["effort"]
    changed = [row for row in effort["classes"] if abs(row["gain"]) >= effort["min_change"] - 1e-9]
    shown = sorted(changed, key=lambda row: -abs(row["gain"]))[:_MOST_BARS]
    shown.sort(key=lambda row: -row["gain"])
    bars_in = max(_BARS_LEAST_IN, _BAR_IN * len(shown) + 0.5)

    def draw(axes: Sequence[Axes]) -> None:
        _draw_bars(axes[0], shown, _bars_title(effort, len(changed), len(shown)))
        _curve_drawer(effort)(axes[1])

    draw_figure(path, _title(entry), [bars_in, _CURVE_IN], draw)


def _title(entry: Entry) -> str:
    effort, old = entry["effort"], entry["compared"]["value"]
    values = " → ".join("–" if v is None else f"{v:.1f}" for v in (old, entry["value"]))
    said = f"{entry['protocol']}: {values} {entry['unit']}"
    if effort["gain"] is not None:
        said += f", gain {effort['gain']:+.1f}"
    if effort["low"] is not None:
        said += f" [{effort['low']:+.1f}, {effort['high']:+.1f}]"
    return said


def _bars_title(effort: Entry, num_changed: int, num_shown: int) -> str:
    few = f", the {num_shown} that changed most" if num_shown < num_changed else ""
    return (
        f"{num_changed} of {len(effort['classes'])} classes changed by at least "
        f"{effort['min_change']:g} points{few}"
    )


def _draw_bars(axes: Axes, rows: Sequence[Row], title: str) -> None:
    bare(axes)
    axes.grid(visible=False, axis="y")
    axes.set_title(title, loc="left", fontsize=9, color=SOFT)
    if not rows:
        axes.text(0.5, 0.5, "no class", transform=axes.transAxes, ha="center", color=SOFT)
        axes.set_yticks([])
        axes.set_xticks([])
        return
    at = np.arange(len(rows))
    gain = np.array([row["gain"] for row in rows])
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    axes.barh(at, gain, 0.7, color=[_UP if one > 0 else _DOWN for one in gain])
    for place, row in enumerate(rows):
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [place, place], color=INK, linewidth=0.9)
    axes.axvline(0, color=SOFT, linewidth=0.9)
    names = [f"{row['class_name']}   {row['before']:.1f} → {row['after']:.1f}" for row in rows]
    axes.set_yticks(at, names, parse_math=False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("gain in points, with the 95 % interval")


def _curve_drawer(effort: Entry) -> Callable[[Axes], None]:
    """Return what draws figure 6b."""
    curve, share = effort["curve"], effort["curve"]["share"]
    x = np.array(curve["fraction"])
    y = np.array(curve["gain"] if share is None else share) * (1 if share is None else 100)
    dots: dict[str, Any] = {"marker": "o", "markersize": 4} if len(x) <= _MOST_DOTS else {}

    def draw(axes: Axes) -> None:
        bare(axes)
        axes.plot(
            x * 100,
            x * y[-1],
            color=SOFT,
            linestyle="--",
            linewidth=1.2,
            label="a random order, expected" + ("" if share is None else ": area 0.50"),
            **dots,
        )
        area = "" if share is None else f": area {effort['area']:.2f}"
        label = f"ascending second eigenvalue{area}"
        axes.plot(x * 100, y, color=_UP, drawstyle="steps-post", linewidth=2, label=label, **dots)
        for want, fraction in effort["fraction_for_share"].items():
            if share is not None and fraction is not None:
                _mark(axes, 100 * fraction, 100 * float(want))
        axes.set_xlabel(f"% of {len(x) - 1} classes annotated")
        axes.set_ylabel("% of the gain" if share is not None else "gain in points")
        axes.set_xlim(0, 100)
        said = "order of annotation"
        if share is None:
            said += ": the gain is not above 0, so it has no shares"
        axes.set_title(said, loc="left", fontsize=9, color=SOFT)
        axes.legend(loc="best", frameon=False)

    return draw


def _mark(axes: Axes, x: float, y: float) -> None:
    """Mark after how many classes a share of the gain is reached."""
    axes.plot([0, x, x], [y, y, 0], color=INK, linewidth=0.8, linestyle=":")
    axes.annotate(
        f"{y:.0f} % of the gain after {x:.0f} %",
        (x, y),
        xytext=(6, -11),
        textcoords="offset points",
        fontsize=8,
        color=INK,
    )
