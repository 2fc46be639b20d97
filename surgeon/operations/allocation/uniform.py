"""Allocation ``uniform``: the same share of every Axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from surgeon.operations.allocation.allocation import Allocation, Ladder, allocations
from surgeon.operations.pool import Counts, Pool
from surgeon.plan import Amount

__all__ = ["Uniform"]


@allocations.register("uniform")
class Uniform(Allocation):
    """Every Axis keeps the same fraction, so Axes of one kind and size the same count.

    The local mode of LLM-Pruner (Ma, Fang, Wang 2023, arXiv 2305.11627). YAML::

        allocation: uniform
    """

    allocation: Literal["uniform"] = "uniform"

    def counts(self, pools: Sequence[Pool], amount: Amount) -> Counts:
        """As `Amount.kept`, of the indices that each Axis had when the step began."""
        return tuple(min(amount.kept(pool.began, pool.channels), pool.top) for pool in pools)

    def ladder(self, pools: Sequence[Pool]) -> Ladder:
        """One rung for every fraction at which some Pool loses an index."""
        shares = np.unique(np.concatenate([np.arange(1, p.began + 1) / p.began for p in pools]))[::-1]

        def at(place: int) -> Counts:
            share = float(shares[place])
            return tuple(_nearest_multiple(pool, round(share * pool.began, 9)) for pool in pools)

        return Ladder(len(shares), at)


def _nearest_multiple(pool: Pool, exact: float) -> int:
    """The largest allowed count that is not above `exact`, or the least allowed one."""
    count = int(exact) // pool.multiple_of * pool.multiple_of
    return min(max(count, pool.multiple_of), pool.top)
