"""Criterion ``usage``: experts that a task uses stay."""

from __future__ import annotations

from typing import Literal

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.expert_load import ExpertLoad
from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.experts import expert_scores, load_of
from surgeon.criteria.scores import Scores
from surgeon.graph import Group
from surgeon.rebuild import TensorSource

__all__ = ["Usage"]


@criteria.register("usage")
class Usage(Criterion):
    """Share of the tokens of a task that the router gives an expert, as ModuleFormer prunes its modules.

    Shen et al. 2023, arXiv 2306.04640. The calibration text is the task. The same order as
    ``frequency``, in shares, so that layers compare under ``allocation: global``.

    YAML::

        criterion: usage
    """

    criterion: Literal["usage"] = "usage"

    def needs(self) -> frozenset[Statistic]:
        """The token count."""
        return frozenset({ExpertLoad("count")})

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`."""
        count = load_of(group, statistics, "count")
        return expert_scores(group, count / count.sum().clamp(min=1))
