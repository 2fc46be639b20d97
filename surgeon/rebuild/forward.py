"""A module called as a function of its tensors: probe tokens, another dtype, the first output.

What the masked view, `verify` and the symmetry proof share. Not here: what they replace the tensors
with, and what they compare.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from surgeon.errors import VerifyError
from surgeon.rebuild.execution import plain_execution

__all__ = [
    "EXACT",
    "ROUNDED",
    "Output",
    "PrecisionLoss",
    "all_tensors",
    "call_with",
    "cast_inputs",
    "encoder_states",
    "feed",
    "first_output",
    "in_dtype_or_own",
    "probe_tokens",
]

T = TypeVar("T")

EXACT = 1e-9
"""Tolerance, relative to the largest output, where a float64 model stays in float64."""

ROUNDED = 1e-5
"""The same where the model itself drops to float32 inside."""


class Output(NamedTuple):
    """The first floating-point field of a model's output."""

    name: str
    value: Tensor


class PrecisionLoss(TorchDispatchMode):
    """Notes whether any float64 tensor is cast to a narrower float inside the context."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    @property
    def tolerance(self) -> float:
        """`ROUNDED` where precision was lost, else `EXACT`."""
        return ROUNDED if self.seen else EXACT

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.dtype in (torch.float32, torch.float16, torch.bfloat16):
            self.seen |= any(isinstance(arg, Tensor) and arg.dtype == torch.float64 for arg in args)
        return out


def all_tensors(module: nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Every parameter and buffer under each of its names; floats in `dtype`, ties kept as ties."""
    named: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    named |= dict(module.named_buffers(remove_duplicate=False))
    if dtype is None:
        return named
    cast: dict[int, Tensor] = {}
    for tensor in named.values():
        if id(tensor) not in cast:
            cast[id(tensor)] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return {name: cast[id(tensor)] for name, tensor in named.items()}


def cast_inputs(inputs: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The same, floats in `dtype` where one is given."""
    floats = {name: t.to(dtype) for name, t in inputs.items() if dtype is not None and t.is_floating_point()}
    return {**inputs, **floats}


def in_dtype_or_own(compute: Callable[[torch.dtype | None], T], dtype: torch.dtype | None) -> T:
    """``compute(dtype)``, or ``compute(None)`` where the model's code insists on its own dtype.

    A few models cast to float32 in the middle, or fill masks with numbers that only that dtype holds.
    """
    try:
        return compute(dtype)
    except RuntimeError:
        if dtype is None:
            raise
        return compute(None)


def call_with(module: nn.Module, tensors: Mapping[str, Tensor], *args: object, **kwargs: object) -> object:
    """Call `module`, run the plain way, with `tensors` in the place of its own; others keep theirs.

    What a forward pass draws at random (a diffusion model's canvas) is the same in every call.
    """
    with plain_execution(module, experts="eager"), torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return functional_call(module, dict(tensors), args, kwargs, tie_weights=True)


def first_output(output: object) -> Output:
    """The first floating-point tensor of what a model returned: the logits of a language model.

    Raises:
        VerifyError: there is none.
    """
    fields: list[tuple[str, object]]
    if isinstance(output, Tensor):
        fields = [("output", output)]
    elif isinstance(output, Mapping):
        fields = [(str(name), value) for name, value in output.items()]
    elif isinstance(output, tuple | list):
        fields = [(f"output.{place}", value) for place, value in enumerate(output)]
    else:
        fields = []
    for name, value in fields:
        if isinstance(value, Tensor) and value.is_floating_point():
            return Output(name, value)
    raise VerifyError(f"the model returned {type(output).__name__}, which holds no floating-point tensor")


def feed(module: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """Keyword arguments of one forward pass over `ids`; an encoder-decoder reads them on both sides.

    A forward pass that insists on an image is given one at random, the same for the same ids.
    """
    given = {"input_ids": ids}
    if getattr(getattr(module, "config", None), "is_encoder_decoder", False):
        given["decoder_input_ids"] = ids
    image = inspect.signature(module.forward).parameters.get("pixel_values")
    if image is not None and image.default is inspect.Parameter.empty:
        given["pixel_values"] = _image(module, ids)
    return given


def _image(module: nn.Module, ids: Tensor) -> Tensor:
    """One random picture [rows, channels, height, width] a row of `ids`, as large as the config says."""
    config: Any = module.config
    side = getattr(config, "vision_config", config).image_size
    first = next(part for part in module.modules() if isinstance(part, nn.Conv2d))
    generator = torch.Generator().manual_seed(0)
    image = torch.randn((len(ids), first.in_channels, side, side), generator=generator)
    return image.to(device=ids.device, dtype=first.weight.dtype)


def encoder_states(module: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """States of an encoder, zeros [batch, length, width], for a decoder that can attend to one; else nothing.

    Their width is that of the token embedding.
    """
    find = getattr(module, "get_input_embeddings", None)
    weight = getattr(find() if find is not None else None, "weight", None)
    accepted = inspect.signature(module.forward).parameters
    if "encoder_hidden_states" not in accepted or not isinstance(weight, Tensor):
        return {}
    states = torch.zeros(*ids.shape, weight.shape[-1], dtype=weight.dtype, device=ids.device)
    return {"encoder_hidden_states": states}


def probe_tokens(module: nn.Module, seed: int = 0, rows: int = 3, length: int = 23) -> Tensor:
    """Random token ids [rows, length]; the defaults are primes, which no model dim should equal.

    The vocabulary is that of the input embedding; of several side by side, what the config says.

    Raises:
        VerifyError: the module has neither, so that its vocabulary is unknown.
    """
    find = getattr(module, "get_input_embeddings", None)
    weight = getattr(find() if find is not None else None, "weight", None)
    known = isinstance(weight, Tensor)
    size = weight.shape[0] if known else getattr(getattr(module, "config", None), "vocab_size", None)
    if not isinstance(size, int):
        raise VerifyError(f"{type(module).__name__} has no input embedding to draw probe tokens for")
    device = weight.device if known else next(module.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(size, (rows, length), generator=generator).to(device)
