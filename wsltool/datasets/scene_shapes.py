"""Shapes and textures of the drawn scenes, on a grid finer than the picture.

Shapes live in a local frame: ``u`` to the right, ``v`` down, all of a shape within the
unit circle. Everything is sums, products, roots and comparisons of float64 numbers, which
every platform rounds alike, so the same scene has the same pixels everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["SHAPES", "Frame", "Painting", "track_paint"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_STAR_UV = np.array(
    [
        (0, -1000), (224, -309), (951, -309), (363, 118), (588, 809),
        (0, 382), (-588, 809), (-363, 118), (-951, -309), (-224, -309),
    ]
)  # fmt: skip
_NUM_TURNS = 4096  # angles are whole parts of a turn


@dataclass(frozen=True)
class Frame:
    """Place of a shape in a picture: centre and radius in pixels, turn, mirror image.

    ``turn`` counts 4096ths of a full turn, clockwise.
    """

    center_x_px: float
    center_y_px: float
    radius_px: float
    turn: int = 0
    mirrored: bool = False

    def local(self, x_px_W: Floats, y_px_H: Floats) -> tuple[Floats, Floats]:
        """Local coordinates ``(u_HW, v_HW)`` of a grid of pixel positions."""
        angle = 2 * np.pi * self.turn / _NUM_TURNS
        # Rounded, so that a last digit of the platform's sine is of no consequence.
        sine, cosine = round(float(np.sin(angle)), 6), round(float(np.cos(angle)), 6)
        x_W = (x_px_W - self.center_x_px)[None, :] / self.radius_px
        y_H = (y_px_H - self.center_y_px)[:, None] / self.radius_px
        u_HW, v_HW = cosine * x_W + sine * y_H, cosine * y_H - sine * x_W
        return (-u_HW if self.mirrored else u_HW), v_HW


@dataclass(frozen=True, eq=False)
class Painting:
    """What a shape covers, and where within it the second of its two colours shows."""

    inside_HW: Bools
    second_HW: Bools


def _disc(u: Floats, v: Floats) -> Painting:
    radius = np.sqrt(u * u + v * v)
    return Painting(radius <= 1, np.floor(radius * 4.5) % 2 == 1)


def _triangle(u: Floats, v: Floats) -> Painting:
    inside = (v <= 0.5) & (np.abs(u) * 1.732 <= v + 1)
    return Painting(inside, np.floor((v + 1) * 4.5) % 2 == 1)


def _square(u: Floats, v: Floats) -> Painting:
    inside = np.maximum(np.abs(u), np.abs(v)) <= 0.7
    return Painting(inside, (np.floor(u * 3.6) + np.floor(v * 3.6)) % 2 == 1)


def _star(u: Floats, v: Floats) -> Painting:
    column, row = u * 4.2 - np.floor(u * 4.2) - 0.5, v * 4.2 - np.floor(v * 4.2) - 0.5
    return Painting(_in_polygon(u * 1000, v * 1000), column * column + row * row < 0.11)


def _cross(u: Floats, v: Floats) -> Painting:
    wide, narrow = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
    inside = (wide <= 0.93) & (narrow <= 0.34)
    return Painting(inside, (narrow < 0.13) | (np.abs(wide - 0.62) < 0.09))


def _train(u: Floats, v: Floats) -> Painting:
    """Paint a locomotive in profile, chimney to the left, wheels down to v = 0.44."""
    boiler, cab = _box(u, v, -0.84, 0.35, -0.14, 0.3), _box(u, v, 0.25, 0.82, -0.42, 0.3)
    roof, bumper = _box(u, v, 0.18, 0.87, -0.49, -0.4), _box(u, v, -0.9, -0.8, 0.14, 0.32)
    chimney = _box(u, v, -0.72, -0.5, -0.46, -0.1) | _box(u, v, -0.78, -0.44, -0.46, -0.36)
    dome = _circle(u, v, -0.08, -0.14, 0.16)
    wheels, hubs = np.zeros_like(cab), np.zeros_like(cab)
    for place in (-0.62, -0.18, 0.26, 0.65):
        wheels |= _circle(u, v, place, 0.25, 0.19)
        hubs |= _circle(u, v, place, 0.25, 0.11)
    window = _box(u, v, 0.37, 0.7, -0.3, -0.04)
    bands = boiler & (np.floor((u + 0.84) * 5.5) % 2 == 1) & (v < 0.08)
    return Painting(
        boiler | cab | roof | bumper | chimney | dome | wheels, bands | window | hubs | roof
    )


SHAPES: dict[str, Callable[[Floats, Floats], Painting]] = {
    "disc": _disc,
    "triangle": _triangle,
    "square": _square,
    "star": _star,
    "cross": _cross,
    "train": _train,
}
"""The classes in order, each with its shape and texture."""


def track_paint(u: Floats, v: Floats) -> tuple[Bools, Bools, Bools]:
    """Ballast, sleepers and rails of a track that runs along u without end.

    It lies under the wheels of the train in the same frame, and covers none of it.
    """
    ballast = (v > 0.4) & (v <= 0.86)
    sleepers = (v > 0.47) & (v <= 0.82) & (u * 3.2 - np.floor(u * 3.2) < 0.45)
    rails = ((v > 0.43) & (v <= 0.5)) | ((v > 0.68) & (v <= 0.75))
    return ballast, sleepers, rails


def _box(u: Floats, v: Floats, u0: float, u1: float, v0: float, v1: float) -> Bools:
    return (u >= u0) & (u <= u1) & (v >= v0) & (v <= v1)


def _circle(u: Floats, v: Floats, u0: float, v0: float, radius: float) -> Bools:
    inside: Bools = (u - u0) * (u - u0) + (v - v0) * (v - v0) <= radius * radius
    return inside


def _in_polygon(u: Floats, v: Floats) -> Bools:
    """Even-odd rule for the star."""
    inside = np.zeros(u.shape, bool)
    for (u0, v0), (u1, v1) in zip(_STAR_UV, np.roll(_STAR_UV, -1, axis=0), strict=True):
        if v0 != v1:
            crosses = (v0 > v) != (v1 > v)
            inside ^= crosses & (u < u0 + (v - v0) * ((u1 - u0) / (v1 - v0)))
    return inside
