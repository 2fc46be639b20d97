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
from functools import partial

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
    fit = _Fit(block, start, fixed, calls, targets, schedule)
    first = lowest = fit.on_held_out()
    best, worse, epochs = fit.state(), 0, 0
    while epochs < schedule.epochs and worse < schedule.patience:
        fit.epoch(partial(_counted, told, epochs * len(fit.used), schedule.epochs * len(fit.used)))
        epochs += 1
        now = fit.on_held_out()
        worse = 0 if now < lowest else worse + 1
        if now < lowest:
            lowest, best = now, fit.state()
    return Fitted(best, first, lowest, epochs)


def _counted(told: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    told(before + done, total)


class _Fit:
    """Tensors in training: `used` batches are trained on, `held` ones are not."""

    def __init__(
        self,
        block: nn.Module,
        start: Mapping[str, Tensor],
        fixed: Mapping[str, Tensor],
        calls: Sequence[Call],
        targets: Sequence[Tensor],
        schedule: Schedule,
    ) -> None:
        self.block, self.fixed, self.calls, self.targets = block, fixed, calls, targets
        self.leaves = {name: tensor.detach().clone().requires_grad_(True) for name, tensor in start.items()}
        self.draw = torch.Generator().manual_seed(schedule.seed)
        order = torch.randperm(len(calls), generator=self.draw).tolist()
        self.held = order[: max(1, round(schedule.held_out * len(calls)))] if len(calls) > 1 else order
        self.used = [number for number in order if number not in self.held] or order
        self.optimiser = torch.optim.AdamW(
            self.leaves.values(), lr=schedule.rate, weight_decay=schedule.decay
        )
        self.falling = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimiser, schedule.epochs * len(self.used)
        )

    def state(self) -> dict[str, Tensor]:
        """A copy of the tensors as they are."""
        return {name: tensor.detach().clone() for name, tensor in self.leaves.items()}

    def epoch(self, told: Callable[[int], None]) -> None:
        """Once over the batches that are used, in an order drawn anew."""
        for done, place in enumerate(torch.randperm(len(self.used), generator=self.draw).tolist()):
            with torch.enable_grad():
                loss = self._error(self.used[place])
            self.optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.leaves.values(), _LARGEST_STEP)
            self.optimiser.step()
            self.falling.step()
            told(done + 1)

    def on_held_out(self) -> float:
        """Mean error on the batches that are not used."""
        with torch.no_grad():
            value = sum(float(self._error(number)) for number in self.held) / len(self.held)
        if not math.isfinite(value):
            raise SurgeonError(
                f"training {type(self.block).__name__} gave an error of {value}",
                hint="a smaller training.rate, or a model without infinite weights",
            )
        return value

    def _error(self, number: int) -> Tensor:
        args, kwargs = self.calls[number]
        given = leaving(functional_call(self.block, {**self.fixed, **self.leaves}, args, kwargs))
        return (given - self.targets[number]).square().mean()
