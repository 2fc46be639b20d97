"""Example inputs for a trace: short, real, and of prime sizes that no axis of the model can have.

Batch and sequence are told from the model's own axes by their sizes. An axis that a view makes has a
size that divides a parameter's dim, and one that a slice makes mostly stands in the config, so the
primes chosen divide no dim and equal no number of the config.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from surgeon.errors import TraceError
from surgeon.trace.modalities import modality_inputs
from surgeon.trace.numbers import dim_sizes, unused_primes

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
    batch, length, other = unused_primes(module)[:3]
    inputs = {"input_ids": torch.zeros(batch, length, dtype=torch.int64)}
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = torch.zeros(batch, other, dtype=torch.int64)
    return inputs


def further_inputs(module: nn.Module, feed: Mapping[str, Any]) -> Iterator[Iterator[dict[str, torch.Tensor]]]:
    """Kinds of input that reach other parts of a language model than the token ids in `feed` do.

    Each kind in all the ways that the model may want it, of which one is enough, in the place of `feed`.
    States of an encoder, for a decoder that can attend to one: [batch, length, width], with the width
    of the token embedding. The segment of every token, a first token that all attend to. Images and
    sounds, in several layouts.
    """
    accepted = inspect.signature(module.forward).parameters
    find = getattr(module, "get_input_embeddings", None)
    weight = getattr(find() if find is not None else None, "weight", None)
    if "encoder_hidden_states" in accepted and isinstance(weight, torch.Tensor):
        batch, length = feed["input_ids"].shape
        yield iter(
            [
                {
                    **feed,
                    "encoder_hidden_states": torch.zeros(batch, length, weight.shape[-1], dtype=weight.dtype),
                }
            ]
        )
    ids = feed["input_ids"]
    if "token_type_ids" in accepted:
        yield iter([{**feed, "token_type_ids": torch.zeros_like(ids)}])
    if "global_attention_mask" in accepted:
        first = (torch.arange(ids.shape[1]) == 0).to(ids.dtype).expand_as(ids).clone()
        yield iter([{**feed, "global_attention_mask": first}])
    yield from modality_inputs(module, feed)


def data_sizes(inputs: Mapping[str, Any], module: nn.Module) -> frozenset[int]:
    """Sizes of batch and sequence: those dims of index inputs that no parameter has.

    Beside ids, other index inputs (the grid of an image, say) tell nothing.
    """
    taken = dim_sizes(module)
    tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    ids = {name for name in tensors if name.endswith("ids")} or set(tensors)
    sizes: set[int] = set()
    for name, tensor in tensors.items():
        sizes.update(tensor.shape if name in ids and not tensor.is_floating_point() else tensor.shape[:1])
    return frozenset(size for size in sizes if size > 1 and size not in taken)
