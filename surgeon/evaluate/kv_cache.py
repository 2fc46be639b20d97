"""Bytes by which the cache grows with every token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from surgeon.evaluate.metric import ModelMetric, metrics
from surgeon.evaluate.reading import reads_tokens, takes_cache

__all__ = ["KvCacheBytes"]


@metrics.register("kv_cache_bytes_per_token")
class KvCacheBytes(ModelMetric):
    """Measured, not computed: the cache after n and after 2n tokens; what does not grow drops out."""

    name = "kv_cache_bytes_per_token"
    unit = "B/token"
    better = "lower"
    tokens = 4

    def applies(self, model: nn.Module) -> bool:
        """Only models that are handed their cache back."""
        return reads_tokens(model) and takes_cache(model)

    def measure(self, model: nn.Module, prompt: Tensor) -> float:
        """Bytes a token, for one sequence."""
        ids = prompt[:, :1].expand(1, 2 * self.tokens)
        short, long = (
            sum(t.numel() * t.element_size() for t in _tensors(model(input_ids=part, use_cache=True)))
            for part in (ids[:, : self.tokens], ids)
        )
        return (long - short) / self.tokens


def _tensors(output: object) -> Iterator[Tensor]:
    """Every distinct tensor inside the cache of a model output."""
    seen: set[int] = set()
    todo: list[object] = [getattr(output, "past_key_values", None)]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type | str | torch.dtype | torch.device):
            continue
        seen.add(id(thing))
        if isinstance(thing, Tensor):
            yield thing
        elif isinstance(thing, Mapping):
            todo.extend(thing.values())
        elif isinstance(thing, list | tuple):
            todo.extend(thing)
        elif hasattr(thing, "__dict__"):
            todo.extend(vars(thing).values())
