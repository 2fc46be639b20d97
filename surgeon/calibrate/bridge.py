"""What a projection should add so that its Block ends on given states, as Gram matrices.

For a gap in the depth of a model: A is what enters the projection in the cut model, E the states that
the original has behind the gap minus those that the cut model's Block ends on. Only ``A^T A`` and
``A^T E`` are kept. Not here: a projection that lost inputs (`gap`).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from surgeon.calibrate.gram import GramSum
from surgeon.calibrate.junction import Junction
from surgeon.calibrate.taps import Entering, Taps
from surgeon.calibrate.walk import Forward, Walk

__all__ = ["bridge_gap", "end_error"]


def bridge_gap(
    param: str, kept: Tensor, targets: Sequence[Tensor], walk: Walk, forward: Forward
) -> tuple[Tensor, Tensor] | None:
    """``A^T A / n`` [features, features] and ``A^T E / n`` [features, outputs], float64.

    E is in units of what the projection gives. None where its output does not simply join the stream.

    Args:
        param: the projection's matrix.
        kept: features of what enters that count, ascending.
        targets: states [rows, length, hidden] that the Block should end on, batch by batch.
        walk: the cut model, before the Block.
        forward: runs the cut model.
    """
    part = walk.module.get_submodule(param.rpartition(".")[0])
    block = walk.module.get_submodule(walk.blocks[walk.at])
    taps, entered = Taps(walk.module), []

    def see(seen: Entering) -> None:
        entered.append(seen)

    taps.subscribe((param,), see)
    total = GramSum()
    for number, target in enumerate(targets):
        entered.clear()
        junction = Junction(part, block)
        handles = list(taps.attach())
        try:
            with junction:
                ends = walk.run(forward, number)
        finally:
            for handle in handles:
                handle.remove()
        if not junction.joined or len(entered) != 1 or entered[0].slices is not None:
            return None
        e = ((target - ends) / junction.scale).reshape(-1, ends.shape[-1])
        a = entered[0].rows_NF[:, kept.to(e.device)]
        if len(a) != len(e):
            return None
        total.add(a, e)
    return total.means()


def end_error(targets: Sequence[Tensor], walk: Walk, forward: Forward) -> float:
    """Mean square of what lies between the states that the current Block ends on and those it should."""
    total, count = 0.0, 0
    for number, target in enumerate(targets):
        apart = walk.run(forward, number) - target
        total, count = total + float(apart.double().square().sum()), count + apart.numel()
    return total / count
