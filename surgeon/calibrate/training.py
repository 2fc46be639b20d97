"""Tensors of one module trained to give wanted states, in the context in which the model calls it.

Arguments of the calls (masks, positions, routing) are those of the model's own forward; only the module is
run again and again. The error is the squared error over the squared target, both summed. AdamW, a rate that
falls by a cosine, and the state that did best on held-out batches is what comes back, so training can only
help there. Not here: which module, and what it should give (`surgeon.operations.replace`,
`surgeon.calibrate.expert_targets`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.calibrate.stream import leaving
from surgeon.errors import SurgeonError
from surgeon.rebuild.forward import call_with

__all__ = ["Lesson", "Schedule", "Trained", "divided", "train"]

_LARGEST_STEP = 1.0
"""Norm that a gradient is cut to."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """One batch: a call of `part`, and the state that it should hand on.

    `fixed`: tensors by local name that differ from the module's own and are not trained.
    """

    part: nn.Module
    args: tuple
    kwargs: Mapping[str, Any]
    target: Tensor
    fixed: Mapping[str, Tensor] = field(default_factory=dict)

    def given(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """What the module hands on with `tensors` by local name in place; differentiable."""
        return leaving(call_with(self.part, {**self.fixed, **tensors}, *self.args, **self.kwargs))


@dataclass(frozen=True)
class Schedule:
    """How to train: `rate` falls to zero over `steps`, of one batch each; `seed` orders the batches.

    The held-out batches are looked at every `look` steps; `patience` looks without gain end the training,
    None: none do. `decay` is AdamW's.
    """

    steps: int
    rate: float
    look: int
    patience: int | None = None
    decay: float = 0.0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Trained:
    """The best tensors by local name, the error on held-out batches before and after, and the steps made."""

    tensors: Mapping[str, Tensor]
    before: float
    after: float
    steps: int


def divided(lessons: Sequence[Lesson], held_out: float, seed: int) -> tuple[list[Lesson], list[Lesson]]:
    """Lessons to train on, and a share of them, drawn at random, to choose by; one alone is both."""
    order = torch.randperm(len(lessons), generator=_draw(seed)).tolist()
    count = min(max(1, round(held_out * len(lessons))), len(lessons) - 1)
    mixed = [lessons[number] for number in order]
    return (mixed[count:], mixed[:count]) if count else (mixed, mixed)


def train(
    lessons: Sequence[Lesson],
    held: Sequence[Lesson],
    start: Mapping[str, Tensor],
    schedule: Schedule,
    told: Callable[[int], None],
    free: Mapping[str, Tensor] | None = None,
) -> Trained:
    """Fit tensors of one module to `lessons`; the module itself is not changed.

    Args:
        lessons: what is trained on.
        held: what is chosen by.
        start: tensors to train, by local name, as they begin.
        schedule: how to train.
        told: called with the steps done.
        free: which elements may change, bool, by the same names; None: all.

    Raises:
        SurgeonError: the error is not finite.
    """
    fit = _Fit(start, schedule, free or {})
    draw = _draw(schedule.seed)
    first = lowest = _error(held, fit.leaves)
    best, worse, order, step = fit.state(), 0, [], 0
    while step < schedule.steps and worse != schedule.patience:
        order = order or torch.randperm(len(lessons), generator=draw).tolist()
        fit.step(lessons[order.pop()])
        step += 1
        told(step)
        if step % schedule.look and step < schedule.steps:
            continue
        now = _error(held, fit.leaves)
        worse = 0 if now < lowest else worse + 1
        if now < lowest:
            lowest, best = now, fit.state()
    return Trained(best, first, lowest, step)


class _Fit:
    """Tensors in training."""

    def __init__(self, start: Mapping[str, Tensor], schedule: Schedule, free: Mapping[str, Tensor]) -> None:
        self.start, self.free = start, free
        self.leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in start.items()}
        self.optimiser = torch.optim.AdamW(
            self.leaves.values(), lr=schedule.rate, weight_decay=schedule.decay
        )
        self.falling = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, schedule.steps)

    def state(self) -> dict[str, Tensor]:
        """A copy of the tensors as they are."""
        return {name: leaf.detach().clone() for name, leaf in self.leaves.items()}

    def step(self, lesson: Lesson) -> None:
        """One step of the optimiser, after which what is not free is what it was."""
        with torch.enable_grad():
            error, size = _errors(lesson, self.leaves)
            self.optimiser.zero_grad()
            (error / size.clamp(min=torch.finfo(size.dtype).tiny)).backward()
        for name, free in self.free.items():
            gradient = self.leaves[name].grad
            if gradient is not None:
                gradient.mul_(free)
        nn.utils.clip_grad_norm_(self.leaves.values(), _LARGEST_STEP)
        self.optimiser.step()
        self.falling.step()
        for name, free in self.free.items():
            leaf = self.leaves[name]
            leaf.data = torch.where(free, leaf.data, self.start[name])


def _error(lessons: Sequence[Lesson], tensors: Mapping[str, Tensor]) -> float:
    """Squared error of all lessons over their squared targets."""
    with torch.no_grad():
        both = [_errors(lesson, tensors) for lesson in lessons]
    value = float(sum(error for error, _ in both)) / max(float(sum(size for _, size in both)), math.ulp(0))
    if not math.isfinite(value):
        raise SurgeonError(
            f"training {type(lessons[0].part).__name__} gave an error of {value}",
            hint="a smaller learning rate, or a model without infinite weights",
        )
    return value


def _draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed & 0xFFFFFFFF)


def _errors(lesson: Lesson, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Squared error, and squared target."""
    return (lesson.given(tensors) - lesson.target).square().sum(), lesson.target.square().sum()
