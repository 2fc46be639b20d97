"""Which tensors make a router: the matrix whose products are the logits, its bias, and what corrects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from surgeon.errors import SurgeonError
from surgeon.graph import Graph, Group
from surgeon.repair import bias_name

__all__ = ["Router", "router_of"]


@dataclass(frozen=True)
class Router:
    """The router of the experts of `axis`: logits are ``x weight^T + bias``, [tokens, experts].

    `dim` of the weight is the experts'. What else has a place for every expert beside the stacks (a
    correction of the choice, a scale) makes no logit, and is not here.
    """

    axis: str
    weight: str
    dim: int
    bias: str | None

    def logits(self, get: Callable[[str], Tensor], x_TI: Tensor) -> Tensor:
        """Logits [tokens, experts] of inputs, with the tensors that `get` gives by name."""
        z_TE = x_TI @ get(self.weight).to(x_TI).movedim(self.dim, 1)
        return z_TE if self.bias is None else z_TE + get(self.bias).to(x_TI)


def router_of(graph: Graph, group: Group) -> Router:
    """The router of the experts that `group` counts.

    Raises:
        SurgeonError: it is not one matrix.
    """
    contracted = {
        (site.param, site.dim) for other in graph.groups for site in other.sites if site.role == "consumer"
    }
    matrices = [
        site
        for site in group.sites
        if len(graph.parameters[site.param].shape) == 2 and (site.param, 1 - site.dim) in contracted
    ]
    if len(matrices) != 1:
        raise SurgeonError(
            f"the router of '{group.name}' is made of {len(matrices)} matrices, and only one can be merged",
            hint="cluster: outputs with router: keep_dominant",
        )
    weight, bias = matrices[0], bias_name(matrices[0].param)
    own = bias if any(site.param == bias for site in group.sites) else None
    return Router(group.name, weight.param, weight.dim, own)
