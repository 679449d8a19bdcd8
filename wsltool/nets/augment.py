"""How pictures are changed at random while a network learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wsltool.errors import TrainingError

__all__ = ["Augment"]

_CROP_AREA = 0.5  # what the bare word crop stands for
_LARGEST_SCALE = 16.0
_ALLOWED = (
    "mirror, crop, crop=AREA, scale=LOW:HIGH, rotate=DEGREES, noise=STD and balance, "
    "separated by commas, or none"
)


@dataclass(frozen=True)
class Augment:
    """Random changes; without arguments none.

    Attributes
    ----------
    mirror
        Show half of the pictures mirrored.
    crop_area
        Smallest share of a picture that a random crop shows, in (0, 1]; 1 for no crop.
    scale
        Smallest and largest factor of the input's size, one drawn uniformly for each batch
        (Oquab et al. 2015, §3.2: 0.7 and 1.4), both in (0, 16].
    rotate_deg
        Turn by an angle drawn uniformly from ± this, in [0, 180] degrees (Bency et al. 2016,
        §4.1: 30).
    noise_std
        Standard deviation of the white gaussian noise that is added to values of 0 … 255, in
        [0, 255] (Bency et al. 2016, §4.1, without saying how much).
    balance
        Draw each class equally often (Bency et al. 2016, §4.1); see
        `wsltool.nets.sampling.epoch_batches`.

    Raises
    ------
    TrainingError
        A value is out of range, or no number.
    """

    mirror: bool = False
    crop_area: float = 1.0
    scale: tuple[float, float] = (1.0, 1.0)
    rotate_deg: float = 0.0
    noise_std: float = 0.0
    balance: bool = False

    def __post_init__(self) -> None:
        low, high = self.scale
        for word, fine, wanted, value in (
            ("crop", 0 < self.crop_area <= 1, "(0, 1]", _number(self.crop_area)),
            (
                "scale",
                0 < low <= high <= _LARGEST_SCALE,
                "LOW:HIGH with 0 < LOW <= HIGH <= 16",
                f"{_number(low)}:{_number(high)}",
            ),
            ("rotate", 0 <= self.rotate_deg <= 180, "[0, 180]", _number(self.rotate_deg)),
            ("noise", 0 <= self.noise_std <= 255, "[0, 255]", _number(self.noise_std)),
        ):
            if not fine:
                verb = "be" if word == "scale" else "be in"
                raise TrainingError(f"{word} must {verb} {wanted}, got {value}.")

    @classmethod
    def parse(cls, text: str) -> Augment:
        """Read what ``--augment`` takes.

        Parameters
        ----------
        text
            ``none``, or a list, separated by commas, of ``mirror``, ``crop=AREA``,
            ``scale=LOW:HIGH``, ``rotate=DEGREES``, ``noise=STD`` and ``balance``, each at
            most once. The bare word ``crop`` stands for ``mirror,crop=0.5``, alone and in a
            list; ``crop=AREA`` does not mirror.

        Raises
        ------
        TrainingError
            A part is unknown, given twice, or its value is impossible; the message names it.
        """
        values: dict[str, Any] = {}
        seen: set[str] = set()
        for part in [] if text.strip() == "none" else text.split(","):
            word = part.partition("=")[0].strip()
            if word in seen:
                raise TrainingError(f'--augment {text}: "{word}" is given twice.')
            seen.add(word)
            try:
                values |= _values(part.strip())
                cls(**values)
            except _NotUnderstoodError as error:
                raise TrainingError(
                    f'--augment {text}: "{part}" is not understood; expected {_ALLOWED}.'
                ) from error
            except TrainingError as error:
                raise TrainingError(f"--augment {text}: {error}") from error
        return cls(**values)

    @property
    def text(self) -> str:
        """The shortest list that `parse` reads back as the same; ``none`` if nothing changes."""
        low, high = self.scale
        parts = {
            "mirror": self.mirror,
            f"crop={_number(self.crop_area)}": self.crop_area < 1,
            f"scale={_number(low)}:{_number(high)}": self.scale != (1, 1),
            f"rotate={_number(self.rotate_deg)}": self.rotate_deg > 0,
            f"noise={_number(self.noise_std)}": self.noise_std > 0,
            "balance": self.balance,
        }
        return ",".join(part for part, wanted in parts.items() if wanted) or "none"

    @property
    def num_views(self) -> int | None:
        """How many appearances a picture has: 1, 2 (plain and mirrored), or None for random."""
        random = self.crop_area < 1 or self.scale != (1, 1)
        if random or self.rotate_deg > 0 or self.noise_std > 0:
            return None
        return 2 if self.mirror else 1


class _NotUnderstoodError(ValueError):
    """A part of the list is none of those that are allowed."""


def _values(part: str) -> dict[str, Any]:
    """Return the attributes that one part of the list stands for."""
    word, equals, given = part.partition("=")
    bare: dict[str, dict[str, Any]] = {
        "mirror": {"mirror": True},
        "crop": {"mirror": True, "crop_area": _CROP_AREA},
        "balance": {"balance": True},
    }
    numbers = {"crop": "crop_area", "rotate": "rotate_deg", "noise": "noise_std"}
    try:
        if not equals:
            return bare[word]
        if word.strip() == "scale":
            low, high = given.split(":")
            return {"scale": (float(low), float(high))}
        return {numbers[word.strip()]: float(given)}
    except (KeyError, ValueError) as error:
        raise _NotUnderstoodError(part) from error


def _number(value: float) -> str:
    """Write a number as a person would, so that it reads back as the same."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
