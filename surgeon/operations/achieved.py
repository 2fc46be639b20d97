"""What a step achieved against what was asked for, in parameters of its selection and of the model."""

from __future__ import annotations

from collections.abc import Sequence

from surgeon.operations.pool import Counts, Pool
from surgeon.operations.state import State
from surgeon.plan import Amount, parameters_after

__all__ = ["achieved"]


def achieved(
    pools: Sequence[Pool], counts: Counts, keep: Amount, before: State, after: State
) -> tuple[str, ...]:
    """What is left of the selected part, and of the model: lines for the Report.

    Args:
        pools: what the step selected.
        counts: what each Pool keeps.
        keep: what was asked for.
        before: the State before the step.
        after: the State with its cuts.
    """
    part = sum(pool.cost * pool.began for pool in pools)
    left = sum(pool.cost * count for pool, count in zip(pools, counts, strict=True))
    total = before.graph.parameter_count
    model = parameters_after(after.plan, after.graph)
    began = parameters_after(before.plan, before.graph)
    asked = f"{keep.count} of every axis"
    if keep.fraction is not None:
        asked = f"{keep.fraction:.2%}"
    elif keep.params is not None:
        asked = f"at most {keep.parameters(total)}"
    own = f": {left / part:.2%} of the selected parameters, {left} of {part}" if part else ""
    return (
        f"asked for {asked}{own}",
        f"leaves {model / began:.2%} of the model, {model} of {began} parameters",
    )
