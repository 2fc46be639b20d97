"""Criterion ``random``: the baseline that any other one has to beat."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.scores import Scores
from surgeon.graph import Group

if TYPE_CHECKING:
    from surgeon.calibrate import Statistics
    from surgeon.rebuild import TensorSource

__all__ = ["Random"]


@criteria.register("random")
class Random(Criterion):
    """Uniform in [0, 1), fixed by `seed` and the name of the Axis, whatever is scored before it.

    YAML::

        criterion: {criterion: random, seed: 7}
    """

    reads_weights: ClassVar[bool] = False

    criterion: Literal["random"] = "random"
    seed: int = 0
    """Another seed, another order."""

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`."""
        generator = np.random.default_rng([self.seed & 0xFFFFFFFF, zlib.crc32(group.name.encode())])
        return Scores(group.name, generator.random(group.size))
