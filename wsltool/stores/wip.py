"""Work in progress: the folder ``OUTPUT.wip`` with its plan and its parts.

A block is committed when its part exists; there is no other journal. Files are written
under another name in the same folder, fsynced, and put in place by a hard link (a rename
where the file system has no links), never replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from wsltool.errors import StoreExistsError

__all__ = ["WorkInProgress", "fsync_tree", "place_file", "wip_path"]

Array = np.ndarray[Any, Any]

_PLAN = "plan.json"
_TEMPORARY = ".tmp-"


def wip_path(output: Path) -> Path:
    """Return the folder that holds the unfinished work for `output`."""
    return output.with_name(output.name + ".wip")


def place_file(path: Path, write: Callable[[BinaryIO], None], *, replace: bool = False) -> bool:
    """Write a file so that it is whole or absent, whatever happens.

    Parameters
    ----------
    path : Path
        Where the file will stand.
    write : callable
        Given an open binary file, writes the content.
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
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        elif not _link(temporary, path):
            return False
        _fsync_folder(path.parent)
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


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(path: Path) -> None:
    """Bring a file, or a folder and all that is in it, safely to disk."""
    for found in [path, *path.rglob("*")] if path.is_dir() else [path]:
        _fsync_folder(found)


class WorkInProgress:
    """The folder ``OUTPUT.wip``: one plan, one part a block.

    Parameters
    ----------
    output : Path
        The store or file that will be made.
    """

    def __init__(self, output: Path) -> None:
        self.folder = wip_path(output)

    def plan(self) -> dict[str, Any] | None:
        """Return the plan, or None where there is none."""
        try:
            plan: dict[str, Any] = json.loads((self.folder / _PLAN).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        return plan

    def claim(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Put `plan` in place unless there is one already; return the one that holds."""
        text = json.dumps(plan, indent=1).encode()
        self.folder.mkdir(exist_ok=True)
        self._refuse_strangers()
        place_file(self.folder / _PLAN, lambda file: _write_all(file, text))
        held = self.plan()
        assert held is not None
        return held

    def _refuse_strangers(self) -> None:
        """Raise if the folder has no plan but holds files that are not ours."""
        if (self.folder / _PLAN).exists():
            return
        strangers = [f.name for f in self.folder.iterdir() if not f.name.startswith(_TEMPORARY)]
        if strangers and not (self.folder / _PLAN).exists():
            raise StoreExistsError(
                f"{self.folder}: holds no plan.json but other files ({strangers[0]}), so it was "
                "not made by wsltool. Move it away or pass -o."
            )

    def commit(self, block: int, rows: dict[str, Array]) -> None:
        """Commit a block: its rows of every array, in one file that never changes again."""
        plain = {name: _plain(values) for name, values in rows.items()}
        place_file(self._part(block), lambda file: np.savez(file, allow_pickle=False, **plain))

    def part(self, block: int) -> dict[str, Array]:
        """Return the rows of a committed block."""
        with np.load(self._part(block), allow_pickle=False) as stored:
            return {name: _stringed(stored[name]) for name in stored.files}

    def part_shapes(self, block: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of every array of a committed block; only headers are read."""
        found = {}
        with zipfile.ZipFile(self._part(block)) as stored:
            for member in stored.namelist():
                with stored.open(member) as file:
                    np.lib.format.read_magic(file)
                    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                name = "string" if dtype.kind == "U" else dtype.name
                found[member.removesuffix(".npy")] = (shape, name)
        return found

    def committed(self) -> set[int]:
        """Return the numbers of the committed blocks."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names = [file.name for file in self.folder.iterdir()]
            return {int(n[5:-4]) for n in names if n.startswith("part-") and n.endswith(".npz")}
        return set()

    def missing(self, num_blocks: int) -> list[int]:
        """Return the numbers of the blocks that are not committed, rising."""
        return sorted(set(range(num_blocks)) - self.committed())

    def scratch(self, suffix: str) -> Path:
        """Return a new random name inside the folder, where nobody else writes."""
        return self.folder / f"{_TEMPORARY}pack-{secrets.token_hex(8)}{suffix}"

    def remove(self) -> None:
        """Remove the folder. Parts that another process still adds go with it."""
        for _ in range(8):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                return

    def _part(self, block: int) -> Path:
        return self.folder / f"part-{block:08d}.npz"


def _write_all(file: BinaryIO, text: bytes) -> None:
    file.write(text)


def _plain(values: Array) -> Array:
    """Return strings as fixed-width text, which needs no pickle."""
    return np.array(values.tolist(), "U") if values.dtype.kind == "T" else values


def _stringed(values: Array) -> Array:
    return values.astype(np.dtypes.StringDType()) if values.dtype.kind == "U" else values
