"""Axes that lie in no single block, and that no field holds, for the layout ``per_layer``.

Heads that share a table of relative positions across all layers, or attentions that stand in a list of their
own. All that narrows is narrowed at once, on the shallow model; each module of the whole one gets what the
module that stands for it there got. So it works where blocks of one sort have one width. Not here: single
blocks (`per_layer`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

from transformers import PreTrainedConfig

from surgeon.errors import InfeasibleError
from surgeon.graph import Graph
from surgeon.plan import DropBlock, Keep, Plan, dropped_parts
from surgeon.plan.report import LedgerRow
from surgeon.rebuild.config_limits import ConfigLimits
from surgeon.rebuild.config_probe import ConfigSpace
from surgeon.rebuild.config_solve import Solution, find_changes, solve
from surgeon.rebuild.config_target import Width, aim
from surgeon.rebuild.config_whole import left_shapes
from surgeon.rebuild.per_layer_class import TABLE, auto_map
from surgeon.rebuild.per_layer_parts import BlockParts, Narrowing, parts_of
from surgeon.rebuild.per_layer_trial import Row, readers
from surgeon.rebuild.rebuild import renamed
from surgeon.rebuild.signature import Shape, Signature, measure
from surgeon.rebuild.skeleton import architecture, skeleton

__all__ = ["check_differences", "solve_spread", "spread"]


def spread(plan: Plan, graph: Graph) -> bool:
    """Whether `plan` cuts Axes that lie in no single block, no width of the whole model among them.

    A part that is taken out of a block is not provided for.
    """
    cut = [graph.group(edit.axis) for edit in plan.edits if isinstance(edit, Keep)]
    kinds = {group.kind for group in cut if group.block is None}
    return bool(kinds) and kinds.isdisjoint(("hidden", "vocab")) and not dropped_parts(plan, graph)


def solve_spread(space: ConfigSpace, graph: Graph, plan: Plan) -> Solution:
    """A config that builds what `plan` leaves, with what no field says in its table of modules.

    Raises:
        InfeasibleError: blocks of one sort differ, or what is left does not run.
    """
    said = _said_by_fields(space, graph, plan)
    base = solve(space, graph, said)
    built = measure(base.config)
    planned = left_shapes(plan, graph, built)
    check_differences(planned, built.shapes, built)
    target = aim(plan, graph, space.shallow)
    shallow = space.configured(find_changes(space, aim(said, graph, space.shallow)))
    shown = measure(shallow).shapes
    shapes = {name: shape for name, shape in target.shapes.items() if shape != shown[name]}
    parts = parts_of(space, shallow, Narrowing("", shapes, _widths(space, graph, plan, said)))
    config = _written(base.config, _table(space, graph, plan, parts, base.config))
    if measure(config).shapes != planned:
        raise InfeasibleError("the table of modules does not build the planned shapes")
    rows = len(getattr(config, TABLE))
    why = "modules that differ from the stock class"
    return Solution(config, (*base.ledger, LedgerRow(field=TABLE, old=None, new=rows, why=why)))


def _said_by_fields(space: ConfigSpace, graph: Graph, plan: Plan) -> Plan:
    """Dropped blocks, and those cuts that the config's own fields can say."""
    limits = ConfigLimits(space, graph)
    kept = plan.kept()
    sizes: dict[str, int] = {}
    for tied in limits.tied([axis for axis in kept if graph.group(axis).size != len(kept[axis])]):
        tried = {**sizes, **{name: len(kept[name]) for name in tied}}
        if limits.builds(tried):
            sizes = tried
    edits = (e for e in plan.edits if isinstance(e, DropBlock) or (isinstance(e, Keep) and e.axis in sizes))
    return Plan(plan.model_type, tuple(edits))


def check_differences(planned: Mapping[str, Shape], shapes: Mapping[str, Shape], built: Signature) -> None:
    """Only shapes of untied tensors may be left to the table.

    Raises:
        InfeasibleError: others differ between `planned` and `shapes`, which the config builds.
    """
    faults = [f"{name} is there or is not" for name in sorted(planned.keys() ^ shapes.keys())]
    differing = [name for name in planned if name in shapes and planned[name] != shapes[name]]
    faults += [f"{name} is one tensor with {built.ties[name]}" for name in differing if name in built.ties]
    if faults:
        raise InfeasibleError(
            "blocks cannot be narrowed one by one:\n" + "\n".join(f"  {fault}" for fault in faults)
        )


def _widths(space: ConfigSpace, graph: Graph, plan: Plan, said: Plan) -> dict[str, tuple[Width, ...]]:
    """For every tensor of the shallow model the Axes in it; what fields say has its new size already."""
    kept, before = plan.kept(), said.kept()
    gone = tuple(f"{block}." for block in plan.dropped)
    left = {
        space.shallow.first(n): n
        for n in reversed(tuple(graph.parameters))
        if not (gone and n.startswith(gone))
    }
    return {
        name: tuple(
            Width(
                group.kind,
                len(before.get(group.name, range(group.size))),
                len(kept.get(group.name, range(group.size))),
                group.block,
                frozenset({(name, site.dim)}),
            )
            for group, site in graph.sites[left.get(space.shallow.first(name), name)]
        )
        for name in space.shallow.base.shapes
    }


def _table(
    space: ConfigSpace, graph: Graph, plan: Plan, parts: BlockParts, config: PreTrainedConfig
) -> dict[str, Row]:
    """For every module of the whole model that is left what the one that stands for it differs in."""
    paths = tuple(f"{path}." for path, _ in skeleton(space.config).named_modules() if path)
    table: dict[str, Row] = {}
    for old, now in renamed(paths, plan, graph).items():
        row = parts.rows.get(space.shallow.shown(old.removesuffix(".")))
        if row:
            table[now.removesuffix(".")] = dict(row)
    differ = {name: value for name, value in parts.fields.items() if value != parts.usual[name]}
    for path in readers(skeleton(config)) if differ else ():
        table.setdefault(path, {})["config"] = differ
    return table


def _written(config: PreTrainedConfig, table: Mapping[str, Row]) -> PreTrainedConfig:
    new = copy.deepcopy(config)
    setattr(new, TABLE, dict(table))
    new.auto_map = auto_map(architecture(config), config)  # type: ignore[attr-defined]  # a field of any config
    return new
