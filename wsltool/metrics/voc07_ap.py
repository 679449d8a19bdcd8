"""PASCAL VOC detection with the AP of 2007: the mean of the best precision at eleven recalls.

Counts as `wsltool.metrics.voc_ap`; only the curve is summed otherwise, with the recalls as
MATLAB's ``0:0.1:1`` has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsltool.metrics import voc_ap
from wsltool.metrics.average_precision import eleven_point_ap

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol
    from wsltool.metrics.result import Result

__all__ = ["count", "result"]

count = voc_ap.count


def result(protocol: ScoreProtocol, counts: voc_ap.VocApCounts) -> Result:
    """Return the mean eleven-point average precision in per cent, and each class's own."""
    return voc_ap.result(protocol, counts, eleven_point_ap)
