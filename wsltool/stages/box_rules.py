"""The rules by which ``boxes`` makes boxes of the maps of an image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from wsltool.localize.boxes import BoxSet, boxes_from_heat
from wsltool.localize.zhou_boxes import zhou_boxes
from wsltool.stages.map_rows import MapRow

__all__ = ["BoxRule", "Drawn", "Kl16Rule", "ZhouRule", "guessed_classes"]

Array = np.ndarray[Any, Any]

BoxScore = Literal["class", "heat-max", "heat-mean", "box-mean"]

_TWICE = 2  # ranks whose second box is a guess, too
_LEAST_RANKS = 3
_GUESSES = 5


@dataclass(frozen=True)
class Drawn:
    """The boxes of one image, as in a boxes store.

    Attributes
    ----------
    class_S, score_S : int32 and float32 ndarray of shape (S,)
        The ranked classes, -1 and -inf in empty slots.
    box_B4, class_B, score_B, slot_B : ndarray
        The boxes, slot by slot.
    """

    class_S: Array
    score_S: Array
    box_B4: Array
    class_B: Array
    score_B: Array
    slot_B: Array


class BoxRule(Protocol):
    """Makes the boxes of one image."""

    def __call__(self, maps: MapRow, score_S: Array) -> Drawn:
        """Return the boxes; `score_S` are the scores of the slots.

        Raises
        ------
        BadImageError
            A map is not finite.
        """


@dataclass(frozen=True)
class Kl16Rule:
    """Kolesnikov and Lampert (2016): what is above a threshold, its components, their boxes.

    `threshold_K` holds a threshold for each class; the others are options of `boxes_from_heat`
    and what becomes the score of a box.
    """

    threshold_K: Array
    of: Literal["max", "range"]
    components: Literal["largest", "all"]
    connectivity: int
    empty: Literal["none", "whole"]
    box_score: BoxScore

    def __call__(self, maps: MapRow, score_S: Array) -> Drawn:
        """Return the boxes of every map."""
        return _drawn(
            maps.class_S.astype(np.int32),
            score_S,
            (
                (slot, *self.draw(maps.heat(slot), int(maps.class_S[slot]), float(score_S[slot])))
                for slot in maps.slots()
            ),
        )

    def draw(self, heat_HW: Array, class_index: int, class_score: float) -> tuple[Array, Array]:
        """Return the boxes of one map and their scores, float64 (B, 4) and float32 (B,)."""
        found = boxes_from_heat(
            heat_HW,
            threshold=float(self.threshold_K[class_index]),
            of=self.of,
            components=self.components,
            connectivity=self.connectivity,
            empty=self.empty,
        )
        return found.box_xyxy_B4, self._scores(found, class_score).astype(np.float32)

    def _scores(self, found: BoxSet, class_score: float) -> Array:
        return {
            "class": np.full(len(found), class_score),
            "heat-max": found.max_heat_B,
            "heat-mean": found.mean_heat_B,
            "box-mean": found.box_heat_B,
        }[self.box_score]


@dataclass(frozen=True)
class ZhouRule:
    """The released code of Zhou et al. (2016), see `wsltool.localize.zhou_boxes`.

    The box of a class is the first one that the rule finds. With `guesses`, the classes are
    listed as that code guesses them for ILSVRC: the first and the second box of the best class,
    the same of the second class, the first box of the third, … one of each further class.
    """

    guesses: bool

    def __call__(self, maps: MapRow, score_S: Array) -> Drawn:
        """Return one box of every map, two where a class stands twice."""
        source_S = [slot for slot in maps.slots() for _ in range(self._times(slot))]
        class_S = np.full(self._num_slots(len(score_S)), -1, np.int32)
        ranked_S = np.full(len(class_S), -np.inf, np.float32)
        class_S[: len(source_S)] = maps.class_S[source_S]
        ranked_S[: len(source_S)] = score_S[source_S]
        return _drawn(class_S, ranked_S, self._boxes(maps, source_S, score_S))

    def _times(self, slot: int) -> int:
        return 2 if self.guesses and slot < _TWICE else 1

    def _num_slots(self, num_slots: int) -> int:
        return sum(self._times(slot) for slot in range(num_slots))

    def _boxes(
        self, maps: MapRow, source_S: list[int], score_S: Array
    ) -> Iterator[tuple[int, Array, Array]]:
        """Yield slot, boxes and scores; the n-th slot of a class holds its n-th box."""
        before = -1
        box_B4 = np.zeros((0, 4))
        for slot, source in enumerate(source_S):
            box_B4 = box_B4[1:] if source == before else zhou_boxes(maps.heat(source))
            before = source
            first_B4 = box_B4[:1]
            first_B4 = first_B4[(first_B4[:, 2:] > first_B4[:, :2]).all(axis=1)]
            yield slot, first_B4, np.full(len(first_B4), score_S[source])


def guessed_classes(classes: str) -> str | None:
    """Return what the ranking of `ZhouRule` holds, given what the maps hold; None for no guesses.

    It needs the best three classes (or all there are) of every image, chosen by the network
    alone. ``top3`` then gives five guesses, as ``top5`` does.
    """
    parts = classes.split("+")
    for place, part in enumerate(parts):
        if part.startswith("top") and part[3:].isdecimal() and int(part[3:]) >= _LEAST_RANKS:
            parts[place] = f"top{max(int(part[3:]), _GUESSES)}"
            return "+".join(parts)
    return classes if "all" in parts or not classes else None


def _drawn(class_S: Array, score_S: Array, found: Iterable[tuple[int, Array, Array]]) -> Drawn:
    """Return the boxes of all slots one after another; `found` are slots, boxes and scores."""
    box, score, slot_B = [np.zeros((0, 4))], [np.zeros(0, np.float32)], [np.zeros(0, np.int32)]
    for slot, box_B4, score_B in found:
        box.append(box_B4)
        score.append(score_B.astype(np.float32))
        slot_B.append(np.full(len(box_B4), slot, np.int32))
    slots = np.concatenate(slot_B)
    return Drawn(
        class_S, score_S, np.concatenate(box), class_S[slots], np.concatenate(score), slots
    )
