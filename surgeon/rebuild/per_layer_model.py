"""A transformers model whose blocks differ in width, as its config says.

The stock class is built at one width; then every module named in ``config.per_layer_modules`` is made as
narrow as stands there: a list is the new shape of a tensor, a number a new attribute, and under
``config`` are the fields that the module sees in place of the model's own (those that stand, layer by
layer, in ``config.per_layer_config`` for transformers itself).

Nothing but structure, and nothing but torch: a copy of this file lies beside the weights, so that they
load with ``trust_remote_code=True`` wherever transformers is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["LayerConfig", "PerLayer", "narrow"]


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
        model: Any = self
        inner = model.base_model_prefix + "."
        whole = hasattr(model, model.base_model_prefix)
        for path, row in config.per_layer_modules.items():
            if whole or path.startswith(inner):
                narrow(model.get_submodule(path if whole else path.removeprefix(inner)), row)


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
