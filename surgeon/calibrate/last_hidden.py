"""How alike two versions of a model are in what their head reads, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from surgeon.calibrate.bench import Bench
from surgeon.calibrate.gather import model_inputs
from surgeon.calibrate.packing import Samples
from surgeon.calibrate.tally import Model, tally
from surgeon.plan import Plan

__all__ = ["Likeness"]


class Likeness:
    """Compares the model under Plans that are tried with what it is under `base`, which runs once."""

    def __init__(self, bench: Bench, base: Plan, samples: Samples) -> None:
        self.bench, self.base = bench, base
        self._batches = tuple(samples.unpadded(1))
        self._known: dict[Samples, Tensor] = {}

    def of(self, plan: Plan) -> float:
        """Mean over samples of the cosine of the flattened states (LaCo: Yang et al. 2024, arXiv 2402.11187).

        The states are those that enter the model's head, behind the final norm.
        """
        plans, stage = (self.base, plan), "compare final states"
        sums = tally(self.bench, "likeness", plans, self._batches, self._cosine, stage, once=True)
        return sums[0] / len(self._batches)

    def _cosine(self, views: Sequence[Model], batch: Samples) -> Tensor:
        base, tried = views
        if batch not in self._known:
            self._known[batch] = self._entering_head(base, batch)
        got = self._entering_head(tried, batch)
        return nn.functional.cosine_similarity(self._known[batch], got, dim=0)[None]

    def _entering_head(self, view: Model, batch: Samples) -> Tensor:
        """What enters the model's head, as one vector."""
        inputs: dict[str, Any] = model_inputs(self.bench.module, batch)
        find = getattr(self.bench.module, "get_output_embeddings", None)
        head = find() if find is not None else None
        if head is None:
            return cast(Tensor, view(**inputs).last_hidden_state).flatten()
        seen: list[Tensor] = []
        handle = head.register_forward_pre_hook(lambda part, args: seen.append(args[0]))
        try:
            view(**inputs)
        finally:
            handle.remove()
        return seen[-1].flatten()
