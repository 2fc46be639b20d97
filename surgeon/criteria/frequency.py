"""Criterion ``frequency``: experts that tokens are sent to stay."""

from __future__ import annotations

from typing import Literal

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.expert_load import ExpertLoad
from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.experts import expert_scores, load_of
from surgeon.criteria.scores import Scores
from surgeon.graph import Group
from surgeon.rebuild import TensorSource

__all__ = ["Frequency"]


@criteria.register("frequency")
class Frequency(Criterion):
    """How many tokens the router gives an expert.

    The baseline of the expert-pruning literature. It is strong where few experts go, and misses an expert
    that is chosen rarely and matters then.

    YAML::

        criterion: frequency
    """

    criterion: Literal["frequency"] = "frequency"

    def needs(self) -> frozenset[Statistic]:
        """The token count."""
        return frozenset({ExpertLoad("count")})

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`."""
        return expert_scores(group, load_of(group, statistics, "count"))
