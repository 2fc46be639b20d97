"""Every routed expert alone on the same tokens, by a router that finds all the others gone.

The routing of the model does the work: with all experts but one absent it sends each token to that one,
whatever it computes, and what the expert gives is seen where its gate meets it. So experts are run on
tokens that they were not given, in any family, and no call of theirs is re-derived. Not here: what is
made of the rows (`expert_mean`, `expert_match`).
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from surgeon.calibrate.call_sums import CallSums
from surgeon.calibrate.experts import Experts, experts_of
from surgeon.calibrate.gated import Gated
from surgeon.calibrate.statistic import Run, Statistic
from surgeon.calibrate.sublayer_calls import SublayerCall, SublayerCalls
from surgeon.calibrate.taps import Taps
from surgeon.errors import SurgeonError
from surgeon.graph import Graph, Group
from surgeon.rebuild.absent import Absent
from surgeon.rebuild.placed import tensor_at

__all__ = ["AloneCollector", "AloneStatistic", "Sublayer", "sublayers_of"]


@dataclass(frozen=True)
class Sublayer:
    """Routed experts, the path of their sublayer, and the dim of each of the router's tensors there."""

    experts: Experts
    path: str
    routers: tuple[tuple[str, int], ...]
    """Local names."""


def sublayers_of(graph: Graph, groups: Collection[Group]) -> tuple[Sublayer, ...]:
    """The sublayers of the experts that `groups` count.

    Raises:
        SurgeonError: a router does not lie in the sublayer of its experts, or these are no stacks.
    """
    found = []
    for experts in experts_of(graph, [group for group in groups if group.kind == "expert"]):
        group = graph.group(experts.axis)
        flat = [site for site in group.sites if len(graph.parameters[site.param].shape) < 3]
        outside = [site.param for site in flat if not site.param.startswith(f"{group.sublayer}.")]
        if group.sublayer is None or outside:
            raise SurgeonError(
                f"the router of '{group.name}' lies in {outside[0] if outside else 'no sublayer'}, outside "
                f"of {group.sublayer}, so its experts cannot be run alone",
                hint="cluster: router, or remove with criterion reap_sum",
            )
        local = tuple((site.param.removeprefix(f"{group.sublayer}."), site.dim) for site in flat)
        found.append(Sublayer(experts, group.sublayer, local))
    return tuple(found)


class AloneStatistic(Statistic):
    """A key with `sublayers` as a field, whose experts are run alone; it is narrowed by them."""

    inside: ClassVar[bool] = True
    in_order: ClassVar[bool] = True
    sublayers: tuple[Sublayer, ...]

    @property
    def places(self) -> tuple[str, ...]:
        """The sublayers."""
        return tuple(one.path for one in self.sublayers)

    def at(self, block: str) -> Self:
        """The sublayers of one Block."""
        own = tuple(one for one in self.sublayers if f"{one.path}.".startswith(f"{block}."))
        return replace(self, sublayers=own)

    def on(self, graph: Graph, groups: Collection[Group]) -> Self:
        """The experts that `groups` count."""
        return replace(self, sublayers=sublayers_of(graph, groups))


class AloneCollector(CallSums):
    """Runs single experts on what their sublayers are called with, about `tokens` tokens of each."""

    def __init__(self, sublayers: Collection[Sublayer], tokens: int, run: Run) -> None:
        self.sublayers = {one.experts.axis: one for one in sublayers}
        self.module = run.module
        paths = {axis: one.path for axis, one in self.sublayers.items()}
        super().__init__(SublayerCalls(run.module, paths, tokens))

    def size(self, sublayer: Sublayer) -> int:
        """How many experts there are, each group's counted."""
        return len(tensor_at(self.module, sublayer.experts.outlet))

    def alone(self, sublayer: Sublayer, call: SublayerCall, expert: int) -> Gated:
        """What `expert` gives on all tokens of `call`.

        Raises:
            SurgeonError: it could not be seen, or others ran as well.
        """
        seen: list[Gated] = []
        taps = Taps(self.module)
        taps.follow(sublayer.experts.outlet, (), seen.append)
        seeds = [
            (call.tensors[name], _all_but(call.tensors[name], dim, expert)) for name, dim in sublayer.routers
        ]
        with ExitStack() as stack, torch.no_grad():
            for handle in taps.attach():
                stack.callback(handle.remove)
            stack.enter_context(Absent(seeds))
            call.again()
        mine = [one for one in seen if bool((one.slice_N == expert).all())]
        if len(mine) != len(seen) or sum(len(one.slice_N) > 0 for one in mine) != 1:
            raise SurgeonError(
                f"expert {expert} of '{sublayer.experts.axis}' does not run alone on all tokens",
                hint="cluster: router, align: weights",
            )
        return next(one for one in mine if len(one.slice_N) > 0)


def _all_but(tensor: Tensor, dim: int, stays: int) -> Tensor:
    gone = torch.ones(tensor.shape, dtype=torch.bool, device=tensor.device)
    return gone.index_fill(dim, torch.tensor([stays], device=tensor.device), False)
