"""An earlier result of ``score`` beside a new one: the plain difference of their values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsltool.errors import UsageError
from wsltool.metrics.protocols import ScoreProtocol
from wsltool.stages.score_shards import no_result, read_result
from wsltool.stores.lineage import same_fingerprint

__all__ = ["Entries", "digest_of", "put_beside", "read_entries"]

Entries = list[dict[str, Any]]

_HOLDS: dict[str, type | tuple[type, ...]] = {
    "protocol": str,
    "parameters": dict,
    "value": (int, float, type(None)),
    "unit": str,
    "per_class": list,
    "inputs": dict,
    "made_by": dict,
}


def read_entries(path: Path, protocols: Sequence[ScoreProtocol]) -> Entries | None:
    """Return the entry of an earlier result that goes beside each protocol's; None for a store.

    It is that of the same protocol and parameters. One alone goes beside one alone, whatever
    its protocol.

    Raises
    ------
    StoreError
        The file is no result.
    UsageError
        It holds none for a protocol.
    """
    if path.suffix != ".json":
        return None
    held: Entries = read_result(path)["results"]
    if not all(map(_is_entry, held)):
        raise no_result(path)
    alone = held if len(held) == len(protocols) == 1 else []
    return [_entry_alike(protocol, held, alone) for protocol in protocols]


def _is_entry(entry: Any) -> bool:
    """Return whether an entry has what is read of it."""
    if not isinstance(entry, dict):
        return False
    if not all(name in entry and isinstance(entry[name], kind) for name, kind in _HOLDS.items()):
        return False
    rows, inputs = entry["per_class"], list(entry["inputs"].values())
    return (
        all(isinstance(row, dict) and {"class_name", "value"} <= row.keys() for row in rows)
        and bool(inputs)
        and all(isinstance(one, dict) and isinstance(one.get("path"), str) for one in inputs)
    )


def _entry_alike(protocol: ScoreProtocol, held: Entries, alone: Entries) -> dict[str, Any]:
    key = (protocol.name, protocol.parameters)
    alike = [one for one in held if (one["protocol"], one["parameters"]) == key] or alone
    if not alike:
        names = ", ".join(one["protocol"] for one in held) or "nothing"
        raise UsageError(
            f"--compare: the result holds {names}, none of it {protocol.name} with the same "
            "parameters. Score both alike."
        )
    return alike[0]


def digest_of(entries: Entries) -> str:
    """Return what tells these entries from others, for the request of a result."""
    return "sha256:" + hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def put_beside(results: Entries, against: Entries) -> None:
    """Put each earlier entry beside the new one as ``compared``, and warn of another truth.

    Raises
    ------
    UsageError
        Their classes are not the same.
    """
    for result, one in zip(results, against, strict=True):
        _check_classes(result, one)
        values = result["value"], one["value"]
        known = None not in values and result["unit"] == one["unit"]
        result["compared"] = {
            "protocol": one["protocol"],
            "value": one["value"],
            "difference": values[0] - values[1] if known else None,
            "low": None,
            "high": None,
            "per_class": [row["value"] for row in one["per_class"]],
            "inputs": one["inputs"],
            "made_by": one["made_by"],
        }
        truth = one["inputs"].get("images", {})
        if not same_fingerprint(result["inputs"]["images"], truth):
            result["warnings"].append(
                f"it is compared with a result of another truth, {truth.get('path', 'unknown')}"
            )


def _check_classes(result: dict[str, Any], one: dict[str, Any]) -> None:
    own, other = ([row["class_name"] for row in e["per_class"]] for e in (result, one))
    if own and other and own != other:
        few = ", ".join(map(str, other[:3]))
        raise UsageError(
            f"--compare: the result is of {len(other)} other classes ({few}, …). Give one of the "
            "same classes."
        )
