"""Whether maps stores may be merged, and what their scores mean."""

from __future__ import annotations

import contextlib
from typing import Any, Literal

import numpy as np

from wsltool.errors import ProtocolError, UsageError
from wsltool.stages.chosen import ClassChoice, parse_choice
from wsltool.stages.cooccurrence import COMBINED
from wsltool.stages.model_behind import header_behind
from wsltool.stages.run import limited
from wsltool.stores.store import Store

__all__ = ["Link", "Probability", "check_together", "link_of", "recorded_choice"]

Array = np.ndarray[Any, Any]
Probability = Literal["recorded", "sigmoid", "softmax"]
Link = Literal["sigmoid", "softmax", "probability"]

_READ_ROWS = 4096


def recorded_choice(store: Store) -> ClassChoice | None:
    """Return which classes the store has maps of; None where it says nothing that we know."""
    with contextlib.suppress(UsageError):
        return parse_choice(str(store.attributes.get("classes", "")) or "all")
    return None


def check_together(stores: list[Store], how: str, limit: int | None) -> None:
    """Refuse inputs that are not of the same images in the same order, or of other classes.

    Raises
    ------
    UsageError
        One is given twice.
    ProtocolError
        They differ; the message names the first difference. Or a mean is asked for of maps
        that each network chose for itself.
    """
    first = stores[0]
    for n, other in enumerate(stores[1:], 1):
        if any(other.path.resolve() == one.path.resolve() for one in stores[:n]):
            raise UsageError(f"{other.path.name} is given twice; expected different stores.")
        if other.class_names() != first.class_names():
            raise ProtocolError(
                f"{other.path.name}: has other classes than {first.path.name}. "
                "Give maps that were made from the same images."
            )
        for name, option in (
            ("classes", "--classes"),
            ("score_kind", "--scores"),
            ("alpha", "--cooccurrence"),
        ):
            one, two = (_said(store, name) for store in (first, other))
            if one != two:
                raise ProtocolError(
                    f'{other.path.name}: {name} is "{two}", "{one}" in {first.path.name}; '
                    f"expected the same. Make one of them again with the same cam {option}."
                )
    if how == "mean":
        _check_every_map(first)
    num_rows, _ = limited(first, limit)
    for other in stores[1:]:
        _check_rows(first, other, num_rows, is_whole=limit is None)


def _said(store: Store, name: str) -> str:
    """Return what a store's attributes say, for messages; `alpha` is that of co-occurrence."""
    told = store.attributes.get("cooccurrence") if name == "alpha" else store.attributes
    return str((told or {}).get(name, ""))


def _check_every_map(first: Store) -> None:
    """Refuse a mean of maps that each network chose for itself: some would have no partner."""
    choice, num_classes = recorded_choice(first), first.shape("class_name")[0]
    if choice and choice.top < num_classes and (choice.top or choice.above is not None):
        raise ProtocolError(
            f'{first.path.name}: classes is "{choice.text}", so every network kept maps of other '
            "classes, and a mean needs the map of each. Make them again with cam --classes all "
            "or present, or merge with --how max or weighted-max."
        )


def _check_rows(first: Store, other: Store, num_rows: int, *, is_whole: bool) -> None:
    """Refuse other images than those of the first, or another order, naming the first."""
    for at in range(0, num_rows, _READ_ROWS):
        to = min(num_rows, at + _READ_ROWS)
        ours, size = (first.rows(name, at, to) for name in ("image_id", "image_size"))
        theirs, their_size = (
            other.rows(name, at, min(to, len(other))) for name in ("image_id", "image_size")
        )
        pairs = zip(ours.tolist(), theirs.tolist(), strict=False)
        row = next((n for n, (one, two) in enumerate(pairs) if one != two), len(theirs))
        if row < to - at:
            found = f'is "{theirs[row]}"' if row < len(theirs) else "is not there"
            raise ProtocolError(
                f'{other.path.name}: row {at + row} {found}, but "{ours[row]}" in '
                f"{first.path.name}; expected the same images in the same order. Make them from "
                "the same images store."
            )
        differ = (size != their_size).any(axis=1)
        if differ.any():
            row = int(differ.argmax())
            raise ProtocolError(
                f'{other.path.name}: row {at + row} "{ours[row]}" is {_px(their_size[row])}, '
                f"{_px(size[row])} in {first.path.name}; expected the same pictures."
            )
    if is_whole and len(other) > num_rows:
        name = other.rows("image_id", num_rows, num_rows + 1)[0]
        raise ProtocolError(
            f'{other.path.name}: row {num_rows} is "{name}", but {first.path.name} has '
            f"{num_rows} rows. Make them from the same images, or pass --limit {num_rows}."
        )


def _px(size_wh: Array) -> str:
    return f"{size_wh[0]}x{size_wh[1]} px"


def link_of(store: Store, wanted: Probability) -> Link:
    """Return what turns the store's scores into probabilities.

    Scores that are probabilities already stay. ``recorded`` asks the store's attribute
    ``probability``, then the model file behind it.

    Raises
    ------
    ProtocolError
        It is not recorded, or is a softmax over classes that the store lacks; or the scores
        are combined by co-occurrence.
    """
    if store.attributes.get("score_kind") == "probability":
        return "probability"
    if store.attributes.get("score_kind") == COMBINED:
        raise ProtocolError(
            f"{store.path.name}: its scores are combined by co-occurrence and may be above 1, and "
            "weighted-max needs probabilities. Make it again without --cooccurrence, or merge with "
            "--how max or mean."
        )
    if wanted != "recorded":
        return wanted
    recorded = store.attributes.get("probability")
    if recorded == "sigmoid":
        return "sigmoid"
    header = header_behind(store)
    loss = "" if header is None else str(header.loss)
    if loss == "logistic":
        return "sigmoid"
    num_classes = store.shape("class_name")[0]
    if header is not None and header.num_classes != num_classes:
        raise ProtocolError(
            f"{store.path.name}: holds logits of {num_classes} of its model's "
            f"{header.num_classes} classes, so their softmax is not known. Make it again with "
            "cam --scores probability."
        )
    if loss or recorded == "softmax":
        return "softmax"
    if store.attributes.get("score_kind") == "unknown":
        raise ProtocolError(
            f"{store.path.name}: does not say what its class scores are, and weighted-max needs "
            "probabilities. Pass --probability sigmoid or softmax if they are logits, ingest them "
            "again with --score-kind, or merge with --how max or mean."
        )
    raise ProtocolError(
        f"{store.path.name}: holds logits, and its model file is not at hand to tell whether "
        "their probability is a sigmoid or a softmax. Pass --probability sigmoid or softmax, or "
        "make it again with cam --scores probability."
    )
