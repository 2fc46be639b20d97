"""How alike two versions of a model are in what their head reads, sample by sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from surgeon.calibrate.bench import Bench
from surgeon.calibrate.gather import model_inputs
from surgeon.calibrate.packing import Samples
from surgeon.plan import Plan

__all__ = ["last_hidden", "mean_similarity"]


def last_hidden(bench: Bench, plan: Plan, samples: Samples) -> Iterator[Tensor]:
    """What enters the model's head under `plan`, behind the final norm: one vector a sample."""
    view = bench.view(plan)
    find = getattr(bench.module, "get_output_embeddings", None)
    head = find() if find is not None else None
    for batch in samples.unpadded(1):
        with bench.running():
            yield _entering_head(view, head, model_inputs(bench.module, batch)).flatten()


def mean_similarity(want: list[Tensor], got: Iterator[Tensor]) -> float:
    """Mean over samples of the cosine of the flattened states (LaCo: Yang et al. 2024, arXiv 2402.11187)."""
    pairs = zip(want, got, strict=True)
    return float(
        torch.stack([nn.functional.cosine_similarity(w, g, dim=0) for w, g in pairs]).double().mean()
    )


def _entering_head(view: nn.Module, head: nn.Module | None, inputs: dict[str, Any]) -> Tensor:
    if head is None:
        return cast(Tensor, view(**inputs).last_hidden_state)
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda part, args: seen.append(args[0]))
    try:
        view(**inputs)
    finally:
        handle.remove()
    return seen[-1]
