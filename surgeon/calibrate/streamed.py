"""Statistics of a model that does not fit: one Block's weights in memory, all samples through it, the next.

The module's weights are read at each use (`surgeon.rebuild.unread`); those of the Block that runs are read
once and held. Between Blocks the states of all samples wait in memory. What a model does outside of its
Blocks happens as always, with the weights that it reads there. Not here: where weights come from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from surgeon.calibrate.at_block import gather_at_block
from surgeon.calibrate.packing import Samples
from surgeon.calibrate.results import Statistics
from surgeon.calibrate.statistic import Statistic
from surgeon.calibrate.walk import Walk
from surgeon.errors import SurgeonError
from surgeon.rebuild import MaskedView

__all__ = ["gather_streamed"]


def gather_streamed(
    view: MaskedView,
    blocks: Sequence[str],
    dropped: Collection[str],
    samples: Samples,
    wanted: Collection[Statistic],
    *,
    batch_size: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Statistics:
    """Measure `wanted` Block by Block; the loss is not known after it.

    Args:
        view: the model, under a Plan.
        blocks: module paths of the Blocks, in the order in which they run.
        dropped: those that the Plan leaves out.
        samples: what is read.
        wanted: keys of what happens inside single Blocks.
        batch_size: samples at a time; a Statistic that needs single samples sets it to 1.
        progress: told Blocks done and Blocks in all.

    Raises:
        SurgeonError: a Statistic needs more, lies outside of the Blocks, or the Blocks hand each other more
            than the residual stream.
    """
    _check_params(blocks, wanted)
    size = 1 if any(key.per_sample for key in wanted) else batch_size
    walk = Walk.begin(view.module, tuple(blocks), samples, size, view.fixed())
    parts: list[Statistics] = []
    for at, block in enumerate(blocks):
        if block in dropped:
            walk.step_over()
        else:
            found = gather_at_block(walk, view.fixed((*blocks[:at], *blocks[at + 1 :]), block), wanted)
            parts.append(found.statistics)
            walk.go_on(found.states)
        if progress is not None:
            progress(at + 1, len(blocks))
    results = {
        key: {name: value for part in parts for name, value in part.get(key).items()} for key in wanted
    }
    return Statistics(results, len(samples), samples.predicted)


def _check_params(blocks: Sequence[str], wanted: Collection[Statistic]) -> None:
    """Refuse parameters that no Block has: they would be missing without a word."""
    inside = tuple(f"{block}." for block in blocks)
    for key in wanted:
        outside = [name for name in getattr(key, "params", None) or () if not name.startswith(inside)]
        if outside:
            raise SurgeonError(
                f"statistic '{key.statistic}' of '{outside[0]}' cannot be streamed: it lies in no block",
                hint="select other axes, or do not stream",
            )
