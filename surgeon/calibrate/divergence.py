"""How far a model moves under Plans that are only tried: the divergence from what it was, token by token."""

from __future__ import annotations

from collections.abc import Sequence

from surgeon.calibrate.bench import Bench
from surgeon.calibrate.gather import model_inputs
from surgeon.calibrate.packing import Samples
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
    reference, views = bench.view(base), [bench.view(plan) for plan in plans]
    totals, seen = [0.0] * len(views), 0
    with bench.running():
        for batch in samples.unpadded(max(1, _TOKENS // every.ids.shape[1])):
            inputs = model_inputs(bench.module, batch)
            log_p = reference(**inputs).logits.float().log_softmax(-1)
            for place, view in enumerate(views):
                log_q = view(**inputs).logits.float().log_softmax(-1)
                totals[place] += float((log_p.exp() * (log_p - log_q)).double().sum())
            seen += batch.ids.numel()
            bench.told("measure divergences", min(seen, samples.ids.numel()), samples.ids.numel())
    return tuple(total / seen for total in totals)
