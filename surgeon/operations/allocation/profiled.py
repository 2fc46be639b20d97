"""Allocations that give each layer a share of its own, whatever its indices score.

Common to them: a shape over the layers, and one number, the strength, that is found by bisection so that
what is kept comes nearest to the amount asked for. Not here: the shapes, one a file.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from surgeon.operations.allocation.allocation import Allocation, Ladder
from surgeon.operations.pool import Counts, Pool
from surgeon.plan import Amount

__all__ = ["Profiled"]

_HALVINGS = 60


class Profiled(Allocation):
    """Base of them; a subclass says which share of each Pool goes at a strength between 0 and 1."""

    @abstractmethod
    def removed(self, pools: Sequence[Pool], strength: float) -> npt.NDArray[np.float64]:
        """Share of each Pool's indices that goes, [pools]: 0 at strength 0, and never falling with it."""

    def counted(self, pools: Sequence[Pool]) -> npt.NDArray[np.bool_]:
        """Pools of which the fraction is meant, [pools]; all unless overridden."""
        return np.ones(len(pools), dtype=bool)

    def counts(self, pools: Sequence[Pool], amount: Amount) -> Counts:
        """Counts whose parameters come nearest to the fraction, of the Pools that `counted` says."""
        weights = np.array([pool.cost or 1 for pool in pools], dtype=np.float64) * self.counted(pools)
        whole = weights @ [pool.began for pool in pools]
        target = (Amount(fraction=amount.fraction).fraction or 1.0) * whole
        mild, strong = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (mild + strong) / 2
            fits = weights @ self._at(pools, middle) >= target
            mild, strong = (middle, strong) if fits else (mild, middle)
        options = [self._at(pools, strength) for strength in (mild, strong)]
        return min(options, key=lambda counts: abs(float(weights @ counts) - target))

    def ladder(self, pools: Sequence[Pool]) -> Ladder:
        """As many rungs as there are indices to remove, at even strengths."""
        rungs = max(sum((pool.top - pool.floor) // pool.multiple_of for pool in pools), 1)
        return Ladder(rungs + 1, lambda place: self._at(pools, place / rungs))

    def _at(self, pools: Sequence[Pool], strength: float) -> Counts:
        return tuple(
            _kept(pool, share) for pool, share in zip(pools, self.removed(pools, strength), strict=True)
        )


def _kept(pool: Pool, share: float) -> int:
    multiples = round((1 - min(max(share, 0.0), 1.0)) * pool.began / pool.multiple_of)
    return min(max(multiples * pool.multiple_of, pool.floor), pool.top)
