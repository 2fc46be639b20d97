"""Bias slots: the same model with biases of zero where its family's config can switch them on.

Some repairs put a number into a bias that the model does not have. Which config fields make which biases
is measured: each flag that is off is switched on, the model is built without storage, and the parameters
that appear are read off. The model with biases computes the same, is traced anew, and everything after
works on it as on any other. Not here: what is put into the biases (`surgeon.repair`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from surgeon.errors import InfeasibleError, RebuildError
from surgeon.rebuild.config_tree import Path, leaves, path_text, vary
from surgeon.rebuild.skeleton import load_into, skeleton
from surgeon.rebuild.tensors import stored_tensors

__all__ = ["BiasSlots", "bias_slots", "with_bias_slots"]


@dataclass(frozen=True)
class BiasSlots:
    """A config with biases switched on, the fields that do it, and the parameters that appear."""

    config: PreTrainedConfig
    fields: tuple[str, ...]
    added: tuple[str, ...]


def bias_slots(config: PreTrainedConfig, wanted: Collection[str]) -> BiasSlots:
    """The fewest flags that give all of the parameters called `wanted`.

    Raises:
        InfeasibleError: no flags of this family's config do; nothing but shapes was looked at.
    """
    before = _shapes(config)
    lacking = sorted(set(wanted) - set(before))
    if not lacking:
        return BiasSlots(config, (), ())
    flags = {path: added for path, added in _flags(config, before) if added & set(lacking)}
    missing = sorted(set(lacking) - set().union(*flags.values()))
    if missing:
        raise InfeasibleError(
            f"the model has no '{missing[0]}'"
            + (f" (and {len(missing) - 1} more)" if len(missing) > 1 else "")
            + f", and no flag in the config of a '{config.model_type}' switches it on",
            hint="repair: refit, which needs no bias; or rehome: TYPE, a family that has it and computes the "
            "same otherwise (docs/layouts.md)",
        )
    grown = vary(config, dict.fromkeys(flags, True))
    added = tuple(name for name in _shapes(grown) if name not in before)
    return BiasSlots(grown, tuple(path_text(path) for path in flags), added)


def with_bias_slots(module: PreTrainedModel, slots: BiasSlots) -> PreTrainedModel:
    """A new module of the config with biases; the weights are shared with `module`, new biases are zero."""
    if not slots.added:
        return module
    dtype = next(module.parameters()).dtype
    larger = skeleton(slots.config, dtype=dtype)
    device = next(module.parameters()).device

    def tensors() -> Iterator[tuple[str, Tensor]]:
        yield from stored_tensors(module).items()
        for name in slots.added:
            yield name, torch.zeros(larger.get_parameter(name).shape, dtype=dtype, device=device)

    load_into(larger, tensors())
    larger.generation_config = module.generation_config
    return larger


def _flags(config: PreTrainedConfig, before: dict[str, torch.Size]) -> Iterator[tuple[Path, set[str]]]:
    """Flags that are off and, switched on, add vectors and change nothing else."""
    for path, value in leaves(config).items():
        if value is not False:
            continue
        try:
            after = _shapes(vary(config, {path: True}))
        except RebuildError:
            continue
        added = set(after) - set(before)
        same = all(after.get(name) == shape for name, shape in before.items())
        if added and same and all(len(after[name]) == 1 for name in added):
            yield path, added


def _shapes(config: PreTrainedConfig) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in skeleton(config).named_parameters()}
