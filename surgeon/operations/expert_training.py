"""Train the experts of one block toward what they should give: a short loop of AdamW.

The last of the batches are held out; what did best on them is what comes back, so training can only
help there. Not here: what the targets are (`surgeon.calibrate.expert_targets`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from surgeon.calibrate.expert_targets import ExpertTarget

__all__ = ["Trained", "Training", "train"]

_CHECKS = 10
"""How often the held-out loss is looked at."""


@dataclass(frozen=True)
class Training:
    """How long and how fast; `held_out` is the share of batches that nothing is trained on."""

    steps: int
    lr: float
    seed: int
    held_out: float


@dataclass(frozen=True, eq=False)
class Trained:
    """The best tensors by local name, and the held-out loss before and after.

    A loss is the squared error over the squared target, both summed.
    """

    tensors: Mapping[str, Tensor]
    before: float
    after: float


def train(
    targets: Sequence[ExpertTarget],
    tensors: Mapping[str, Tensor],
    free: Mapping[str, Tensor],
    how: Training,
    told: Callable[[int], None],
) -> Trained:
    """Fit `tensors` to `targets`.

    Args:
        targets: calls and what they should give, one a batch.
        tensors: where to start, by local name.
        free: which elements may change, bool, by the same names.
        how: steps, rate, seed.
        told: called with the steps done.
    """
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    own, held = _parts(targets, how.held_out)
    optimizer = torch.optim.AdamW(leaves.values(), lr=how.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / how.steps))
    )
    order = torch.Generator().manual_seed(how.seed)
    first = lowest = _loss(held, leaves)
    best = {name: leaf.detach().clone() for name, leaf in leaves.items()}
    every = max(how.steps // _CHECKS, 1)
    for step in range(1, how.steps + 1):
        target = own[int(torch.randint(len(own), (), generator=order))]
        with torch.enable_grad():
            error, size = _errors(target, leaves)
            optimizer.zero_grad()
            (error / size).backward()
        for name, leaf in leaves.items():
            if leaf.grad is not None:
                leaf.grad.mul_(free[name])
        optimizer.step()
        schedule.step()
        if step % every == 0 or step == how.steps:
            now = _loss(held, leaves)
            if now < lowest:
                lowest, best = now, {name: leaf.detach().clone() for name, leaf in leaves.items()}
            told(step)
    return Trained(best, first, lowest)


def _parts(
    targets: Sequence[ExpertTarget], share: float
) -> tuple[Sequence[ExpertTarget], Sequence[ExpertTarget]]:
    """Batches to train on, and to look at; one alone is both."""
    count = min(max(round(len(targets) * share), 1), len(targets) - 1)
    return (targets[:-count], targets[-count:]) if count else (targets, targets)


def _loss(targets: Sequence[ExpertTarget], tensors: Mapping[str, Tensor]) -> float:
    with torch.no_grad():
        both = [_errors(target, tensors) for target in targets]
    return float(sum(error for error, _ in both)) / max(float(sum(size for _, size in both)), math.ulp(0))


def _errors(target: ExpertTarget, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Squared error, and squared target."""
    return (target.given(tensors) - target.target).square().sum(), target.target.square().sum()
