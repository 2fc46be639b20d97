"""Numbers of a model: the fields of its config, the sizes of its dims, and primes that are neither."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

__all__ = ["config_fields", "dim_sizes", "unused_primes"]

_ENOUGH = 8
"""More primes than one trace asks for."""


def config_fields(module: nn.Module) -> list[tuple[str, Any]]:
    """Every field of the module's config by its name, nested configs included, outer ones first."""
    config = getattr(module, "config", None)
    fields = config.to_dict() if isinstance(config, PreTrainedConfig) else vars(config) if config else {}
    return list(_fields(fields))


def dim_sizes(module: nn.Module) -> set[int]:
    """Sizes of all dims of all parameters, empty ones apart."""
    return {size for parameter in module.parameters() for size in parameter.shape if size}


def unused_primes(module: nn.Module, least: int = 3) -> list[int]:
    """Odd primes from `least` on that divide no dim and equal no number of the config, smallest first."""
    dims = dim_sizes(module)
    numbers = {number for _, value in config_fields(module) for number in _integers(value)}
    unused = (p for p in _odd_primes(least) if p not in numbers and all(size % p for size in dims))
    return list(itertools.islice(unused, _ENOUGH))


def _fields(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    nested = []
    for name, value in fields.items():
        if isinstance(value, Mapping):
            nested.append(value)
        yield str(name), value
    for inner in nested:
        yield from _fields(inner)


def _integers(nested: Any) -> Iterator[int]:
    if isinstance(nested, Mapping):
        nested = tuple(nested.values())
    if isinstance(nested, (tuple, list)):
        for item in nested:
            yield from _integers(item)
    elif isinstance(nested, int):
        yield int(nested)


def _odd_primes(least: int) -> Iterator[int]:
    odd = itertools.count(least + (least % 2 == 0), 2)
    return (n for n in odd if n > 2 and all(n % d for d in range(3, int(n**0.5) + 1, 2)))
