"""Criterion ``reconstruction``: the set of experts that best reproduces the block's output stays."""

from __future__ import annotations

from math import comb
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.reconstruction import Reconstruction
from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.scores import Scores
from surgeon.errors import SurgeonError
from surgeon.graph import Group
from surgeon.rebuild import TensorSource

__all__ = ["ExpertReconstruction"]


@criteria.register("reconstruction")
class ExpertReconstruction(Criterion):
    """Not All Experts Are Equal (Lu et al. 2024, arXiv 2402.14800): search over sets of experts.

    All sets are compared where there are at most `sets` of them, as the original does (its 4 or 6 of 8
    experts); with more, experts go one by one, each time the one that costs least, so that the sets are
    nested. The layers are scored on the inputs of the model as it is. An index alone is worth the loss
    of its removal. It runs every expert on every token: slow, and no better than ``reap_sum`` where gates
    and norms tell what an expert adds.

    YAML::

        criterion: {criterion: reconstruction, sets: 256}
    """

    criterion: Literal["reconstruction"] = "reconstruction"
    sets: Annotated[int, Field(ge=0)] = 256
    """The most sets that are all compared."""
    tokens: Annotated[int, Field(ge=1)] = 8192
    """About how many calibration tokens are read."""

    def needs(self) -> frozenset[Statistic]:
        """Losses of sets."""
        return frozenset({Reconstruction(self.sets, self.tokens)})

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`, and the best sets that were found."""
        found = statistics.get(Reconstruction(self.sets, self.tokens)).get(group.name)
        if found is None:
            raise SurgeonError(
                f"'{group.name}' of kind {group.kind} counts no routed experts that were measured",
                hint="select: {kind: expert}",
            )
        kept, losses = found[:, :-1].numpy().astype(bool), found[:, -1].numpy()
        values = np.zeros(group.size)
        best: dict[int, tuple[float, tuple[int, ...]]] = {}
        for row, loss in zip(kept, losses, strict=True):
            stays = tuple(np.flatnonzero(row).tolist())
            if len(stays) == group.size - 1:
                values[int(np.flatnonzero(~row)[0])] = loss
            if len(stays) not in best or loss < best[len(stays)][0]:
                best[len(stays)] = (float(loss), stays)
        exact = len(found) == sum(comb(group.size, gone) for gone in range(1, group.size - min(best) + 1))
        return Scores(
            group.name,
            values,
            best={count: stays for count, (_, stays) in best.items()},
            search=f"{'all' if exact else 'one by one,'} {len(found)} sets compared",
        )
