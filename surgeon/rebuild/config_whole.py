"""A config of the whole smaller model, against what was planned: every tensor, every number, the cache.

Not here: how the config is found (`config_solve`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedConfig

from surgeon.errors import InfeasibleError
from surgeon.graph import Graph
from surgeon.plan import Plan, cuts_of
from surgeon.rebuild.config_cache import cache_fault
from surgeon.rebuild.config_judge import same_number
from surgeon.rebuild.config_target import planned_shapes
from surgeon.rebuild.rebuild import renamed
from surgeon.rebuild.signature import Shape, Signature, measure

__all__ = [
    "ChangedNumber",
    "changed_numbers_of",
    "check_cache",
    "check_whole",
    "differs",
    "left_shapes",
    "moved_modules",
]


class ChangedNumber(NamedTuple):
    """A fraction that a module keeps: where it lies now, what it was, and what the config makes of it."""

    path: str
    name: str
    old: float
    new: float
    was: str

    def __str__(self) -> str:
        where = f"{self.was}.{self.name}" if self.was else self.name
        return f"{where} {self.old:.6g} → {self.new:.6g}"


def check_whole(
    old: PreTrainedConfig, new: PreTrainedConfig, plan: Plan, graph: Graph
) -> tuple[ChangedNumber, ...]:
    """Every tensor of the whole new model has its planned shape; the numbers that its modules lost.

    Raises:
        InfeasibleError: all differences of shapes listed.
    """
    before, after = measure(old), measure(new)
    planned = left_shapes(plan, graph, after)
    faults = [
        f"{name}: planned {planned.get(name, 'absent')}, the config builds {after.shapes.get(name, 'absent')}"
        for name in sorted(planned.keys() | after.shapes.keys())
        if planned.get(name) != after.shapes.get(name)
    ]
    off = changed_numbers_of(before, after, plan, graph)
    if faults:
        raise differs([*faults, *(f"constant {number}" for number in off)])
    return off


def left_shapes(plan: Plan, graph: Graph, built: Signature) -> dict[str, Shape]:
    """Shape of every tensor that `plan` leaves, under its new name.

    What is computed, and not `built` once blocks are gone, went with them: the rotation of a sort of layer.
    """
    shapes = planned_shapes(cuts_of(plan, graph), graph)
    computed = {name for name, p in graph.parameters.items() if p.buffer and not p.stored}
    return {
        now: shapes[name]
        for name, now in renamed(tuple(graph.parameters), plan, graph).items()
        if now in built.shapes or name not in computed or not plan.dropped
    }


def changed_numbers_of(
    before: Signature, after: Signature, plan: Plan, graph: Graph
) -> tuple[ChangedNumber, ...]:
    """Scales, epsilons and other fractions of the modules that are left which differ."""
    moved = moved_modules(before, plan, graph)
    found: list[ChangedNumber] = []
    for (path, name), value in before.numbers.items():
        now = after.numbers.get((moved[path], name)) if path in moved else None
        if isinstance(value, float) and now is not None and not same_number(now, value):
            found.append(ChangedNumber(moved[path], name, value, now, path))
    return tuple(found)


def differs(faults: Sequence[str]) -> InfeasibleError:
    """What to raise where the config builds another model than the planned one."""
    lines = "\n".join(f"  {fault}" for fault in faults)
    return InfeasibleError(f"the config does not build the planned model:\n{lines}")


def check_cache(old: PreTrainedConfig, new: PreTrainedConfig) -> None:
    """Refuse to drop the last block that a cache needs.

    Raises:
        InfeasibleError: stock transformers could generate with a cache before, and cannot any more.
    """
    fault = cache_fault(old, new)
    if fault is not None:
        raise InfeasibleError(
            f"stock transformers makes no cache that works for the blocks that are left: {fault}",
            hint="keep one of the blocks with attention",
        )


def moved_modules(before: Signature, plan: Plan, graph: Graph) -> dict[str, str]:
    """New module path of every module with numbers that is left, by its old one."""
    paths = tuple(f"{path}." for path in {path for path, _ in before.numbers})
    return {name.rstrip("."): now.rstrip(".") for name, now in renamed(paths, plan, graph).items()}
