"""Which output of a model stands for which class of the images."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from wsltool.errors import ModelError
from wsltool.stores.store import Store

if TYPE_CHECKING:
    from wsltool.nets.models import Model

__all__ = ["match_classes"]

Array = np.ndarray[Any, Any]

_AGREE = 0.5


def match_classes(model: Model, images: Store) -> Array:
    """Return for each class of the images its column in the model's output, int64 (K,).

    Classes are matched by id, then by name, where these are told apart; a model without
    names must have as many classes, in the same order.

    Raises
    ------
    ModelError
        A class of the images is none of the model's, or the order is in doubt.
    """
    names = images.class_names()
    ids = [str(one) for one in images.whole("class_id").tolist()] if "class_id" in images else names
    for wanted, known in ((ids, model.class_id), (names, model.class_name)):
        where = _places(known or [])
        if set(wanted) <= where.keys() and len(set(wanted)) == len(wanted):
            return np.array([where[name] for name in wanted], np.int64)
    if len(names) == model.num_classes and _same_order(names, model.class_name):
        return np.arange(len(names))
    known = model.class_name or []
    lacking = [name for name in names if name not in known]
    listed = ", ".join((lacking or names)[:4])
    raise ModelError(
        f"{images.path.name}: has {len(names)} classes, {model.arch} {model.num_classes}; "
        f"not matched: {listed}, …. Ingest with --classes FILE in the model's order, or train "
        "the model on these classes (wsltool train-cls)."
    )


def _places(names: list[str]) -> dict[str, int]:
    """Return the place of every name that stands there once."""
    count = Counter(names)
    return {name: n for n, name in enumerate(names) if count[name] == 1}


def _same_order(names: list[str], known: list[str] | None) -> bool:
    """Return whether two class lists of equal length may be the same in the same order.

    Names of a model that are spelled differently are borne if at least half agree and no
    name that occurs once in both stands at another place.
    """
    if known is None:
        return True
    where, own = _places(known), _places(names)
    agree = [where[name] == n for name, n in own.items() if name in where]
    return all(agree) and len(agree) >= _AGREE * len(names)
