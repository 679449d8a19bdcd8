"""Where exported files go: whole or not at all, and nothing of somebody else is ever removed."""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsltool.errors import DatasetError, StoreExistsError, UsageError
from wsltool.stores.wip import fsync_folder, fsync_tree

__all__ = ["MARKER", "Draft", "already_there", "new_file", "new_folder"]

MARKER = "wsltool-export.json"
"""A folder that holds this file was exported; it lists what else was."""

_NOT_NAMES = ("", ".", "..")
_MOST_BYTES = 255


def check_place(path: Path) -> None:
    """Refuse a name in a folder that is not there, and a symbolic link."""
    if not path.parent.is_dir():
        raise UsageError(
            f"{path}: the folder {path.parent} does not exist. Make it first: "
            f"mkdir -p {path.parent}"
        )
    if path.is_symlink():
        raise StoreExistsError(f"{path}: is a symbolic link, which is not replaced. Pass -o.")


@contextlib.contextmanager
def new_file(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a name to write to; at the end the file takes its place.

    A file of equal content that stands there already is left alone.

    Raises
    ------
    StoreExistsError
        Something else stands there and `overwrite` is off, or it is no file.
    """
    check_place(path)
    if path.is_dir():
        raise StoreExistsError(f"{path}: is a folder, expected a file's name. Pass -o.")
    draft = path.with_name(f".tmp-{path.name}.{secrets.token_hex(4)}")
    try:
        yield draft
        fsync_tree(draft)
        if path.exists():
            if filecmp.cmp(draft, path, shallow=False):
                return
            if not overwrite:
                raise StoreExistsError(
                    f"{path}: another file stands there. Pass --overwrite to replace it, or -o."
                )
        draft.replace(path)
        fsync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


class Draft:
    """A folder of exported files while it is filled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.names: set[str] = set()

    def file(self, name: str, ending: str) -> Path:
        """Return where to write the file of an image or class; folders in its name are made.

        Raises
        ------
        DatasetError
            The name is none of a file inside the folder, or a file has it already.
        """
        parts = f"{name}{ending}".split("/")
        if any(part in _NOT_NAMES or "\0" in part for part in parts) or name.endswith("/"):
            raise DatasetError(f'"{name}" cannot be the name of a file. Export another form.')
        if any(len(os.fsencode(part)) > _MOST_BYTES for part in parts):
            raise DatasetError(f'"{name[:60]}…" is too long for the name of a file.')
        whole = "/".join(parts)
        if whole in self.names or whole == MARKER:
            raise DatasetError(f'two files of the name "{whole}". Export another form.')
        self.names.add(whole)
        path = self._folder / whole
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def already_there(folder: Path, identity: dict[str, Any]) -> bool:
    """Return whether an equal export stands in `folder`, with all of its files."""
    held = _held(folder)
    if held is None or any(held.get(key) != value for key, value in identity.items()):
        return False
    return all((folder / name).is_file() for name in held["files"])


@contextlib.contextmanager
def new_folder(folder: Path, identity: dict[str, Any], *, overwrite: bool) -> Iterator[Draft]:
    """Give a draft that becomes `folder` at the end, or is removed on an error.

    Raises
    ------
    StoreExistsError
        Something stands there that was not exported, an export holds files that were added
        since, or `overwrite` is off.
    """
    _check_folder(folder, overwrite=overwrite)
    room = folder.with_name(f".tmp-{folder.name}.{secrets.token_hex(4)}")
    room.mkdir()
    try:
        (room / "new").mkdir()
        draft = Draft(room / "new")
        yield draft
        marker = identity | {"format": 1, "kind": "export", "files": sorted(draft.names)}
        (room / "new" / MARKER).write_text(json.dumps(marker, indent=0) + "\n", "utf-8")
        fsync_tree(room / "new")
        _check_folder(folder, overwrite=overwrite)
        if folder.exists():
            folder.rename(room / "old")
        (room / "new").rename(folder)
        fsync_folder(folder.parent)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _held(folder: Path) -> dict[str, Any] | None:
    """Return what an exported folder says of itself, None where it says nothing."""
    try:
        held = json.loads((folder / MARKER).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(held, dict) and held.get("kind") == "export"
    return held if known and isinstance(held.get("files"), list) else None


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    check_place(folder)
    if not folder.exists():
        return
    held = _held(folder) if folder.is_dir() else None
    if held is None:
        raise StoreExistsError(
            f"{folder}: something stands there that was not exported. It is left alone, also with "
            "--overwrite. Pass -o with another name."
        )
    if not overwrite:
        raise StoreExistsError(
            f"{folder}: another export, or a part of one, stands there. Pass --overwrite to "
            "replace it, or -o."
        )
    known = {MARKER, *held["files"]}
    for place, _, names in os.walk(folder):
        for name in names:
            found = Path(place, name).relative_to(folder).as_posix()
            if found not in known:
                raise StoreExistsError(
                    f"{folder}: holds {found}, which was not exported with it. Move it away or "
                    "pass -o."
                )
