"""Check a Plan against a Graph before any weight is read: can it be carried out, and exported?

Every mismatch is collected, so that one run shows them all. Not here: whether two steps contradict
each other, which `Plan.kept` finds while the Plan grows.
"""

from __future__ import annotations

from collections.abc import Iterator

from surgeon.errors import InfeasibleError, PlanError
from surgeon.graph import Graph
from surgeon.plan.edits import Assign, DropBlock, Keep
from surgeon.plan.gone import part_faults
from surgeon.plan.left import LeftLimits, gone_groups
from surgeon.plan.limits import Limits, Unlimited
from surgeon.plan.plan import Plan
from surgeon.registry import nearest

__all__ = ["check_plan"]

_SHOWN = 5


def check_plan(plan: Plan, graph: Graph, limits: Limits | None = None) -> None:
    """Refuse a Plan that the Graph cannot take or that the config, by `limits`, cannot express.

    Raises:
        PlanError: the Plan was made for another type of model.
        InfeasibleError: with one line for every mismatch.
    """
    if plan.model_type != graph.model_type:
        raise PlanError(
            f"the plan was made for a model of type '{plan.model_type}', this one is '{graph.model_type}'"
        )
    wrong = [*_edits(plan, graph), *_stacks(plan, graph)]
    if not wrong:
        gone = tuple(sorted(gone_groups(plan, graph)))
        wrong = list(_exportable(plan, LeftLimits(limits or Unlimited(), gone)))
    if wrong:
        lines = "\n".join(f"  {line}" for line in wrong)
        raise InfeasibleError(f"the plan cannot be carried out:\n{lines}")


def _edits(plan: Plan, graph: Graph) -> Iterator[str]:
    parts = {part.name for block in graph.blocks for part in block.sublayers}
    blocks = [block.name for block in graph.blocks]
    for edit in plan.edits:
        where = f"step {edit.step}"
        match edit:
            case Keep():
                yield from (f"{where}, axis '{edit.axis}': {what}" for what in _keep(edit, graph))
            case DropBlock() if edit.block in parts:
                yield from (
                    f"{where}, sublayer '{edit.block}': {what}" for what in part_faults(edit.block, graph)
                )
            case DropBlock() if edit.block not in blocks:
                yield f"{where}: the model has no block '{edit.block}'; try {nearest(edit.block, blocks)}"
            case Assign() if edit.param not in graph.parameters:
                names = list(graph.parameters)
                yield f"{where}: the model has no parameter '{edit.param}'; try {nearest(edit.param, names)}"
            case _:
                pass


def _keep(edit: Keep, graph: Graph) -> Iterator[str]:
    """What is wrong with one Keep."""
    names = [one.name for group in graph.groups for one in (group, *group.members)]
    if edit.axis not in names:
        yield f"the model has no such axis; try {nearest(edit.axis, names)}"
        return
    group = graph.group(edit.axis)
    if group.locked and edit.indices != tuple(range(group.size)):
        yield f"locked: {group.locked}"
    if not edit.indices:
        yield f"keeps nothing of {group.size}"
    outside = [index for index in edit.indices if not 0 <= index < group.size]
    if outside:
        yield f"indices {outside[:_SHOWN]} are outside of 0 to {group.size - 1}"
    if any(later <= earlier for earlier, later in zip(edit.indices, edit.indices[1:], strict=False)):
        yield "indices do not ascend, or repeat"


def _stacks(plan: Plan, graph: Graph) -> Iterator[str]:
    for stack in graph.stacks:
        if stack.blocks and all(block.name in plan.dropped for block in stack.blocks):
            yield f"all {len(stack)} blocks of '{stack.container}' are dropped"
        for block in stack.blocks:
            if block.sublayers and all(part.name in plan.dropped for part in block.sublayers):
                yield f"every sublayer of '{block.name}' is dropped: drop the block"


def _exportable(plan: Plan, limits: Limits) -> Iterator[str]:
    """What the exported model's config cannot say."""
    refusal = limits.refuse({axis: len(indices) for axis, indices in plan.kept().items()})
    if refusal is not None:
        yield str(refusal)
