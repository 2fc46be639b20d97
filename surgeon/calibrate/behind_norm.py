"""A norm behind a projection: which module it is, and by what it scales.

A norm that only scales (each token by its root mean square, each feature by a weight) is, at the states that
there are, a linear scale away. Not here: what is fitted through it (`bridge`).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.calibrate.walk import Forward, Walk

__all__ = ["norm_behind", "scales_of"]

_TOLERANCE = 1e-3
"""Largest difference, relative to the largest output, from a mere scale."""


def norm_behind(part: nn.Module, walk: Walk, forward: Forward) -> nn.Module | None:
    """The module of vectors alone that is given what `part` gives, in the Block that `walk` stands before."""
    given: list[int] = []
    found: list[nn.Module] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        given.append(output.data_ptr())

    def look(module: nn.Module, args: Any) -> None:
        if given and args and isinstance(args[0], Tensor) and args[0].data_ptr() == given[-1]:
            found.append(module)

    with ExitStack() as stack:
        stack.callback(part.register_forward_hook(keep).remove)
        for module in walk.module.get_submodule(walk.blocks[walk.at]).modules():
            own = list(module.parameters())
            if own and not list(module.children()) and all(p.ndim == 1 for p in own):
                stack.callback(module.register_forward_pre_hook(look).remove)
        walk.run(forward, 0)
    return found[0] if found else None


def scales_of(entering: Tensor, leaving: Tensor) -> tuple[Tensor, Tensor] | None:
    """By what a norm multiplies each token [tokens, 1] and each feature [features]; None: it does more."""
    x = entering.reshape(-1, entering.shape[-1]).double()
    y = leaving.reshape(-1, leaving.shape[-1]).double()
    tiny = torch.finfo(torch.float64).tiny
    token = x.square().mean(-1, keepdim=True).clamp(min=tiny).rsqrt()
    unit = x * token
    feature = (unit * y).sum(0) / unit.square().sum(0).clamp(min=tiny)
    apart = (y - unit * feature).abs().max()
    return (token, feature) if float(apart) <= _TOLERANCE * float(y.abs().max()) else None
