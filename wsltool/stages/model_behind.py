"""The model that a store was computed with, where it is still at hand."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsltool.errors import LineageError, WslError
from wsltool.stages.options import PathLike
from wsltool.stages.run import rebased
from wsltool.stores.lineage import find_input, fingerprint_file
from wsltool.stores.store import Store

if TYPE_CHECKING:
    from wsltool.nets.model_file import ModelHeader
    from wsltool.nets.models import Model
    from wsltool.nets.preprocess import Fit

__all__ = [
    "UsedModel",
    "given_model",
    "header_behind",
    "iteration_behind",
    "model_behind",
    "model_record",
]

_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class UsedModel:
    """A model that a stage computes with, and what its output records of it.

    Attributes
    ----------
    model : Model
        Ready for use, with the input size and fit wanted.
    name : str
        Its name, or the name of its file without the folder.
    file : Path or None
        The file of its weights, where it was given as one.
    """

    model: Model
    name: str
    file: Path | None

    @property
    def digest(self) -> str:
        """Digest of the weights, with the preprocessing where code decides it."""
        if ":" not in self.model.arch:
            return self.model.fingerprint
        header = json.dumps(self.model.preprocess.to_header(), sort_keys=True)
        total = hashlib.sha256(f"{self.model.fingerprint}{header}".encode()).hexdigest()
        return f"sha256:{total}"

    def record(self, folder: Path) -> dict[str, Any]:
        """Return what a store in `folder` records of it, among its inputs under ``model``."""
        path = self.name if self.file is None else rebased(str(self.file), Path.cwd(), folder)
        return {"path": path, "kind": "model", "digest": self.digest, "name": self.name}


def given_model(
    model: PathLike,
    weights: PathLike | None,
    *,
    input_size: int | None,
    fit: Fit | None,
    maps: bool = False,
) -> UsedModel:
    """Load the model that ``--model`` and ``--weights`` name, for another size or fit if given.

    Parameters
    ----------
    maps : bool
        Whether class activation maps are needed.

    Raises
    ------
    ModelError
        As `wsltool.nets.models.load_model`.
    """
    from wsltool.nets.models import load_model

    name = os.fspath(model)
    file = Path(name if weights is None else weights)
    loaded = load_model(name, weights=None if weights is None else Path(weights), maps=maps)
    loaded.preprocess = loaded.preprocess.at(size=input_size, fit=fit)
    shown = Path(name).name if Path(name).is_file() else name
    return UsedModel(loaded, shown, file if file.is_file() else None)


def model_behind(
    store: Store, *, input_size: int | None = None, fit: Fit | None = None
) -> UsedModel:
    """Load the model that a store was computed with, at the input size and fit recorded there.

    A file is looked for at the recorded relative path, beside the store, and among the named
    models; a name is loaded as ever. Either is taken only if its digest is the recorded one. A
    store that records none, such as a selection, has that of the features or maps behind it.

    Parameters
    ----------
    store : Store
        Its attributes or params name ``input_size`` and ``fit``.
    input_size, fit
        Others than those recorded.

    Raises
    ------
    LineageError
        No model is recorded, or it is not there; the message names ``--model``.
    """
    record = _own_record(store)
    if not record:
        with _made_from(store) as behind:
            return model_behind(behind, input_size=input_size, fit=fit)
    held = store.meta.get("params", {}) | store.attributes
    name = str(record.get("name") or held.get("model") or record["path"])
    seen = ""
    for model, weights in _places(store.path.parent, str(record["path"]), name):
        try:
            used = given_model(
                model, weights, input_size=held.get("input_size"), fit=held.get("fit")
            )
        except WslError as error:
            seen = seen or f" ({error})"
            continue
        if used.digest == str(record.get("digest", "")):
            preprocess = used.model.preprocess
            used.model.preprocess = preprocess.at(size=input_size, fit=fit)
            return used
        seen = f" ({weights or model} has other weights or another preprocessing now)"
    raise LineageError(
        f'{store.path.name}: its model "{name}" ({record["path"]}) is not there{seen}. Say which '
        "with --model."
    )


def model_record(store: Store) -> dict[str, Any]:
    """Return what is recorded of the model behind a store, also of a selection; {} if nothing."""
    record = _own_record(store)
    if record:
        return record
    try:
        with _made_from(store) as behind:
            return model_record(behind)
    except LineageError:
        return {}


def _own_record(store: Store) -> dict[str, Any]:
    record = store.meta.get("inputs", {}).get("model")
    return record if isinstance(record, dict) and record.get("path") else {}


def _made_from(store: Store) -> Store:
    """Open the features or maps whose model is also that of a store without a record.

    Maps that were refined by features of another network are still of their own.
    """
    inputs = store.meta.get("inputs", {})
    kinds = [one.get("kind") for one in inputs.values()]
    for role in ("maps",) if store.kind == "maps" else ("features", "maps"):
        if role in inputs and kinds.count(role) == 1:  # merged maps are of several models
            return find_input(store, role, "--model")
    raise LineageError(
        f"{store.path.name}: does not record what model it was made with. Say which with --model."
    )


def _places(folder: Path, path: str, name: str) -> list[tuple[str, Path | None]]:
    """Return what may be the recorded model: pairs of a name or file, and a file of weights."""
    models = Path(os.environ.get("WSLTOOL_MODELS", "models"))
    base = Path(path).name
    files = [place for place in (folder / path, folder / base, models / base) if place.is_file()]
    found: list[tuple[str, Path | None]] = [
        (str(file), None) if file.name == name else (name, file) for file in files
    ]
    return found + ([(name, None)] if base == name and not name.endswith(_SUFFIX) else [])


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
