"""A user's own network: a function that returns it with its preprocessing."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import nn

from wsltool.errors import ModelError
from wsltool.nets.preprocess import Preprocess
from wsltool.nets.weights import one_line

__all__ = ["Made", "call_factory", "has_function"]


class Made(NamedTuple):
    """What a user's function returned.

    Attributes
    ----------
    module, preprocess
        The network, with its weights, and its preprocessing.
    class_name
        Names of its classes; None where it gave none.
    """

    module: nn.Module
    preprocess: Preprocess
    class_name: tuple[str, ...] | None = None


def call_factory(name: str) -> Made:
    """Call the function ``package.module:function``; what it prints goes to stderr.

    Raises
    ------
    ModelError
        It is not there, or does not work.
    """
    module_name, _, function_name = name.partition(":")
    with _importable_from_here():
        factory = _find_factory(name, module_name, function_name)
        try:
            made = factory()
        except Exception as error:  # a user's function may raise anything
            raise ModelError(
                f"{name}: failed with {type(error).__name__}: {one_line(error)}"
            ) from error
    return _checked(name, made)


def has_function(name: str) -> bool:
    """Whether there is such a function; True also where its module cannot be imported."""
    module_name, _, function_name = name.partition(":")
    if not function_name:
        return False
    with _importable_from_here():
        try:
            return hasattr(importlib.import_module(module_name), function_name)
        except Exception:  # told where the function is called
            return True


@contextlib.contextmanager
def _importable_from_here() -> Iterator[None]:
    """Let modules of the current folder be imported; what they print goes to stderr."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.path.remove(here)


def _find_factory(name: str, module_name: str, function_name: str) -> Callable[[], object]:
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything
        raise ModelError(
            f"{name}: module {module_name} cannot be imported ({type(error).__name__}: "
            f"{one_line(error)}). Run from the folder that holds it, or install it."
        ) from error
    factory = getattr(module, function_name, None)
    if callable(factory):
        function: Callable[[], object] = factory
        return function
    close = difflib.get_close_matches(function_name, dir(module), n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise ModelError(f'{name}: {module_name} has no function "{function_name}".{hint}')


def _checked(name: str, made: object) -> Made:
    """Check what a factory returned: module, preprocessing and, if given, class names."""
    parts = made if isinstance(made, tuple) else (made,)
    if len(parts) not in (2, 3) or not isinstance(parts[0], nn.Module):
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise ModelError(
            f"{name}: returned ({kinds}); expected (torch module, preprocessing) or "
            "(torch module, preprocessing, class names)."
        )
    module, preprocess, *names = parts
    if isinstance(preprocess, Mapping):
        try:
            preprocess = Preprocess.from_header(preprocess)
        except ModelError as error:
            raise ModelError(f"{name}: {error}") from error
    if not isinstance(preprocess, Preprocess):
        raise ModelError(
            f"{name}: preprocessing is a {type(preprocess).__name__}, expected a Preprocess or "
            "its entries as a dict, such as {'size': 224}."
        )
    if not names:
        return Made(module, preprocess)
    if isinstance(names[0], str) or not all(isinstance(n, str) for n in names[0]):
        raise ModelError(f"{name}: class names must be a list of strings, got {names[0]!r:.60}.")
    return Made(module, preprocess, tuple(names[0]))
