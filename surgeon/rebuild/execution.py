"""Run a model the plain way: eager attention, experts as batched products, no cache."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

__all__ = ["plain_execution"]

_PLAIN = {
    "_attn_implementation_internal": "eager",
    "_experts_implementation_internal": "batched_mm",
    "use_cache": False,
}


@contextlib.contextmanager
def plain_execution(module: nn.Module) -> Iterator[None]:
    """While open, every config in `module` asks for plain ops; then all is as it was.

    Fused attention and grouped experts compute the same through ops that hide the axes; expert
    loops would leave every expert's slice an axis of its own.
    """
    before: list[tuple[Any, str, Any]] = []
    seen: set[int] = set()
    try:
        for child in module.modules():
            config = getattr(child, "config", None)
            if config is None or id(config) in seen:
                continue
            seen.add(id(config))
            for field, plain in _PLAIN.items():
                if field in vars(config):
                    before.append((config, field, vars(config)[field]))
                    setattr(config, field, plain)
        yield
    finally:
        for config, field, value in before:
            setattr(config, field, value)
