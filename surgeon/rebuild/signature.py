"""Signature: everything about a module that its config decides, measured without weights.

Shapes and ties of its tensors, plain numbers that its parts keep (head counts, scales, epsilons), and,
where asked for, the values of the buffers that are computed and not stored. Two configs whose
signatures agree build the same function of the same weights, as far as attributes can show. Not here:
what to conclude from a difference (`config_probe`, `config_solve`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from surgeon.errors import RebuildError
from surgeon.rebuild.config_tree import quiet
from surgeon.rebuild.skeleton import skeleton

__all__ = ["Number", "Shape", "Signature", "measure"]

Shape = tuple[int, ...]
Number = tuple[str, str]
"""A plain number that a module keeps: module path and attribute."""


@dataclass(frozen=True)
class Signature:
    """What a config decides about a module.

    Attributes:
        shapes: of every parameter and buffer, under each of its names.
        ties: first name of the same parameter, for every further name.
        numbers: ints and floats that are attributes of the module or its parts.
        constants: values of computed buffers; empty unless measured with `values`.
    """

    shapes: Mapping[str, Shape]
    ties: Mapping[str, str]
    numbers: Mapping[Number, int | float]
    constants: Mapping[str, Tensor] = field(default_factory=dict, compare=False)


def measure(config: PreTrainedConfig, *, values: bool = False) -> Signature:
    """The Signature of the module that `config` names, built on meta.

    Args:
        config: what to build.
        values: compute the buffers that are not stored as well.

    Raises:
        RebuildError: the model class refuses the config.
    """
    try:
        with quiet():
            module = skeleton(config)
            constants = _constants(module) if values else {}
    except RebuildError:
        raise
    except Exception as error:  # building runs foreign code, which may raise anything
        raise RebuildError(f"the model cannot be built: {type(error).__name__}: {error}") from error
    tensors = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    firsts: dict[int, str] = {}
    ties: dict[str, str] = {}
    for name, tensor in tensors:
        first = firsts.setdefault(id(tensor), name)
        if first != name:
            ties[name] = first
    return Signature({name: tuple(t.shape) for name, t in tensors}, ties, _numbers(module), constants)


def _numbers(module: nn.Module) -> dict[Number, int | float]:
    return {
        (path, attribute): value
        for path, part in module.named_modules()
        for attribute, value in vars(part).items()
        if type(value) in (int, float)
    }


def _constants(module: PreTrainedModel) -> dict[str, Tensor]:
    """Values of the buffers that are not stored, computed the way a loaded checkpoint gets them."""
    stored = set(module.state_dict())
    names = [name for name, _ in module.named_buffers() if name not in stored]
    for name in names:
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        old = owner.get_buffer(leaf)
        blank = float("nan") if old.is_floating_point() else 0
        setattr(owner, leaf, torch.full(old.shape, blank, dtype=old.dtype, device="cpu"))
    for part in module.modules():
        part.__dict__.pop("_is_hf_initialized", None)
    if names:
        with torch.no_grad():
            module.initialize_weights()
    return {name: module.get_buffer(name) for name in names}
