"""Where every Atom occurs in the named tensors of a module: the raw material of Groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from surgeon.graph import Parameter, Role, Site
from surgeon.trace.layouts import placements
from surgeon.trace.state import TraceState
from surgeon.trace.terms import Atom, Term, atoms_of, is_data, resolve

__all__ = ["Occurrences", "find_occurrences"]

_PRIORITY: tuple[Role, ...] = ("index", "consumer", "producer", "pointwise")


@dataclass(slots=True)
class Occurrences:
    """One Atom with all its Sites, by role resolved."""

    atom: Atom
    sites: list[Site] = field(default_factory=list)


def find_occurrences(
    state: TraceState, terms: Mapping[str, list[Term]], parameters: Mapping[str, Parameter]
) -> dict[int, Occurrences]:
    """Every Atom that is an index set of the parameters in use, with its Sites, in order of appearance.

    A buffer alone makes no Group; it adds Sites to the Groups of parameters. Nor does a parameter that
    no op touched, or a factor (or a vector) that is only ever taken apart index by index, or rows each of
    which is read by its number, or a factor that is made of positions: that is structure, as the three of a
    fused query, key and value, the two numbers that weigh two streams, what each of two streams begins with,
    or the patches that are merged to one, and no set to choose from.
    """
    roles = _roles(state)
    found: dict[int, Occurrences] = {}
    for wants_buffers in (False, True):
        for name, dims in terms.items():
            parameter = parameters[name]
            if parameter.buffer is not wants_buffers or not (parameter.touched or wants_buffers):
                continue
            for dim, term in enumerate(dims):
                for atom, layout in placements(term):
                    if atom.id not in found:
                        if wants_buffers:
                            continue
                        found[atom.id] = Occurrences(atom)
                    role = roles.get((parameter.tied_to or name, atom.id), "pointwise")
                    found[atom.id].sites.append(Site(name, dim, layout, role, parameter.stored))
    learned = {name: dims for name, dims in terms.items() if not parameters[name].buffer}
    named = _all_by_number(state)
    return {number: one for number, one in found.items() if not _is_structure(one, learned, named)}


def _all_by_number(state: TraceState) -> frozenset[int]:
    """Atoms every index of which is read by its number."""
    read: dict[Atom, set[int]] = {}
    for term, indices in state.picked:
        atom = resolve(term)
        if isinstance(atom, Atom):
            read.setdefault(atom, set()).update(indices)
    return frozenset(atom.id for atom, indices in read.items() if len(indices) == atom.size)


def _is_structure(one: Occurrences, learned: Mapping[str, list[Term]], named: frozenset[int]) -> bool:
    """Named rows, a factor of named parts, a vector of named numbers, or positions beside features.

    A buffer that numbers the positions is none of the `learned` tensors, and says nothing against that.
    """
    if one.atom.id in named and all(site.role == "pointwise" for site in one.sites):
        return True
    if "part" in one.atom.marks:
        return all(len(site.layout.modes) > 1 or len(learned.get(site.param, ())) == 1 for site in one.sites)
    dims = [learned[site.param][site.dim] for site in one.sites if site.param in learned]
    return "data" in one.atom.marks and not any(map(is_data, dims))


def _roles(state: TraceState) -> dict[tuple[str, int], Role]:
    """The strongest role that each Atom was seen to play in each parameter."""
    roles: dict[tuple[str, int], Role] = {}
    for param, term, role in state.roles:
        for atom in atoms_of(term):
            key = (param, atom.id)
            if key not in roles or _PRIORITY.index(role) < _PRIORITY.index(roles[key]):
                roles[key] = role
    return roles
