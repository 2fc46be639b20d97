"""Damage: how far a model under a Plan is from the original, on calibration samples; a `Guard` bounds it."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from surgeon.calibrate import Bench, Samples, next_token_loss
from surgeon.calibrate.divergence import divergences
from surgeon.calibrate.gather import model_inputs
from surgeon.calibrate.last_hidden import Likeness
from surgeon.calibrate.tally import Model, tally
from surgeon.evaluate.continuation import agreements, greedy
from surgeon.operations.guard import DamageMetric
from surgeon.plan import Plan

__all__ = ["damage"]

_CONTINUED = 32
"""Tokens that the original writes after each sample's first half."""

_LARGEST = math.log(sys.float_info.max)


def damage(bench: Bench, plan: Plan, metric: DamageMetric, count: int | None = None) -> float:
    """The metric of the model under `plan`, on the first `count` samples; None: on all."""
    every = bench.samples
    samples = Samples(every.ids[:count], every.mask[:count])
    whole = Plan(plan.model_type)
    if metric == "similarity":
        return 1 - Likeness(bench, whole, samples).of(plan)
    if metric == "first_divergent_token":
        return _lost(bench, plan, samples)
    if metric == "kl":
        return divergences(bench, whole, (plan,), samples.ids.numel())[0]
    return _perplexity(bench, plan, samples)


def _perplexity(bench: Bench, plan: Plan, samples: Samples) -> float:
    def each(views: Sequence[Model], batch: Samples) -> Tensor:
        logits = views[0](**model_inputs(bench.module, batch)).logits
        mean = float(next_token_loss(logits, batch)) if batch.predicted else 0.0
        return torch.tensor([mean * batch.predicted], dtype=torch.float64)

    batches = tuple(samples.unpadded(1))
    asked, stage = "guard: perplexity", "measure perplexity"
    total = tally(bench, asked, (plan,), batches, each, stage, once=True)[0]
    return math.exp(min(total / sum(batch.predicted for batch in batches), _LARGEST))


def _lost(bench: Bench, plan: Plan, samples: Samples) -> float:
    def each(views: Sequence[Model], batch: Samples) -> Tensor:
        original, view = views
        prompt = model_inputs(bench.module, batch)["input_ids"]
        prompt = prompt[:, : max(1, prompt.shape[1] // 2)]
        agree = agreements(view, greedy(original, prompt, _CONTINUED), _CONTINUED)
        return 1 - agree.double().cumprod(1).mean()[None]

    batches, plans = tuple(samples.unpadded(1)), (Plan(plan.model_type), plan)
    lost = tally(bench, "guard: divergent tokens", plans, batches, each, "continue samples")
    return lost[0] / len(batches)
