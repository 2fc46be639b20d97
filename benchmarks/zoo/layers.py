"""Which layers of a deep default to keep, so that every sort of layer stays in the tiny model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

__all__ = ["chosen_layers", "index_lists", "layer_lists", "resampled"]


def layer_lists(fields: Mapping[str, object], depth: int) -> dict[str, Sequence]:
    """Fields with one entry per layer."""
    return {
        name: value
        for name, value in fields.items()
        if isinstance(value, (list, tuple)) and len(value) == depth and depth > 1 and not _ascending(value)
    }


def index_lists(fields: Mapping[str, object], depth: int) -> dict[str, Sequence[int]]:
    """Fields that list layers by number."""
    return {
        name: value
        for name, value in fields.items()
        if isinstance(value, (list, tuple)) and value and _ascending(value) and value[-1] < depth
    }


def chosen_layers(fields: Mapping[str, object], depth: int, count: int) -> tuple[int, ...]:
    """`count` layers of `depth`, ascending: first one of each sort, then the first ones."""
    lists = layer_lists(fields, depth)
    members = {name: set(value) for name, value in index_lists(fields, depth).items()}
    sorts: dict[tuple, int] = {}
    for layer in range(depth):
        sort = tuple(str(value[layer]) for value in lists.values())
        sort += tuple(layer in numbers for numbers in members.values())
        sorts.setdefault(sort, layer)
    first = list(sorts.values())[:count]
    rest = [layer for layer in range(depth) if layer not in first]
    return tuple(sorted(first + rest[: max(0, count - len(first))]))


def resampled(fields: Mapping[str, object], depth: int, kept: Sequence[int]) -> dict[str, object]:
    """The per-layer fields as they are for the layers `kept` alone."""
    changed: dict[str, object] = {
        name: [value[layer] for layer in kept] for name, value in layer_lists(fields, depth).items()
    }
    for name, numbers in index_lists(fields, depth).items():
        inside = [place for place, layer in enumerate(kept) if layer in numbers]
        changed[name] = inside or [len(kept) - 1]
    return changed


def _ascending(value: Sequence) -> bool:
    whole = all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value)
    return whole and all(a < b for a, b in itertools.pairwise(value))
