"""Work in progress: the folder ``OUTPUT.wip`` with its plan and its parts.

A block is committed when its part exists; there is no other journal. Files are written
under another name in the same folder, fsynced, and put in place by a hard link (a rename
where the file system has no links), never replaced. A part's name carries the ``id`` of its
plan, so that a process whose plan was replaced cannot add to another's work.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from wsltool.errors import StoreCorruptError, StoreError, StoreExistsError
from wsltool.stores.container import first_line

__all__ = ["WorkInProgress", "fsync_folder", "fsync_tree", "place_file", "wip_path"]

Array = np.ndarray[Any, Any]

_PLAN = "plan.json"
_TEMPORARY = ".tmp-"
_OURS = (_PLAN, _TEMPORARY, "part-", "training", ".nfs")  # the last: NFS, of removed files
_ID_DIGITS = 12
_REMOVALS = 8  # another process may add a file to what is being removed
_TEXT, _LENGTH = ".utf8", ".length"  # strings in a part: bytes one after another, and counts
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError)


def wip_path(output: Path) -> Path:
    """Return the folder that holds the unfinished work for `output`."""
    return output.with_name(output.name + ".wip")


def place_file(
    path: Path, content: bytes | Callable[[BinaryIO], None], *, replace: bool = False
) -> bool:
    """Write a file so that it is whole or absent, whatever happens.

    Parameters
    ----------
    path : Path
        Where the file will stand.
    content : bytes or callable
        What it will hold, or a function that writes it, given an open binary file.
    replace : bool
        Whether a file already there is replaced. If not, it is left as it is.

    Returns
    -------
    bool
        False if a file was there already and stayed.
    """
    temporary = path.with_name(f"{_TEMPORARY}{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        elif not _link(temporary, path):
            return False
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _link(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            return False
        temporary.rename(path)
    return True


def fsync_folder(folder: Path) -> None:
    """Bring a folder (or file) safely to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(path: Path) -> None:
    """Bring a file, or a folder and all that is in it, safely to disk."""
    for found in [path, *path.rglob("*")] if path.is_dir() else [path]:
        fsync_folder(found)


class WorkInProgress:
    """The folder ``OUTPUT.wip``: one plan, one part a block.

    Parameters
    ----------
    output : Path
        The store or file that will be made.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = wip_path(output)
        self._id = ""

    def plan(self) -> dict[str, Any] | None:
        """Return the plan, or None where there is none; from here on the parts are its parts.

        Raises
        ------
        StoreExistsError
            There is a file of that name that wsltool did not write.
        """
        try:
            plan = json.loads((self.folder / _PLAN).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            plan = None
        if not isinstance(plan, dict) or not all(
            isinstance(plan.get(key), str) for key in ("id", "stage")
        ):
            raise StoreExistsError(
                f"{self.folder}: its plan.json was not written by wsltool. Move the folder away "
                "or pass -o."
            )
        self._id = plan["id"]
        return plan

    def claim(self, plan: dict[str, Any]) -> dict[str, Any] | None:
        """Put `plan` in place unless there is one already; return the one that holds.

        None if another process took the folder away at the same moment.

        Raises
        ------
        StoreExistsError
            Something that wsltool did not make stands at the folder's name, or in it.
        StoreError
            Nothing can be written there.
        """
        if os.path.lexists(self.folder) and (self.folder.is_symlink() or self.folder.is_file()):
            raise StoreExistsError(
                f"{self.folder}: is no folder of wsltool's, but the work on {self.output.name} "
                "belongs there. Move it away or pass -o."
            )
        text = json.dumps(plan, indent=1).encode()
        try:
            self.folder.mkdir(exist_ok=True)
            if self.plan() is None:
                self.refuse_strangers()
            place_file(self.folder / _PLAN, text)
        except StoreError:
            raise
        except (FileNotFoundError, FileExistsError):
            return None
        except OSError as error:
            raise StoreError(
                f"{self.output}: its folder cannot be written ({error.strerror}). Pass -o with a "
                "name in another folder."
            ) from error
        return self.plan()

    def refuse_strangers(self) -> None:
        """Raise StoreExistsError if the folder holds files that wsltool did not make."""
        strangers = [f.name for f in self.folder.iterdir() if not f.name.startswith(_OURS)]
        if strangers:
            raise StoreExistsError(
                f"{self.folder}: holds a file that was not made by wsltool ({strangers[0]}). "
                "Move it away or pass -o."
            )

    def check_held(self) -> None:
        """Raise StoreExistsError if the plan is no longer the one that this process works on."""
        expected = self._id
        plan = self.plan()
        self._id = expected
        if plan is None or plan["id"] != expected:
            raise self._taken_error()

    def _taken_error(self) -> StoreExistsError:
        return StoreExistsError(
            f"{self.output}: another process took this work away, perhaps with --overwrite. "
            "Run the same command again."
        )

    def commit(self, block: int, rows: dict[str, Array]) -> None:
        """Commit a block: its rows of every array, in one file that never changes again.

        Raises
        ------
        StoreExistsError
            Another process has taken the work away in the meantime.
        """
        self.check_held()
        plain = dict(item for name, values in rows.items() for item in _plain(name, values))
        place_file(self._part(block), lambda file: np.savez(file, allow_pickle=False, **plain))

    def part(self, block: int) -> dict[str, Array]:
        """Return the rows of a committed block; StoreCorruptError where bytes are flipped."""
        with self._opened(block) as file, np.load(file, allow_pickle=False) as stored:
            return {
                name.removesuffix(_LENGTH): _stringed(stored, name)
                for name in stored.files
                if not name.endswith(_TEXT)
            }

    def part_array(self, block: int, name: str) -> Array:
        """Return the rows of one array (not of strings) of a committed block."""
        with self._opened(block) as file, np.load(file, allow_pickle=False) as stored:
            values: Array = stored[name]
            return values

    def part_shapes(self, block: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of every array of a committed block; only headers are read."""
        found = {}
        with self._opened(block) as part, zipfile.ZipFile(part) as stored:
            for member in stored.namelist():
                with stored.open(member) as file:
                    np.lib.format.read_magic(file)
                    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                name = member.removesuffix(".npy")
                if name.endswith(_LENGTH):
                    found[name.removesuffix(_LENGTH)] = (shape, "string")
                elif not name.endswith(_TEXT):
                    found[name] = (shape, dtype.name)
        return found

    @contextlib.contextmanager
    def _opened(self, block: int) -> Iterator[BinaryIO]:
        """Open a part; damage found while it is read is told in one line."""
        try:
            with self._part(block).open("rb") as file:
                yield file
        except _DAMAGE as error:
            raise StoreCorruptError(
                f"{self._part(block)}: the part is damaged ({first_line(error)}). Remove this "
                "file and run the same command again."
            ) from error

    def committed(self) -> set[int]:
        """Return the numbers of the committed blocks."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names = (self._part_name.fullmatch(file.name) for file in self.folder.iterdir())
            return {int(name[1]) for name in names if name}
        return set()

    def missing(self, num_blocks: int) -> list[int]:
        """Return the numbers of the blocks that are not committed, rising."""
        return sorted(set(range(num_blocks)) - self.committed())

    def beside_parts(self, name: str) -> Path:
        """Return where something of this plan alone stands, among its parts."""
        return self.folder / f"part-{self._id[:_ID_DIGITS]}-{name}"

    def scratch(self, suffix: str) -> Path:
        """Return a new random name inside the folder, where nobody else writes."""
        return self.folder / f"{_TEMPORARY}pack-{secrets.token_hex(8)}{suffix}"

    def remove(self) -> None:
        """Remove what wsltool made in the folder, the plan last, and the folder if it is empty.

        Parts that another process still adds go with it; anything else stays.
        """
        for _ in range(_REMOVALS):
            with contextlib.suppress(OSError):
                found = [file for file in self.folder.iterdir() if file.name.startswith(_OURS)]
                for file in sorted(found, key=lambda file: file.name == _PLAN):
                    _remove(file)
                self.folder.rmdir()
            if not self.folder.exists():
                return

    def give_way(self) -> None:
        """Remove the folder for another plan's sake, unless its plan has changed meanwhile.

        The folder goes at once (a rename), so that no process finds half of it.

        Raises
        ------
        StoreExistsError
            It holds files that wsltool did not make.
        """
        expected = self._id
        doomed = self.output.with_name(f"{_TEMPORARY}{self.folder.name}.{secrets.token_hex(4)}")
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self.refuse_strangers()
            if (self.plan() or {}).get("id") != expected:
                return
            self.folder.rename(doomed)
            moved = doomed / _PLAN
            if moved.exists() and json.loads(moved.read_bytes())["id"] != expected:
                with contextlib.suppress(OSError):
                    doomed.rename(self.folder)  # claimed after we looked: not ours to remove
                    return
            for _ in range(_REMOVALS):
                shutil.rmtree(doomed, ignore_errors=True)

    @property
    def _part_name(self) -> re.Pattern[str]:
        return re.compile(rf"part-{re.escape(self._id[:_ID_DIGITS])}-(\d+)\.npz")

    def _part(self, block: int) -> Path:
        return self.beside_parts(f"{block:08d}.npz")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _plain(name: str, values: Array) -> Iterator[tuple[str, Array]]:
    """Yield what a part holds of an array: strings as UTF-8 bytes and their lengths."""
    if values.dtype.kind != "T":
        yield name, values
        return
    encoded = [text.encode() for text in values.tolist()]
    yield name + _LENGTH, np.array([len(text) for text in encoded], np.int64)
    yield name + _TEXT, np.frombuffer(b"".join(encoded), np.uint8)


def _stringed(stored: Any, name: str) -> Array:
    values: Array = stored[name]
    if not name.endswith(_LENGTH):
        return values
    text = stored[name.removesuffix(_LENGTH) + _TEXT].tobytes()
    stop = np.cumsum(values)
    pieces = [text[a:b].decode() for a, b in zip(stop - values, stop, strict=True)]
    return np.array(pieces, dtype=np.dtypes.StringDType())
