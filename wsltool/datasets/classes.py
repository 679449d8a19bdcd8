"""Class lists: which classes there are, in which order, under which id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from wsltool.datasets.textfiles import read_lines
from wsltool.errors import DatasetError

__all__ = ["ClassList", "read_class_list"]

_WNID = r"(?P<id>n\d{8})"
_FORMS = {
    "index id name": re.compile(rf"(?P<index>\d+)\s+{_WNID}\s+(?P<name>.+)"),
    "id index name": re.compile(rf"{_WNID}\s+\d+\s+(?P<name>.+)"),
    "id name": re.compile(rf"{_WNID}\s+(?P<name>.+)"),
    "name": re.compile(r"(?P<name>(?P<id>.+))"),
}


class ClassList:
    """Classes in order, found by id first and by name second.

    Parameters
    ----------
    class_name
        Display names; they may repeat (ImageNet has two cranes).
    class_id
        The source's own ids, all different; the names where left out.
    origin
        What messages call the list.
    """

    def __init__(
        self, class_name: Sequence[str], class_id: Sequence[str] | None = None, *, origin: str
    ) -> None:
        self.class_name = list(class_name)
        self.class_id = list(class_name if class_id is None else class_id)
        self.origin = origin
        self._by_id = {word: index for index, word in enumerate(self.class_id)}
        self._by_name: dict[str, list[int]] = {}
        for index, name in enumerate(self.class_name):
            self._by_name.setdefault(name, []).append(index)

    def __len__(self) -> int:
        return len(self.class_name)

    def index(self, word: str) -> int:
        """Index of the class with this id, else with this name.

        Raises `LookupError` with the reason (without a place) when there is no such class
        or the name belongs to several.
        """
        if (found := self._by_id.get(word)) is not None:
            return found
        named = self._by_name.get(word, [])
        if len(named) == 1:
            return named[0]
        word = word[:80]
        if named:
            ids = ", ".join(self.class_id[index] for index in named)
            raise LookupError(f'"{word}" is the name of several classes of {self.origin} ({ids})')
        shown = ", ".join(self.class_name[:5]) + (", …" if len(self) > 5 else "")
        raise LookupError(f'"{word}" is none of the {len(self)} classes of {self.origin} ({shown})')


def read_class_list(path: Path) -> ClassList:
    """Read a file with one class a line.

    Four forms are told apart by the first line, and the whole file must keep to one:
    ``name``; and with WordNet ids (n and 8 digits) ``index id name``, ``id index name``
    and ``id name``. A leading index must count the lines from 0; the index of
    ``id index name`` points into some larger list and is not used. Blank lines are skipped.

    Raises
    ------
    DatasetError
        No class, another form, an index out of step, or an id that repeats.
    """
    form = ""
    class_name: list[str] = []
    first_line: dict[str, int] = {}
    for line, text in read_lines(path):
        form = form or _form_of(text)
        match = _FORMS[form].fullmatch(text)
        if match is None or _form_of(text) != form:
            raise DatasetError(
                f'{path} line {line}: "{text[:80]}" is not "{form}" as the first line is.'
            )
        index = match.groupdict().get("index")
        if index is not None and int(index) != len(class_name):
            raise DatasetError(
                f"{path} line {line}: index {index}, expected {len(class_name)}; "
                "the classes must stand in order."
            )
        class_id = match["id"]
        if class_id in first_line:
            raise DatasetError(
                f'{path} line {line}: class "{class_id[:80]}" again, first on line '
                f"{first_line[class_id]}. Give each class one line."
            )
        first_line[class_id] = line
        class_name.append(match["name"])
    if not class_name:
        raise DatasetError(f"{path}: no class in it; expected one class a line.")
    return ClassList(class_name, list(first_line), origin=path.name)


def _form_of(text: str) -> str:
    return next(form for form, pattern in _FORMS.items() if pattern.fullmatch(text))
