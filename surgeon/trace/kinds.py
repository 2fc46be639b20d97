"""The kind of every Axis, from its part in the dataflow, never from a name."""

from __future__ import annotations

from collections.abc import Collection

from surgeon.graph import AxisKind
from surgeon.trace.occurrences import Occurrences

__all__ = ["kind_of"]


def kind_of(
    found: Occurrences,
    hidden: Collection[int],
    ports: Collection[int],
    partners: dict[str, dict[int, set[int]]],
) -> AxisKind:
    """The kind of one Axis.

    Args:
        found: the Axis with its Sites and marks.
        hidden: Atoms of the residual streams.
        ports: Atoms at the border of the model: what token ids index, what logits run over.
        partners: for every parameter and dim, the Atoms in it.
    """
    atom = found.atom
    if atom.id in ports:
        return "vocab"
    if atom.id in hidden:
        return "hidden"
    if "routed" in atom.marks:
        return "expert"
    if "position" in atom.marks or "data" in atom.marks:
        return "position"
    if "head" in atom.marks:
        return "q_per_kv" if "expanded" in atom.marks else "kv_group"
    if "head_dim" in atom.marks:
        return "head_dim"
    return "ffn" if _between_streams(found, hidden, partners) else "channel"


def _between_streams(
    found: Occurrences, hidden: Collection[int], partners: dict[str, dict[int, set[int]]]
) -> bool:
    """Produced from the stream and consumed into it: the middle of an MLP."""
    roles = set()
    for site in found.sites:
        others = {atom for dim, atoms in partners[site.param].items() if dim != site.dim for atom in atoms}
        if others & set(hidden):
            roles.add(site.role)
    return {"producer", "consumer"} <= roles
