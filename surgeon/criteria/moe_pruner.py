"""Criterion ``moe_pruner``: weights times the router-weighted norm of what enters them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.expert_moment import ExpertMoment
from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.entering import fold_channels
from surgeon.criteria.experts import expert_scores
from surgeon.criteria.saliency import widened
from surgeon.criteria.scores import Scores
from surgeon.errors import SurgeonError
from surgeon.graph import Group, Site
from surgeon.rebuild import TensorSource

__all__ = ["MoePruner"]


@criteria.register("moe_pruner")
class MoePruner(Criterion):
    """Sum over an expert's weights of abs(w) times the norm of gate times input.

    The metric of MoE-Pruner (Xie et al. 2024, arXiv 2410.12013), who remove single weights by it; here
    the structure is a whole expert, with all its matrices, or a channel inside of the experts, with the
    matrices that contract it.

    YAML::

        criterion: moe_pruner
    """

    criterion: Literal["moe_pruner"] = "moe_pruner"

    def needs(self) -> frozenset[Statistic]:
        """Router-weighted second moments."""
        return frozenset({ExpertMoment()})

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`."""
        moments = statistics.get(ExpertMoment())
        if group.kind == "ffn":
            return fold_channels(group, lambda site: self._inside(site, weights, moments), "sum")
        parts = [
            (widened(weights.get(name)).abs() * moments[name].sqrt()).sum((1, 2), dtype=torch.float64).cpu()
            for name in group.params
            if name in moments
        ]
        if not parts:
            raise SurgeonError(
                f"'{group.name}' of kind {group.kind} counts no routed experts that were measured",
                hint="select: {kind: expert}",
            )
        return expert_scores(group, torch.stack(parts).sum(0))

    def _inside(self, site: Site, weights: TensorSource, moments: Mapping[str, Tensor]) -> Tensor:
        """[experts, features] of one stack that contracts the Axis."""
        if site.param not in moments:
            raise SurgeonError(
                f"'{site.param}' is no stack of routed experts that was measured",
                hint="criterion: wanda, or leave its axis out by except",
            )
        scored = widened(weights.get(site.param)).abs() * moments[site.param].sqrt()
        return scored.sum(3 - site.dim, dtype=torch.float64)
