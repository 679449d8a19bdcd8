"""The modules of a network: when each one runs, and how some are passed over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

__all__ = [
    "ModuleCall",
    "draws",
    "finished_by",
    "is_unchanged",
    "module_calls",
    "put_module",
    "skipping",
]

_TOLERANCE_FRAC = 1e-4


@dataclass
class ModuleCall:
    """One call of a module; times count the beginnings and ends of all calls.

    Attributes
    ----------
    name, module
        The module; "" is the whole network.
    start, end
        When it began and ended.
    """

    name: str
    module: nn.Module
    start: int
    end: int = -1


class _Skip(nn.Module):
    """Passes on what it is given."""

    def forward(self, x: Tensor, *_more: Any, **_options: Any) -> Tensor:
        return x


def module_calls(
    module: nn.Module,
    run: Callable[[], object],
    note: Callable[[ModuleCall, tuple[Any, ...], Any], None] | None = None,
) -> list[ModuleCall]:
    """Run a network and tell when each of its modules began and ended, in order of the ends.

    Parameters
    ----------
    module
        The network.
    run
        Runs it once.
    note
        Called at the end of each call with what the module read and returned.
    """
    calls: list[ModuleCall] = []
    open_calls: list[ModuleCall] = []
    clock = iter(range(1 << 30))

    def begin(name: str, part: nn.Module) -> Any:
        def hook(_part: nn.Module, _args: Any) -> None:
            open_calls.append(ModuleCall(name, part, next(clock)))

        return hook

    def end(_part: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        call = open_calls.pop()
        call.end = next(clock)
        calls.append(call)
        if note is not None:
            note(call, args, output)

    with ExitStack() as stack:
        for name, part in module.named_modules():
            stack.callback(part.register_forward_pre_hook(begin(name, part)).remove)
            stack.callback(part.register_forward_hook(end).remove)
        run()
    return calls


def finished_by(calls: Sequence[ModuleCall], end: int, needed: str = "") -> tuple[str, ...]:
    """Return the topmost modules that are finished for good at a time.

    Parameters
    ----------
    calls
        Of one run of the network.
    end
        The time.
    needed
        A module that must stay reachable: none around it is returned.
    """
    last_end: Mapping[str, int] = {call.name: call.end for call in calls}
    done = {name for name, time in last_end.items() if name and time <= end}
    done -= {name for name in done if needed.startswith(f"{name}.")}
    return tuple(sorted(n for n in done if not any(n.startswith(f"{other}.") for other in done)))


@contextmanager
def skipping(module: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Pass over the named modules while the block runs; then they are back."""
    taken = [(name, module.get_submodule(name)) for name in names]
    try:
        for name, _part in taken:
            put_module(module, name, _Skip())
        yield
    finally:
        for name, part in taken:
            put_module(module, name, part)


def is_unchanged(
    module: nn.Module, skipped: Sequence[str], run: Callable[[], Tensor], wanted: Tensor
) -> bool:
    """Whether the rest of a network gives the same scores.

    Parameters
    ----------
    module, skipped
        The network, and the names of its modules that are passed over.
    run
        Runs the rest on what the place that is cut at returned.
    wanted
        Scores of the whole network.
    """
    try:
        with skipping(module, skipped):
            found = run()
    except Exception:  # a network may do anything with what it did not expect
        return False
    if not isinstance(found, Tensor) or found.shape != wanted.shape:
        return False
    spread = float(wanted.std())
    return spread > 0 and float((found - wanted).abs().max()) <= _TOLERANCE_FRAC * spread


def draws(module: nn.Module) -> bool:
    """Whether a module draws random numbers in training."""
    kind = type(module).__name__
    return "Dropout" in kind or kind == "StochasticDepth"


def put_module(module: nn.Module, name: str, part: nn.Module) -> None:
    """Put `part` where the module `name` is."""
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, part)
