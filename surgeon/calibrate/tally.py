"""Sums over calibration batches under Plans that are only tried: shared by ranks, and remembered.

What searches by perplexity, guards, and allocations by measured loss ask. Every rank runs its own batches,
and all end with the same numbers, so that they decide alike; asked again on the same model, text and Plans,
the answer needs no run. Not here: what is added up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from surgeon.calibrate.bench import Bench
from surgeon.calibrate.packing import Samples
from surgeon.calibrate.probe import Apart
from surgeon.calibrate.ranks import Ranks
from surgeon.calibrate.through import Through
from surgeon.plan import Plan
from surgeon.rebuild import MaskedView

__all__ = ["Each", "Model", "tally"]

Model = Callable[..., Any]
"""Called as the model is: with keyword inputs, and gives what it returns."""
Each = Callable[[Sequence[Model], Samples], Tensor]


def tally(
    bench: Bench,
    asked: str,
    plans: Sequence[Plan],
    batches: Sequence[Samples],
    each: Each,
    stage: str,
    once: bool = False,
) -> list[float]:
    """The sum over `batches` of what `each` gives, float64.

    Args:
        bench: the model.
        asked: what is added up, with all numbers that decide it, in words.
        plans: what the model is run under.
        batches: what is read.
        each: the summand of one batch, [numbers], given the model under each of `plans`; called with the
            model in eval mode, without autograd.
        stage: what a watcher is told.
        once: `each` does no more with a model than to call it with the batch, and to look behind its Blocks.
            A streamed model is then run Block by Block.
    """

    def summed() -> Tensor:
        ranks = Ranks.now()
        share = ranks.share(batches)
        with bench.running():
            if once and bench.goes_by_blocks:
                try:
                    return ranks.total(_streamed(bench, asked, plans, share, each, stage))
                except Apart:
                    bench.apart = True
            return ranks.total(_added([bench.view(plan) for plan in plans], bench, share, each, stage))

    found = summed() if bench.memory is None else bench.memory.tallied(asked, plans, batches, each, summed)
    return found.tolist()


def _streamed(
    bench: Bench, asked: str, plans: Sequence[Plan], share: Sequence[Samples], each: Each, stage: str
) -> Tensor:
    """The sum over this rank's `share`, of models that go through their Blocks one by one.

    Raises:
        Apart: that cannot be done.
    """
    models = [Through(bench, plan, share, stage, asked) for plan in plans]
    try:
        total = _added(models, bench, share, each, stage)
    except Apart:
        _close(models)
        raise
    _close(models)
    return total


def _close(models: Sequence[Through]) -> None:
    for model in models:
        model.close()


def _added(
    models: Sequence[MaskedView] | Sequence[Through],
    bench: Bench,
    share: Sequence[Samples],
    each: Each,
    stage: str,
) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for number, batch in enumerate(share):
        for model in models:
            if isinstance(model, Through):
                model.number = number
        total = total + each(models, batch).detach().double().cpu()
        bench.told(stage, number + 1, len(share))
    return total
