"""Declares every command, in the order of the help page."""

from wsltool.cli import (  # noqa: F401, I001  (importing declares, in this order)
    baseline,
    boxes,
    cam,
    cluster,
    convert,
    effort,
    export,
    extract_features,
    ingest,
    ingest_results,
    inspect,
    label,
    merge,
    refine,
    score,
    view,
    demo,
    select,
    train_cls,
    verify,
)
