"""Small drawn scenes with exact boxes and masks, for the demonstration and for tests.

Six classes differ by shape and texture: a ``disc`` with rings, a ``triangle`` with
stripes, a ``square`` with checks, a ``star`` with dots, a ``cross`` with bars, and a
``train``. The train never comes without its distractor, a track that runs through the
whole picture, and the track never comes without the train: image-level labels alone
cannot tell them apart. Box and mask cover the train only.

Colours are drawn from one palette for objects, backgrounds and clutter, so no colour
belongs to a class.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from wsltool.datasets.scene_backgrounds import PALETTE, background, clutter, value_noise
from wsltool.datasets.scene_shapes import SHAPES, Bools, Floats, Frame, Painting, track_paint
from wsltool.errors import DatasetError, UsageError

__all__ = ["FIRST_TEST_INDEX", "SCENE_CLASSES", "Scene", "draw_scene", "write_scenes"]

SCENE_CLASSES = tuple(SHAPES)
"""Class names in order; value 1 to 6 of a mask."""

FIRST_TEST_INDEX = 2**20
"""Index of the first test scene: test scenes do not depend on how many train."""

_Number = TypeVar("_Number", np.float64, np.uint8)
_TRAIN = SCENE_CLASSES.index("train")
_FINE = 3  # sub-pixels a side
_NUM_TRIES = 30
_MAX_HIDDEN_FRAC = 0.1


@dataclass(frozen=True, eq=False)
class Scene:
    """One drawn picture with its truth.

    Attributes
    ----------
    picture_HWC
        Uint8 RGB.
    box_xyxy_B4, box_class_B
        Float64 half-open pixel boxes of what is *visible* of each object, so each is the
        hull of the object's pixels in the mask; int32 index into `class_name`.
    mask_HW
        Uint8 label image: 0 background (tracks too), class index + 1; no void.
    class_name
        `SCENE_CLASSES`.
    """

    picture_HWC: npt.NDArray[np.uint8]
    box_xyxy_B4: npt.NDArray[np.float64]
    box_class_B: npt.NDArray[np.int32]
    mask_HW: npt.NDArray[np.uint8]
    class_name: tuple[str, ...] = SCENE_CLASSES


def draw_scene(seed: int, index: int, size_wh: tuple[int, int] | None = None) -> Scene:
    """Draw one scene; equal arguments give equal pixels on every platform.

    Parameters
    ----------
    seed, index
        Not negative. The first object is of class ``index % 6``, so any run of scenes is
        balanced; one to three objects stand in a picture, at most one train.
    size_wh
        Width and height in pixels, at least 48; drawn from 96 to 160 where left out.

    Raises
    ------
    UsageError
        A negative seed or index, or a size under 48 pixels.

    Notes
    -----
    The longer side of a box is 20 to 70 % of the picture's shorter side. No object hides
    more than a tenth of another.
    """
    if min(seed, index) < 0:
        raise UsageError(f"seed and index must not be negative, got {seed} and {index}.")
    if size_wh is not None and min(size_wh) < 48:
        raise UsageError(f"a scene needs at least 48x48 pixels, got {size_wh[0]}x{size_wh[1]}.")
    rng = np.random.default_rng([seed, index])
    width, height = size_wh or (int(rng.integers(96, 161)), int(rng.integers(96, 161)))
    easel = _Easel(rng, width, height)
    for class_index in _classes(rng, index % len(SCENE_CLASSES)):
        easel.place(class_index)
    return easel.scene()


def _classes(rng: np.random.Generator, first: int) -> list[int]:
    """One to three classes; a train is placed first, so that its track lies below all."""
    classes = [first]
    for _ in range(rng.choice(3, p=[0.5, 0.35, 0.15])):
        again = rng.random() < 0.3
        classes.append(first if again else int(rng.integers(len(SCENE_CLASSES))))
    num_trains = classes.count(_TRAIN)
    others = [class_index for class_index in classes if class_index != _TRAIN]
    return [_TRAIN] * min(num_trains, 1) + others


class _Easel:
    """A picture while it is drawn, three sub-pixels to a pixel."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        self.rng = rng
        self.size_wh = (width, height)
        self.x_px_W = (np.arange(width * _FINE) + 0.5) / _FINE
        self.y_px_H = (np.arange(height * _FINE) + 0.5) / _FINE
        self.canvas_HWC = background(rng, self.x_px_W, self.y_px_H)
        clutter(rng, self.canvas_HWC, self.x_px_W, self.y_px_H)
        self.object_HW = np.zeros(self.canvas_HWC.shape[:2], np.uint8)  # 0 none, 1.. objects
        self.area: list[int] = []
        self.classes: list[int] = []

    def place(self, class_index: int) -> None:
        """Draw one object where it fits; leave it out where no place is found."""
        for _ in range(_NUM_TRIES):
            frame = self._frame(class_index)
            local = frame.local(self.x_px_W, self.y_px_H)
            painting = SHAPES[SCENE_CLASSES[class_index]](*local)
            if self._fits(painting.inside_HW):
                if class_index == _TRAIN:
                    self._lay_track(*local)
                self._paint(painting, frame.radius_px)
                self.area.append(int(painting.inside_HW.sum()))
                self.classes.append(class_index)
                self.object_HW[painting.inside_HW] = len(self.classes)
                return

    def _frame(self, class_index: int) -> Frame:
        is_train = class_index == _TRAIN
        low, high, max_turn = (0.5, 0.7, 100) if is_train else (0.3, 0.68, 280)
        if self.classes:
            high = (low + high) / 2
        radius_px = self.rng.uniform(low, high) * min(self.size_wh) / 2
        reach_x, reach_y = radius_px + 1, (0.65 if is_train else 1) * radius_px + 1
        return Frame(
            self.rng.uniform(reach_x, self.size_wh[0] - reach_x),
            self.rng.uniform(reach_y, self.size_wh[1] - reach_y),
            radius_px,
            turn=int(self.rng.integers(-max_turn, max_turn + 1)),
            mirrored=bool(self.rng.integers(2)),
        )

    def _fits(self, inside_HW: Bools) -> bool:
        hidden = np.bincount(self.object_HW[inside_HW], minlength=len(self.area) + 1)[1:]
        left = np.bincount(self.object_HW.ravel(), minlength=len(self.area) + 1)[1:] - hidden
        limit = 1 - _MAX_HIDDEN_FRAC
        return all(rest >= limit * area for rest, area in zip(left, self.area, strict=True))

    def _two_colors(self) -> tuple[Floats, Floats]:
        """Two palette colours at least 80 grey levels apart."""
        while True:
            first, second = PALETTE[self.rng.choice(len(PALETTE), 2, replace=False)]
            if abs(float(first.sum() - second.sum())) > 240:
                return first, second

    def _paint(self, painting: Painting, radius_px: float) -> None:
        inside_HW = painting.inside_HW
        self._cast_shadow(inside_HW, max(1, round(radius_px * _FINE / 12)))
        first, second = self._two_colors()
        color_PC = np.where(painting.second_HW[inside_HW][:, None], second, first)
        square = np.ones((3, 3), np.uint8)
        core_HW = cv2.erode(inside_HW.astype(np.uint8), square, iterations=_FINE - 1) > 0
        color_PC[~core_HW[inside_HW]] = 0.35 * np.minimum(first, second)  # the outline
        light_P = 1.1 - 0.25 * (self.y_px_H[np.nonzero(inside_HW)[0]] / self.size_wh[1])
        self.canvas_HWC[inside_HW] = color_PC * light_P[:, None]

    def _cast_shadow(self, inside_HW: Bools, shift: int) -> None:
        shadow_HW = np.zeros_like(inside_HW)
        shadow_HW[shift:, shift:] = inside_HW[:-shift, :-shift]
        self.canvas_HWC[shadow_HW] *= 0.7

    def _lay_track(self, u_HW: Floats, v_HW: Floats) -> None:
        ballast_HW, sleepers_HW, rails_HW = track_paint(u_HW, v_HW)
        gravel_HW = value_noise(self.rng, u_HW.shape[0], u_HW.shape[1], _FINE)
        stone = 70 + 90 * self.rng.random()
        self.canvas_HWC[ballast_HW] = (stone + 70 * (gravel_HW - 0.5))[ballast_HW][:, None]
        self.canvas_HWC[sleepers_HW] = stone * self.rng.uniform(0.3, 0.7) * np.array((1.2, 1, 0.8))
        self.canvas_HWC[rails_HW] = 190 + 50 * self.rng.random()

    def scene(self) -> Scene:
        """Average the sub-pixels, add grain, and read the truth off the objects."""
        width, height = self.size_wh
        picture_HWC = _sum_fine(self.canvas_HWC) / _FINE**2
        picture_HWC += self.rng.integers(-6, 7, picture_HWC.shape)
        mask_HW = np.zeros((height, width), np.uint8)
        boxes = []
        for number, class_index in enumerate(self.classes, 1):
            share_HW = _sum_fine((self.object_HW == number).astype(np.uint8))
            covered_HW = share_HW * 2 > _FINE**2
            mask_HW[covered_HW] = class_index + 1
            rows, cols = np.flatnonzero(covered_HW.any(1)), np.flatnonzero(covered_HW.any(0))
            boxes.append((cols[0], rows[0], cols[-1] + 1, rows[-1] + 1))
        return Scene(
            picture_HWC=np.clip(np.floor(picture_HWC + 0.5), 0, 255).astype(np.uint8),
            box_xyxy_B4=np.array(boxes, np.float64),
            box_class_B=np.array(self.classes, np.int32),
            mask_HW=mask_HW,
        )


def _sum_fine(fine: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """Sum the sub-pixels of each pixel; axes 0 and 1 are rows and columns."""
    total = fine[::_FINE, ::_FINE].copy()
    for place in range(1, _FINE**2):
        total += fine[place // _FINE :: _FINE, place % _FINE :: _FINE]
    return total


def write_scenes(folder: Path, *, num_train: int, num_test: int, seed: int = 0) -> Path:
    """Write scenes in VOC layout, so that `open_voc` reads them.

    Pictures are PNG files in ``JPEGImages`` (no pixel depends on an encoder), masks
    palette PNGs in ``SegmentationClass``; the image sets ``train`` and ``test`` stand in
    ``ImageSets/Main`` and ``ImageSets/Segmentation``, the classes in ``classes.txt``.

    Parameters
    ----------
    folder
        Must not exist yet, or be empty; it appears when all is written.
    num_train, num_test
        How many scenes, each at least 1 and at most 2**20.
    seed
        As in `draw_scene`.

    Returns
    -------
    folder
        As given.

    Raises
    ------
    UsageError
        A number out of its range.
    DatasetError
        Something is in the folder, or it cannot be written.
    """
    for name, count in (("num_train", num_train), ("num_test", num_test)):
        if not 1 <= count <= FIRST_TEST_INDEX:
            raise UsageError(f"{name} must be in 1..{FIRST_TEST_INDEX}, got {count}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"{folder}: something is there already. Choose another folder.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            draft = Path(scratch) / "scenes"
            _write_split(draft, "train", lambda place: draw_scene(seed, place), num_train)
            _write_split(
                draft, "test", lambda place: draw_scene(seed, FIRST_TEST_INDEX + place), num_test
            )
            (draft / "classes.txt").write_text("\n".join(SCENE_CLASSES) + "\n", "utf-8")
            draft.replace(folder)
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be written, {error.strerror}.") from error
    return folder


def _write_split(root: Path, split: str, draw: Callable[[int], Scene], count: int) -> None:
    inner = ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main")
    for name in (*inner, "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True, exist_ok=True)
    ids = [f"{split}_{place:06d}" for place in range(count)]
    for place, image_id in enumerate(ids):
        scene = draw(place)
        Image.fromarray(scene.picture_HWC).save(root / "JPEGImages" / f"{image_id}.png")
        mask = Image.fromarray(scene.mask_HW).convert("P")
        mask.putpalette(_mask_palette())
        mask.save(root / "SegmentationClass" / f"{image_id}.png")
        (root / "Annotations" / f"{image_id}.xml").write_text(_xml(image_id, scene), "utf-8")
    for name in ("Main", "Segmentation"):
        (root / "ImageSets" / name / f"{split}.txt").write_text("\n".join(ids) + "\n", "utf-8")


def _mask_palette() -> list[int]:
    """Black, then one palette colour a class."""
    return [0, 0, 0, *PALETTE[: len(SCENE_CLASSES)].astype(int).ravel().tolist()]


def _xml(image_id: str, scene: Scene) -> str:
    height, width = scene.mask_HW.shape
    lines = [
        "<annotation>",
        f"  <filename>{image_id}.png</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
        "  <segmented>1</segmented>",
    ]
    for box_xyxy, klass in zip(scene.box_xyxy_B4.astype(int), scene.box_class_B, strict=True):
        x0, y0, x1, y1 = box_xyxy
        lines += [
            f"  <object><name>{SCENE_CLASSES[klass]}</name>",
            "    <truncated>0</truncated><difficult>0</difficult>",
            f"    <bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin>"
            f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])
