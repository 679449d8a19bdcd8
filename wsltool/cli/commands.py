"""Declares every command, in the order of the help page."""

from wsltool.cli import (  # noqa: F401  (importing declares)
    ingest,
    select,
    cam,
    boxes,
    baseline,
    score,
    inspect,
    verify,
    convert,
)
