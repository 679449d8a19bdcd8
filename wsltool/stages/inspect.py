"""Stage ``inspect``: what is in a store and where it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsltool.stages.options import PathLike
from wsltool.stores.open import open_store

__all__ = ["inspect"]


def inspect(input: PathLike) -> dict[str, Any]:
    """Return what a store holds and where it came from.

    Parameters
    ----------
    input : path
        A store of any kind.

    Returns
    -------
    dict
        ``path``, the root attribute ``wsltool`` under ``meta``, the other ``attributes``,
        ``num_images``, and ``arrays``: name to dims, shape and dtype.

    Raises
    ------
    StoreUnfinishedError
        Its writer has not finished; the message says how far it got.
    """
    with open_store(Path(input)) as store:
        return {
            "path": str(store.path),
            "meta": store.meta,
            "attributes": {k: v for k, v in store.attributes.items() if k != "wsltool"},
            "num_images": len(store),
            "arrays": {
                name: {
                    "dims": list(store.dims(name)),
                    "shape": list(store.shape(name)),
                    "dtype": store.dtype(name),
                }
                for name in store.names
            },
        }
