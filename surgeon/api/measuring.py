"""Before and after: what a person wants to see of the original and the smaller model, side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from surgeon.api.progress import Progress
from surgeon.api.subject import Subject, widened
from surgeon.errors import SurgeonError
from surgeon.evaluate import MetricValue, Windowing, measure

__all__ = ["HeldOut", "before_and_after", "sizes"]

ORIGINAL = "before"
SIZES = ("parameters", "bytes", "kv_cache_bytes_per_token")
SPEEDS = {
    "prefill_tokens_per_second": "time_per_token_reading",
    "decode_tokens_per_second": "time_per_token_writing",
}
TURNS = 3
PATIENCE = 60.0
"""Seconds after which no other turn begins."""
PROMPT, SENTENCE = 12, 32
"""Tokens of the sample's prompt, and of what is generated after it."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Token ids [n] of held-out text, how they are cut, and what turns ids back into text, if anything."""

    ids: Tensor
    protocol: Windowing
    tokenizer: PreTrainedTokenizerBase | None = None


def before_and_after(
    subject: Subject, small: PreTrainedModel, held_out: HeldOut | None, progress: Progress
) -> dict[str, object]:
    """Metrics of both models under ``metrics``, and a sentence by both under ``sample``.

    Sizes and speed are measured in the dtype of the weights, what is computed from text in float32 or
    wider. Without held-out text there is neither perplexity nor a sample. Where the original's own code
    fails, with a cache for one, the smaller model is not measured so either, and ``unmeasured`` says why.
    """
    ids = None if held_out is None else held_out.ids
    own = {ORIGINAL: subject.original, "after": small}
    unable: dict[str, str] = {}
    found = sizes(own, unable) | _times(own, ids, unable, progress)
    result: dict[str, object] = {"unmeasured": unable} if unable else {}
    if held_out is None:
        return {"metrics": found} | result
    wide = {ORIGINAL: subject.wide, "after": widened(small)}
    perplexity: dict[str, object] = {"unit": ""}
    for when, model in wide.items():
        (value,) = measure(
            model,
            held_out.ids,
            protocol=held_out.protocol,
            names=("perplexity",),
            progress=_counted(f"perplexity {when}", held_out.ids.numel(), progress),
        )
        perplexity[when] = value.value
    result |= {"metrics": {**found, "perplexity": perplexity}, "protocol": value.protocol}
    if held_out.tokenizer is not None and not unable:
        result["sample"] = _sample(wide, held_out.ids, held_out.tokenizer)
    return result


def sizes(
    models: Mapping[str, PreTrainedModel], unable: dict[str, str] | None = None
) -> dict[str, dict[str, object]]:
    """Parameters, bytes and cache of both models, by metric and then by model."""
    found: dict[str, dict[str, object]] = {}
    for when, model in models.items():
        for value in _values(when, model, None, SIZES, {} if unable is None else unable):
            found.setdefault(value.name, {"unit": value.unit})[when] = value.value
    return found


def _times(
    models: dict[str, PreTrainedModel], ids: Tensor | None, unable: dict[str, str], progress: Progress
) -> dict[str, dict[str, object]]:
    """Milliseconds a token; the models take turns, so that a busy machine slows both alike."""
    taken: dict[tuple[str, str], list[float]] = {}
    began = time.monotonic()
    for turn in range(TURNS):
        if turn and time.monotonic() - began > PATIENCE:
            break
        progress("measure speed", turn, TURNS)
        for when, model in models.items():
            for value in _values(when, model, ids, tuple(SPEEDS), unable):
                taken.setdefault((SPEEDS[value.name], when), []).append(1000 / value.value)
    progress("measure speed", TURNS, TURNS)
    found: dict[str, dict[str, object]] = {}
    for (name, when), milliseconds in taken.items():
        found.setdefault(name, {"unit": "ms"})[when] = statistics.median(milliseconds)
    return found


def _values(
    when: str, model: PreTrainedModel, ids: Tensor | None, names: Sequence[str], unable: dict[str, str]
) -> Iterator[MetricValue]:
    """The metrics `names`, but those in `unable`, which the original comes into where its code fails."""
    for name in names:
        if name in unable:
            continue
        try:
            yield from measure(model, ids, names=(name,))
        except (SurgeonError, OSError):
            raise
        except Exception as error:  # a forward pass runs foreign code, which may raise anything
            if when != ORIGINAL:
                raise
            unable[name] = f"the original fails: {type(error).__name__}: {' '.join(str(error).split())}"


def _counted(stage: str, total: int, progress: Progress) -> Callable[[int], None]:
    done = 0

    def told(tokens: int) -> None:
        nonlocal done
        done += tokens
        progress(stage, done, total)

    return told


def _sample(
    models: dict[str, PreTrainedModel], ids: Tensor, tokenizer: PreTrainedTokenizerBase
) -> dict[str, object]:
    """The most likely continuation of the head of the held-out text, by both models."""
    prompt = ids[None, :PROMPT]
    sentences: dict[str, object] = {"prompt": tokenizer.decode(prompt[0], skip_special_tokens=True)}
    for when, model in models.items():
        with torch.no_grad():
            written = cast(Any, model).generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=SENTENCE,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id or 0,
            )
        sentences[when] = tokenizer.decode(written[0, PROMPT:], skip_special_tokens=True)
    return sentences
