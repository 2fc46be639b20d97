"""How far a model moves under Plans that are only tried: the divergence from what it was, token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from surgeon.calibrate.bench import Bench
from surgeon.calibrate.gather import model_inputs
from surgeon.calibrate.packing import Samples
from surgeon.calibrate.tally import Model, tally
from surgeon.plan import Plan

__all__ = ["divergences"]

_TOKENS = 512
"""Tokens of one batch; two sets of logits are held at a time."""


def divergences(
    bench: Bench, base: Plan, plans: Sequence[Plan], tokens: int | None = None
) -> tuple[float, ...]:
    """For every Plan the mean over tokens of KL(model under `base` || model under it), in nats.

    Args:
        bench: the model and its calibration samples.
        base: the Plan that is compared with.
        plans: what is tried.
        tokens: about how many tokens are read, whole samples from the first on; None for all.
    """
    every = bench.samples
    count = len(every) if tokens is None else max(1, -(-tokens // every.ids.shape[1]))
    samples = Samples(every.ids[:count], every.mask[:count])
    batches = tuple(samples.unpadded(max(1, _TOKENS // every.ids.shape[1])))

    def each(views: Sequence[Model], batch: Samples) -> Tensor:
        inputs = model_inputs(bench.module, batch)
        log_p = _log_probabilities(views[0], inputs)
        return torch.stack([_moved(log_p, _log_probabilities(view, inputs)) for view in views[1:]])

    sums = tally(bench, "divergences", (base, *plans), batches, each, "measure divergences", once=True)
    seen = sum(batch.ids.numel() for batch in batches)
    return tuple(total / seen for total in sums)


def _log_probabilities(view: Model, inputs: Mapping[str, Any]) -> Tensor:
    return view(**inputs).logits.float().log_softmax(-1)


def _moved(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).double().sum()
