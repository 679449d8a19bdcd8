"""Mean intersection over union of label images, as PASCAL VOC has it (``VOCevalseg.m``).

A label image holds 0 for background and class + 1 elsewhere. Pixels that the truth leaves out
(255) are not looked at; the others of all images make one confusion matrix of K + 1 labels. With
its diagonal ``right``, rows ``true`` and columns ``predicted``::

    IoU = right / (true + predicted - right)

The value is the mean over all labels, the background among them, in per cent. A label that is
neither true nor predicted anywhere has no IoU (0/0) and is left out of the mean; one that is only
predicted has 0. An image without a prediction counts as background throughout; excluded images
are left out. With `classes`, the mean is over these alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError
from wsltool.metrics.records import Truth
from wsltool.metrics.result import Result, class_rows, percent, told
from wsltool.metrics.tally import Tally

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["LEFT_OUT", "LabelMasks", "count", "result"]

LEFT_OUT = 255
"""What a label image of the truth holds where nothing is to be compared."""

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class LabelMasks:
    """Label images of N images, predicted and true.

    Attributes
    ----------
    predicted_HW : tuple of uint8 arrays, or None
        0 background, class + 1 elsewhere; None where nothing was predicted.
    true_HW : tuple of uint8 arrays
        The same, and 255 for what is left out.
    """

    predicted_HW: tuple[Labels | None, ...]
    true_HW: tuple[Labels, ...]

    def __len__(self) -> int:
        return len(self.true_HW)

    def take(self, image: Sequence[int] | npt.NDArray[np.integer[Any]]) -> Self:
        """Return the given images (indices, in any order) as a record of their own."""
        return type(self)(
            tuple(self.predicted_HW[n] for n in image), tuple(self.true_HW[n] for n in image)
        )


def count(protocol: ScoreProtocol, predicted: LabelMasks, truth: Truth) -> Tally:
    """Return the counts of a block of images.

    Pixels are added up to ``sums`` ``pixels``, int64 (3, K + 1): right, true and predicted ones
    of each label. With `by_image` they stand in the table ``image`` instead, int32.

    Raises
    ------
    ProtocolError
        A label image is of another size than its truth, or holds a label that is no class.
    """
    if len(predicted) != len(truth):
        raise ProtocolError(
            f"{len(predicted)} images are predicted, but the truth has {len(truth)}; expected "
            "the same images in the same order."
        )
    excluded_N = np.asarray(truth.excluded_N) != 0
    pixels_N3L = np.zeros((len(truth), 3, truth.num_classes + 1), np.int32)
    num_left_out_N = np.zeros(len(truth), np.int32)
    for n in np.flatnonzero(~excluded_N).tolist():
        true_HW, predicted_HW = predicted.true_HW[n], predicted.predicted_HW[n]
        row = int(truth.row_N[n])
        _check_labels(f"truth row {row}", true_HW, truth.num_classes, LEFT_OUT)
        if predicted_HW is not None:
            _check_prediction(row, predicted_HW, true_HW.shape, truth.num_classes)
        pixels_N3L[n] = _pixels(predicted_HW, true_HW, truth.num_classes + 1)
        num_left_out_N[n] = (true_HW == LEFT_OUT).sum()
    image = {
        "row": np.asarray(truth.row_N, np.int64),
        "excluded": excluded_N,
        "without_prediction": np.array([one is None for one in predicted.predicted_HW], bool),
        "left_out_px": num_left_out_N,
    }
    if protocol.by_image:
        return Tally(truth.num_classes, {"image": image | {"pixels": pixels_N3L}})
    pixels_3L = pixels_N3L.sum(axis=0, dtype=np.int64)
    return Tally(truth.num_classes, {"image": image}, {"pixels": pixels_3L})


def result(protocol: ScoreProtocol, tally: Tally) -> Result:
    """Return the mean IoU in per cent, and the IoU of each class."""
    if "pixels" in tally.tables["image"]:
        pixels_3L = tally.total("image", "pixels")
    else:
        pixels_3L = tally.sums["pixels"]
    right_L, true_L, predicted_L = pixels_3L
    iou_L = percent(right_L, true_L + predicted_L - right_L)
    used_L = iou_L[1:][protocol.chosen] if protocol.class_index else iou_L
    known_L = ~np.isnan(used_L)
    excluded_N = tally.column("image", "excluded")
    lacking_N = tally.column("image", "without_prediction") & ~excluded_N
    num_lacking = tally.num("image", lacking_N)
    num_absent = int((~known_L).sum())
    return Result.of(
        protocol,
        float(used_L[known_L].mean()) if known_L.any() else float("nan"),
        per_class=class_rows(
            iou_L[1:],
            {
                "num_right_px": right_L[1:],
                "num_true_px": true_L[1:],
                "num_predicted_px": predicted_L[1:],
            },
        ),
        extra={
            "background_iou": float(iou_L[0]),
            "pixel_accuracy": float(percent(right_L.sum(), true_L.sum())),
            "num_labels": int(known_L.sum()),
            "num_labels_absent": num_absent,
            "num_images": tally.num("image", ~excluded_N),
            "num_excluded": tally.num("image", excluded_N),
            "num_without_prediction": num_lacking,
            "num_px": int(true_L.sum()),
            "num_left_out_px": int(tally.total("image", "left_out_px")),
        },
        warnings=told(
            (
                (num_lacking, "images have no predicted mask and count as background throughout."),
                (num_absent, "labels are neither true nor predicted and are left out of the mean."),
            )
        ),
    )


def _pixels(predicted_HW: Labels | None, true_HW: Labels, num_labels: int) -> npt.NDArray[np.intp]:
    """Return the right, true and predicted pixels of each label in one image, (3, labels)."""
    # 256 bins for any byte: what is left out ends in a bin of its own.
    true_256 = np.bincount(true_HW.ravel(), minlength=256)
    if predicted_HW is None:
        predicted_L = np.zeros(num_labels, np.intp)
        predicted_L[0] = true_256[:num_labels].sum()
        right_L = np.zeros(num_labels, np.intp)
        right_L[0] = true_256[0]
    else:
        counted_HW = true_HW != LEFT_OUT
        predicted_L = np.bincount(predicted_HW[counted_HW], minlength=num_labels)
        right_L = np.bincount(predicted_HW[predicted_HW == true_HW], minlength=num_labels)
    return np.stack([right_L, true_256[:num_labels], predicted_L])


def _check_prediction(
    row: int, predicted_HW: Labels, shape: tuple[int, ...], num_classes: int
) -> None:
    if predicted_HW.shape != shape:
        wide, true_wide = (f"{one[1]}x{one[0]}" for one in (predicted_HW.shape, shape))
        raise ProtocolError(
            f"predictions row {row}: the mask is {wide} pixels, the true one {true_wide}; "
            "expected the same. Bring it to the size of its image."
        )
    _check_labels(f"predictions row {row}", predicted_HW, num_classes, None)


def _check_labels(place: str, label_HW: Labels, num_classes: int, left_out: int | None) -> None:
    """Refuse a label that is no class, but `left_out`."""
    odd_HW = label_HW > num_classes
    if left_out is not None:
        odd_HW &= label_HW != left_out
    if odd_HW.any():
        also = "" if left_out is None else f", or {left_out} for what is left out"
        raise ProtocolError(
            f"{place}: the mask holds the label {label_HW[odd_HW][0]}; expected 0 to "
            f"{num_classes}{also}."
        )
