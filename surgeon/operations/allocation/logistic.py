"""Allocation ``logistic``: deeper layers lose more, along a logistic curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from surgeon.errors import InfeasibleError
from surgeon.operations.allocation.allocation import allocations
from surgeon.operations.allocation.profiled import Profiled
from surgeon.operations.pool import Counts, Pool
from surgeon.plan import Amount

__all__ = ["Logistic"]


@allocations.register("logistic")
class Logistic(Profiled):
    """The depth profile of SEAP (Liang et al. 2025, arXiv 2503.07605).

    The first and last few Blocks stay whole; of the others, Block l at depth x between 0 and 1 loses the
    share ``A / (1 + exp(-k (x - x0)))``, A so that the mean share kept *of these* is the fraction asked for.
    So the whole keeps more than the fraction: the report says how much.

    YAML::

        allocation: {allocation: logistic, k: 1, x0: 0.3}
    """

    allocation: Literal["logistic"] = "logistic"
    k: float = 1.0
    """Steepness; below 0, earlier layers lose more."""
    x0: float = 0.3
    """Depth of the middle of the curve, from 0 to 1."""
    skip_first: Annotated[int, Field(ge=0)] = 2
    """So many Blocks at the start stay whole."""
    skip_last: Annotated[int, Field(ge=0)] = 2
    """So many Blocks at the end stay whole."""

    def counts(self, pools: Sequence[Pool], amount: Amount) -> Counts:
        """As `Profiled.counts`.

        Raises:
            InfeasibleError: every selected layer would stay whole.
        """
        if not any(self.counted(pools)):
            raise InfeasibleError(
                f"allocation 'logistic' leaves the first {self.skip_first} and the last {self.skip_last} "
                f"blocks whole, and the selection has no other",
                hint="a smaller skip_first or skip_last",
            )
        return super().counts(pools, amount)

    def removed(self, pools: Sequence[Pool], strength: float) -> npt.NDArray[np.float64]:
        """In proportion to the curve."""
        heights = np.array([self._height(pool) for pool in pools])
        return np.minimum(strength * heights / heights[heights > 0].min(initial=np.inf), 1.0)

    def counted(self, pools: Sequence[Pool]) -> npt.NDArray[np.bool_]:
        """Those that are cut at all."""
        return np.array([self._height(pool) > 0 for pool in pools])

    def _height(self, pool: Pool) -> float:
        """Of the curve at the Pool's depth, 0 where it stays whole."""
        if pool.depth is None:
            return 0.0
        last = pool.depth.blocks - 1 - self.skip_last
        if not self.skip_first <= pool.depth.place <= last:
            return 0.0
        depth = (pool.depth.place - self.skip_first) / max(last - self.skip_first, 1)
        return float(1 / (1 + np.exp(-self.k * (depth - self.x0))))
