"""Run a model the plain way: eager attention, experts as batched products, no cache."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from transformers import PreTrainedConfig, PreTrainedModel

__all__ = [
    "GROUPED_BYTES",
    "Experts",
    "grouped_products_fit",
    "loop_where_needed",
    "plain_execution",
    "run_like",
]

Experts = Literal["batched_mm", "eager"]

GROUPED_BYTES = 16
"""What `torch.nn.functional.grouped_mm` wants strides to be a multiple of."""


@contextlib.contextmanager
def plain_execution(module: nn.Module, experts: Experts = "batched_mm") -> Iterator[None]:
    """While open, `module` runs by plain ops, torch's own attention layer included; then all is as it was.

    Fused attention and grouped experts compute the same through ops that hide the axes, and will not run
    in every dtype and width. Of experts, loops (``eager``) would leave every expert's slice an axis of
    its own, and batched products gather the matrices of every token's experts: the one is for running,
    the other for tracing.
    """
    plain: dict[str, object] = {
        "_attn_implementation_internal": "eager",
        "_experts_implementation_internal": experts,
        "use_cache": False,
    }
    before: list[tuple[Any, str, Any]] = []
    seen: set[int] = set()
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for child in module.modules():
            config = getattr(child, "config", None)
            if config is None or id(config) in seen:
                continue
            seen.add(id(config))
            for field, value in plain.items():
                if field in vars(config):
                    before.append((config, field, vars(config)[field]))
                    setattr(config, field, value)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for config, field, value in before:
            setattr(config, field, value)


def run_like(config: PreTrainedConfig, model: PreTrainedConfig) -> None:
    """Let `config`, and the configs in it, ask for the experts implementations of `model` and its parts.

    Set after the build: a class with parts that have no experts refuses the choice while it is built.
    """
    config._experts_implementation_internal = model._experts_implementation_internal
    for name in config.sub_configs:
        own, other = getattr(config, name, None), getattr(model, name, None)
        if own is not None and other is not None:
            run_like(own, other)


def grouped_products_fit(module: nn.Module) -> bool:
    """Whether grouped products, the usual way to run experts, take the stacks of matrices of `module`.

    They want rows and columns of a multiple of 16 bytes, and fail on others; looped products do not.
    """
    return all(
        size * stack.element_size() % GROUPED_BYTES == 0
        for part in module.modules()
        if not isinstance(part, _ConvNd)
        for stack in part.parameters(recurse=False)
        if stack.ndim == 3 and len(stack) > 1
        for size in stack.shape[1:]
    )


def loop_where_needed(module: PreTrainedModel) -> bool:
    """Let experts run one by one where grouped products do not take them; whether that changed anything."""
    if grouped_products_fit(module):
        return False
    before = module.config._experts_implementation
    module.set_experts_implementation("eager")
    return module.config._experts_implementation != before
