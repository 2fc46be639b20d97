"""Reasons, in words, why an Axis must not be cut; beyond those that op rules found on the way.

Not here: what parameters that no op touched may share (`untouched`).
"""

from __future__ import annotations

from collections.abc import Sequence

from surgeon.graph import Port
from surgeon.trace.occurrences import Occurrences

__all__ = ["locks_of"]


def locks_of(found: Occurrences, ports: Sequence[Port]) -> frozenset[str]:
    """All reasons against one Axis."""
    reasons = set(found.atom.locks)
    if "data" in found.atom.marks:
        reasons.add("as long as the batch or the sequence in this forward pass")
    else:
        if "constant" in found.atom.marks:
            reasons.add("matched with constants that forward makes from the config")
        reasons |= {
            f"features of the input '{port.name}', which the caller decides"
            for port in ports
            if port.direction == "input" and port.dim is not None
        }
    places = [(site.param, site.dim) for site in found.sites]
    if len(set(places)) < len(places) and _overlaps(found):
        reasons.add("appears twice in one product")
    return frozenset(reasons)


def _overlaps(found: Occurrences) -> bool:
    """Whether two Sites of one dim own a common position."""
    owned: dict[tuple[str, int], set[int]] = {}
    for site in found.sites:
        mine = set(site.layout.positions().reshape(-1).tolist())
        before = owned.setdefault((site.param, site.dim), set())
        if before & mine:
            return True
        before |= mine
    return False
