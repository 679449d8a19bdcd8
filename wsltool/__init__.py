"""Weakly supervised localization as composable stages over Zarr and HDF5 stores.

Every stage of the command line is also one function with the same name, defaults and rules::

    import wsltool

    maps = wsltool.cam("val.zarr", model="resnet50")
    boxes = wsltool.boxes(maps, threshold=0.2)
    print(wsltool.score(boxes, protocol="voc-ap")["results"][0]["value"])

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsltool.stages.access import as_dataset, as_xarray
    from wsltool.stages.baseline import baseline
    from wsltool.stages.beam_search import beam_search
    from wsltool.stages.boxes import boxes
    from wsltool.stages.cam import cam
    from wsltool.stages.cluster import cluster
    from wsltool.stages.convert import convert
    from wsltool.stages.demo import demo
    from wsltool.stages.effort import effort
    from wsltool.stages.export import export
    from wsltool.stages.extract_features import extract_features
    from wsltool.stages.fit_cooccurrence import fit_cooccurrence
    from wsltool.stages.ingest import (
        ingest_coco,
        ingest_cub,
        ingest_folder,
        ingest_ilsvrc,
        ingest_openimages,
        ingest_voc,
        ingest_wsol,
    )
    from wsltool.stages.ingest_boxes import ingest_boxes
    from wsltool.stages.ingest_maps import ingest_maps
    from wsltool.stages.ingest_masks import ingest_masks
    from wsltool.stages.inspect import inspect
    from wsltool.stages.label import label
    from wsltool.stages.merge import merge
    from wsltool.stages.propose import propose
    from wsltool.stages.rank_boxes import rank_boxes
    from wsltool.stages.refine import refine
    from wsltool.stages.score import score
    from wsltool.stages.select import select
    from wsltool.stages.train_cls import train_cls
    from wsltool.stages.verify import verify
    from wsltool.stages.view import view
    from wsltool.stores.open import open_store

__all__ = [
    "as_dataset",
    "as_xarray",
    "baseline",
    "beam_search",
    "boxes",
    "cam",
    "cluster",
    "convert",
    "demo",
    "effort",
    "export",
    "extract_features",
    "fit_cooccurrence",
    "ingest_boxes",
    "ingest_coco",
    "ingest_cub",
    "ingest_folder",
    "ingest_ilsvrc",
    "ingest_maps",
    "ingest_masks",
    "ingest_openimages",
    "ingest_voc",
    "ingest_wsol",
    "inspect",
    "label",
    "merge",
    "open_store",
    "propose",
    "rank_boxes",
    "refine",
    "score",
    "select",
    "train_cls",
    "verify",
    "view",
]

_ELSEWHERE = {
    "as_dataset": "stages.access",
    "as_xarray": "stages.access",
    "ingest_coco": "stages.ingest",
    "ingest_cub": "stages.ingest",
    "ingest_folder": "stages.ingest",
    "ingest_ilsvrc": "stages.ingest",
    "ingest_openimages": "stages.ingest",
    "ingest_voc": "stages.ingest",
    "ingest_wsol": "stages.ingest",
    "open_store": "stores.open",
}


def __getattr__(name: str) -> Any:
    """Import a public function when it is first used."""
    if name not in __all__:
        raise AttributeError(f'module "wsltool" has no attribute "{name}"')
    module = importlib.import_module(f"wsltool.{_ELSEWHERE.get(name, f'stages.{name}')}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return __all__
