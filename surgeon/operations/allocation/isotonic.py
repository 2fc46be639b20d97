"""Allocation ``isotonic``: another allocation, made to rise or fall throughout the depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt

from surgeon.graph import AxisKind
from surgeon.operations.allocation.allocation import Allocation, Ladder, allocations
from surgeon.operations.allocation.ranking import Global
from surgeon.operations.pool import Counts, Pool
from surgeon.operations.state import State
from surgeon.plan import Amount, tagged_field
from surgeon.repair import Repair

__all__ = ["Isotonic", "nearest_rising"]


@allocations.register("isotonic")
class Isotonic(Allocation):
    """The monotone profile over depth that lies nearest to what another allocation gives, kind by kind.

    Least squares over the shares that layers keep, weighted by their parameters (pool adjacent violators:
    Barlow et al. 1972), so neighbours that are out of order share what they have, and as many parameters
    stay. It keeps a noisy measurement from giving neighbours wildly different widths.

    YAML::

        allocation: {allocation: isotonic, of: by_loss, keeps: rising}
    """

    allocation: Literal["isotonic"] = "isotonic"
    of: Annotated[Allocation, tagged_field(allocations, "allocation")] = Global()
    """Which allocation is smoothed."""
    keeps: Literal["rising", "falling", "nearest"] = "nearest"
    """Deeper layers keep no less, no more, or whichever of the two comes nearer."""

    @property
    def measures(self) -> bool:
        """Whether the other one does."""
        return self.of.measures

    def weighed(self, pools: Sequence[Pool], state: State, repair: Repair) -> tuple[Pool, ...]:
        """As the other allocation has it."""
        return self.of.weighed(pools, state, repair)

    def counts(self, pools: Sequence[Pool], amount: Amount) -> Counts:
        """The other allocation's counts, made monotone."""
        return self._monotone(pools, self.of.counts(pools, amount))

    def ladder(self, pools: Sequence[Pool]) -> Ladder:
        """The other allocation's rungs, each made monotone."""
        inner = self.of.ladder(pools)
        return Ladder(inner.length, lambda place: self._monotone(pools, inner.at(place)))

    def _monotone(self, pools: Sequence[Pool], counts: Counts) -> Counts:
        found = list(counts)
        kinds: dict[AxisKind, None] = dict.fromkeys(pool.members[0].group.kind for pool in pools)
        for kind in kinds:
            ours = self._by_depth(pools, kind)
            shares = np.array([counts[at] / pools[at].began for at in ours])
            weights = np.array([float(pools[at].cost or 1) * pools[at].began for at in ours])
            for at, share in zip(ours, self._fitted(shares, weights), strict=True):
                multiples = round(share * pools[at].began / pools[at].multiple_of)
                found[at] = min(max(multiples * pools[at].multiple_of, pools[at].floor), pools[at].top)
        return tuple(found)

    def _by_depth(self, pools: Sequence[Pool], kind: AxisKind) -> list[int]:
        """Places of the Pools of one kind that lie in Blocks, the first Block's first."""
        placed = [
            (pool.depth.place, at)
            for at, pool in enumerate(pools)
            if pool.depth is not None and pool.members[0].group.kind == kind
        ]
        return [at for _, at in sorted(placed)]

    def _fitted(
        self, shares: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        rising = nearest_rising(shares, weights)
        falling = -nearest_rising(-shares, weights)
        if self.keeps != "nearest":
            return rising if self.keeps == "rising" else falling
        return min((rising, falling), key=lambda fit: float(weights @ (fit - shares) ** 2))


def nearest_rising(
    values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The rising sequence with the least weighted squared distance from `values`, by pooling neighbours."""
    runs: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        runs.append((value, weight, 1))
        while len(runs) > 1 and runs[-2][0] > runs[-1][0]:
            (high, heavy, many), (low, light, few) = runs[-2:]
            mean = (high * heavy + low * light) / (heavy + light)
            runs[-2:] = [(mean, heavy + light, many + few)]
    return np.repeat([run[0] for run in runs], [run[2] for run in runs]) if runs else values
