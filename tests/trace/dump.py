"""A Graph as text that a person can read and compare: the golden dumps, and the notation of Layouts.

A Layout is written ``offset+extent:stride …``, outermost mode first, the Axis itself in brackets:
``60+[2:10] 10:1`` is two heads of ten rows each, from row 60 on.
"""

from __future__ import annotations

from surgeon.graph import Graph, Group, Layout, Port, Site


def dump(graph: Graph) -> str:
    """One line a Group, its Sites and Ports indented below; then the Stacks and the notes."""
    lines = [line for group in graph.groups for line in _group(group)]
    for stack in graph.stacks:
        lines.append(f"stack {stack.container} on {stack.axis}")
        for block in stack.blocks:
            lines.append(f"  {block.name}")
            lines += [f"    {p.role} {p.name} ({', '.join(p.modules)})" for p in block.sublayers]
    return "\n".join([*lines, *(f"note {note}" for note in graph.notes)]) + "\n"


def _group(group: Group) -> list[str]:
    facts = [f"in {group.sublayer or group.block}"] if group.block else []
    facts += ["normalised"] if group.normalised else []
    facts += [f"locked: {group.locked}"] if group.locked else []
    return [
        f"{group.name} = {group.axis}" + "".join(f", {fact}" for fact in facts),
        *(f"  {site.role:9} {site_text(site)}" for site in group.sites),
        *(f"  {port.direction:9} {port_text(port)}" for port in group.ports),
    ]


def site_text(site: Site) -> str:
    """``model.embed.weight[0] 0+[151:1]``."""
    return f"{site.param}[{site.dim}] {layout_text(site.layout)}"


def port_text(port: Port) -> str:
    """``logits[2] 0+[151:1]``; the values of an input where there is no dim."""
    return f"{port.name}[{'values' if port.dim is None else port.dim}] {layout_text(port.layout)}"


def layout_text(layout: Layout) -> str:
    """``0+6:30 [10:1]``."""
    modes = [f"{mode.extent}:{mode.stride}" for mode in layout.modes]
    modes[layout.axis_mode] = f"[{modes[layout.axis_mode]}]"
    return f"{layout.offset}+{' '.join(modes)}"
