"""``wsltool verify``: does a store keep the schema, and are all its bytes there."""

from __future__ import annotations

from typing import Any

from wsltool.cli.app import app, command
from wsltool.cli.options import Input, Json


@command(app, "verify", common={})
def verify(source: Input = None, json: Json = False, **common: Any) -> None:
    """Check every chunk, the schema and the digest; exit 1 if anything is wrong.

    Example: wsltool verify val.cam.zarr
    """
    from wsltool.cli.tables import write_json, write_verdict
    from wsltool.errors import StoreCorruptError
    from wsltool.stages import verify as stage

    found = stage.verify(source or "")
    (write_json if json else write_verdict)(found)
    if found["problems"]:
        raise StoreCorruptError(f"{found['path']}: {len(found['problems'])} problems.")
