"""Criterion ``gate_mass``: experts that the router trusts stay."""

from __future__ import annotations

from typing import Literal

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.expert_load import ExpertLoad
from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.experts import expert_scores, load_of
from surgeon.criteria.scores import Scores
from surgeon.graph import Group
from surgeon.rebuild import TensorSource

__all__ = ["GateMass"]


@criteria.register("gate_mass")
class GateMass(Criterion):
    """Sum of the router's gates over the tokens that an expert gets.

    YAML::

        criterion: gate_mass
    """

    criterion: Literal["gate_mass"] = "gate_mass"

    def needs(self) -> frozenset[Statistic]:
        """The sum of gates."""
        return frozenset({ExpertLoad("gate")})

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`."""
        return expert_scores(group, load_of(group, statistics, "gate"))
