"""What parameters that no op touched may share with those that some did: such Axes are locked.

A module that was not called can only be handed what the forward passes of the modules around it see: what
they take in, compute by themselves, and get back from the parts that they call. An Axis that none of these
tensors has is out of its reach, however equal the sizes; so is one whose size the parameter does not have.
Not here: inputs that reach more parameters (`inputs`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from surgeon.graph import Graph, Group, Parameter
from surgeon.trace.mentioned import unmentioned
from surgeon.trace.record import Value
from surgeon.trace.recording import Recording
from surgeon.trace.terms import atoms_of

__all__ = ["lock_beside_untouched"]

_WHY = "parameters that this forward pass did not use may share it"


def lock_beside_untouched(
    graph: Graph, recording: Recording, atoms: Mapping[str, int], module: nn.Module
) -> Graph:
    """Lock what untouched parameters might consume: Axes of equal size that the modules around them see.

    `atoms` gives the number of the Atom that each Axis is. Parameters of `module` that no code names do not
    count.
    """
    left = [p for p in graph.parameters.values() if not p.touched and not p.buffer]
    idle = unmentioned(module, [p.name for p in left]) if left else ()
    untouched = [p for p in left if p.name not in idle]
    if not untouched:
        return graph
    seen = _seen(recording)
    blocks = {p.name: _block_of(p, graph) for p in untouched}
    reach = {path: _reach(path, seen) for path in {p.name.rpartition(".")[0] for p in untouched}}

    def change(group: Group) -> Group:
        shared = any(
            _extent(group, graph) in parameter.shape
            and group.block in (None, blocks[parameter.name])
            and atoms[group.name] in reach[parameter.name.rpartition(".")[0]]
            for parameter in untouched
        )
        return group.lock([_WHY]) if shared and group.size > 1 else group

    return graph.map_groups(change)


def _block_of(parameter: Parameter, graph: Graph) -> str | None:
    return next((b.name for b in graph.blocks if parameter.name.startswith(f"{b.name}.")), None)


def _extent(group: Group, graph: Graph) -> int:
    """The size that a parameter must have to share a Group: of a part of a vocabulary, that of the whole."""
    if group.kind != "vocab":
        return group.size
    return max(graph.parameters[site.param].shape[site.dim] for site in group.sites)


def _seen(recording: Recording) -> dict[str, set[int]]:
    """By module path, the Atoms of all tensors that its forward pass sees."""
    seen: dict[str, set[int]] = {}
    known: dict[int, set[int]] = {}

    def note(path: str, value: Value) -> None:
        if value.id not in known:
            known[value.id] = {atom.id for term in recording.dims(value) for atom in atoms_of(term)}
        seen.setdefault(path, set()).update(known[value.id])

    for call in recording.calls:
        for value in (*call.inputs, *call.outputs):
            note(call.path, value)
            note(call.path.rpartition(".")[0], value)
    for event in recording.state.recorder.events:
        for value in (*event.inputs, *event.outputs):
            note(event.module, value)
    return seen


def _reach(path: str, seen: Mapping[str, set[int]]) -> set[int]:
    """What may be handed to the module at `path`: all that it and the modules around it see."""
    return set().union(*(seen.get(around, set()) for around in _around(path)))


def _around(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""
