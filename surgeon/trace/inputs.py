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

__all__ = ["data_sizes", "example_inputs", "further_inputs", "kind_inputs", "longer_inputs"]

_LONG = (140, 560)
"""Lengths above what is usual to be summed up as one, 128 and 512 tokens."""
_SORTS = ("token_type_ids",)
_ENCODED = ("encoder_hidden_states", "cross_attention_states", "encoder_outputs")


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
    takes = inspect.signature(module.forward).parameters
    if getattr(config, "is_encoder_decoder", False) or "decoder_input_ids" in takes:
        inputs["decoder_input_ids"] = torch.zeros(batch, other, dtype=torch.int64)
    return inputs


def further_inputs(module: nn.Module, feed: Mapping[str, Any]) -> Iterator[Iterator[dict[str, torch.Tensor]]]:
    """Kinds of input that reach other parts of a language model than the token ids in `feed` do.

    Each kind in all the ways that the model may want it, of which one is enough, in the place of `feed`.
    States of an encoder, for a decoder that can attend to one. Ids of a second vocabulary, or of entities and
    where in the text they are. The sort of every token. A first token that all attend to. Which tokens to
    predict, all of them. Images, videos and sounds, in several layouts.
    """
    accepted = inspect.signature(module.forward).parameters
    ids = feed["input_ids"]
    yield _encoder_states(module, accepted, feed)
    yield ({**feed, **made} for made in _other_ids(accepted, ids))
    if {"entity_ids", "entity_position_ids"} <= accepted.keys():
        few = ids[:, : ids.shape[1] // 2]
        yield iter([{**feed, "entity_ids": few, "entity_position_ids": few[..., None].clone()}])
    yield kind_inputs(module, feed)
    if "global_attention_mask" in accepted:
        first = (torch.arange(ids.shape[1]) == 0).to(ids.dtype).expand_as(ids).clone()
        yield iter([{**feed, "global_attention_mask": first}])
    if "target_mapping" in accepted:
        dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
        each = torch.eye(ids.shape[1], dtype=dtype).expand(len(ids), -1, -1).clone()
        yield iter([{**feed, "target_mapping": each}])
    yield from modality_inputs(module, feed)


def kind_inputs(module: nn.Module, feed: Mapping[str, Any]) -> Iterator[dict[str, torch.Tensor]]:
    """Beside the token ids in `feed`, what sort each token is of: of its segment, its shape, its sound.

    A model that is not told takes the same for all of them, and reads one row of a table. All sorts that it
    takes at once, then each alone.
    """
    accepted = inspect.signature(module.forward).parameters
    ids = feed["input_ids"]
    sorts = {name: torch.zeros_like(ids) for name in accepted if name in _SORTS or _is_sort(name)}
    if len(sorts) > 1:
        yield {**feed, **sorts}
    yield from ({**feed, name: sort} for name, sort in sorts.items())


def longer_inputs(module: nn.Module, feed: Mapping[str, Any]) -> Iterator[dict[str, torch.Tensor]]:
    """The ids in `feed`, and many more: for what begins with many tokens."""
    for least in _LONG:
        length = unused_primes(module, least=least)[0]
        yield {name: ids.new_zeros(len(ids), length) for name, ids in feed.items()}


def _is_sort(name: str) -> bool:
    return name.startswith("input_") and name.endswith("_ids") and name != "input_ids"


def _encoder_states(
    module: nn.Module, accepted: Mapping[str, Any], feed: Mapping[str, Any]
) -> Iterator[dict[str, torch.Tensor]]:
    """States [batch, length, width] that a decoder attends to, of the width of its token embedding."""
    if "decoder_input_ids" in feed:
        return
    find = getattr(module, "get_input_embeddings", None)
    found = find() if find is not None else None
    tables = [part.weight for part in found.modules() if isinstance(part, nn.Embedding)] if found else []
    for name in _ENCODED if tables else ():
        if name in accepted:
            shape = (*feed["input_ids"].shape, tables[0].shape[-1])
            yield {**feed, name: torch.zeros(shape, dtype=tables[0].dtype)}


def _other_ids(accepted: Mapping[str, Any], ids: torch.Tensor) -> Iterator[dict[str, torch.Tensor]]:
    """Ids of a vocabulary beside that of the text, each with its mask."""
    for name in accepted:
        word = name.removesuffix("_input_ids")
        if word not in (name, "decoder"):
            mask = f"{word}_attention_mask"
            made = {name: torch.zeros_like(ids)}
            yield made | ({mask: torch.ones_like(ids)} if mask in accepted else {})


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
