"""What goes with dropped Blocks and sublayers: modules that are absent, parameters that fall silent.

A dropped sublayer adds nothing to the residual stream. Where it is masked, what it has that writes to the
stream is zero; where it is taken out, its modules go, the norm that feeds it included, save those that
another sublayer of the Block uses too. Not here: how a model without a module is built
(`surgeon.rebuild`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from surgeon.graph import Block, Graph, Sublayer
from surgeon.plan.plan import Plan

__all__ = ["dropped_parts", "gone_modules", "gone_prefixes", "part_faults", "silent_params"]


def dropped_parts(plan: Plan, graph: Graph) -> Mapping[str, tuple[Block, Sublayer]]:
    """Dropped sublayers by name, with the Blocks that they lie in; those in dropped Blocks left out."""
    dropped = set(plan.dropped)
    return {
        part.name: (block, part)
        for block in (graph.blocks if dropped else ())
        if block.name not in dropped
        for part in block.sublayers
        if part.name in dropped
    }


def gone_modules(plan: Plan, graph: Graph) -> tuple[str, ...]:
    """Paths of the modules that go with all that lies below them."""
    parts = dropped_parts(plan, graph)
    blocks = (graph.block(name).name for name in plan.dropped if not _is_part(name, graph))
    own = (module for block, part in parts.values() for module in own_modules(block, part, parts))
    return tuple(dict.fromkeys((*blocks, *own)))


def gone_prefixes(plan: Plan, graph: Graph) -> tuple[str, ...]:
    """How the names of the parameters begin that go."""
    return tuple(f"{path}." for path in gone_modules(plan, graph))


def own_modules(block: Block, part: Sublayer, dropped: Mapping[str, object]) -> tuple[str, ...]:
    """Modules of `part` that no sublayer of the Block needs which stays."""
    others = {m for other in block.sublayers if other.name not in dropped for m in other.modules}
    return tuple(module for module in part.modules if module not in others)


def silent_params(plan: Plan, graph: Graph) -> frozenset[str]:
    """Parameters of dropped sublayers that are zero in the masked view: what writes to the stream."""
    parts = dropped_parts(plan, graph)
    return frozenset(name for block, part in parts.values() for name in _writers(block, part, graph))


def part_faults(name: str, graph: Graph) -> Iterator[str]:
    """Why the sublayer called `name` cannot be dropped."""
    block, part = next((b, p) for b in graph.blocks for p in b.sublayers if p.name == name)
    writers = set(_writers(block, part, graph))
    if not writers:
        yield "nothing in it is seen to write to the residual stream"
    ties = {parameter.name: parameter.tied_to or parameter.name for parameter in graph.parameters.values()}
    roots = {ties[writer] for writer in writers}
    shared = sorted(other for other, root in ties.items() if root in roots and other not in writers)
    if shared:
        yield f"what it writes with is one tensor with '{shared[0]}' elsewhere"


def _writers(block: Block, part: Sublayer, graph: Graph) -> Iterator[str]:
    """Projections of the sublayer onto the stream, and their biases."""
    modules = tuple(f"{path}." for path in own_modules(block, part, {part.name: part}))
    axis = next(stack.axis for stack in graph.stacks if block in stack.blocks)
    sites = [site for site in graph.group(axis).sites if site.param.startswith(modules)] if axis else []
    owners = {site.param.rpartition(".")[0] for site in sites if site.role == "producer"}
    for site in sites:
        if site.role in ("producer", "pointwise") and site.param.rpartition(".")[0] in owners:
            yield site.param


def _is_part(name: str, graph: Graph) -> bool:
    return any(part.name == name for block in graph.blocks for part in block.sublayers)
