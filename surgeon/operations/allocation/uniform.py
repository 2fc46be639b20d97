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
        return tuple(
            min(max(_asked(pool, amount).kept(pool.began, pool.channels), pool.floor), pool.top)
            for pool in pools
        )

    def ladder(self, pools: Sequence[Pool]) -> Ladder:
        """One rung for every fraction at which some Pool loses an index."""
        shares = np.unique(np.concatenate([np.arange(1, p.began + 1) / p.began for p in pools]))[::-1]

        def at(place: int) -> Counts:
            return tuple(_kept(pool, float(shares[place])) for pool in pools)

        return Ladder(len(shares), at)


def _asked(pool: Pool, amount: Amount) -> Amount:
    """`amount` in the Pool's own multiples."""
    return amount.model_copy(update={"multiple_of": pool.multiple_of})


def _kept(pool: Pool, share: float) -> int:
    """As `Amount.kept`, and no less than the Pool allows."""
    least = pool.multiple_of / pool.began
    amount = Amount(fraction=max(share, least), multiple_of=pool.multiple_of)
    return min(max(amount.kept(pool.began, pool.channels), pool.floor), pool.top)
