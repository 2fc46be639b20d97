"""Put a propagated recording together: Groups with kinds, names, locks and ports; Stacks; evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from torch import nn

from surgeon.graph import Axis, Graph, Group, Parameter, Port, Stack
from surgeon.trace.blocks import find_stacks
from surgeon.trace.evidence import coupling_graph
from surgeon.trace.kinds import Surroundings, kind_of
from surgeon.trace.layouts import placements
from surgeon.trace.locks import locks_of
from surgeon.trace.names import Places
from surgeon.trace.occurrences import find_occurrences
from surgeon.trace.picks import picks_of
from surgeon.trace.record import Value
from surgeon.trace.recording import Recording
from surgeon.trace.terms import Term, atoms_of
from surgeon.trace.untouched import lock_beside_untouched

__all__ = ["assemble"]


def assemble(recording: Recording, module: nn.Module) -> Graph:
    """The Graph of a propagated recording of `module`."""
    state = recording.state
    terms = recording.terms()
    touched = recording.touched()
    parameters = {
        name: replace(p, touched=name in touched or p.tied_to in touched)
        for name, p in recording.parameters.items()
    }
    occurrences = find_occurrences(state, terms, parameters)
    stacks, streams = find_stacks(state, recording.calls, _sizes(parameters))
    found_in = [recording.dims(value)[-1] for value in streams] or _embedded(recording, terms)
    hidden = frozenset(atom.id for term in found_in for atom in atoms_of(term))
    ports = _ports(recording)
    reads_ids = any(number in state.domains for number in state.inputs)
    vocab = frozenset(
        number for number, found in ports.items() if number not in hidden and _is_vocab(found, reads_ids)
    )
    around = Surroundings(hidden, vocab, terms, occurrences)
    places = Places(stacks)
    picks = picks_of(state.rankings)
    groups, axes = [], {}
    for found in occurrences.values():
        place = places.place(found.sites)
        kind = kind_of(found, around, place.role)
        name = places.name(place, kind)
        axes[found.atom.id] = name
        groups.append(
            Group(
                Axis(name, kind, found.atom.size),
                tuple(found.sites),
                place.block,
                place.sublayer,
                locks_of(found, ports.get(found.atom.id, ())),
                "normalised" in found.atom.marks,
                tuple(ports.get(found.atom.id, ())),
                picked=picks.get(found.atom.id, 0),
            )
        )
    graph = Graph(
        getattr(getattr(module, "config", None), "model_type", None) or type(module).__name__,
        tuple(groups),
        tuple(replace(stack, axis=_stream_axis(stack, hidden, axes)) for stack in stacks),
        parameters,
        coupling_graph(recording.initial, state.unifier.bindings, axes),
        _notes(recording, parameters),
    )
    return lock_beside_untouched(graph, recording, {name: number for number, name in axes.items()}, module)


def _sizes(parameters: Mapping[str, Parameter]) -> dict[str, int]:
    """Number of parameter elements below every module path."""
    sizes: dict[str, int] = {}
    for name, parameter in parameters.items():
        path = name.rpartition(".")[0]
        while path:
            sizes[path] = sizes.get(path, 0) + parameter.numel
            path = path.rpartition(".")[0]
    return sizes


def _ports(recording: Recording) -> dict[int, list[Port]]:
    """Where Axes leave or enter the model, by Atom; once, also where several passes had them."""
    state = recording.state
    ports: dict[int, dict[Port, None]] = {}

    def note(term: Term, name: str, direction: Literal["input", "output"], dim: int | None) -> None:
        for atom, layout in placements(term):
            ports.setdefault(atom.id, {})[Port(name, direction, dim, layout)] = None

    for number, name in state.inputs.items():
        if number in state.domains:
            note(state.domains[number], name, "input", None)
        for dim, term in enumerate(recording.dims(Value(number))):
            note(term, name, "input", dim)
    for name, value in recording.outputs.items():
        for dim, term in enumerate(recording.dims(value)):
            note(term, name, "output", dim)
    return {number: list(found) for number, found in ports.items()}


def _embedded(recording: Recording, terms: Mapping[str, list[Term]]) -> list[Term]:
    """What rows of tables that inputs index are made of: the stream, where no module is a Block of one."""
    state = recording.state
    rows = {
        atom.id
        for number in state.inputs
        if number in state.domains
        for atom in atoms_of(state.domains[number])
    }
    tables = [dims for dims in terms.values() if len(dims) == 2]
    return [dims[1] for dims in tables if rows & {atom.id for atom in atoms_of(dims[0])}]


def _is_vocab(ports: list[Port], reads_ids: bool) -> bool:
    """Indexed by an input's values, or an output's features of a model that reads such values."""
    return any(port.dim is None or (port.direction == "output" and reads_ids) for port in ports)


def _stream_axis(stack: Stack, hidden: frozenset[int], axes: Mapping[int, str]) -> str | None:
    names = [axes[number] for number in sorted(hidden) if number in axes]
    return names[0] if names else None


def _notes(recording: Recording, parameters: Mapping[str, Parameter]) -> tuple[str, ...]:
    notes = [
        f"no rule for aten.{op}, met in {', '.join(sorted(modules)[:3])}: what it touches is locked"
        for op, modules in sorted(recording.state.unruled.items())
    ]
    untouched = [name for name, p in parameters.items() if not p.touched and not p.buffer]
    if untouched:
        listing = ", ".join(untouched[:5]) + (", …" if len(untouched) > 5 else "")
        notes.append(f"{len(untouched)} parameters were not used in this forward pass: {listing}")
    return tuple(notes)
