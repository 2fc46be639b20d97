"""Criterion ``ean``: experts whose outputs are large stay."""

from __future__ import annotations

from typing import Literal

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.expert_load import ExpertLoad
from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.experts import expert_scores, load_of, per_token
from surgeon.criteria.scores import Scores
from surgeon.graph import Group
from surgeon.rebuild import TensorSource

__all__ = ["Ean"]


@criteria.register("ean")
class Ean(Criterion):
    """Mean norm of an expert's output over the tokens that it gets, gates aside.

    The expert activation norm that REAP is compared with (Lasby et al. 2025, arXiv 2510.13999).

    YAML::

        criterion: ean
    """

    criterion: Literal["ean"] = "ean"

    def needs(self) -> frozenset[Statistic]:
        """Sum of norms, and the token count."""
        return frozenset({ExpertLoad("norm"), ExpertLoad("count")})

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`."""
        norms = load_of(group, statistics, "norm")
        return expert_scores(group, per_token(norms, load_of(group, statistics, "count")))
