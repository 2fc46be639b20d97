"""What a projection should add whose output passes a norm before it joins the stream, as Gram matrices.

A norm that only scales (each token by its root mean square, each feature by a weight) is, at the states that
there are, a linear scale away: features and errors are taken in its units. The scale moves with the
projection, so the result is a first-order step, to be kept where it helps. Not here: projections that join
the stream themselves (`bridge`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.calibrate.gram import GramSum
from surgeon.calibrate.junction import Junction
from surgeon.calibrate.taps import Entering, Taps
from surgeon.calibrate.walk import Forward, Walk

__all__ = ["bridge_behind_norm"]

_TOLERANCE = 1e-3
"""Largest difference, relative to the largest output, from a mere scale."""


def bridge_behind_norm(
    param: str, kept: Tensor, targets: Sequence[Tensor], walk: Walk, forward: Forward
) -> tuple[Tensor, Tensor] | None:
    """As `bridge_gap`, for a projection with a norm behind it; None where that does more than scale.

    Args:
        param: the projection's matrix.
        kept: features of what enters that count, ascending.
        targets: states [rows, length, hidden] that the Block should end on, batch by batch.
        walk: the cut model, before the Block.
        forward: runs the cut model.
    """
    part = walk.module.get_submodule(param.rpartition(".")[0])
    block = walk.module.get_submodule(walk.blocks[walk.at])
    norm = _norm_behind(part, block, walk, forward)
    if norm is None:
        return None
    taps, entered, passed = Taps(walk.module), [], []

    def see(seen: Entering) -> None:
        entered.append(seen)

    taps.subscribe((param,), see)
    total = GramSum()
    for number, target in enumerate(targets):
        entered.clear()
        passed.clear()
        junction = Junction(norm, block)
        with ExitStack() as stack:
            for handle in taps.attach():
                stack.callback(handle.remove)
            hook = norm.register_forward_hook(lambda part, args, output: passed.append((args[0], output)))
            stack.callback(hook.remove)
            stack.enter_context(junction)
            ends = walk.run(forward, number)
        if not junction.joined or len(entered) != 1 or entered[0].slices is not None:
            return None
        token, feature = _scales(*passed[0])
        if token is None:
            return None
        e = ((target - ends) / junction.scale).reshape(-1, ends.shape[-1]).double()
        e = torch.where(feature != 0, e / feature, 0)
        a = entered[0].rows_NF[:, kept.to(e.device)].double() * token
        total.add(a, e)
    return total.means()


def _norm_behind(part: nn.Module, block: nn.Module, walk: Walk, forward: Forward) -> nn.Module | None:
    """The module of vectors alone that is given what `part` gives."""
    given: list[int] = []
    found: list[nn.Module] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        given.append(output.data_ptr())

    def look(module: nn.Module, args: Any) -> None:
        if given and args and isinstance(args[0], Tensor) and args[0].data_ptr() == given[-1]:
            found.append(module)

    with ExitStack() as stack:
        stack.callback(part.register_forward_hook(keep).remove)
        for module in block.modules():
            own = list(module.parameters())
            if own and not list(module.children()) and all(p.ndim == 1 for p in own):
                stack.callback(module.register_forward_pre_hook(look).remove)
        walk.run(forward, 0)
    return found[0] if found else None


def _scales(entering: Tensor, leaving: Tensor) -> tuple[Tensor | None, Tensor]:
    """By what a norm multiplies each token [tokens, 1] and each feature [features]; None: it does more."""
    x = entering.reshape(-1, entering.shape[-1]).double()
    y = leaving.reshape(-1, leaving.shape[-1]).double()
    tiny = torch.finfo(torch.float64).tiny
    token = x.square().mean(-1, keepdim=True).clamp(min=tiny).rsqrt()
    unit = x * token
    feature = (unit * y).sum(0) / unit.square().sum(0).clamp(min=tiny)
    apart = (y - unit * feature).abs().max()
    return (token if float(apart) <= _TOLERANCE * float(y.abs().max()) else None), feature
