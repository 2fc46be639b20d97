"""The steps of a recipe, one after the other, each on what the last one left.

Not here: what the first one finds (`planning`, `outlined`), and what becomes of the Plan.
"""

from __future__ import annotations

from dataclasses import replace

from surgeon.api.progress import Progress
from surgeon.operations import State
from surgeon.passes import GraphPass
from surgeon.plan import StepRecord
from surgeon.recipe import Recipe

__all__ = ["take_steps"]


def take_steps(recipe: Recipe, state: State, progress: Progress) -> tuple[State, tuple[StepRecord, ...]]:
    """The State that the steps of `recipe` leave, and the record of each.

    Raises:
        SurgeonError: a step refused; its message says which and why.
    """
    records: list[StepRecord] = []
    for number, step in enumerate(recipe.steps):
        progress(f"step {number}: {step.op}", 0, None)
        if isinstance(step, GraphPass):
            state, record = _rewritten(step, state, tuple(record.op for record in records))
        else:
            state, record = step.run(state)
        records.append(record)
    return state, tuple(records)


def _rewritten(step: GraphPass, state: State, earlier: tuple[str, ...]) -> tuple[State, StepRecord]:
    graph = step.run(state.graph, earlier)
    options = step.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"op"})
    record = StepRecord(step=state.step, op=step.op, options=options)
    before = {group.name for group in state.graph.groups if group.locked is None}
    after = {group.name for group in graph.groups if group.locked is None}
    locked = {group.name for group in graph.groups} & before - after
    protected = state.protected - after | locked
    return replace(state, graph=graph, protected=frozenset(protected), step=state.step + 1), record
