"""``wsltool convert``: the same store in the other container."""

from __future__ import annotations

from typing import Any

from wsltool.cli.app import app, command
from wsltool.cli.options import OUTPUT, Input


@command(app, "convert", common=OUTPUT)
def convert(source: Input = None, **common: Any) -> None:
    """Copy a store into the other container: .zarr to .h5, or back.

    Example: wsltool convert val.cam.zarr -o val.cam.h5
    """
    from wsltool.stages import convert as stage

    stage.convert(source or "", **common)
