"""Measure a model: one run over the text for all metrics of tokens, then the metrics of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from surgeon.errors import InputError
from surgeon.evaluate.continuation import agreements, greedy
from surgeon.evaluate.metric import ContinuationMetric, MetricValue, ModelMetric, TokenMetric, metrics
from surgeon.evaluate.windows import Windowing, windows

__all__ = ["measure"]

PROMPT_TOKENS = 64
CONTINUATIONS, CONTINUED_FROM, CONTINUED = 8, 32, 32
"""Prompts to continue, tokens of each, and tokens that are written behind them."""


def measure(
    model: nn.Module,
    ids: Tensor | None,
    *,
    protocol: Windowing | None = None,
    other: nn.Module | None = None,
    names: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[MetricValue, ...]:
    """Measure `names` (default: all that apply) on token ids [n].

    Metrics of tokens need `ids`; those that compare need `other`. `progress` is called with the
    number of tokens after every window.

    Raises:
        InputError: a metric was asked for whose text or other model is missing, or the two models
            do not have the same vocabulary.
    """
    chosen = [kind for _, kind in metrics] if names is None else [metrics.get(name) for name in names]
    by_model = [kind() for kind in chosen if issubclass(kind, ModelMetric)]
    by_model = [metric for metric in by_model if metric.applies(model)]
    by_token: list[TokenMetric] = []
    by_continuation: list[ContinuationMetric] = []
    for kind in chosen:
        if issubclass(kind, ModelMetric):
            continue
        lacking = _lacking(kind, ids, other)
        if lacking is None and issubclass(kind, ContinuationMetric):
            by_continuation.append(kind())
        elif lacking is None and issubclass(kind, TokenMetric):
            by_token.append(kind())
        elif names is not None:
            raise InputError(f"metric '{kind.name}' needs {lacking}, none was given")
    with torch.no_grad():
        if by_token and ids is not None:
            _run(model, other, ids, protocol or Windowing(), by_token, progress)
        continued: tuple[MetricValue, ...] = ()
        if by_continuation and ids is not None and other is not None:
            continued = _continued(model, other, ids, by_continuation)
        prompt = _prompt(model, ids)
        values = [(metric, metric.measure(model, prompt)) for metric in by_model]
    said = str(protocol or Windowing())
    return (
        *(MetricValue(m.name, m.value(), m.unit, m.better, said) for m in by_token),
        *continued,
        *(MetricValue(m.name, number, m.unit, m.better) for m, number in values),
    )


def _continued(
    model: nn.Module, other: nn.Module, ids: Tensor, chosen: Sequence[ContinuationMetric]
) -> tuple[MetricValue, ...]:
    """Metrics of what `other` writes after pieces of the text, which lie evenly over it."""
    length = min(CONTINUED_FROM, ids.numel())
    rows = min(CONTINUATIONS, ids.numel() // length)
    starts = [row * (ids.numel() // rows) for row in range(rows)]
    prompts = torch.stack([ids[start : start + length] for start in starts])
    agree = agreements(model, greedy(other, prompts, CONTINUED), CONTINUED)
    said = f"{rows} prompts of {length} tokens, {CONTINUED} continued"
    return tuple(MetricValue(m.name, m.score(agree), m.unit, m.better, said) for m in chosen)


def _lacking(
    kind: type[TokenMetric] | type[ContinuationMetric], ids: Tensor | None, other: nn.Module | None
) -> str | None:
    if ids is None:
        return "a text"
    return "another model to compare with" if kind.against and other is None else None


def _run(
    model: nn.Module,
    other: nn.Module | None,
    ids: Tensor,
    protocol: Windowing,
    chosen: Sequence[TokenMetric],
    progress: Callable[[int], None] | None,
) -> None:
    compare = other if any(metric.against for metric in chosen) else None
    for window in windows(ids, protocol):
        logits = model(input_ids=window.tokens, use_cache=False).logits
        reference = None if compare is None else compare(input_ids=window.tokens, use_cache=False).logits
        if reference is not None and reference.shape != logits.shape:
            raise InputError(
                f"the models predict {logits.shape[-1]} and {reference.shape[-1]} tokens",
                hint="compare models of one vocabulary",
            )
        for metric in chosen:
            metric.update(window, logits, reference if metric.against else None)
        if progress is not None:
            progress(window.tokens.numel())


def _prompt(model: nn.Module, ids: Tensor | None) -> Tensor:
    """Token ids [1, n] to time the model on: the head of the text, or the first tokens there are."""
    if ids is not None:
        return ids[None, :PROMPT_TOKENS]
    vocabulary = cast("HasEmbedding", model).get_input_embeddings().weight
    return torch.arange(PROMPT_TOKENS, device=vocabulary.device)[None] % vocabulary.shape[0]


class HasEmbedding(Protocol):
    """A model of tokens, as those of transformers are."""

    def get_input_embeddings(self) -> nn.Embedding:
        """The module that turns token ids into vectors."""
        ...
