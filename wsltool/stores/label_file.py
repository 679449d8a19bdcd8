"""``labels.json``: what an annotator said of every cluster, for people to read and to diff.

The file names the clusters store by path and digest, and holds one line a class::

    {"class": 6, "name": "car", "clusters": ["object", "distractor"], "seconds": 3.2, …}

``clusters`` has one word for every cluster of the class, in the order of the store. Classes
stand in the order in which they are asked (`annotation_order`), and any of them may be absent:
then nobody has judged it. ``seconds`` and ``answered`` (when) may be absent or null.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

import numpy.typing as npt

from wsltool.errors import DatasetError, StoreMissingError
from wsltool.stores.wip import place_file

__all__ = ["WORDS", "ClassLabels", "LabelWord", "Labels", "read_labels", "write_labels"]

LabelWord = Literal["object", "distractor", "unsure"]
WORDS: tuple[str, ...] = get_args(LabelWord)

_FORMAT = 1
_SHOWN = 60  # characters of a wrong value that an error repeats
_LONGEST_S = 1e9
_LARGEST_CLASS = 2**31
_FILE_KEYS = ("format", "kind", "clusters", "annotator", "made", "classes")
_CLASS_KEYS = ("class", "name", "clusters", "seconds", "answered")


@dataclass(frozen=True)
class ClassLabels:
    """What was said of the clusters of one class.

    Attributes
    ----------
    class_index : int
        Number of the class, as everywhere.
    class_name : str
    words : tuple of str
        ``object``, ``distractor`` or ``unsure`` for each of its clusters, in their order.
    seconds : float or None
        How long a person took for it.
    answered : str or None
        When, ISO 8601.
    """

    class_index: int
    class_name: str
    words: tuple[str, ...]
    seconds: float | None = None
    answered: str | None = None


@dataclass(frozen=True)
class Labels:
    """The content of a ``labels.json``.

    Attributes
    ----------
    clusters_path, clusters_digest : str
        The clusters store, relative to the folder of the file, and the digest of its arrays.
    annotator : str
        Who answered: ``person``, ``oracle boxes``, ``oracle masks``, ``random``, or a name.
    classes : tuple of ClassLabels
        In the order of the queue; at most one a class.
    made : dict
        How it was made: stage, params, inputs, id (as every output of a stage records).
    origin : str
        What errors call it: the name of the file.
    """

    clusters_path: str
    clusters_digest: str
    annotator: str
    classes: tuple[ClassLabels, ...] = ()
    made: dict[str, Any] = field(default_factory=dict)
    origin: str = field(default="labels", compare=False)

    def of_class(self, class_index: int) -> ClassLabels | None:
        """Return what was said of a class, None if nothing."""
        return next((one for one in self.classes if one.class_index == class_index), None)

    def with_class(self, answer: ClassLabels, order_K: Sequence[int] | npt.NDArray[Any]) -> Labels:
        """Return the labels with the answer to one class added, or in place of an older one.

        Parameters
        ----------
        answer : ClassLabels
        order_K : sequence of int
            The classes in the order of the queue (`annotation_order`), in which the answers
            will stand; classes that are not in it come last.
        """
        place = {int(index): n for n, index in enumerate(order_K)}
        kept = [*self.without_class(answer.class_index).classes, answer]
        kept.sort(key=lambda one: (place.get(one.class_index, len(place)), one.class_index))
        return replace(self, classes=tuple(kept))

    def without_class(self, class_index: int) -> Labels:
        """Return the labels without the answer to one class."""
        kept = tuple(one for one in self.classes if one.class_index != class_index)
        return replace(self, classes=kept)


def write_labels(path: Path, labels: Labels, *, replace: bool = True) -> bool:
    """Write a ``labels.json``, whole or not at all, safely on disk; one line a class.

    Parameters
    ----------
    path : Path
        Where it will stand.
    labels : Labels
    replace : bool
        Whether a file already there is replaced. If not, it is left as it is.

    Returns
    -------
    bool
        False if a file was there already and stayed.
    """
    head = {
        "format": _FORMAT,
        "kind": "labels",
        "clusters": {"path": labels.clusters_path, "digest": labels.clusters_digest},
        "annotator": labels.annotator,
        "made": labels.made,
    }
    lines = [f" {_dump(key)}: {_dump(value)}," for key, value in head.items()]
    rows = ",\n".join("  " + _dump(_row(one)) for one in labels.classes)
    listed = f' "classes": [\n{rows}\n ]' if rows else ' "classes": []'
    content = "\n".join(["{", *lines, listed, "}\n"]).encode()
    return place_file(path, content, replace=replace)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _row(one: ClassLabels) -> dict[str, Any]:
    values = (one.class_index, one.class_name, one.words, one.seconds, one.answered)
    return dict(zip(_CLASS_KEYS, values, strict=True))


def read_labels(path: Path) -> Labels:
    """Read a ``labels.json``, also one that was written or changed by hand.

    Whether it suits a clusters store is another question: `check_labels`.

    Raises
    ------
    StoreMissingError
        There is no such file.
    DatasetError
        It is no JSON, or lacks something, or holds what no ``labels.json`` may: an unknown key
        or word, a class that stands twice, a count, time or digest that is none. One line that
        says where.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise StoreMissingError(
            f"{path}: there is no such file. Run first: wsltool label CLUSTERS"
        ) from None
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read ({error.strerror}); expected a labels.json of wsltool label."
        ) from error
    place = _Place(path.name)
    data = place.mapping(_parsed(place, text), _FILE_KEYS, optional=("made",))
    if data["format"] != _FORMAT or isinstance(data["format"], bool):
        place.fail("format", data["format"], f"{_FORMAT}")
    if data["kind"] != "labels":
        place.fail("kind", data["kind"], '"labels"')
    source = place.at("clusters").mapping(data["clusters"], ("path", "digest"))
    digest = place.at("clusters").text("digest", source["digest"])
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        place.at("clusters").fail("digest", digest, "sha256: and 64 hexadecimal digits")
    made = data.get("made", {})
    if not isinstance(made, dict):
        place.fail("made", made, "an object")
    return Labels(
        clusters_path=place.at("clusters").text("path", source["path"], plain=True),
        clusters_digest=digest,
        annotator=place.text("annotator", data["annotator"], plain=True),
        classes=_classes(place, data["classes"]),
        made=made,
        origin=path.name,
    )


class _Place:
    """A part of the file, and the checks whose failures say where it is."""

    def __init__(self, name: str) -> None:
        self.name = name

    def at(self, key: str) -> _Place:
        return _Place(f"{self.name}: {key}")

    def fail(self, key: str, value: object, expected: str) -> NoReturn:
        """Raise the error of a value that is wrong."""
        shown = json.dumps(value)
        shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + " …"
        what = f'"{key}" is {shown}' if key else f"is {shown}"
        raise DatasetError(
            f"{self.name}: {what}; expected {expected}. Correct it, or run wsltool label again."
        )

    def text(self, key: str, value: object, *, plain: bool = False) -> str:
        """Return a string; a plain one is not empty and has no signs that cannot be printed."""
        if not isinstance(value, str):
            self.fail(key, value, "text")
        if plain and not (value and value.isprintable()):
            self.fail(key, value, "text that can be printed")
        return value

    def mapping(
        self, value: object, keys: Sequence[str], optional: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return an object that has all keys but the optional ones, and no others."""
        if not isinstance(value, dict):
            self.fail("", value, "an object with " + ", ".join(keys))
        strange = [key for key in value if key not in keys]
        missing = [key for key in keys if key not in value and key not in optional]
        if strange or missing:
            what = f"unknown key {json.dumps(strange[0])[:_SHOWN]}" if strange else ""
            what = what or f'key "{missing[0]}" is missing'
            raise DatasetError(
                f"{self.name}: {what}; expected {', '.join(keys)}. Correct it, or run wsltool "
                "label again."
            )
        return value


def _parsed(place: _Place, text: bytes) -> object:
    """Return the JSON of a file; a key that stands twice in an object is an error."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"key {json.dumps(twice)[:_SHOWN]} stands twice in one object")
        return found

    try:
        made: object = json.loads(text, object_pairs_hook=once)
        _dump(made).encode()  # half a surrogate pair and numbers out of range are no values
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{place.name}: is no JSON ({str(error).splitlines()[0]}); expected a labels.json of "
            "wsltool label. Correct it, or run wsltool label again."
        ) from error
    return made


def _classes(place: _Place, rows: object) -> tuple[ClassLabels, ...]:
    if not isinstance(rows, list):
        place.fail("classes", rows, "a list with an object for each class")
    found: dict[int, ClassLabels] = {}
    for n, row in enumerate(rows):
        one = _class_labels(place.at(f"classes[{n}]"), row)
        if one.class_index in found:
            raise DatasetError(
                f"{place.name}: classes[{n}]: class {one.class_index} stands there twice; "
                "expected one line a class. Remove one."
            )
        found[one.class_index] = one
    return tuple(found.values())


def _class_labels(place: _Place, row: object) -> ClassLabels:
    data = place.mapping(row, _CLASS_KEYS, optional=("seconds", "answered"))
    index, words = data["class"], data["clusters"]
    if type(index) is not int or not 0 <= index < _LARGEST_CLASS:
        place.fail("class", index, "the number of a class, from 0")
    if not isinstance(words, list) or not words:
        place.fail("clusters", words, "a list with a word for each cluster")
    for n, word in enumerate(words):
        if word not in WORDS:
            place.at(f"clusters[{n}]").fail("", word, "object, distractor or unsure")
    seconds, answered = data.get("seconds"), data.get("answered")
    if seconds is not None and (
        type(seconds) not in (int, float) or not 0 <= seconds <= _LONGEST_S
    ):
        place.fail("seconds", seconds, f"a number from 0 to {_LONGEST_S:g}, or null")
    if answered is not None:
        try:
            datetime.datetime.fromisoformat(place.text("answered", answered))
        except ValueError as error:
            if isinstance(error, DatasetError):
                raise
            place.fail("answered", answered, "a time such as 2026-05-04T12:00:00+00:00, or null")
    name = place.text("name", data["name"])
    return ClassLabels(index, name, tuple(words), seconds, answered)
