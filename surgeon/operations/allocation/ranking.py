"""Allocation ``global``: one ranking of everything selected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from surgeon.errors import InfeasibleError
from surgeon.operations.allocation.allocation import Allocation, Ladder, allocations
from surgeon.operations.pool import Counts, Pool
from surgeon.plan import Amount

__all__ = ["Global"]


@allocations.register("global")
class Global(Allocation):
    """The lowest of all selected indices go, wherever they are.

    ``per: parameter`` ranks by score divided by the parameters that an index costs, and counts a fraction
    in parameters; ``per: unit`` compares scores and counts indices, a head as one, as the global mode of
    LLM-Pruner does (Ma, Fang, Wang 2023, arXiv 2305.11627). Of equal scores, as many go as the fraction
    says, in the order of the Graph and lower indices first; the original removes all of them. Where the
    config ties Axes to one count, they rank together by their mean.

    YAML::

        allocation: {allocation: global, per: unit}
    """

    allocation: Literal["global"] = "global"
    per: Literal["parameter", "unit"] = "parameter"
    """What scores are divided by, and what a fraction counts."""

    def counts(self, pools: Sequence[Pool], amount: Amount) -> Counts:
        """The longest run down the ranking that leaves no less than the fraction."""
        weights = self._weights(pools)
        whole = sum(weight * pool.began for weight, pool in zip(weights, pools, strict=True))
        spare = whole - Amount(fraction=amount.fraction).kept(whole)
        spare -= sum(weight * (p.began - p.top) for weight, p in zip(weights, pools, strict=True))
        order = self._order(pools)
        each = np.array([w * p.multiple_of for w, p in zip(weights, pools, strict=True)], dtype=np.int64)
        run = int(np.searchsorted(np.cumsum(each[order]), spare, side="right"))
        return _after(pools, order, run)

    def ladder(self, pools: Sequence[Pool]) -> Ladder:
        """One rung for every place in the ranking."""
        order = self._order(pools)
        return Ladder(len(order) + 1, lambda place: _after(pools, order, place))

    def _order(self, pools: Sequence[Pool]) -> npt.NDArray[np.int64]:
        """Places of the Pools whose rungs go, one after the other."""
        values, owners = [], []
        for place, pool in enumerate(pools):
            rungs = pool.rungs()
            values.append(rungs / self._price(pool))
            owners.append(np.full(len(rungs), place, dtype=np.int64))
        return np.concatenate(owners)[np.argsort(np.concatenate(values), kind="stable")]

    def _price(self, pool: Pool) -> float:
        """What the mean score of one index is divided by."""
        if self.per == "unit":
            return 1.0
        if pool.cost == 0:
            raise InfeasibleError(
                f"removing from '{pool.names[0]}' saves no parameter, so no score per parameter exists",
                hint="allocation: {allocation: global, per: unit}",
            )
        return pool.cost / len(pool.members)

    def _weights(self, pools: Sequence[Pool]) -> tuple[int, ...]:
        """What one index of every Axis of each Pool counts."""
        return tuple(pool.cost if self.per == "parameter" else len(pool.members) for pool in pools)


def _after(pools: Sequence[Pool], order: npt.NDArray[np.int64], rungs: int) -> Counts:
    gone = np.bincount(order[:rungs], minlength=len(pools))
    return tuple(pool.top - int(n) * pool.multiple_of for pool, n in zip(pools, gone, strict=True))
