"""Criterion ``reap``: experts that add much where they are used stay."""

from __future__ import annotations

from typing import Literal

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.expert_load import ExpertLoad
from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.experts import expert_scores, load_of, per_token
from surgeon.criteria.scores import Scores
from surgeon.graph import Group
from surgeon.rebuild import TensorSource

__all__ = ["Reap"]


@criteria.register("reap")
class Reap(Criterion):
    """Mean of gate times output norm over the tokens that an expert gets.

    Router-weighted expert activation pruning (Lasby et al. 2025, arXiv 2510.13999). A mean does not see how
    many tokens there were: where experts differ much in load, ``reap_sum`` does better.

    YAML::

        criterion: reap
    """

    criterion: Literal["reap"] = "reap"

    def needs(self) -> frozenset[Statistic]:
        """Sum of gated norms, and the token count."""
        return frozenset({ExpertLoad("gated_norm"), ExpertLoad("count")})

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`."""
        norms = load_of(group, statistics, "gated_norm")
        return expert_scores(group, per_token(norms, load_of(group, statistics, "count")))
