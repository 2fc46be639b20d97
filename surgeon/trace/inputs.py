"""Example inputs for a trace: short, real, and of prime sizes that no axis of the model can have.

Batch and sequence are told from the model's own axes by their sizes. An axis that a view makes has a
size that divides a parameter's dim, and one that a slice makes mostly stands in the config, so the
primes chosen divide no dim and equal no number of the config.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from surgeon.errors import TraceError

__all__ = ["data_sizes", "example_inputs", "further_inputs"]


def example_inputs(module: nn.Module) -> dict[str, torch.Tensor]:
    """Token ids for a language model: batch * length (and the decoder's length) of unused primes.

    Raises:
        TraceError: the module takes no token ids, so its inputs must be given.
    """
    config = getattr(module, "config", None)
    if config is None:
        raise TraceError(
            f"{type(module).__name__} has no config, so what it takes as input is not known",
            hint="pass example inputs: surgeon.trace(module, inputs={'x': tensor})",
        )
    fields = config.to_dict() if isinstance(config, PreTrainedConfig) else vars(config)
    dims, numbers = _dims(module), set(_integers(fields))
    unused = (p for p in _odd_primes() if p not in numbers and all(size % p for size in dims))
    batch, length, other = itertools.islice(unused, 3)
    inputs = {"input_ids": torch.zeros(batch, length, dtype=torch.int64)}
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = torch.zeros(batch, other, dtype=torch.int64)
    return inputs


def further_inputs(module: nn.Module, feed: Mapping[str, Any]) -> Iterator[dict[str, torch.Tensor]]:
    """Optional inputs that reach other parts of a language model than its token ids do.

    States of an encoder, for a decoder that can attend to one: [batch, length, width], with the width
    of the token embedding.
    """
    accepted = inspect.signature(module.forward).parameters
    find = getattr(module, "get_input_embeddings", None)
    weight = getattr(find() if find is not None else None, "weight", None)
    if "encoder_hidden_states" in accepted and isinstance(weight, torch.Tensor):
        batch, length = feed["input_ids"].shape
        yield {"encoder_hidden_states": torch.zeros(batch, length, weight.shape[-1])}


def data_sizes(inputs: Mapping[str, Any], module: nn.Module) -> frozenset[int]:
    """Sizes of batch and sequence: those dims of index inputs that no parameter has."""
    taken = _dims(module)
    return frozenset(
        size
        for tensor in inputs.values()
        if isinstance(tensor, torch.Tensor)
        for size in (tensor.shape if not tensor.is_floating_point() else tensor.shape[:1])
        if size > 1 and size not in taken
    )


def _dims(module: nn.Module) -> set[int]:
    """Sizes of all dims of all parameters, empty ones apart."""
    return {size for parameter in module.parameters() for size in parameter.shape if size}


def _integers(nested: Any) -> Iterator[int]:
    """Every integer in a config's fields."""
    if isinstance(nested, Mapping):
        nested = tuple(nested.values())
    if isinstance(nested, (tuple, list)):
        for item in nested:
            yield from _integers(item)
    elif isinstance(nested, int):
        yield int(nested)


def _odd_primes() -> Iterator[int]:
    return (n for n in itertools.count(3, 2) if all(n % d for d in range(3, n, 2)))
