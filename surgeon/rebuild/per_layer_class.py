"""The class of a per-layer model, and the modeling file that lets others load it.

The file is the source of `surgeon.rebuild.per_layer_model` and one class on top of a stock one, so what
loads elsewhere is what was verified here. Not here: what stands in the config (`per_layer`), and who
writes the file (`surgeon.io`).
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import cast

import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from surgeon.rebuild import per_layer_model

__all__ = [
    "MODELING_FILE",
    "TABLE",
    "auto_map",
    "modeling_source",
    "per_layer_class",
    "stock_auto_class",
    "stock_class",
]

TABLE = "per_layer_modules"
"""Config field that says how each module differs from what the stock class builds."""

MODELING_FILE = "modeling_per_layer.py"
PREFIX = "PerLayer"

FOR_TEXT = (
    "AutoModelForCausalLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForImageTextToText",
    "AutoModelForMaskedLM",
)
"""Auto classes that a text model is loaded with, where several build one class."""


@cache
def per_layer_class(stock: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """`stock`, built as wide as its config says, module by module."""
    doc = f"{stock.__name__} whose layers differ in width."
    made = type(PREFIX + stock.__name__, (per_layer_model.PerLayer, stock), {"__doc__": doc})
    return cast(type[PreTrainedModel], made)


def stock_class(name: str) -> str:
    """Name of the stock class under a per-layer class; any other name stays."""
    return name.removeprefix(PREFIX)


def auto_map(stock: type[PreTrainedModel], config: PreTrainedConfig) -> dict[str, str]:
    """For every auto class of transformers that would build `stock` or its base: where it finds ours."""
    module = MODELING_FILE.removesuffix(".py")
    return {
        auto: f"{module}.{PREFIX}{cls.__name__}"
        for cls in _classes(stock, config)
        for auto in _auto_classes(cls, config)
    }


def modeling_source(stock: type[PreTrainedModel], config: PreTrainedConfig) -> str:
    """The text of the modeling file."""
    source = inspect.getsource(per_layer_model)
    classes = _classes(stock, config)
    names = ", ".join(sorted(cls.__name__ for cls in classes))
    imported = source.replace(
        "from torch import nn\n", f"from torch import nn\nfrom transformers import {names}\n"
    )
    defined = (
        f"\n\nclass {PREFIX}{cls.__name__}(PerLayer, {cls.__name__}):\n"
        f'    """{cls.__name__} whose layers differ in width."""\n'
        for cls in classes
    )
    listed = ", ".join(f'"{PREFIX}{cls.__name__}"' for cls in classes)
    own = "__all__ = [" + ", ".join(f'"{name}"' for name in per_layer_model.__all__)
    return imported.replace(own, f"{own}, {listed}") + "".join(defined)


def _classes(stock: type[PreTrainedModel], config: PreTrainedConfig) -> tuple[type[PreTrainedModel], ...]:
    """The class itself and the base model that it wraps, where there is one."""
    mapping = transformers.MODEL_MAPPING
    base = mapping[type(config)] if type(config) in mapping else stock
    base = base[0] if isinstance(base, tuple) else base
    return tuple(dict.fromkeys((stock, cast(type[PreTrainedModel], base))))


def stock_auto_class(cls: type[PreTrainedModel], config: PreTrainedConfig) -> type:
    """The auto class that builds `cls` from `config`, those for text first; `cls` itself where none does."""
    found = _auto_classes(cls, config)
    usual = [name for name in FOR_TEXT if name in found]
    return cast(type, getattr(transformers, (usual or found)[0])) if found else cls


def _auto_classes(cls: type[PreTrainedModel], config: PreTrainedConfig) -> list[str]:
    found: list[str] = []
    for name in transformers.models.auto.modeling_auto.__all__:
        mapping = getattr(getattr(transformers, name, None), "_model_mapping", None)
        if mapping is not None and type(config) in mapping and mapping[type(config)] is cls:
            found.append(name)
    return found
