"""A criterion of one's own: a structure is worth its largest weights, not their sum.

surgeon run recipe.yaml --plugin examples/plugins/peak.py ...

    steps:
      - op: remove
        select: {kind: ffn}
        keep: {fraction: 0.75}
        criterion: {criterion: peak, reduce: max}
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from surgeon.calibrate import Statistics
from surgeon.criteria import Criterion, Reduce, Scores, coupled, criteria
from surgeon.graph import Group
from surgeon.rebuild import TensorSource


@criteria.register("peak")
class Peak(Criterion):
    """The largest absolute weight of each channel, in every tensor that the Group lies in."""

    criterion: Literal["peak"] = "peak"
    reduce: Reduce = "sum"

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`; higher means keep."""

        def salience(param: str, dim: int) -> Tensor:
            w = weights.get(param).to(torch.float64).abs()
            others = [other for other in range(w.ndim) if other != dim]
            return w.amax(others) if others else w

        return coupled(group, salience, self.reduce)
