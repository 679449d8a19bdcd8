"""Re-scoring of classes by label co-occurrence, as ``cam`` and ``beam-search`` share it.

A stage that has ``--cooccurrence`` does this::

    read_weight(option)                                       # what is wrong with it, at once
    rescoring = Rescoring.of(option, used, source, settings)  # None without the option
    params |= rescoring.params()                              # where it is not None
    inputs |= rescoring.inputs(folder)
    maps = ClassMaps(…, rescoring)                            # choice, scores, attributes
"""

from __future__ import annotations

import json
import math
import numbers
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from wsltool.errors import ModelError, StoreError, UsageError
from wsltool.localize.cooccurrence import combined_scores, pair_probability
from wsltool.stages.class_columns import match_classes
from wsltool.stages.model_behind import UsedModel
from wsltool.stages.options import PathLike, Settings, check_range
from wsltool.stages.run import limited, rebased
from wsltool.stores.lineage import fingerprint_file, fingerprint_store, same_fingerprint
from wsltool.stores.open import open_store
from wsltool.stores.store import Store

__all__ = [
    "COMBINED",
    "PairWeight",
    "Rescoring",
    "inherited_weight",
    "read_weight",
    "used_pair_count",
]

Array = np.ndarray[Any, Any]

COMBINED = "combined"
"""The ``score_kind`` of combined probabilities; see `wsltool.localize.cooccurrence`."""

_OPTION = "--cooccurrence"
_FIT = "wsltool fit-cooccurrence MAPS -o FILE.json"


@dataclass(frozen=True)
class PairWeight:
    """What pairs weigh, as ``--cooccurrence`` says.

    Attributes
    ----------
    alpha : float
        Of eq. 2 of Bency et al. 2016; finite, not below 0.
    file : Path or None
        What ``fit-cooccurrence`` wrote, where it was chosen.
    model : str or None
        Digest of the model that it was chosen for.
    fitted_on : dict or None
        The maps that it was chosen on: path (beside `file`), fingerprint, number of images.
    """

    alpha: float
    file: Path | None = None
    model: str | None = None
    fitted_on: dict[str, Any] | None = None


def read_weight(option: float | PathLike | None) -> PairWeight | None:
    """Read ``--cooccurrence``: a number, or a file that ``fit-cooccurrence`` wrote.

    Raises
    ------
    UsageError
        Neither; a number below 0 or not finite; a file that holds something else.
    """
    if option is None:
        return None
    alpha: Any = option
    if not isinstance(option, numbers.Real):
        text = os.fspath(cast("PathLike", option))
        try:
            alpha = float(text)
        except ValueError:
            return _fitted(Path(text))
    check_range(_OPTION, alpha, 0, math.inf)
    return PairWeight(float(alpha))


def _fitted(file: Path) -> PairWeight:
    """Read what ``fit-cooccurrence`` wrote."""
    if not file.is_file():
        raise UsageError(
            f'{_OPTION} must be a number or a file that fit-cooccurrence wrote, got "{file}". '
            f"Write one with {_FIT}."
        )
    try:
        held = json.loads(file.read_bytes())["results"][0]
        alpha, fitted_on = held["alpha"], dict(held["fitted_on"])
        model = str(held["inputs"]["model"]["digest"])
        fitted_on["path"] = str(fitted_on["path"])
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(
            f"{_OPTION} {file}: no result of fit-cooccurrence. Write one with {_FIT}."
        ) from error
    check_range(f"{_OPTION} {file}: alpha", alpha, 0, math.inf)
    return PairWeight(float(alpha), file, model, fitted_on)


def used_pair_count(used: UsedModel, columns: Array) -> Array:
    """Return the model's counts of label pairs of some of its classes, int64 (K, K).

    Parameters
    ----------
    used : UsedModel
    columns : int64 ndarray of shape (K,)
        The class of the model that each class of the images is.

    Raises
    ------
    ModelError
        The model has no counts.
    """
    count_KK = used.model.label_pair_count_KK
    if count_KK is None:
        raise ModelError(
            f"{used.name}: holds no counts of label pairs, expected those of its training images, "
            "which train-cls keeps. Train it again with this wsltool (wsltool train-cls)."
        )
    chosen_KK: Array = count_KK[np.ix_(columns, columns)]
    return chosen_KK


@dataclass(frozen=True)
class Rescoring:
    """Combines the scores of the images' classes (eqs. 2 to 4 of Bency et al. 2016).

    Attributes
    ----------
    weight : PairWeight
    pair_probability_KK : float64 ndarray of shape (K, K)
        Of the images' classes.
    fitted_on : dict or None
        `PairWeight.fitted_on`, its path from where the stage runs.
    overlap : int or None
        How many of the images the weight was chosen on; None where that is not known, or
        nothing was chosen.
    """

    weight: PairWeight
    pair_probability_KK: Array
    fitted_on: dict[str, Any] | None = None
    overlap: int | None = None

    @classmethod
    def of(
        cls,
        option: float | PathLike | None,
        used: UsedModel,
        images: Store,
        settings: Settings,
    ) -> Rescoring | None:
        """Return what combines scores, None where the option is not given.

        Parameters
        ----------
        option : float, path or None
            As ``--cooccurrence`` takes it, see `read_weight`.
        used : UsedModel
            The model in use.
        images : Store
            Whose scores are combined.
        settings : Settings
            Their ``--limit``, and who hears that the weight was chosen on some of them.

        Raises
        ------
        UsageError
            The option is out of its range, no result of ``fit-cooccurrence``, or one that was
            chosen for another model.
        ModelError
            The model has no counts of label pairs, or its classes are not the images'.
        """
        weight = read_weight(option)
        if weight is None:
            return None
        p_KK = pair_probability(used_pair_count(used, match_classes(used.model, images)))
        if weight.model is not None and weight.model != used.digest:
            raise UsageError(
                f"{_OPTION} {weight.file}: was chosen for another model "
                f"({weight.model[:12]}…) than {used.name} ({used.digest[:12]}…). Choose the "
                f"weight on maps of this model: {_FIT}."
            )
        if weight.fitted_on is None or weight.file is None:
            return cls(weight, p_KK)
        place, overlap = _seen(weight.file, weight.fitted_on, images, settings)
        return cls(weight, p_KK, weight.fitted_on | {"path": str(place)}, overlap)

    def __call__(self, probability_NK: Array) -> Array:
        """Return combined scores of images, float32 (N, K), from the probabilities of classes."""
        combined_NK = combined_scores(probability_NK, self.pair_probability_KK, self.weight.alpha)
        return combined_NK.astype(np.float32)

    def params(self) -> dict[str, Any]:
        """Return what the output records among its parameters; nothing is added without."""
        return {"scores": COMBINED, "cooccurrence": self.weight.alpha}

    def inputs(self, folder: Path) -> dict[str, Any]:
        """Return what a store in `folder` records among its inputs: the file, if there is one."""
        if self.weight.file is None:
            return {}
        return {"cooccurrence": fingerprint_file(self.weight.file, folder)}

    def attributes(self, folder: Path) -> dict[str, Any]:
        """Return the attributes that a store in `folder` of combined scores has."""
        fitted_on = self.fitted_on
        if fitted_on is not None:
            path = rebased(str(fitted_on["path"]), Path.cwd(), folder)
            fitted_on = fitted_on | {"path": path, "overlap": self.overlap}
        return {
            "score_kind": COMBINED,
            "cooccurrence": {"alpha": self.weight.alpha, "fitted_on": fitted_on},
        }


def inherited_weight(source: Store, folder: Path) -> dict[str, Any]:
    """Return the attribute ``cooccurrence`` of a store in `folder` made from one that has it.

    Empty where `source` has none.
    """
    told = source.attributes.get("cooccurrence")
    if told is None:
        return {}
    fitted_on = told.get("fitted_on")
    if fitted_on is not None:
        path = rebased(str(fitted_on["path"]), source.path.parent, folder)
        told = told | {"fitted_on": fitted_on | {"path": path}}
    return {"cooccurrence": told}


def _seen(
    file: Path, record: dict[str, Any], images: Store, settings: Settings
) -> tuple[Path, int | None]:
    """Return where the maps are that a weight was chosen on, and how many images are in both.

    Warns of images that are, and of maps that are gone or have changed: the number is None then.
    """
    path, report = Path(record["path"]), settings.report
    for place in (file.parent / path, file.parent / path.name, path):
        ids = _ids_of(place, record)
        if ids is not None:
            num_rows, _ = limited(images, settings.limit)
            overlap = len(ids & set(images.rows("image_id", 0, num_rows).tolist()))
            if overlap:
                report.warn(
                    f"{_OPTION} {file}: was chosen on {overlap} of these {num_rows} images, so "
                    "what they score says little about others."
                )
            return place, overlap
    report.warn(
        f"{_OPTION} {file}: {path}, which it was chosen on, is not there, so whether it holds "
        "these images is not known."
    )
    return file.parent / path, None


def _ids_of(path: Path, record: dict[str, Any]) -> set[str] | None:
    """Return the images of a store, None where it is gone or has changed."""
    try:
        with open_store(path) as store:
            if not same_fingerprint(fingerprint_store(store, path.parent), record):
                return None
            return set(store.whole("image_id").tolist())
    except StoreError:
        return None
