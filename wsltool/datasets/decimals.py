"""Coordinates as decimal text, so that files hold them without loss.

A double is written with the fewest digits that read back as the same double. What a format asks
to be computed from doubles (a width, a corner counted from 1) is computed on these digits,
exactly, and undone exactly: in floating point alone ``x0 + (x1 - x0)`` may differ from ``x1``.
"""

from __future__ import annotations

from decimal import Context, Decimal

__all__ = ["less", "minus", "moved", "plus", "shortest", "whole_number", "width_text"]

# The digits of any two doubles, one above the other, need fewer places.
_EXACT = Context(prec=1100)

_WHOLE_DIGITS = 15
_SMALLEST_PLAIN, _LARGEST_PLAIN = Decimal("1e-6"), Decimal("1e16")


def whole_number(word: str) -> int | None:
    """Return the number that an id of at most 15 digits is, None for any other word."""
    plain = word.isascii() and word.isdecimal() and len(word) <= _WHOLE_DIGITS
    return int(word) if plain else None


def shortest(value: float) -> Decimal:
    """Return the decimal number with the fewest digits that is read as `value`."""
    return Decimal(repr(float(value)))


def plus(one: Decimal | int, other: Decimal | int) -> float:
    """Return the double nearest to the exact sum of two decimal numbers."""
    return float(_EXACT.add(Decimal(one), Decimal(other)))


def minus(one: Decimal | int, other: Decimal | int) -> float:
    """Return the double nearest to the exact difference of two decimal numbers."""
    return float(_EXACT.subtract(Decimal(one), Decimal(other)))


def less(word: str, by: int) -> float:
    """Return the double nearest to a finite number in a file, as written, less a whole number."""
    if word.isdecimal() and len(word) <= _WHOLE_DIGITS:
        return float(int(word) - by)
    try:
        return minus(Decimal(word), by)
    except ArithmeticError:  # an exponent beyond all doubles
        return float(word) - by


def moved(value: float, by: int) -> str:
    """Return the decimal digits of a double moved by a whole number, exact."""
    if _is_whole(value):
        return str(int(value) + by)
    return _text(_EXACT.add(shortest(value), by) if by else shortest(value))


def width_text(low: float, high: float) -> str:
    """Return the decimal digits of ``high - low``, exact."""
    if _is_whole(low) and _is_whole(high):
        return str(int(high) - int(low))
    return _text(_EXACT.subtract(shortest(high), shortest(low)))


def _is_whole(value: float) -> bool:
    return value.is_integer() and abs(value) < 2**53


def _text(number: Decimal) -> str:
    size = abs(number)
    plain = not size or _SMALLEST_PLAIN <= size < _LARGEST_PLAIN
    return format(number, "f") if plain else str(number)
