"""Which children of a Block compute each summand of its residual stream, and what they are."""

from __future__ import annotations

from surgeon.graph import Sublayer, SublayerRole
from surgeon.trace.calls import Call
from surgeon.trace.propagate import is_convolution
from surgeon.trace.record import Event, Value
from surgeon.trace.rule import base_name
from surgeon.trace.state import TraceState

__all__ = ["sublayers_of"]


def sublayers_of(
    state: TraceState,
    call: Call,
    source: Value,
    additions: tuple[tuple[Event, Value, Value], ...],
    called: set[str],
    sizes: dict[str, int],
) -> tuple[Sublayer, ...]:
    """The sublayers of the Block that `call` ran, in order of execution.

    A summand that is itself a sum of activations (a parallel residual) counts as several. The ops
    behind a summand are followed back to the stream; the Block's children that ran them belong to
    the sublayer, the norms in front included.
    """
    events = state.recorder.events[call.first_event : call.last_event]
    writers = _writers(events)
    stream = {source.id}
    found: dict[str, tuple[int, SublayerRole, list[str], str]] = {}
    for addition, carried, summand in additions:
        stream.add(carried.id)
        for leaf, before in _summands(summand, addition.index, writers, state):
            behind = _behind(leaf, before, writers, stream)
            children = _children(call.path, behind, called)
            if not children:
                continue
            name = max(children, key=lambda child: (sizes.get(child, 0), -children.index(child)))
            start = next((event.index for event in behind if f"{event.module}.".startswith(f"{name}.")), 0)
            first, role, known, _ = found.get(name, (start, "mlp", [], ""))
            role = _role(behind, state) or role
            known = known + [child for child in children if child not in known]
            found[name] = (first, role, known, addition.module)
        stream.update(value.id for value in addition.outputs)
    ordered = sorted(found.items(), key=lambda item: item[1][0])
    return tuple(Sublayer(name, role, tuple(children), joins) for name, (_, role, children, joins) in ordered)


def _role(events: list[Event], state: TraceState) -> SublayerRole | None:
    """What mixes positions: a convolution or steps along the sequence, a contraction, or nothing."""
    if any(is_convolution(event.name) for event in events if event.index in state.scans):
        return "mixer"
    if any(event.index in state.mixing for event in events):
        return "attn"
    return "mixer" if sum(event.index in state.scans for event in events) > 1 else None


def _writers(events: list[Event]) -> dict[int, list[Event]]:
    """Who wrote each value, in order; a write into a view is a write into what it is a view of."""
    writers: dict[int, list[Event]] = {}
    bases: dict[int, int] = {}
    for event in events:
        if base_name(event.name) in ("slice", "select", "view", "transpose", "alias") and event.inputs:
            bases.update({value.id: event.inputs[0].id for value in event.outputs})
        in_place = base_name(event.name) != event.name
        for value in event.outputs:
            writers.setdefault(value.id, []).append(event)
            base = bases.get(value.id) if in_place else None
            while base is not None:
                writers.setdefault(base, []).append(event)
                base = bases.get(base)
    return writers


def _writer(value: Value, before: int, writers: dict[int, list[Event]]) -> Event | None:
    """The last event before `before` that wrote `value` (in-place ops write a value again)."""
    return next((event for event in reversed(writers.get(value.id, [])) if event.index < before), None)


def _summands(
    value: Value, before: int, writers: dict[int, list[Event]], state: TraceState
) -> list[tuple[Value, int]]:
    """`value`, or the activations that it is the plain sum of; each with the event that reads it."""
    event = _writer(value, before, writers)
    if event is None:
        return [(value, before)]
    tensors = state.recorder.tensors
    whole = [v for v in event.inputs if tensors[v.id].shape == tensors[value.id].shape]
    if base_name(event.name) == "add" and len(whole) == 2:
        return [leaf for v in whole for leaf in _summands(v, event.index, writers, state)]
    return [(value, before)]


def _behind(value: Value, before: int, writers: dict[int, list[Event]], stream: set[int]) -> list[Event]:
    """Every event that `value` depends on, back to the stream, in order."""
    seen: dict[int, Event] = {}
    waiting = [(value, before)]
    while waiting:
        current, limit = waiting.pop()
        if current.id in stream:
            continue
        event = _writer(current, limit, writers)
        if event is None or event.index in seen:
            continue
        seen[event.index] = event
        waiting.extend((v, event.index) for v in event.inputs)
    return [seen[index] for index in sorted(seen)]


def _children(block: str, events: list[Event], called: set[str]) -> list[str]:
    """The outermost called modules below `block` under which `events` ran."""
    children: dict[str, None] = {}
    for event in events:
        if not event.module.startswith(f"{block}."):
            continue
        path = block
        for part in event.module[len(block) + 1 :].split("."):
            path = f"{path}.{part}"
            if path in called:
                children[path] = None
                break
    return list(children)
