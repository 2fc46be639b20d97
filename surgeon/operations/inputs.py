"""Inputs: on what a step that cuts measures activations.

``dense``: on the model as the step finds it. ``sequential``: each Block on the output of the Blocks before it
as this step cuts them; the walk that takes is imported where it is asked for. Not here: the walk
(`sequential`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from surgeon.criteria import Criterion
from surgeon.operations.pool import Counts, Pool
from surgeon.operations.state import State
from surgeon.plan import Plan

__all__ = ["Inputs", "scored_on", "seen_on"]

Inputs = Literal["dense", "sequential"]


def scored_on(
    inputs: Inputs, pools: Sequence[Pool], counts: Counts, state: State, criterion: Criterion
) -> tuple[Pool, ...]:
    """`pools`, where `inputs` say so with scores on what the cuts that `counts` make give."""
    if inputs == "dense":
        return tuple(pools)
    from surgeon.operations.sequential import rescored

    return rescored(pools, counts, state, criterion)


def seen_on(inputs: Inputs, state: State, cut: Plan) -> State:
    """`state`, where `inputs` say so with Statistics of each Block behind the Blocks that `cut` cuts."""
    if inputs == "dense":
        return state
    from surgeon.operations.sequential import measured_behind

    return measured_behind(state, cut)
