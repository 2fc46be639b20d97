"""A transformers model whose blocks differ in width or lack a part, as its config says.

The stock class is built at one width; then every module named in ``config.per_layer_modules`` is made as
narrow as stands there: a list is the new shape of a tensor, a number a new attribute, and under
``config`` are the fields that the module sees in place of the model's own (those that stand, layer by
layer, in ``config.per_layer_config`` for transformers itself). Under ``absent`` stands what a module that
was taken out used to return: how many things in a tuple, or null for a tensor. Under ``reshapes`` stand
pairs of widths, of what the module is given and of what it makes now, for code that takes the one for the
other.

Nothing but structure, and nothing but torch: a copy of this file lies beside the weights, so that they
load with ``trust_remote_code=True`` wherever transformers is.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["Absent", "LayerConfig", "OwnWidth", "PerLayer", "Reshapes", "change", "narrow"]


class LayerConfig:
    """The model's config as one layer sees it: some fields differ, all others are the model's own."""

    def __init__(self, config, fields):
        self.model_config = config
        self.fields = dict(fields)

    def __getattr__(self, name):
        if name.startswith("__") or name in ("model_config", "fields"):
            raise AttributeError(name)
        return self.fields[name] if name in self.fields else getattr(self.model_config, name)


class PerLayer:
    """Before a stock model class in a list of bases: that model, narrowed as its config says."""

    def __init__(self, config, *args, **kwargs):
        layers = config.to_dict().get("per_layer_config")
        config.per_layer_config = None  # the stock class wants one width to begin with
        try:
            super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]  # that of the stock class
        finally:
            config.per_layer_config = layers
        for path, row in config.per_layer_modules.items():
            own = inside(self, path)
            if own is not None:
                change(self, own, row)


class Absent(nn.Module):
    """In the place of a module that was taken out: zeros, so that it adds nothing to its layer."""

    def __init__(self, old, outputs):
        super().__init__()
        self.outputs = outputs
        plain = {n: v for n, v in vars(old).items() if isinstance(v, (bool, int, float, str)) and n[0] != "_"}
        vars(self).update(plain)  # what the layer may look at
        places = [part.layer_idx for part in old.modules() if hasattr(part, "layer_idx")]
        self.cached_as = places[0] if places else None

    def forward(self, *args, **kwargs):
        """Zeros shaped like the states that are given."""
        given = (*args, *kwargs.values())
        states = next(x for x in given if isinstance(x, torch.Tensor) and x.is_floating_point())
        for kept in given:
            # A cache counts the tokens of its first layer: one number a token holds this layer's place.
            if self.cached_as is not None and hasattr(kept, "get_seq_length"):
                held = states.new_zeros(states.shape[0], 1, states.shape[1], 1)
                kept.update(held, held, self.cached_as)
        nothing = torch.zeros_like(states)
        return nothing if self.outputs is None else (nothing, *[None] * (self.outputs - 1))


class Reshapes(TorchFunctionMode):
    """While open, a reshape to one of the old widths that cannot be is one to the new width."""

    def __init__(self, widths):
        super().__init__()
        self.widths = {old: new for old, new in widths}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.Tensor.view, torch.Tensor.reshape, torch.reshape):
            sizes = args[1] if len(args) == 2 and isinstance(args[1], (tuple, list)) else args[1:]
            if sizes and all(isinstance(size, int) for size in sizes):
                args = (args[0], self.fitting(args[0], list(sizes)))
        return func(*args, **(kwargs or {}))

    def fitting(self, states, sizes):
        """`sizes`, or the same with the last old width in it replaced where the states have only the new."""
        for place in reversed(range(len(sizes))):
            new = self.widths.get(sizes[place])
            other = [*sizes[:place], new, *sizes[place + 1 :]]
            if new is None or (-1 in sizes and (sizes[place] in states.shape or new not in states.shape)):
                continue
            if -1 in sizes or (
                sizes.count(sizes[place]) == 1 and math.prod(sizes) != states.numel() == math.prod(other)
            ):
                return other
        return sizes


class OwnWidth:
    """Before a stock module class in a list of bases: what it reshapes, it gives its own width."""

    reshapes: Any

    def forward(self, *args, **kwargs):
        """That of the stock class."""
        with Reshapes(self.reshapes):
            return super().forward(*args, **kwargs)  # type: ignore[misc]  # that of the stock class


@cache
def own_width(stock):
    """`stock` with `OwnWidth` before it; its name stays."""
    return type(stock.__name__, (OwnWidth, stock), {"__doc__": stock.__doc__})


def inside(model: Any, path):
    """Where the module called `path` in the whole model lies in `model`; None where it is not part of it.

    An auto class may build the base model alone, in which the first step of the path is the model itself.
    """
    first, _, rest = path.partition(".")
    if hasattr(model, first):
        return path
    return rest if first == model.base_model_prefix else None


def change(model, path, row):
    """Make the module of `model` at `path` what `row` says: absent, or narrower."""
    if "absent" in row:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, Absent(model.get_submodule(path), row["absent"]))
    else:
        narrow(model.get_submodule(path), row)


def narrow(module, row):
    """Give `module` the tensors' shapes, the attributes, the config fields and the reshapes of `row`."""
    for name, value in row.items():
        if name == "reshapes":
            module.__class__ = own_width(type(module))
            module.reshapes = value
            continue
        old = getattr(module, name)
        if isinstance(old, torch.Tensor):
            new = old.detach()[tuple(slice(size) for size in value)].clone()
            is_parameter = isinstance(old, nn.Parameter)
            setattr(module, name, nn.Parameter(new, old.requires_grad) if is_parameter else new)
        elif name == "config":
            module.config = LayerConfig(old, value)
        else:
            setattr(module, name, type(old)(value))
