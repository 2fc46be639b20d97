"""The loss without a run of Blocks, for many runs, each resumed where it leaves the model as it is.

What lies before a skipped run is the same as in the model as it stands, so its states are taken from
one whole pass: trying every single one of L Blocks costs L(L-1)/2 Blocks beside that pass. Not here:
which runs are worth trying (`surgeon.criteria.blocks`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.calibrate.bench import Bench
from surgeon.calibrate.gather import model_inputs, next_token_loss
from surgeon.calibrate.packing import Samples
from surgeon.calibrate.stream import entering, replaced
from surgeon.calibrate.tally import Model, tally
from surgeon.plan import DropBlock, Plan

__all__ = ["Run", "losses_without", "losses_without_parts"]

Run = tuple[int, int]
"""First Block that is skipped, and the first one after it that is not."""

_TOKENS = 1024
"""Tokens of one batch; the logits of a large vocabulary are its largest tensor."""

_Trial = tuple[int, int, int]
"""A Run, and which of the Plans the model is under behind it."""


@dataclass(frozen=True, eq=False)
class _Passage:
    """What one Block was given, and what it returned."""

    state: Tensor
    output: object


def losses_without(
    bench: Bench, plan: Plan, blocks: Sequence[str], runs: Sequence[Run]
) -> tuple[float, tuple[float, ...]]:
    """Mean next-token loss under `plan`, and for each of `runs` that without these Blocks as well.

    Args:
        bench: the model and its text.
        plan: what is in force.
        blocks: the Stack's Blocks that `plan` leaves, in order.
        runs: what to skip, in places of `blocks`.
    """
    found = _tried(bench, blocks, (plan,), [(*run, 0) for run in runs])
    return found[0], tuple(found[1:])


def losses_without_parts(
    bench: Bench, plan: Plan, blocks: Sequence[str], parts: Sequence[tuple[int, str]]
) -> tuple[float, ...]:
    """Mean next-token loss without each of some sublayers, beside what `plan` leaves out.

    Args:
        bench: the model and its text.
        plan: what is in force.
        blocks: the Stack's Blocks that `plan` leaves, in order.
        parts: the place of a Block in `blocks`, and its sublayer.
    """
    plans = (plan, *(plan.add([DropBlock(name, 0)]) for _, name in parts))
    trials = [(place, place, number) for number, (place, _) in enumerate(parts, 1)]
    return tuple(_tried(bench, blocks, plans, trials)[1:])


def _tried(
    bench: Bench, blocks: Sequence[str], plans: Sequence[Plan], trials: Sequence[_Trial]
) -> list[float]:
    """Mean loss under the first Plan, then of each trial."""

    def each(views: Sequence[Model], batch: Samples) -> Tensor:
        if not batch.predicted:
            return torch.zeros(len(trials) + 1)
        parts = [bench.module.get_submodule(name) for name in blocks]
        return batch.predicted * torch.tensor(
            _losses(bench.module, views, parts, trials, batch), dtype=torch.float64
        )

    batches = tuple(bench.samples.unpadded(max(1, _TOKENS // bench.samples.ids.shape[1])))
    asked = f"losses without {list(trials)} of {list(blocks)}"
    sums = tally(bench, asked, plans, batches, each, f"try {len(trials)} cuts of the depth")
    return [total / bench.samples.predicted for total in sums]


def _losses(
    module: nn.Module,
    views: Sequence[Model],
    parts: Sequence[nn.Module],
    trials: Sequence[_Trial],
    batch: Samples,
) -> list[float]:
    """The loss as things are, then of each trial."""
    inputs = model_inputs(module, batch)
    seen: dict[int, _Passage] = {}
    with _watched(parts, seen):
        losses = [float(next_token_loss(views[0](**inputs).logits, batch))]
    for first, after, other in trials:
        with _resumed(parts[:after], seen, seen[first].state):
            losses.append(float(next_token_loss(views[other](**inputs).logits, batch)))
    return losses


@contextmanager
def _watched(parts: Sequence[nn.Module], seen: dict[int, _Passage]) -> Iterator[None]:
    """Keep what every Block is given and returns."""

    def keeper(place: int) -> Callable[..., None]:
        def keep(block: nn.Module, args: tuple, kwargs: dict[str, Any], output: object) -> None:
            seen[place] = _Passage(entering(args, kwargs, output), output)

        return keep

    handles = [
        part.register_forward_hook(keeper(place), with_kwargs=True) for place, part in enumerate(parts)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _resumed(parts: Sequence[nn.Module], seen: dict[int, _Passage], state: Tensor) -> Iterator[None]:
    """Let each of `parts` hand on `state` without computing anything."""

    def handing_on(output: object) -> Callable[..., object]:
        return lambda *args, **kwargs: replaced(output, state)

    try:
        for place, part in enumerate(parts):
            part.forward = handing_on(seen[place].output)  # type: ignore[method-assign]
        yield
    finally:
        for part in parts:
            part.__dict__.pop("forward", None)
