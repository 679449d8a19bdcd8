"""PASCAL VOC detection with the AP of 2007: the mean of the best precision at eleven recalls.

Counts as `wsltool.metrics.voc_ap`; only the curve is summed otherwise. `ScoreProtocol.grid` says
how the recalls are computed: as MATLAB's ``0:0.1:1`` ("devkit"), or as numpy's ``arange``, which
py-faster-rcnn and its descendants use ("numpy").
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from wsltool.metrics import voc_ap
from wsltool.metrics.average_precision import eleven_point_ap

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol
    from wsltool.metrics.result import Result
    from wsltool.metrics.tally import Tally

__all__ = ["count", "result"]

count = voc_ap.count


def result(protocol: ScoreProtocol, tally: Tally) -> Result:
    """Return the mean eleven-point average precision in per cent, and each class's own."""
    return voc_ap.result(protocol, tally, partial(eleven_point_ap, grid=protocol.grid))
