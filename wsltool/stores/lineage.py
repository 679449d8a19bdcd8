"""Lineage: where a store came from, fingerprints, and finding an input again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from wsltool.errors import LineageError, StoreError
from wsltool.stores.open import open_store
from wsltool.stores.store import Store

__all__ = [
    "find_ancestor",
    "find_input",
    "fingerprint_file",
    "fingerprint_store",
    "same_fingerprint",
]

_PIECE = 1 << 20


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def fingerprint_file(path: Path, folder: Path, kind: str = "file") -> dict[str, Any]:
    """Return what a store in `folder` records of a file: relative path, kind, sha256."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            total.update(piece)
    digest = "sha256:" + total.hexdigest()
    return {"path": _relative(path, folder), "kind": kind, "digest": digest}


def fingerprint_store(store: Store, folder: Path) -> dict[str, Any]:
    """Return what a store in `folder` records of an input store: path, kind, id, digest.

    A store that somebody else wrote may lack both; its digest is computed then.
    """
    found = {"path": _relative(store.path, folder), "kind": store.kind}
    keys = {key: store.meta[key] for key in ("id", "digest") if store.meta.get(key)}
    return found | (keys or {"digest": store.compute_digest()})


def same_fingerprint(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two records mean the same input: equal `id` or equal `digest`."""
    return any(one.get(key) and one.get(key) == other.get(key) for key in ("id", "digest"))


def find_input(store: Store, role: str, option: str) -> Store:
    """Open the input `role` that `store` was made from.

    It is looked for at the recorded relative path, then beside the store under the same
    name, and taken only if its fingerprint fits.

    Raises
    ------
    LineageError
        It is not recorded, not found, or has changed; the message names `option`.
    """
    recorded = store.meta.get("inputs", {}).get(role)
    if recorded is None:
        raise LineageError(
            f"{store.path.name}: does not record what {role} it was made from. "
            f"Say where with {option}."
        )
    folder = store.path.parent
    seen = ""
    for place in (folder / recorded["path"], folder / Path(recorded["path"]).name):
        place = Path(os.path.normpath(place))
        if not place.exists():
            continue
        try:
            found = open_store(place)
        except StoreError:
            continue
        if same_fingerprint(fingerprint_store(found, folder), recorded):
            return found
        found.close()
        seen = f" {place} is another store now (its id and digest differ)."
    raise LineageError(
        f"{store.path.name}: its {role} {recorded['path']} is not there.{seen} "
        f"Say where with {option}."
    )


def find_ancestor(store: Store, kind: str, option: str) -> Store:
    """Open the store itself anew, or the input of `kind` that it was made from.

    Whoever calls closes what comes back; `store` stays open.

    Raises
    ------
    LineageError
        As `find_input`.
    """
    return open_store(store.path) if store.kind == kind else find_input(store, kind, option)
