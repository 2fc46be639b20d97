"""How many indices of an Axis a top-k takes at once: fewer than that cannot be left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, prod

from surgeon.trace.terms import Atom, Term, atoms_of

__all__ = ["picks_of"]


def picks_of(rankings: Sequence[tuple[Term, int]]) -> Mapping[int, int]:
    """By Atom, the most that any ranking takes of it.

    Where a product is ranked (groups of experts), each factor must offer so many that the k fit: within
    what the rankings take of the factors outside of it, times the factors inside.
    """
    picks: dict[int, int] = {}
    products: list[tuple[list[Atom], int]] = []
    for term, k in rankings:
        atoms = [atom for atom in atoms_of(term) if atom.size > 1]
        if len(atoms) == 1:
            picks[atoms[0].id] = max(k, picks.get(atoms[0].id, 0))
        else:
            products.append((atoms, k))
    for atoms, k in products:
        for place, atom in enumerate(atoms):
            outside = prod(picks.get(other.id, other.size) for other in atoms[:place])
            others = outside * prod(other.size for other in atoms[place + 1 :])
            picks[atom.id] = max(ceil(k / others), picks.get(atom.id, 0))
    return picks
