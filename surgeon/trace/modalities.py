"""Images, videos and sounds for a model that takes them beside its token ids.

What the forward pass calls them is transformers' own convention (``pixel_values``, ``input_features``).
Which of the few possible layouts (`pictures`, `sounds`) a model wants is found by trying: its own function
for features must run on it, and tells how many placeholder tokens stand for one sample. Not here: text
(`inputs`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from surgeon.trace.numbers import config_fields, unused_primes
from surgeon.trace.pictures import BESIDE, images, videos
from surgeon.trace.record import Recorder
from surgeon.trace.sounds import sounds

__all__ = ["modality_inputs"]

Feed = dict[str, Tensor]
Word = Literal["image", "video", "audio"]


def modality_inputs(module: nn.Module, feed: Mapping[str, Tensor]) -> Iterator[Iterator[Feed]]:
    """For images, videos and sounds: inputs in the place of `feed`, in each way that the model may want them.

    Images twice, the second time beside masks that choose another way through the model. Every row has one,
    or the first row alone, and as many placeholders among its ids as it has features.
    """
    names = inspect.signature(module.forward).parameters
    rows = feed["input_ids"].shape[0]
    yield _in_text(module, names, feed, "image", images(module, names, rows))
    yield _in_text(module, names, feed, "video", videos(module, names, rows))
    yield _in_text(module, names, feed, "audio", sounds(module, names, rows))
    yield _in_text(module, names, feed, "image", _chosen(names, images(module, names, rows), rows))


def _chosen(names: Mapping[str, Any], samples: Iterator[Feed], rows: int) -> Iterator[Feed]:
    """`samples` with masks [rows] that choose another way through the model for each, where it takes any."""
    masks = [name for name in names if name.endswith("_mask") and not name.endswith("attention_mask")]
    for made in samples if masks else ():
        more = {name: torch.ones(rows, dtype=torch.bool) for name in masks if name not in made}
        if more:
            yield made | more


def _features(module: nn.Module, word: Word) -> Any:
    """The model's own function that makes vectors of a sample; None where it has none."""
    name = f"get_{word}_features"
    return next((getattr(part, name) for part in module.modules() if hasattr(part, name)), None)


def _in_text(
    module: nn.Module,
    names: Mapping[str, Any],
    feed: Mapping[str, Tensor],
    word: Word,
    samples: Iterator[Feed],
) -> Iterator[Feed]:
    for made in samples:
        yield from _with_placeholders(module, names, feed, word, _cast(module, made))


def _cast(module: nn.Module, made: Feed) -> Feed:
    """`made` in the dtype that the module computes in."""
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in made.items()}


def _with_placeholders(
    module: nn.Module, names: Mapping[str, Any], feed: Mapping[str, Tensor], word: Word, made: Feed
) -> Iterator[Feed]:
    """`made` with ids that hold as many placeholders as it has features, where the model counts them."""
    features = _features(module, word)
    token = _placeholder(module, word)
    if features is None or token is None:
        yield {name: value for name, value in feed.items() if name in names} | made
        return
    count = _count(features, made)
    rows = feed["input_ids"].shape[0]
    samples = len(next((made[name] for name in BESIDE if name in made), feed["input_ids"]))
    if not count or count % samples:
        return
    length = next(prime for prime in unused_primes(module, least=count // samples + 2) if prime != rows)
    ids = torch.zeros(rows, length, dtype=torch.int64)
    ids[:samples, 1 : 1 + count // samples] = token
    whole = {**feed, "input_ids": ids, **made}
    for name in names:
        if name.endswith("mm_token_type_ids"):
            whole[name] = (ids == token).to(torch.int64)
    yield whole


def _placeholder(module: nn.Module, word: Word) -> int | None:
    """The token id that stands for a part of a sample, rather than for where one begins or ends."""
    found: dict[str, int] = {}
    config = getattr(module, "config", None)
    aliases = {alias: getattr(config, alias, None) for alias in getattr(config, "attribute_map", ())}
    for name, value in (*config_fields(module), *aliases.items()):
        words = name.split("_")
        if word in words and "token" in words and words[-1] in ("id", "index") and isinstance(value, int):
            found.setdefault(name, value)
    return found[min(found, key=lambda name: name.count("_"))] if found else None


def _count(features: Any, made: Feed) -> int | None:
    """How many vectors `features` makes of a sample; None where it will not take it."""
    accepted = inspect.signature(features).parameters
    named = {name: value for name, value in made.items() if name in accepted}
    hands_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    output = None
    for given in (made, named) if hands_on else (named, made):
        try:
            with torch.no_grad(), Recorder():
                output = features(**given)
            break
        except Exception:  # the model's own code says no in its own way
            continue
    if output is None:
        return None
    if getattr(output, "pooler_output", None) is not None:
        output = output.pooler_output
    elif hasattr(output, "last_hidden_state"):
        output = output.last_hidden_state
    tensors = [output] if isinstance(output, Tensor) else list(output)
    return sum(tensor.shape[:-1].numel() for tensor in tensors if isinstance(tensor, Tensor))
