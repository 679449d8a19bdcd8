"""Options that are one word of a few: checked before an output is claimed."""

from __future__ import annotations

from typing import Any, get_args

from wsltool.errors import UsageError

__all__ = ["check_choice"]


def check_choice(option: str, value: object, choices: Any) -> None:
    """Raise UsageError unless `value` is one of the words of `choices`, a ``Literal`` type."""
    words = get_args(choices)
    if value not in words:
        listed = f"{', '.join(map(str, words[:-1]))} or {words[-1]}"
        raise UsageError(f'{option} must be {listed}, got "{value}".')
