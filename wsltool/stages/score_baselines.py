"""The trivial baselines that stand beside every result of ``score``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from wsltool.metrics.baselines import (
    CENTRED_FRACTIONS,
    centre_heat,
    centre_peaks,
    centred_boxes,
    fit_centred,
    flat_heat,
    whole_boxes,
)
from wsltool.metrics.grid_heats import GridHeats, centre_grid_heat
from wsltool.metrics.pointing_game import GamePoints, centre_points
from wsltool.metrics.protocols import ScoreProtocol
from wsltool.metrics.records import Peaks, Predictions, Truth
from wsltool.metrics.saliency_ap import SaliencyPairs
from wsltool.metrics.tally import Tally

if TYPE_CHECKING:
    from wsltool.metrics.protocols import Predicted

__all__ = ["baselines", "transforms"]

_T = TypeVar("_T")
Transform = Callable[[Any, Truth], "Predicted"]

_CENTRE, _FLAT, _GAUSSIAN = "image centre", "every pixel alike", "centred Gaussian"


def baselines(
    protocol: ScoreProtocol, totals: Mapping[str, Tally], method: float | None
) -> Iterator[dict[str, Any]]:
    """Yield the trivial baselines, the centred box with the fraction that suits it best.

    `method` is the value that they stand beside, None where there is none.
    """
    for name in (_FLAT, _CENTRE, _GAUSSIAN):
        if name in totals:
            value = _value(protocol, totals[name])
            difference = None if method is None or value is None else method - value
            yield {"name": name, "value": value, "difference": difference}
    if "whole" not in totals:
        return
    yield {"name": "whole image", "value": _value(protocol, totals["whole"])}
    values = {f: protocol.result(totals[f"centred {f}"]).value for f in CENTRED_FRACTIONS}
    if np.isnan(list(values.values())).all():
        return
    fit = fit_centred(values.__getitem__, higher_is_better=protocol.higher_is_better is not False)
    yield {
        "name": "centred box",
        "value": fit.value,
        "fraction": fit.fraction,
        "fitted_on": "the scored images",
    }


def transforms(protocol: ScoreProtocol) -> dict[str, Transform]:
    """Return what makes each baseline of the method's predictions."""
    if protocol.record == "peaks":
        return {_CENTRE: lambda p, true: centre_peaks(_as(Peaks, p), true.size_wh_N2)}
    if protocol.record == "heats":
        return {_GAUSSIAN: lambda p, true: centre_grid_heat(_as(GridHeats, p))}
    if protocol.record == "game":
        return {_CENTRE: lambda p, true: centre_points(_as(GamePoints, p), true.size_wh_N2)}
    if protocol.record == "saliency":
        return {
            _FLAT: lambda p, true: flat_heat(_as(SaliencyPairs, p)),
            _CENTRE: lambda p, true: centre_heat(_as(SaliencyPairs, p)),
        }
    if protocol.record != "boxes":
        return {}
    transforms: dict[str, Transform] = {
        "whole": lambda p, true: whole_boxes(_as(Predictions, p), true.size_wh_N2)
    }
    for fraction in CENTRED_FRACTIONS:
        transforms[f"centred {fraction}"] = _centred(fraction)
    return transforms


def _as(kind: type[_T], value: Any) -> _T:
    assert isinstance(value, kind)
    return value


def _centred(fraction: float) -> Transform:
    return lambda p, true: centred_boxes(_as(Predictions, p), true.size_wh_N2, fraction)


def _value(protocol: ScoreProtocol, tally: Tally) -> float | None:
    value = protocol.result(tally).value
    return None if np.isnan(value) else value
