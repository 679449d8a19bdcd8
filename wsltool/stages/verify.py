"""Stage ``verify``: does a store keep the schema, and are all its bytes there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsltool.stages.options import PathLike
from wsltool.stores.open import open_store
from wsltool.stores.verify import verify_store

__all__ = ["verify"]


def verify(input: PathLike) -> dict[str, Any]:
    """Read every chunk of a store and check the schema and the digest.

    Parameters
    ----------
    input : path
        A store of any kind.

    Returns
    -------
    dict
        ``path``, ``kind``, ``num_images`` and ``problems``, a line each, empty if all is well.

    Raises
    ------
    StoreError
        It is no store, or not finished.
    """
    with open_store(Path(input)) as store:
        return {
            "path": str(store.path),
            "kind": store.kind,
            "num_images": len(store),
            "problems": verify_store(store),
        }
