"""The model that maps were computed with, where its file is still at hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsltool.errors import WslError
from wsltool.stores.lineage import fingerprint_file
from wsltool.stores.store import Store

if TYPE_CHECKING:
    from wsltool.nets.model_file import ModelHeader

__all__ = ["header_behind", "iteration_behind"]

_SUFFIX = ".safetensors"


def header_behind(maps: Store) -> ModelHeader | None:
    """Return the header of the model file behind a maps store.

    The file is looked for at the recorded relative path, beside the store, and among the
    named models, and taken only if its digest is the recorded one. None where there is no
    such file, or another program wrote it.
    """
    record = maps.meta.get("inputs", {}).get("model")
    if not isinstance(record, dict) or not record.get("path"):
        return None
    from wsltool.nets.model_file import read_header

    folder, name = maps.path.parent, str(record["path"])
    named = Path(os.environ.get("WSLTOOL_MODELS", "models")) / f"{name}{_SUFFIX}"
    for path in (folder / name, folder / Path(name).name, named):
        if path.suffix == _SUFFIX and path.is_file():
            try:
                digest = fingerprint_file(path, folder)["digest"].removeprefix("sha256:")
                if digest == str(record.get("digest", "")).removeprefix("sha256:"):
                    return read_header(path)
            except (WslError, OSError):
                continue
    return None


def iteration_behind(maps: Store) -> int | None:
    """Return the training iteration of the model behind a maps store, where that is known."""
    header = header_behind(maps)
    provenance: dict[str, Any] = {} if header is None else header.provenance
    for held in (provenance, provenance.get("made", {})):
        iteration = held.get("iteration") if isinstance(held, dict) else None
        if isinstance(iteration, int) and not isinstance(iteration, bool):
            return iteration
    return None
