"""Guard: a bound on the damage that a step may do, measured on the calibration text.

The original model is the reference, so that the steps of a recipe share one bound. Not here: how damage is
measured (`damage`), and what becomes of a step that does too much (`surgeon.operations.operation`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from surgeon.graph.strict import Strict
from surgeon.plan import Plan

if TYPE_CHECKING:
    from surgeon.calibrate import Bench

__all__ = ["DamageMetric", "Guard"]

DamageMetric = Literal["kl", "perplexity", "similarity", "first_divergent_token"]


class Guard(Strict):
    """Accept a step only up to this much damage.

    YAML::

        guard: {metric: kl, max: 0.5}
    """

    metric: DamageMetric
    """``kl``: nats a token from the original. ``perplexity``: that of the cut model. ``similarity``: 1 minus
    the mean cosine of final states. ``first_divergent_token``: share of a greedy continuation that is lost
    behind the first token that differs."""
    max: Annotated[float, Field(ge=0)]
    """Largest value that is accepted."""
    samples: Annotated[int, Field(ge=1)] | None = None
    """Calibration samples to measure on, the first ones; absent: all."""
    tries: Annotated[int, Field(ge=0)] = 4
    """How often a step that does too much is made milder before it is rejected."""

    def damage(self, bench: Bench, plan: Plan) -> float:
        """The metric of the model under `plan`."""
        from surgeon.operations.damage import damage  # measures, and so needs torch

        return damage(bench, plan, self.metric, self.samples)
