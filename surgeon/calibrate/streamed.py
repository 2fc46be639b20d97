"""Statistics of a model that does not fit: one Block's weights in memory, all samples through it, the next.

The module's weights are read at each use (`surgeon.rebuild.unread`); those of the Block that runs are read
once and held. Between Blocks the states of all samples wait in memory. What a model does outside of its
Blocks happens as always, with the weights that it reads there. Not here: where weights come from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from torch import Tensor

from surgeon.calibrate.at_block import gather_at_block
from surgeon.calibrate.backward import Sweep, check_apart
from surgeon.calibrate.loss_gradient import asked_for
from surgeon.calibrate.packing import Samples
from surgeon.calibrate.results import Statistics
from surgeon.calibrate.statistic import Statistic
from surgeon.calibrate.walk import Walk
from surgeon.errors import SurgeonError
from surgeon.rebuild import MaskedView

__all__ = ["gather_streamed"]

Keep = Callable[[Tensor], Tensor]
"""Gives a tensor of the same elements, which may wait in a file until it is read."""


def gather_streamed(
    view: MaskedView,
    blocks: Sequence[str],
    dropped: Collection[str],
    samples: Samples,
    wanted: Collection[Statistic],
    *,
    batch_size: int = 1,
    progress: Callable[[int, int], None] | None = None,
    keep: Keep = lambda tensor: tensor,
) -> Statistics:
    """Measure `wanted` Block by Block; the loss is known after it where gradients are wanted.

    Args:
        view: the model, under a Plan.
        blocks: module paths of the Blocks, in the order in which they run.
        dropped: those that the Plan leaves out.
        samples: what is read.
        wanted: keys of what happens inside single Blocks, and of gradients of their parameters.
        batch_size: samples at a time; gradients, and Statistics that need single samples, set it to 1.
        progress: told Blocks done and Blocks in all; a way back counts as well.
        keep: what becomes of states and results that have to wait.

    Raises:
        SurgeonError: a Statistic needs more, lies outside of the Blocks, or the Blocks hand each other more
            than the residual stream.
    """
    _check_params(blocks, wanted)
    backward = tuple(key for key in wanted if key.gradients)
    single = backward or any(key.per_sample for key in wanted)
    steps = _Steps(progress, len(blocks) * (2 if backward else 1))
    walk = Walk.begin(view.module, tuple(blocks), samples, 1 if single else batch_size, view.fixed())
    walk.states = [keep(state) for state in walk.states]
    results: _Results = {key: {} for key in wanted}
    inputs: list[list[Tensor]] = []
    for at, block in enumerate(blocks):
        inputs += [walk.states] if backward else []
        if block in dropped:
            walk.step_over()
        else:
            forward = view.fixed((*blocks[:at], *blocks[at + 1 :]), block)
            found = gather_at_block(walk, forward, [key for key in wanted if not key.gradients])
            _add(results, found.statistics.results, keep)
            walk.go_on([keep(state) for state in found.states])
        steps.done()
    loss = _back(view, walk, backward, inputs, dropped, (results, keep, steps)) if backward else None
    return Statistics(results, len(samples), samples.predicted, loss)


def _back(
    view: MaskedView,
    walk: Walk,
    keys: tuple[Statistic, ...],
    inputs: list[list[Tensor]],
    dropped: Collection[str],
    into: tuple[_Results, Keep, _Steps],
) -> float:
    """The way back through the Blocks, which were given `inputs`; the loss."""
    results, keep, steps = into
    params = asked_for(keys) or frozenset()
    check_apart(view, walk.blocks, params)
    sweep = Sweep(view, walk, keys, params)
    sweep.begin()
    for at in reversed(range(len(walk.blocks))):
        states = inputs.pop()
        if walk.blocks[at] not in dropped:
            _add(results, sweep.back(at, states), keep)
        steps.done()
    return sweep.loss


_Results = dict[Statistic, dict[str, Tensor]]


def _add(results: _Results, found: Mapping[Statistic, Mapping[str, Tensor]], keep: Keep) -> None:
    for key, named in found.items():
        results[key] |= {name: keep(tensor) for name, tensor in named.items()}


class _Steps:
    """Tells how many Blocks are done."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self.progress, self.total, self.at = progress, total, 0

    def done(self) -> None:
        self.at += 1
        if self.progress is not None:
            self.progress(self.at, self.total)


def _check_params(blocks: Sequence[str], wanted: Collection[Statistic]) -> None:
    """Refuse parameters that no Block has: they would be missing without a word."""
    inside = tuple(f"{block}." for block in blocks)
    for key in wanted:
        if key.gradients and getattr(key, "params", None) is None:
            raise SurgeonError(
                f"statistic '{key.statistic}' of all parameters cannot be streamed: some lie in no block",
                hint="ask for those of blocks, or do not stream",
            )
        outside = [name for name in getattr(key, "params", None) or () if not name.startswith(inside)]
        if outside:
            raise SurgeonError(
                f"statistic '{key.statistic}' of '{outside[0]}' cannot be streamed: it lies in no block",
                hint="select other axes, or do not stream",
            )
