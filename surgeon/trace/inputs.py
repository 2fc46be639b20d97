"""Example inputs for a trace: short, real, and of prime sizes that no dim of the model has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from surgeon.errors import TraceError

__all__ = ["data_sizes", "example_inputs"]

_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)


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
    taken = {size for parameter in module.parameters() for size in parameter.shape}
    batch, *lengths = [prime for prime in _PRIMES if prime not in taken][:3]
    lengths.sort()
    inputs = {"input_ids": torch.zeros(batch, lengths[0], dtype=torch.int64)}
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = torch.zeros(batch, lengths[1], dtype=torch.int64)
    return inputs


def data_sizes(inputs: Mapping[str, Any], module: nn.Module) -> frozenset[int]:
    """Sizes of batch and sequence: those dims of index inputs that no parameter has."""
    taken = {size for parameter in module.parameters() for size in parameter.shape}
    return frozenset(
        size
        for tensor in inputs.values()
        if isinstance(tensor, torch.Tensor)
        for size in (tensor.shape if not tensor.is_floating_point() else tensor.shape[:1])
        if size > 1 and size not in taken
    )
