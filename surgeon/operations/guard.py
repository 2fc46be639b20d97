"""Guard: a bound on the damage that a step may do, measured on the calibration text.

The original model is the reference, so that the steps of a recipe share one bound. Not here: what becomes
of a step that does too much (`surgeon.operations.operation`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from surgeon.calibrate import Bench, Samples, next_token_loss
from surgeon.calibrate.divergence import divergences
from surgeon.calibrate.gather import model_inputs
from surgeon.calibrate.last_hidden import Likeness
from surgeon.calibrate.tally import tally
from surgeon.evaluate.continuation import agreements, greedy
from surgeon.graph.strict import Strict
from surgeon.plan import Plan

__all__ = ["Guard"]

_CONTINUED = 32
"""Tokens that the original writes after each sample's first half."""

_LARGEST = math.log(sys.float_info.max)


class Guard(Strict):
    """Accept a step only up to this much damage.

    YAML::

        guard: {metric: kl, max: 0.5}
    """

    metric: Literal["kl", "perplexity", "similarity", "first_divergent_token"]
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
        every = bench.samples
        samples = Samples(every.ids[: self.samples], every.mask[: self.samples])
        whole = Plan(plan.model_type)
        if self.metric == "similarity":
            return 1 - Likeness(bench, whole, samples).of(plan)
        if self.metric == "first_divergent_token":
            return self._lost(bench, plan, samples)
        if self.metric == "kl":
            return divergences(bench, whole, (plan,), samples.ids.numel())[0]
        return self._perplexity(bench, plan, samples)

    def _perplexity(self, bench: Bench, plan: Plan, samples: Samples) -> float:
        def each(views: Sequence[nn.Module], batch: Samples) -> Tensor:
            logits = views[0](**model_inputs(bench.module, batch)).logits
            mean = float(next_token_loss(logits, batch)) if batch.predicted else 0.0
            return torch.tensor([mean * batch.predicted], dtype=torch.float64)

        batches = tuple(samples.unpadded(1))
        total = tally(bench, "guard: perplexity", (plan,), batches, each, "measure perplexity")[0]
        return math.exp(min(total / sum(batch.predicted for batch in batches), _LARGEST))

    def _lost(self, bench: Bench, plan: Plan, samples: Samples) -> float:
        def each(views: Sequence[nn.Module], batch: Samples) -> Tensor:
            original, view = views
            prompt = model_inputs(bench.module, batch)["input_ids"]
            prompt = prompt[:, : max(1, prompt.shape[1] // 2)]
            agree = agreements(view, greedy(original, prompt, _CONTINUED), _CONTINUED)
            return 1 - agree.double().cumprod(1).mean()[None]

        batches, plans = tuple(samples.unpadded(1)), (Plan(plan.model_type), plan)
        lost = tally(bench, "guard: divergent tokens", plans, batches, each, "continue samples")
        return lost[0] / len(batches)
