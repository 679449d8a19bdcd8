"""Stage ``convert``: the same store in the other container."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsltool.errors import UsageError
from wsltool.stages.cooccurrence import inherited_weight
from wsltool.stages.options import PathLike
from wsltool.stages.pack import publish
from wsltool.stages.plan import Job, claim
from wsltool.stages.report import Reporter
from wsltool.stages.run import rebased, warn_of_strangers
from wsltool.stores.lineage import fingerprint_store
from wsltool.stores.open import open_store
from wsltool.stores.store import Store
from wsltool.stores.wip import fsync_tree
from wsltool.stores.write import StoreWriter

__all__ = ["convert"]

_OTHER = {".zarr": ".h5", ".h5": ".zarr"}


def convert(
    input: PathLike,
    *,
    output: PathLike | None = None,
    overwrite: bool = False,
    report: Reporter | None = None,
) -> Path:
    """Copy a store into the other container; arrays, digest, id and lineage stay the same.

    Parameters
    ----------
    input : path
        A store of any kind.
    output : path, optional
        By default INPUT's name with the other suffix.
    overwrite : bool
        Replace a store of something else there.
    report : Reporter, optional
        Who hears that the output is claimed.

    Returns
    -------
    Path
        The copy.

    Raises
    ------
    StoreExistsError
        Something else stands there.
    UsageError
        `output` is the input itself.
    """
    with open_store(Path(input)) as source:
        other = source.path.with_suffix(_OTHER[source.path.suffix])
        path = other if output is None else Path(output)
        if path.resolve() == source.path.resolve():
            raise UsageError(f"-o {path}: that is the input itself. Give another name.")
        job = Job(
            stage="convert",
            kind=source.kind,
            output=path,
            params={},
            inputs={"source": fingerprint_store(source, path.parent)},
            num_rows=len(source),
            finished_meta=_as_if_converted,
        )
        held, work = claim(job, overwrite=overwrite)
        report = report or Reporter()
        report.announce(path)
        if work is not None:
            warn_of_strangers(source, report)
            scratch = work.scratch(path.suffix)
            _copy(source, scratch, path.parent)
            publish(scratch, path, source.meta.get("id", held["id"]))
            work.remove()
        return path


def _as_if_converted(path: Path) -> dict[str, Any]:
    """Return what a finished output of `convert` from an equal store would record."""
    with open_store(path) as store:
        source = {"id": store.meta.get("id"), "digest": store.meta.get("digest")}
        return {
            "stage": "convert",
            "kind": store.kind,
            "revision": 1,
            "params": {},
            "limit": None,
            "id": store.meta.get("id"),
            "inputs": {"source": source},
        }


def _copy(source: Store, scratch: Path, folder: Path) -> None:
    writer = StoreWriter(scratch, source.kind)
    for name in source.known_names:
        writer.create(name, source.shape(name), source.dtype(name))
        for values in source.blocks(name):
            writer.append(name, values)
    old = source.path.parent
    meta = dict(source.meta)
    meta["inputs"] = {
        role: record | {"path": rebased(record["path"], old, folder)}
        for role, record in meta.get("inputs", {}).items()
    }
    attributes = {name: v for name, v in source.attributes.items() if name != "wsltool"}
    if "root" in attributes:
        attributes["root"] = rebased(attributes["root"], old, folder)
    writer.finish(meta, attributes | inherited_weight(source, folder))
    fsync_tree(scratch)
