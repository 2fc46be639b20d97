"""Sums over calibration batches under Plans that are only tried: shared by ranks, and remembered.

What searches by perplexity, guards, and allocations by measured loss ask. Every rank runs its own batches,
and all end with the same numbers, so that they decide alike; asked again on the same model, text and Plans,
the answer needs no run. Not here: what is added up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from surgeon.calibrate.bench import Bench
from surgeon.calibrate.packing import Samples
from surgeon.calibrate.ranks import Ranks
from surgeon.plan import Plan
from surgeon.rebuild import MaskedView

__all__ = ["Each", "tally"]

Each = Callable[[Sequence[MaskedView], Samples], Tensor]


def tally(
    bench: Bench,
    asked: str,
    plans: Sequence[Plan],
    batches: Sequence[Samples],
    each: Each,
    stage: str,
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
    """

    def summed() -> Tensor:
        ranks, total = Ranks.now(), torch.zeros((), dtype=torch.float64)
        views, share = [bench.view(plan) for plan in plans], ranks.share(batches)
        with bench.running():
            for done, batch in enumerate(share, 1):
                total = total + each(views, batch).detach().double().cpu()
                bench.told(stage, done, len(share))
        return ranks.total(total)

    found = summed() if bench.memory is None else bench.memory.tallied(asked, plans, batches, each, summed)
    return found.tolist()
