"""Allocation ``by_loss``: layers compare by the loss that cutting each one alone makes, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from surgeon.calibrate.consumers import consumer_params
from surgeon.calibrate.divergence import divergences
from surgeon.errors import InfeasibleError
from surgeon.operations.allocation.allocation import Allocation, Ladder, allocations
from surgeon.operations.allocation.ranking import Global
from surgeon.operations.mending import repaired
from surgeon.operations.pool import Counts, Pool
from surgeon.operations.state import State
from surgeon.plan import Amount, Assign, Keep, Plan
from surgeon.repair import Repair
from surgeon.repair.refit import Refit

__all__ = ["ByLoss"]


@allocations.register("by_loss")
class ByLoss(Allocation):
    """One ranking of all selected indices by what the whole model loses with them: ours.

    Scores say what an index is worth within its layer; what an error there does to the model they do not.
    So every layer is cut alone, by the share `trial`, repaired on its own output where the step repairs,
    and the divergence (KL, nats a token) from the model as it was is measured. Scores are scaled so that
    those of the removed indices add up to it, and the least per parameter go first, wherever they are.
    Made for ``criterion: obs``, whose scores add up to a squared error. A layer costs one pass over
    `tokens` tokens.

    YAML::

        allocation: by_loss
    """

    allocation: Literal["by_loss"] = "by_loss"
    trial: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of a layer that is cut to measure it."""
    tokens: Annotated[int, Field(ge=1)] = 4096
    """About how many calibration tokens each layer is measured on."""

    @property
    def measures(self) -> bool:
        """The divergences."""
        return True

    def weighed(self, pools: Sequence[Pool], state: State, repair: Repair) -> tuple[Pool, ...]:
        """Scores in nats a token.

        Raises:
            InfeasibleError: a score is negative, so that scores do not add up to a loss.
        """
        for member in (member for pool in pools for member in pool.members):
            if member.scores.min() < 0:
                raise InfeasibleError(
                    f"allocation 'by_loss' needs scores that add up to a loss, and '{member.group.name}' has "
                    f"one of {member.scores.min():.4g}",
                    hint="criterion: obs, or allocation: adaptive",
                )
        counts = tuple(self._trial(pool) for pool in pools)
        plans = _alone(pools, counts, state, repair)
        losses = divergences(state.trial(), state.plan, plans, self.tokens)
        return tuple(
            _scaled(pool, count, loss) for pool, count, loss in zip(pools, counts, losses, strict=True)
        )

    def counts(self, pools: Sequence[Pool], amount: Amount) -> Counts:
        """The longest run down the ranking that leaves no less parameters than the fraction."""
        return Global().counts(pools, amount)

    def ladder(self, pools: Sequence[Pool]) -> Ladder:
        """One rung for every place in the ranking."""
        return Global().ladder(pools)

    def _trial(self, pool: Pool) -> int:
        """Indices that stay when this Pool alone is cut; all where none can go."""
        return min(round((1 - self.trial) * pool.left), max(pool.left - 1, 1))


def _alone(pools: Sequence[Pool], counts: Counts, state: State, repair: Repair) -> tuple[Plan, ...]:
    """For every Pool the Plan that cuts it alone, mended in its own projections."""
    mild = Refit(target="layer", ridge=repair.ridge) if isinstance(repair, Refit) else repair
    keeps = [
        [Keep(m.group.name, m.best(count), state.step) for m in pool.members]
        for pool, count in zip(pools, counts, strict=True)
    ]
    values = repaired(mild, state, state.after([edit for own in keeps for edit in own])).values
    plans = []
    for pool, own in zip(pools, keeps, strict=True):
        names = consumer_params(state.graph, [member.group for member in pool.members])
        mended = {name: values[name] for name in names if name in values}
        plans.append(state.after([*own, *(Assign(name, "trial") for name in mended)], mended).plan)
    return tuple(plans)


def _scaled(pool: Pool, count: int, loss: float) -> Pool:
    """The Pool with scores of which the lowest, that the trial removed, add up to `loss`."""
    gone = sum(np.sort(member.scores)[: pool.left - count].sum() for member in pool.members)
    factor = loss / gone if gone > 0 else 0.0
    return replace(pool, members=tuple(replace(m, scores=m.scores * factor) for m in pool.members))
