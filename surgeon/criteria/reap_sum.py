"""Criterion ``reap_sum``: experts that add much in all stay."""

from __future__ import annotations

from typing import Literal

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.expert_load import ExpertLoad
from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.experts import expert_scores, load_of
from surgeon.criteria.scores import Scores
from surgeon.graph import Group
from surgeon.rebuild import TensorSource

__all__ = ["ReapSum"]


@criteria.register("reap_sum")
class ReapSum(Criterion):
    """Sum of gate times output norm over all tokens.

    REAP (Lasby et al. 2025, arXiv 2510.13999) without the division by the token count, so that how often
    an expert is used counts as well as how much it adds then.

    YAML::

        criterion: reap_sum
    """

    criterion: Literal["reap_sum"] = "reap_sum"

    def needs(self) -> frozenset[Statistic]:
        """Sum of gated norms."""
        return frozenset({ExpertLoad("gated_norm")})

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`."""
        return expert_scores(group, load_of(group, statistics, "gated_norm"))
