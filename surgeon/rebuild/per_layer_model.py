"""A transformers model whose blocks differ in width or lack a part, as its config says.

The stock class is built at one width; then every module named in ``config.per_layer_modules`` is made as
narrow as stands there: a list is the new shape of a tensor, a number a new attribute, and under
``config`` are the fields that the module sees in place of the model's own (those that stand, layer by
layer, in ``config.per_layer_config`` for transformers itself). Under ``absent`` stands what a module that
was taken out used to return: how many things in a tuple, or null for a tensor.

Nothing but structure, and nothing but torch: a copy of this file lies beside the weights, so that they
load with ``trust_remote_code=True`` wherever transformers is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["Absent", "LayerConfig", "PerLayer", "change", "narrow"]


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
        for cache in given:
            # A cache counts the tokens of its first layer: one number a token holds this layer's place.
            if self.cached_as is not None and hasattr(cache, "get_seq_length"):
                held = states.new_zeros(states.shape[0], 1, states.shape[1], 1)
                cache.update(held, held, self.cached_as)
        nothing = torch.zeros_like(states)
        return nothing if self.outputs is None else (nothing, *[None] * (self.outputs - 1))


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
    """Give `module` the tensors' shapes, the attributes and the config fields of `row`."""
    for name, value in row.items():
        old = getattr(module, name)
        if isinstance(old, torch.Tensor):
            new = old.detach()[tuple(slice(size) for size in value)].clone()
            is_parameter = isinstance(old, nn.Parameter)
            setattr(module, name, nn.Parameter(new, old.requires_grad) if is_parameter else new)
        elif name == "config":
            module.config = LayerConfig(old, value)
        else:
            setattr(module, name, type(old)(value))
