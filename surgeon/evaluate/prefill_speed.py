"""Tokens per second while reading a prompt."""

from __future__ import annotations

from torch import Tensor, nn

from surgeon.evaluate.metric import ModelMetric, metrics
from surgeon.evaluate.reading import reads_tokens
from surgeon.evaluate.timing import median_seconds_each

__all__ = ["PrefillSpeed"]


@metrics.register("prefill_tokens_per_second")
class PrefillSpeed(ModelMetric):
    """One forward pass over the prompt, a batch of one; median of several."""

    name = "prefill_tokens_per_second"
    unit = "tokens/s"
    better = "higher"

    def applies(self, model: nn.Module) -> bool:
        """Decoders and encoders; an encoder-decoder needs more than a prompt."""
        return reads_tokens(model)

    def measure(self, model: nn.Module, prompt: Tensor) -> float:
        """Tokens a second."""

        def read(ids: Tensor) -> int:
            model(input_ids=ids, use_cache=True)
            return ids.numel()

        return 1 / median_seconds_each(lambda: prompt, read, prompt.device)
