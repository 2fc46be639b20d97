"""One plain forward pass on token ids, as a trace makes it: eager attention, batched experts, no cache."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from surgeon.rebuild.execution import plain_execution
from surgeon.rebuild.forward import first_output
from surgeon.trace.inputs import example_inputs

__all__ = ["feed", "plainly_run", "proof_inputs", "random_ids"]


def feed(model: nn.Module) -> dict[str, Tensor]:
    """What a trace feeds `model`: token ids, and an image where its forward insists on one."""
    inputs = example_inputs(model)
    image = inspect.signature(model.forward).parameters.get("pixel_values")
    if image is not None and image.default is inspect.Parameter.empty:
        vision = getattr(model.config, "vision_config", model.config)
        batch = next(iter(inputs.values())).shape[0]
        generator = torch.Generator().manual_seed(0)
        channels = next(part.in_channels for part in model.modules() if isinstance(part, nn.Conv2d))
        shape = (batch, channels, vision.image_size, vision.image_size)
        inputs["pixel_values"] = torch.randn(shape, generator=generator)
    return inputs


def random_ids(model: nn.Module, rows: int, length: int, seed: int = 0) -> Tensor:
    """Token ids [rows, length] over the whole vocabulary that the config tells."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.config.get_text_config().vocab_size, (rows, length), generator=generator)


def plainly_run(model: nn.Module) -> Tensor:
    """The first output of `model` on the inputs that a trace of it takes."""
    with torch.no_grad(), plain_execution(model):
        return first_output(model(**feed(model))).value


@contextmanager
def proof_inputs(model: nn.Module) -> Iterator[None]:
    """While open, a call with ``input_ids`` alone is completed by whatever else a trace feeds the model.

    Decoder ids are the input ids: what renumbers one renumbers the other.
    """
    others = {name: value for name, value in feed(model).items() if name != "input_ids"}

    def complete(_: nn.Module, args: tuple, given: dict) -> tuple[tuple, dict]:
        ids = given["input_ids"]
        dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        lacking = {
            name: value[: len(ids)].to(dtype) if value.is_floating_point() else ids
            for name, value in others.items()
            if name not in given
        }
        return args, {**given, **lacking}

    handle = model.register_forward_pre_hook(complete, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
