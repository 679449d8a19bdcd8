"""What every page of ``view`` has: where it goes, how much it shows, what it was made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wsltool.stages.report import Reporter
from wsltool.stages.run import rebased
from wsltool.stores.store import Store

__all__ = ["Page", "provenance", "provenance_of"]


class Drawn(Protocol):
    """What draws cases, and counts those whose picture could not be read."""

    num_left_out: int


@dataclass(frozen=True)
class Page:
    """Where a page goes, and how many cases it shows.

    Attributes
    ----------
    folder : Path
    num, samples : int
        Cases of each list of extremes (of clusters: classes), and of each class (cluster).
    identity : str
        What it is made from, to know the same one again.
    overwrite : bool
    report : Reporter
    """

    folder: Path
    num: int
    samples: int
    identity: str
    overwrite: bool
    report: Reporter

    def identity_of(self, shown: Drawn) -> Callable[[], str]:
        """Return what tells the identity once all is drawn: "" where pictures were left out."""
        return lambda: "" if shown.num_left_out else self.identity


def provenance(store: Store, folder: Path) -> list[tuple[str, str]]:
    """Return names and values of what a store was made with, for the page in `folder`."""
    meta = store.meta
    found = [("store", rebased(store.path.name, store.path.parent, folder.parent))]
    found.append(("made by", f"wsltool {meta.get('stage', '?')} {meta.get('version', '')}".strip()))
    found += [("--" + k.replace("_", "-"), str(v)) for k, v in meta.get("params", {}).items()]
    for role, record in meta.get("inputs", {}).items():
        found.append((f"from {role}", str(record.get("path", ""))))
    found.append(("digest", str(meta.get("digest", "?"))))
    return found


def provenance_of(stores: Sequence[Store], folder: Path) -> list[tuple[str, str]]:
    """Return `provenance` of several stores, one after the other."""
    return [pair for store in stores for pair in provenance(store, folder)]
