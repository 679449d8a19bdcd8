"""What every reader of other people's detections gives: columns, one entry a detection."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["DetectionColumns", "Detections"]


@dataclass(frozen=True, eq=False)
class Detections:
    """D detections of several images.

    Attributes
    ----------
    image_name : list of str or int
        Names of images as the files have them, each once.
    image_D : int64 ndarray of shape (D,)
        Index into `image_name`.
    class_D : int32 ndarray of shape (D,)
        Index of the class.
    box_xyxy_D4 : float64 ndarray of shape (D, 4)
        ``x0 y0 x1 y1``, half-open continuous pixels; not checked.
    score_D : float64 ndarray of shape (D,)
        Not checked.
    file_D, place_D : int32 and int64 ndarrays of shape (D,)
        Where each stands: index into `file_name`, and the number there, from 1.
    file_name : list of str
        Names of the files.
    place_word : str
        What the numbers count: ``line`` or ``entry``.
    """

    image_name: list[str | int]
    image_D: npt.NDArray[np.int64]
    class_D: npt.NDArray[np.int32]
    box_xyxy_D4: npt.NDArray[np.float64]
    score_D: npt.NDArray[np.float64]
    file_D: npt.NDArray[np.int32]
    place_D: npt.NDArray[np.int64]
    file_name: list[str]
    place_word: str

    def __len__(self) -> int:
        return len(self.image_D)

    def place(self, detection: int) -> str:
        """Return where a detection stands, for messages."""
        file = self.file_name[self.file_D[detection]]
        return f"{file} {self.place_word} {self.place_D[detection]}"


class DetectionColumns:
    """Collects detections while files are read, in compact columns."""

    def __init__(self) -> None:
        self._row: dict[str | int, int] = {}
        self._image, self._class = array("q"), array("i")
        self._corners, self._score = array("d"), array("d")
        self._file, self._place = array("i"), array("q")

    def add(
        self,
        image: str | int,
        class_index: int,
        box_xyxy: tuple[float, float, float, float],
        score: float,
        place: tuple[int, int],
    ) -> None:
        """Add a detection; `place` is the index of its file and the number there."""
        self._image.append(self._row.setdefault(image, len(self._row)))
        self._class.append(class_index)
        self._corners.extend(box_xyxy)
        self._score.append(score)
        self._file.append(place[0])
        self._place.append(place[1])

    def __len__(self) -> int:
        return len(self._image)

    def finish(self, file_name: list[str], place_word: str) -> Detections:
        """Return what was added."""
        return Detections(
            image_name=list(self._row),
            image_D=np.array(self._image, np.int64),
            class_D=np.array(self._class, np.int32),
            box_xyxy_D4=np.array(self._corners, np.float64).reshape(-1, 4),
            score_D=np.array(self._score, np.float64),
            file_D=np.array(self._file, np.int32),
            place_D=np.array(self._place, np.int64),
            file_name=file_name,
            place_word=place_word,
        )
