"""``wsltool inspect``: what is in a store and where it came from."""

from __future__ import annotations

from typing import Any

from wsltool.cli.app import app, command
from wsltool.cli.options import Input, Json


@command(app, "inspect", common={})
def inspect(source: Input = None, json: Json = False, **common: Any) -> None:
    """Show what is in a store and where it came from.

    Example: wsltool inspect val.cam.zarr
    """
    from wsltool.cli.tables import write_json, write_store
    from wsltool.stages import inspect as stage

    found = stage.inspect(source or "")
    (write_json if json else write_store)(found)
