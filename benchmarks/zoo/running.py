"""One plain forward pass on token ids, as a trace makes it: eager attention, batched experts, no cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from surgeon.rebuild.execution import plain_execution
from surgeon.rebuild.forward import first_output
from surgeon.trace.inputs import example_inputs

__all__ = ["plainly_run", "proof_inputs"]


def plainly_run(model: nn.Module) -> Tensor:
    """The first output of `model` on the inputs that a trace of it takes."""
    with torch.no_grad(), plain_execution(model):
        return first_output(model(**example_inputs(model))).value


@contextmanager
def proof_inputs(model: nn.Module) -> Iterator[None]:
    """While open, a call with ``input_ids`` alone is completed by whatever else a trace feeds the model.

    Decoder ids are the input ids: what renumbers one renumbers the other.
    """
    others = [name for name in example_inputs(model) if name != "input_ids"]

    def complete(_: nn.Module, args: tuple, given: dict) -> tuple[tuple, dict]:
        lacking = {name: given["input_ids"] for name in others if name not in given}
        return args, {**given, **lacking}

    handle = model.register_forward_pre_hook(complete, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
