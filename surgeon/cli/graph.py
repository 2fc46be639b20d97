"""``surgeon graph``: what the model is made of, what is coupled to what, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surgeon.api.numbers import size_text
from surgeon.cli.arguments import Model
from surgeon.cli.console import print_json, print_table, progress, say

if TYPE_CHECKING:
    from surgeon.graph import Graph, Group
    from surgeon.graph.why import Link

__all__ = ["command"]

OF_MANY = ("kind", "sublayer", "size", "groups", "blocks", "costs each", "tensors", "locked")
OF_ONE = ("axis", "kind", "size", "costs each", "tensors", "locked")


def command(
    model: Model,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the graph as JSON; - is stdout.")
    ] = None,
    why: Annotated[
        tuple[str, str] | None,
        typer.Option("--why", metavar="A B", help="The chain of ops that couples two parameters."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="One row for every axis.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="An op without a rule is an error.")] = False,
) -> None:
    """Show the groups of a model: sizes, couplings, locks. No weight is read."""
    from surgeon.api.trace import trace
    from surgeon.graph.document import graph_document
    from surgeon.graph.why import why as chains
    from surgeon.io import write_document

    with progress() as report:
        report("trace", 0, None)
        graph = trace(model, strict=strict)
    if json is not None:
        if str(json) == "-":
            print_json(graph_document(graph))
        else:
            write_document(graph_document(graph), json)
            say(f"written: {json}")
        return
    if why is not None:
        _show_chains(chains(graph, *why), *why)
        return
    _show(graph, every)


def _show_chains(chains: Mapping[str, tuple[Link, ...]], left: str, right: str) -> None:
    if not chains:
        say(f"{left} and {right} share no axis")
    for axis, links in chains.items():
        say(f"{axis}: {len(links)} ops")
        for place, link in enumerate(links):
            if place == 0:
                say(link.left, indent=2)
            say(f"{link.op} in {link.module}", indent=6)
            say(link.right, indent=2)


def _show(graph: Graph, every: bool) -> None:
    rows = [[group] for group in graph.groups] if every else _roles(graph)
    columns = OF_ONE if every else OF_MANY
    table = [tuple(cells[column] for column in columns) for cells in (_cells(row, graph) for row in rows)]
    title = f"{graph.model_type}: {size_text(graph.parameter_count)} parameters"
    print_table(title, columns, table, numbers=("size", "groups", "costs each", "tensors"))
    for stack in graph.stacks:
        parts = ", ".join(
            f"{part.name.rpartition('.')[2]} ({part.role})" for part in stack.blocks[0].sublayers
        )
        say(f"{stack.container}: {len(stack.blocks)} blocks of {parts or 'no sublayers'}")
    for reason in _reasons(graph):
        say(reason)
    for note in graph.notes:
        say(f"note: {note}")


def _cells(groups: list[Group], graph: Graph) -> dict[str, object]:
    """What there is to say of groups of one role, by column."""
    from surgeon.plan import unit_cost

    return {
        "axis": groups[0].name,
        "kind": groups[0].kind,
        "sublayer": _sublayer(groups[0], graph),
        "size": _span(group.size for group in groups),
        "groups": len(groups),
        "blocks": _blocks(groups, graph),
        "costs each": _span(unit_cost(group, graph) for group in groups),
        "tensors": _span(len(group.params) for group in groups),
        "locked": _locked(groups),
    }


def _roles(graph: Graph) -> list[list[Group]]:
    """Groups of one kind in one sort of sublayer, together."""
    rows: dict[tuple[object, ...], list[Group]] = {}
    for group in graph.groups:
        tail = group.name.rpartition(".")[2] if group.block is None else ""
        rows.setdefault((group.kind, _sublayer(group, graph), tail), []).append(group)
    return list(rows.values())


def _sublayer(group: Group, graph: Graph) -> str:
    if group.block is None or group.sublayer is None:
        return "-"
    parts = graph.block(group.block).sublayers
    return next((part.role for part in parts if part.name == group.sublayer), "-")


def _span(numbers: Iterable[int]) -> str:
    found = sorted(set(numbers))
    return str(found[0]) if len(found) == 1 else f"{found[0]}..{found[-1]}"


def _blocks(groups: list[Group], graph: Graph) -> str:
    indices = sorted({graph.block(group.block).index for group in groups if group.block is not None})
    if not indices:
        return "-"
    whole = indices == list(range(indices[0], indices[-1] + 1))
    return _span(indices) if whole else ", ".join(str(index) for index in indices)


def _locked(groups: list[Group]) -> str:
    count = sum(bool(group.locks) for group in groups)
    return ("yes" if count == len(groups) else f"{count} of {len(groups)}") if count else ""


def _reasons(graph: Graph) -> list[str]:
    """Each reason for a lock, with what it locks."""
    found: dict[str, list[str]] = {}
    for groups in _roles(graph):
        sublayer = _sublayer(groups[0], graph)
        for reason in sorted({reason for group in groups for reason in group.locks}):
            count = sum(reason in group.locks for group in groups)
            which = groups[0].kind if sublayer == "-" else f"{sublayer} {groups[0].kind}"
            found.setdefault(reason, []).append(which + (f" ({count})" if len(groups) > 1 else ""))
    return [f"locked: {', '.join(which)}: {reason}" for reason, which in found.items()]
