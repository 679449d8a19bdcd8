"""The part of a network that does not learn: which it is, and where it can be cut off.

What never changes need be computed once. As with closed forms, nothing here knows the name of
an architecture: a place to cut is tried out, and taken if the rest of the network, fed with what
the place returned, gives the same scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wsltool.errors import TrainingError
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.closed_form import evaluating
from wsltool.nets.plain_network import PlainNetwork
from wsltool.nets.skipping import ModuleCall, draws, finished_by, is_unchanged, module_calls

__all__ = [
    "Cut",
    "Network",
    "entries_before",
    "find_cut",
    "hold_still",
    "kept_activation",
    "train_mode",
]

Network = CamNetwork | PlainNetwork

_MOST_TRIES = 12


@dataclass(frozen=True)
class Cut:
    """Where a network is cut into a part that stays and a part that learns.

    Attributes
    ----------
    place
        Name of the module whose output is kept; "" for the pooled features.
    skipped
        Names of the modules that are passed over when the rest runs on what was kept.
    is_pooled
        What is kept is the spatial mean of the features, one cell.
    """

    place: str
    skipped: tuple[str, ...]
    is_pooled: bool = False


def entries_before(network: Network, name: str, size_px: int) -> set[str]:
    """Return the arrays of all modules that run up to the end of the module `name`.

    Raises
    ------
    TrainingError
        The network has no such module, or does not use it.
    """
    parts = dict(network.module.named_modules())
    if not name or name not in parts:
        known = [one for one in parts if one and one.count(".") < 2]
        raise TrainingError(
            f'--freeze "{name}": the network has no such module; expected none, features or one '
            f"of {', '.join(known[:30])}, …"
        )
    calls = _trace(network, size_px)
    ends = [call.end for call in calls if call.name == name]
    if not ends:
        raise TrainingError(f'--freeze "{name}": the network does not use that module.')
    before = {call.name for call in calls if call.end <= max(ends)}
    state = network.module.state_dict()
    return {entry for entry in state if entry.rpartition(".")[0] in before}


def hold_still(network: Network, frozen: set[str], size_px: int) -> frozenset[str]:
    """Let nothing of `frozen` learn; return the modules that stay in evaluation mode.

    These are the modules all of whose arrays are frozen, and those without arrays (dropout,
    stochastic depth) that end before the last frozen one does.
    """
    for entry, parameter in network.module.named_parameters():
        parameter.requires_grad_(entry not in frozen)
    last_end = {call.name: call.end for call in _trace(network, size_px) if call.name}
    still: set[str] = set()
    leaves: set[str] = set()
    for name in last_end:
        part = network.module.get_submodule(name)
        own = {f"{name}.{entry}" for entry in _own_entries(part)}
        if own and own <= frozen:
            still.add(name)
        elif not own and next(part.children(), None) is None:
            leaves.add(name)
    last = max((last_end[name] for name in still), default=-1)
    return frozenset(still | {name for name in leaves if last_end[name] < last})


def train_mode(module: nn.Module, still: frozenset[str]) -> None:
    """Put everything in training mode except the modules named `still`."""
    module.train()
    for name, part in module.named_modules():
        if name in still:
            part.training = False


@torch.no_grad()
def find_cut(
    network: Network,
    size_px: int,
    *,
    still: frozenset[str],
    before: str | None,
    pooled: bool,
) -> Cut | None:
    """Find the last place before anything that learns or draws random numbers.

    Parameters
    ----------
    network
        With parameters that learn or do not (`hold_still`).
    size_px
        Rows and columns of the input it is trained on.
    still
        Modules that are in evaluation mode throughout (from `hold_still`).
    before
        A module whose output must still be computed from what is kept; None for any.
    pooled
        Whether only the spatial mean of the features matters: one class score a map, the
        mean over all cells.

    Returns
    -------
    Cut or None
        None where no place will do.
    """
    generator = torch.Generator().manual_seed(0)
    x_NCHW = torch.randn((2, 3, size_px, size_px), generator=generator)
    x_NCHW = x_NCHW.to(next(network.parameters()))
    with evaluating(network):
        calls = module_calls(network.module, lambda: network(x_NCHW))
        limit = _limit(calls, still, before)
        if limit < 0:
            return None
        wanted = network(x_NCHW).logit_NK
        ends = [call for call in calls if call.name and call.end < limit]
        for cut in _candidates(network, ends, calls, pooled=pooled):
            if _holds(network, cut, x_NCHW, wanted):
                return cut
    return None


def _limit(calls: list[ModuleCall], still: frozenset[str], before: str | None) -> int:
    """Time of the first call that learns or draws, or when `before` ends if that is first."""
    active = [
        call.start
        for call in calls
        if call.name and call.name not in still and (_learns(call.module) or draws(call.module))
    ]
    limit = min(active, default=-1)
    if before is None:
        return limit
    return min([limit, *(call.end + 1 for call in calls if call.name == before)])


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters(recurse=False))


def _candidates(
    network: Network, ends: list[ModuleCall], calls: list[ModuleCall], *, pooled: bool
) -> Iterator[Cut]:
    """Yield places to cut, the best first."""
    latest, feature = max(call.end for call in calls), _feature(network)
    if feature and isinstance(network, CamNetwork):
        end = max(call.end for call in calls if call.name == feature)
        if pooled and any(call.name == feature for call in ends):
            yield Cut(feature, finished_by(calls, end, feature), is_pooled=True)
        latest = latest if pooled else end
    places = sorted((call for call in ends if call.end <= latest), key=lambda call: -call.end)
    seen: set[str] = set()
    for call in places:
        if call.name not in seen and len(seen) < _MOST_TRIES:
            seen.add(call.name)
            yield Cut(call.name, finished_by(calls, call.end, feature))


def _feature(network: Network) -> str:
    """Name of the module that returns the features under the head; "" where the head reads them."""
    if isinstance(network, PlainNetwork):
        return network.split.feature
    form = network.form
    return "" if form.feature == form.head else form.feature


def _holds(network: Network, cut: Cut, x_NCHW: Tensor, wanted: Tensor) -> bool:
    """Whether the rest gives the same scores on what the place returned."""
    input_px = (int(x_NCHW.shape[2]), int(x_NCHW.shape[3]))
    try:
        kept = kept_activation(network, cut, x_NCHW)
    except Exception:  # what it returns may be no tensor
        return False
    return is_unchanged(
        network.module,
        cut.skipped,
        lambda: network(kept, input_px=input_px).logit_NK,
        wanted,
    )


def kept_activation(network: Network, cut: Cut, x: Tensor) -> Tensor:
    """Return what a cut keeps of network inputs; the whole network runs."""
    if cut.is_pooled:
        feature_NCHW: Tensor = network(x).feature_NCHW
        return feature_NCHW.float().mean((2, 3), keepdim=True)
    caught: list[Tensor] = []
    part = network.module.get_submodule(cut.place)
    hook = part.register_forward_hook(lambda _part, _args, output: caught.append(output))
    try:
        network(x)
    finally:
        hook.remove()
    return caught[-1].clone()


def _trace(network: Network, size_px: int) -> list[ModuleCall]:
    x_NCHW = torch.zeros((1, 3, size_px, size_px)).to(next(network.parameters()))
    with torch.no_grad(), evaluating(network):
        return module_calls(network.module, lambda: network(x_NCHW))


def _own_entries(part: nn.Module) -> list[str]:
    own = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
    return [name for name, _ in own]
