"""Allocation ``adaptive``: scores standardised per Axis, so that layers and kinds compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from surgeon.graph import AxisKind
from surgeon.operations.allocation.allocation import Allocation, Ladder, allocations
from surgeon.operations.allocation.uniform import Uniform
from surgeon.operations.pool import Counts, Member, Pool
from surgeon.plan import Amount

__all__ = ["Adaptive"]

_ATTENTION: tuple[AxisKind, ...] = ("kv_group", "q_per_kv", "head_dim")


@allocations.register("adaptive")
class Adaptive(Allocation):
    """The adaptive structures of FLAP (An et al. 2023, arXiv 2312.11983).

    Scores of each Axis are standardised over its channels, then compared: ``al_am`` over layers and
    kinds, by one threshold weighted by the parameters that a unit costs in this model; ``al_mm`` over
    layers, attention apart from the rest; ``ul_mm`` the same share in every layer, attention apart;
    ``ul_um`` the same share everywhere. In ``*_mm`` attention keeps the share `heads`, and the rest fills
    the parameter budget. A fraction counts parameters of what is selected, in
    ``ul_um`` indices.

    ``variant: released`` rounds a unit's weight down to whole multiples of the cheapest one's, and
    removes the unit at the threshold as well, as the authors' code does.

    YAML::

        allocation: {allocation: adaptive, structure: al_am}
    """

    allocation: Literal["adaptive"] = "adaptive"
    structure: Literal["ul_um", "ul_mm", "al_mm", "al_am"] = "al_am"
    """First over layers, then over attention and the rest."""
    heads: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of attention that stays in ``ul_mm`` and ``al_mm``; absent: the fraction asked for."""
    variant: Literal["paper", "released"] = "paper"
    """Exact weights and the nearest sum, or what the released code does."""

    def counts(self, pools: Sequence[Pool], amount: Amount) -> Counts:
        """Kept counts whose parameters come nearest to the fraction."""
        fraction = Amount(fraction=amount.fraction).fraction or 1.0
        match self.structure:
            case "ul_um":
                return Uniform().counts(pools, amount)
            case "al_am":
                return self._ranked(pools, fraction * _whole(pools))
            case _:
                return self._apart(pools, fraction)

    def ladder(self, pools: Sequence[Pool]) -> Ladder:
        """One rung for every share that differs."""
        if self.structure == "ul_um":
            return Uniform().ladder(pools)
        if self.structure == "al_am":
            standard = [_standardised(pool) for pool in pools]
            order = _descending(standard)
            return Ladder(len(order) + 1, lambda place: _kept(standard, order[: len(order) - place]))
        finest = max(pool.began for pool in pools)
        shares = np.arange(finest, 0, -1) / finest
        return Ladder(finest, lambda place: self._apart(pools, float(shares[place])))

    def _apart(self, pools: Sequence[Pool], fraction: float) -> Counts:
        """Attention by its own share, the rest by what is left of the budget."""
        attention = [place for place, pool in enumerate(pools) if _is_attention(pool)]
        rest = [place for place in range(len(pools)) if place not in attention]
        counts = [pool.top for pool in pools]
        budget = fraction * _whole(pools)
        for places, own in ((attention, self.heads or fraction), (rest, None)):
            chosen = [pools[place] for place in places]
            if not chosen:
                continue
            target = budget if own is None else own * _whole(chosen)
            share = min(max(target / _whole(chosen), np.finfo(float).tiny), 1.0)
            if self.structure == "al_mm":
                found = self._ranked(chosen, target)
            else:
                found = tuple(_nearest_count(pool, share) for pool in chosen)
            for place, pool, count in zip(places, chosen, found, strict=True):
                counts[place] = count
                budget -= pool.cost * count
        return tuple(counts)

    def _ranked(self, pools: Sequence[Pool], target: float) -> Counts:
        """One ranking of the standardised scores, cut where the kept parameters come nearest to `target`."""
        standard = [_standardised(pool) for pool in pools]
        units = np.array([pool.cost for pool in pools], dtype=np.float64)
        if self.variant == "released":
            units = units // units.min() * units.min()
            target *= float(units @ [pool.began for pool in pools]) / _whole(pools)
        weights = units * [pool.multiple_of for pool in pools]
        order = _descending(standard)
        least = float(units @ [pool.floor for pool in pools])
        sums = least + np.concatenate([[0.0], np.cumsum(weights[order])])
        run = int(np.argmin(np.abs(sums - target)))
        if self.variant == "released":
            run = max(run - 1, 0)
        return _kept(standard, order[:run])


def _is_attention(pool: Pool) -> bool:
    return pool.members[0].group.kind in _ATTENTION


def _whole(pools: Sequence[Pool]) -> float:
    """Parameters that all indices cost which the Pools had when the step began."""
    return float(sum(pool.cost * pool.began for pool in pools))


def _standardised(pool: Pool) -> Pool:
    return replace(pool, members=tuple(_standard(member) for member in pool.members))


def _standard(member: Member) -> Member:
    """The member with scores of mean 0, divided by the deviation of the channels behind them."""
    scores = member.scores
    own = float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
    deviation = own if member.spread is None else member.spread
    centred = scores - scores.mean()
    return replace(member, scores=centred / deviation if deviation > 0 else np.zeros_like(centred))


def _descending(pools: Sequence[Pool]) -> npt.NDArray[np.int64]:
    """Places of the Pools whose removable rungs are kept, the best first."""
    values = [pool.rungs() for pool in pools]
    owners = np.concatenate([np.full(len(v), place, dtype=np.int64) for place, v in enumerate(values)])
    order = np.argsort(np.concatenate(values), kind="stable")[::-1]
    return owners[order]


def _kept(pools: Sequence[Pool], kept: npt.NDArray[np.int64]) -> Counts:
    """Each Pool's count where of the removable rungs those of `kept` stay."""
    stay = np.bincount(kept, minlength=len(pools))
    return tuple(pool.floor + int(n) * pool.multiple_of for n, pool in zip(stay, pools, strict=True))


def _nearest_count(pool: Pool, share: float) -> int:
    multiples = round(share * pool.began / pool.multiple_of)
    return min(max(multiples * pool.multiple_of, pool.floor), pool.top)
