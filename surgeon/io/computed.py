"""Tensors that no checkpoint holds, because stock transformers computes them whenever it loads one.

Sinusoidal positions kept as a parameter are such: the family says that they may be missing, and its own
code fills them. Not here: buffers that are not stored (`surgeon.rebuild.skeleton`).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

__all__ = ["computed_tensors"]


def computed_tensors(model: PreTrainedModel, missing: Iterable[str]) -> dict[str, Tensor]:
    """Those of the `missing` tensors that the family lets be missing and always fills alike.

    Args:
        model: of the family, with or without storage.
        missing: names of its tensors that are not on disk.
    """
    patterns = tuple(model._keys_to_ignore_on_load_missing or ())
    found: dict[str, Tensor] = {}
    for name in missing:
        if any(re.search(pattern, name) for pattern in patterns):
            one, other = _filled(model, name, seed=0), _filled(model, name, seed=1)
            if one.isfinite().all() and torch.equal(one, other):  # else it is drawn at random
                found[name] = one
    return found


def _filled(model: PreTrainedModel, name: str, seed: int) -> Tensor:
    """The tensor as the family's code fills it."""
    path, _, leaf = name.rpartition(".")
    owner = copy.copy(model.get_submodule(path))
    blank = float("nan")
    owner._parameters = {
        n: None if p is None else nn.Parameter(torch.full(p.shape, blank, dtype=p.dtype), False)
        for n, p in owner._parameters.items()
    }
    owner._buffers = {
        n: None if b is None else torch.full(b.shape, blank if b.is_floating_point() else 0, dtype=b.dtype)
        for n, b in owner._buffers.items()
    }
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model._init_weights(owner)
    return getattr(owner, leaf).detach()
