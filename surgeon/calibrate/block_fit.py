"""A Block trained to give wanted states, in the context in which the model calls it.

Arguments of the calls (masks, positions, rotary tables) are those of the model's own forward, which stops
before the Block; only the Block is run again and again. Mean squared error, AdamW, a cosine schedule, the
best state on held-out batches wins. Not here: which Block, and what it should give
(`surgeon.operations.replace`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from surgeon.calibrate.stream import leaving
from surgeon.errors import SurgeonError

__all__ = ["Call", "Fitted", "Schedule", "fit_block"]

Call = tuple[tuple, dict]
"""Arguments and keywords of one call of a Block."""

_LARGEST_STEP = 1.0
"""Norm that a gradient is cut to."""


@dataclass(frozen=True)
class Schedule:
    """How to train: `rate` falls to zero by a cosine over `epochs`; `patience` epochs without gain end it.

    `held_out` is the share of the batches that is not trained on; `seed` orders and divides them.
    """

    epochs: int
    rate: float
    decay: float
    held_out: float
    patience: int
    seed: int


@dataclass(frozen=True, eq=False)
class Fitted:
    """New tensors, the error on held-out batches before and after, and the epochs that were run."""

    tensors: Mapping[str, Tensor]
    before: float
    after: float
    epochs: int


def fit_block(
    block: nn.Module,
    start: Mapping[str, Tensor],
    fixed: Mapping[str, Tensor],
    calls: Sequence[Call],
    targets: Sequence[Tensor],
    schedule: Schedule,
    told: Callable[[int, int], None],
) -> Fitted:
    """Train the tensors `start` of `block` so that its calls give `targets`.

    Args:
        block: the module; its own tensors are not changed.
        start: tensors to train, by name below the block, as they begin.
        fixed: other tensors that differ from the block's own.
        calls: how the block is called, batch by batch.
        targets: what each call should give.
        schedule: how to train.
        told: told the batches done and the batches in all.

    Raises:
        SurgeonError: the error is not finite.
    """
    leaves = {name: tensor.detach().clone().requires_grad_(True) for name, tensor in start.items()}
    draw = torch.Generator().manual_seed(schedule.seed)
    order = torch.randperm(len(calls), generator=draw).tolist()
    held = order[: max(1, round(schedule.held_out * len(calls)))] if len(calls) > 1 else order
    used = [number for number in order if number not in held] or order
    steps = schedule.epochs * len(used)
    optimiser = torch.optim.AdamW(leaves.values(), lr=schedule.rate, weight_decay=schedule.decay)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)

    def error(number: int) -> Tensor:
        args, kwargs = calls[number]
        given = leaving(functional_call(block, {**fixed, **leaves}, args, kwargs))
        return (given - targets[number]).square().mean()

    def on_held() -> float:
        with torch.no_grad():
            value = sum(float(error(number)) for number in held) / len(held)
        if not math.isfinite(value):
            raise SurgeonError(
                f"training {type(block).__name__} gave an error of {value}",
                hint="a smaller training.rate, or a model without infinite weights",
            )
        return value

    first = lowest = on_held()
    best = {name: tensor.detach().clone() for name, tensor in leaves.items()}
    done, worse = 0, 0
    for _ in range(schedule.epochs):
        for place in torch.randperm(len(used), generator=draw).tolist():
            with torch.enable_grad():
                loss = error(used[place])
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(leaves.values(), _LARGEST_STEP)
            optimiser.step()
            falling.step()
            done += 1
            told(done, steps)
        now = on_held()
        if now < lowest:
            lowest, worse = now, 0
            best = {name: tensor.detach().clone() for name, tensor in leaves.items()}
        else:
            worse += 1
            if worse >= schedule.patience:
                break
    return Fitted(best, first, lowest, done // len(used))
