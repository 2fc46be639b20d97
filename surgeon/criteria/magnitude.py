"""Criterion ``magnitude``: large weights stay."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from surgeon.criteria.coupled import Reduce, coupled
from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.powers import powers
from surgeon.criteria.scores import Scores
from surgeon.graph import Group

if TYPE_CHECKING:
    from surgeon.calibrate import Statistics
    from surgeon.rebuild import TensorSource

__all__ = ["Magnitude"]


@criteria.register("magnitude")
class Magnitude(Criterion):
    """Sum of abs(w)^p over each structure, p = 1 or 2, without a root.

    As the l1 and l2 of LLM-Pruner (Ma, Fang, Wang 2023, arXiv 2305.11627), whose default is the mean
    over the tensors of a Group.

    YAML::

        criterion: {criterion: magnitude, norm: l1}
    """

    criterion: Literal["magnitude"] = "magnitude"
    norm: Literal["l1", "l2"] = "l2"
    """Exponent: 1 or 2."""
    reduce: Reduce = "mean"
    """How the scores of a Group's tensors meet."""

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`."""
        return coupled(group, partial(powers, weights, norm=self.norm), self.reduce)
