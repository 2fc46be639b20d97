"""The config of a model whose blocks differ in width, for the layout ``per_layer``.

What all blocks share (hidden size, vocabulary, which blocks are left) is solved in the config's own
fields; what is a block's own goes, block by block, into ``per_layer_config``, and into a table of the
modules that differ from what the stock class builds. A Plan that plain fields can say stays an ordinary
config. Not here: the class that reads the table (`per_layer_model`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from pydantic import JsonValue
from transformers import PreTrainedConfig

from surgeon.errors import InfeasibleError
from surgeon.graph import Block, Graph
from surgeon.plan import DropBlock, Edit, Keep, Plan, dropped_parts, gone_modules, gone_prefixes
from surgeon.plan.report import LedgerRow
from surgeon.rebuild.config_limits import ConfigLimits
from surgeon.rebuild.config_probe import ConfigSpace
from surgeon.rebuild.config_solve import Solution, find_changes, solve, solve_but_numbers
from surgeon.rebuild.config_target import Width, aim
from surgeon.rebuild.config_whole import ChangedNumber, changed_numbers_of, differs, left_shapes
from surgeon.rebuild.per_layer_class import TABLE, auto_map
from surgeon.rebuild.per_layer_parts import BlockParts, Narrowing, parts_of
from surgeon.rebuild.per_layer_spread import check_differences, solve_spread, spread
from surgeon.rebuild.per_layer_trial import Row, readers
from surgeon.rebuild.rebuild import renamed
from surgeon.rebuild.signature import Shape, Signature, measure
from surgeon.rebuild.skeleton import architecture, skeleton

__all__ = ["shared_part", "solve_per_layer"]


def shared_part(plan: Plan, graph: Graph) -> Plan:
    """What of `plan` is no width of single blocks, and no sublayer."""
    own = {e.axis for e in plan.edits if isinstance(e, Keep) and graph.group(e.axis).block is not None}
    parts = dropped_parts(plan, graph)

    def of_one_block(edit: Edit) -> bool:
        match edit:
            case Keep():
                return edit.axis in own
            case DropBlock():
                return edit.block in parts
            case _:
                return False

    return replace(plan, edits=tuple(edit for edit in plan.edits if not of_one_block(edit)))


def solve_per_layer(space: ConfigSpace, graph: Graph, plan: Plan) -> Solution:
    """A config that builds what `plan` leaves, each block as wide as it is planned.

    Raises:
        InfeasibleError: what the blocks share cannot be expressed, or a narrowed block does not run.
    """
    try:
        return solve(space, graph, plan)
    except InfeasibleError:
        pass
    try:
        return _by_block(space, graph, plan)
    except InfeasibleError as error:
        if not spread(plan, graph):
            raise
        try:
            return solve_spread(space, graph, plan)
        except InfeasibleError:
            raise error from None


def _by_block(space: ConfigSpace, graph: Graph, plan: Plan) -> Solution:
    """Each block by itself; what they share by fields of the config."""
    _check_parts(plan, graph)
    shared = _expressible_part(space, graph, plan)
    base, off = solve_but_numbers(space, graph, shared)
    built = measure(base.config)
    planned = left_shapes(plan, graph, built)
    absent = _absent(plan, graph)
    gone = tuple(f"{path}." for path in absent)
    check_differences(
        planned, {name: s for name, s in built.shapes.items() if not name.startswith(gone)}, built
    )
    shallow = space.configured(find_changes(space, aim(shared, graph, space.shallow)))
    solved: dict[tuple[object, ...], BlockParts] = {}
    parts: dict[str, BlockParts] = {}
    for block, now in _blocks(plan, graph):
        narrowing = _narrowing(block, now, planned, built, space, graph, plan, shared)
        out = tuple(path.removeprefix(f"{now}.") for path in absent if path.startswith(f"{now}."))
        narrowing = replace(narrowing, absent=out)
        if narrowing.key not in solved:
            solved[narrowing.key] = parts_of(space, shallow, narrowing)
        parts[now] = solved[narrowing.key]
    numbers = tuple(number for number in off if not f"{number.path}.".startswith(gone))
    config = _written(base.config, parts, numbers, graph)
    written = measure(config)
    if written.shapes != planned:
        raise InfeasibleError("the per-layer config does not build the planned shapes")
    if faults := changed_numbers_of(measure(space.config), written, plan, graph) if off else ():
        raise differs([f"constant {number}" for number in faults])
    return Solution(config, (*base.ledger, *_ledger(base.config, parts)))


def _expressible_part(space: ConfigSpace, graph: Graph, plan: Plan) -> Plan:
    """What of `plan` the config's own fields can say: what is shared, and widths alike in all blocks."""
    kept = plan.kept()
    limits = ConfigLimits(space, graph)
    alike = shared_part(plan, graph)
    kinds = {graph.group(axis).kind for axis in kept}
    gone = gone_prefixes(plan, graph)
    absent = {group.name for group in graph.groups if gone and group.sites[0].param.startswith(gone)}
    sizes = {axis: len(indices) for axis, indices in alike.kept().items()}
    for tied in limits.tied([group.name for group in graph.groups if group.kind in kinds]):
        held = [name for name in tied if name not in absent]
        counts = {len(kept[name]) if name in kept else graph.group(name).size for name in held}
        if len(counts) == 1 and not all(name in alike.kept() for name in held):
            # Blocks that go are as wide as what is left of their sort.
            tried = {**sizes, **dict.fromkeys(tied, counts.pop())}
            if limits.builds(tried):
                alike = alike.add(e for e in plan.edits if isinstance(e, Keep) and e.axis in held)
                sizes = tried
    return alike


def _check_parts(plan: Plan, graph: Graph) -> None:
    """Sublayers can be taken out where what they add is added outside of them."""
    for block, part in dropped_parts(plan, graph).values():
        if part.joins != block.name:
            raise InfeasibleError(
                f"'{part.name}' cannot be taken out: '{part.joins}' inside of it adds to the residual stream",
                hint="export: {layout: padded}, which leaves it and makes what it adds zero",
            )


def _absent(plan: Plan, graph: Graph) -> dict[str, str]:
    """New path to old path of every module that is taken out of a block that stays."""
    blocks = {now: block.name for block, now in _blocks(plan, graph)}
    paths = gone_modules(plan, graph)
    return {
        now + path.removeprefix(old): path
        for now, old in blocks.items()
        for path in paths
        if path.startswith(f"{old}.")
    }


def _blocks(plan: Plan, graph: Graph) -> Iterator[tuple[Block, str]]:
    """Every Block that is left, with its new module path."""
    names = renamed(tuple(f"{block.name}." for block in graph.blocks), plan, graph)
    for block in graph.blocks:
        if f"{block.name}." in names:
            yield block, names[f"{block.name}."].removesuffix(".")


def _narrowing(
    block: Block,
    now: str,
    planned: Mapping[str, Shape],
    built: Signature,
    space: ConfigSpace,
    graph: Graph,
    plan: Plan,
    shared: Plan,
) -> Narrowing:
    head = f"{now}."
    shapes = {
        name.removeprefix(head): shape
        for name, shape in planned.items()
        if name.startswith(head) and shape != built.shapes[name]
    }
    kept, before = plan.kept(), shared.kept()
    widths: dict[str, tuple[Width, ...]] = {}
    for name in graph.parameters:
        if name.startswith(f"{block.name}."):
            relative = name.removeprefix(f"{block.name}.")
            # What is shared has its new size already in the config that is narrowed.
            widths[relative] = tuple(
                Width(
                    group.kind,
                    len(before.get(group.name, range(group.size))),
                    len(kept.get(group.name, range(group.size))),
                    group.block,
                    frozenset({(relative, site.dim)}),
                )
                for group, site in graph.sites[name]
            )
    shown = space.shallow.stands_for.get(block.name, now if not space.shallow.stands_for else block.name)
    return Narrowing(shown, shapes, widths)


def _written(
    config: PreTrainedConfig,
    parts: Mapping[str, BlockParts],
    numbers: Sequence[ChangedNumber],
    graph: Graph,
) -> PreTrainedConfig:
    """`config` with the table, the fields of each layer, and where the class that reads them is found.

    The `numbers` stand in the table as attributes of their modules.
    """
    stock = architecture(config)
    fields = _fields(config, parts)
    table: dict[str, Row] = {}
    for block, found in parts.items():
        for path, row in sorted(found.rows.items()):
            table[f"{block}.{path}" if path else block] = dict(row)
        for path in found.readers if fields[block] else ():
            table.setdefault(f"{block}.{path}" if path else block, {})["config"] = dict(fields[block])
    for number in numbers:
        table.setdefault(number.path, {})[number.name] = number.old
    usual = _usual(config, parts)
    for path in readers(skeleton(config)) if usual else ():
        if not path.startswith(tuple(f"{block}." for block in parts)) and path not in parts:
            table.setdefault(path, {})["config"] = usual
    new = copy.deepcopy(config)
    setattr(new, TABLE, table)
    new.auto_map = auto_map(stock, config)  # type: ignore[attr-defined]  # a field of any config
    if any(fields.values()) and len(graph.stacks) == 1 and _layers(config) == len(parts):
        # Validators of config classes, and what lies outside of the layers, read the one width.
        new.allow_global_per_layer_attribute_access = True
        new.per_layer_config = dict(enumerate(fields.values()))
    return new


def _layers(config: PreTrainedConfig) -> int | None:
    """How many layers transformers itself sees in the config; None where it would not know."""
    try:
        return len(config.per_layer_config)
    except AttributeError:
        return None


def _fields(config: PreTrainedConfig, parts: Mapping[str, BlockParts]) -> dict[str, dict[str, int]]:
    """For every block the fields that differ somewhere, or that nobody set, with their values there."""
    usual = _usual(config, parts)
    return {
        block: {name: found.fields.get(name, value) for name, value in usual.items()}
        for block, found in parts.items()
    }


def _usual(config: PreTrainedConfig, parts: Mapping[str, BlockParts]) -> dict[str, int]:
    """Those fields, with what they stand for outside of the blocks."""
    usual = {name: value for found in parts.values() for name, value in found.usual.items()}
    own = config.to_dict()
    differ = {
        name
        for name, value in usual.items()
        if any(found.fields.get(name, value) != value for found in parts.values())
    }
    return {
        name: value for name, value in usual.items() if name in differ or (differ and own.get(name) is None)
    }


def _ledger(config: PreTrainedConfig, parts: Mapping[str, BlockParts]) -> tuple[LedgerRow, ...]:
    fields = _fields(config, parts)
    own = config.to_dict()
    rows: list[LedgerRow] = []
    for name in next(iter(fields.values())):
        values: list[JsonValue] = [found[name] for found in fields.values()]
        rows.append(
            LedgerRow(field=f"per_layer_config.*.{name}", old=own.get(name), new=values, why="block by block")
        )
    table = [row for found in parts.values() for row in found.rows.values()]
    out = sum("absent" in row for row in table)
    why = "modules that differ from the stock class" + (f", {out} of them taken out" if out else "")
    rows.append(LedgerRow(field=TABLE, old=None, new=len(table), why=why))
    return tuple(rows)
