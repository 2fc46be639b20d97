"""Tokens per second while writing, one token at a time with the cache."""

from __future__ import annotations

import time

from torch import Tensor, nn

from surgeon.evaluate.metric import ModelMetric, metrics
from surgeon.evaluate.reading import reads_tokens, takes_cache
from surgeon.evaluate.timing import LONG, median_seconds_each

__all__ = ["DecodeSpeed"]


@metrics.register("decode_tokens_per_second")
class DecodeSpeed(ModelMetric):
    """Greedy steps after the head of the prompt, a batch of one, fewer slow ones; median over many runs."""

    name = "decode_tokens_per_second"
    unit = "tokens/s"
    better = "higher"
    steps = 16
    head = 16

    def applies(self, model: nn.Module) -> bool:
        """Only models that are handed their cache back."""
        return reads_tokens(model) and takes_cache(model)

    def measure(self, model: nn.Module, prompt: Tensor) -> float:
        """Tokens a second; reading the prompt is not timed."""

        def read() -> tuple[Tensor, object]:
            output = model(input_ids=prompt[:, : self.head], use_cache=True)
            return output.logits[:, -1:].argmax(-1), output.past_key_values

        def write(state: tuple[Tensor, object]) -> int:
            (tokens, cache), start = state, time.perf_counter()
            for done in range(1, self.steps + 1):
                output = model(input_ids=tokens, past_key_values=cache, use_cache=True)
                tokens, cache = output.logits[:, -1:].argmax(-1), output.past_key_values
                if time.perf_counter() - start > LONG:
                    return done
            return self.steps

        return 1 / median_seconds_each(read, write, prompt.device)
