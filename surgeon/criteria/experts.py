"""Score routed experts by one number an expert, whatever their Axis counts.

An Axis of experts that are routed in groups counts the experts of one group, and each of its indices
stands for one expert of every group; its score is their sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from surgeon.calibrate import Statistics
from surgeon.calibrate.expert_load import ExpertLoad, Load
from surgeon.criteria.scores import Scores
from surgeon.errors import SurgeonError
from surgeon.graph import Group

__all__ = ["expert_scores", "load_of", "per_token"]


def load_of(group: Group, statistics: Statistics, load: Load) -> Tensor:
    """What `ExpertLoad` measured of the experts that `group` counts, [experts] float64.

    Raises:
        SurgeonError: the Group does not count experts.
    """
    found = statistics.get(ExpertLoad(load))
    for param in group.params:
        if group.kind == "expert" and param in found:
            return found[param]
    raise SurgeonError(
        f"'{group.name}' of kind {group.kind} counts no routed experts that were measured",
        hint="select: {kind: expert}",
    )


def per_token(total: Tensor, count: Tensor) -> Tensor:
    """`total` over `count`, 0 for an expert that got no token."""
    return total / count.clamp(min=1)


def expert_scores(group: Group, values: Tensor) -> Scores:
    """Scores of `group` from one value an expert, [experts]."""
    stacked = next(site for site in group.sites if site.dim == 0 and _spans(group, site.param, values))
    positions = torch.from_numpy(stacked.layout.positions())
    return Scores(group.name, values.cpu()[positions].sum(1).numpy())


def _spans(group: Group, param: str, values: Tensor) -> bool:
    """Whether the Axis lies in `param` over as many positions as there are values."""
    return any(
        site.param == param and site.layout.extent * site.layout.positions_per_index == len(values)
        for site in group.sites
    )
