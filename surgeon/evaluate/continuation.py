"""Where a model leaves the path of another one: divergent tokens on the other's greedy continuation.

The other model continues a prompt by its most likely tokens; the model reads that continuation (teacher
forcing) and says at each place whether it would have gone on alike. Deiseroth et al. 2023, "Divergent
token metrics", arXiv 2311.01544.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["agreements", "greedy"]

Model = Callable[..., Any]


def greedy(model: Model, prompts: Tensor, length: int) -> Tensor:
    """`prompts` [rows, p] and behind them the `length` most likely tokens, one after the other."""
    ids = prompts
    for _ in range(length):
        following = model(input_ids=ids, use_cache=False).logits[:, -1].argmax(-1)
        ids = torch.cat([ids, following[:, None]], 1)
    return ids


def agreements(model: Model, continued: Tensor, length: int) -> Tensor:
    """Whether `model` would say each of the last `length` tokens of `continued` itself; [rows, length]."""
    said = model(input_ids=continued, use_cache=False).logits[:, -length - 1 : -1].argmax(-1)
    return said == continued[:, -length:]
