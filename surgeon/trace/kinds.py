"""The kind of every Axis, from its part in the dataflow, never from a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from surgeon.graph import AxisKind, SublayerRole
from surgeon.trace.occurrences import Occurrences
from surgeon.trace.terms import Atom, Product, Term, atoms_of, resolve

__all__ = ["Surroundings", "kind_of"]


@dataclass(frozen=True)
class Surroundings:
    """What surrounds the Axes of one model.

    hidden: Atoms of the residual streams. vocab: Atoms that token ids index or logits run over.
    terms: the Term of every dim of every parameter. occurrences: all Axes by Atom.
    """

    hidden: frozenset[int]
    vocab: frozenset[int]
    terms: Mapping[str, list[Term]]
    occurrences: Mapping[int, Occurrences]

    def beside(self, param: str, dim: int) -> set[int]:
        """Atoms in the other dims of a parameter."""
        return {
            atom.id for other, term in enumerate(self.terms[param]) if other != dim for atom in atoms_of(term)
        }

    def encloses(self, found: Occurrences) -> tuple[list[Atom], list[Atom]]:
        """Atoms outside and inside the given one, in the products where it is a factor."""
        outer: list[Atom] = []
        inner: list[Atom] = []
        for site in found.sites:
            _nesting(resolve(self.terms[site.param][site.dim]), found.atom, outer, inner)
        return outer, inner


def kind_of(found: Occurrences, around: Surroundings, role: SublayerRole | None) -> AxisKind:
    """The kind of one Axis; `role` is that of the Sublayer which holds it."""
    atom = found.atom
    if "data" in atom.marks:
        return "position"
    if atom.id in around.vocab:
        return "vocab"
    if atom.id in around.hidden:
        return "hidden"
    if "position" in atom.marks:
        return "position"
    if "routed" in atom.marks:
        _, inner = around.encloses(found)
        return "channel" if any("routed" in other.marks for other in inner) else "expert"
    if role == "mixer" and _is_inner_product(found):
        return "state"
    if "head" in atom.marks:
        return _head_kind(found, around)
    if "head_dim" in atom.marks:
        return "head_dim"
    return _middle_kind(found, around) if _between_streams(found, around) else "channel"


def _middle_kind(found: Occurrences, around: Surroundings) -> AxisKind:
    """What lies between two passes of the stream: an MLP's width, but for heads and for copies of the stream.

    Heads of a convolution own a head's width, as those of attention do, and no score tells them apart.
    """
    outer, inner = around.encloses(found)
    if any(other.id in around.hidden for other in (*outer, *inner)):
        return "channel"
    heads = any("head" in other.marks for other in (*outer, *inner))
    return "kv_group" if any("head_dim" in other.marks for other in inner) and not heads else "ffn"


def _head_kind(found: Occurrences, around: Surroundings) -> AxisKind:
    """Heads that share what a group owns are counted per group; all others are groups themselves."""
    outer, _ = around.encloses(found)
    shared = "expanded" in found.atom.marks
    own = len(_producers(found))
    groups = [around.occurrences[o.id] for o in outer if "head" in o.marks and o.id in around.occurrences]
    nested = any(len(_producers(group)) > own for group in groups)
    return "q_per_kv" if nested or (shared and _in_queries_alone(found)) else "kv_group"


def _producers(found: Occurrences) -> set[tuple[str, int]]:
    return {(site.param, site.layout.offset) for site in found.sites if site.role == "producer"}


def _in_queries_alone(found: Occurrences) -> bool:
    """Keys and values are shared along the axis, so only one projection produces it."""
    return len(_producers(found)) == 1


def _is_inner_product(found: Occurrences) -> bool:
    """Produced in two places and consumed by no parameter: two activations meet on it."""
    return len(_producers(found)) > 1 and all(site.role != "consumer" for site in found.sites)


def _between_streams(found: Occurrences, around: Surroundings) -> bool:
    """Produced from the stream and consumed into it: the middle of an MLP."""
    roles = {site.role for site in found.sites if around.beside(site.param, site.dim) & around.hidden}
    return {"producer", "consumer"} <= roles


def _nesting(term: Term, atom: Atom, outer: list[Atom], inner: list[Atom]) -> None:
    if isinstance(term, Atom):
        return
    for place, part in enumerate(term.parts):
        if isinstance(term, Product) and any(leaf is atom for leaf in atoms_of(part)):
            outer.extend(leaf for other in term.parts[:place] for leaf in atoms_of(other))
            inner.extend(leaf for other in term.parts[place + 1 :] for leaf in atoms_of(other))
        _nesting(resolve(part), atom, outer, inner)
