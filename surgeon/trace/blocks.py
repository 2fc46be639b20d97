"""Find Blocks and Stacks: modules whose output is their input plus something.

A Block is a called module in a numbered container whose output has its input's shape and from whose
output a path leads back to the input that passes an addition and no contraction: the residual
stream, or several of them side by side. What is added on that path are its sublayers. Blocks of one
container form a Stack.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from surgeon.graph import Block, Stack, Sublayer
from surgeon.trace.calls import Call
from surgeon.trace.propagate import is_contraction
from surgeon.trace.record import Event, Value
from surgeon.trace.rule import base_name
from surgeon.trace.state import TraceState
from surgeon.trace.sublayers import sublayers_of

__all__ = ["Residual", "find_stacks"]


@dataclass(frozen=True, slots=True)
class Residual:
    """The residual path of one Block call: the additions, each with its stream and its summand."""

    call: Call
    source: Value
    output: Value
    additions: tuple[tuple[Event, Value, Value], ...]


def find_stacks(
    state: TraceState, calls: list[Call], sizes: dict[str, int]
) -> tuple[tuple[Stack, ...], list[Value]]:
    """All Stacks, outermost Blocks only, and the streams' output values.

    Args:
        state: the propagated recording.
        calls: every module call, innermost first.
        sizes: number of parameter elements by module path.
    """
    found: dict[str, Residual] = {}
    for call in calls:
        if _numbered(call.path) and (residual := _residual(state, call)) is not None:
            known = found.get(call.path)
            if known is None or len(residual.additions) > len(known.additions):
                found[call.path] = residual
    outer = {path: r for path, r in found.items() if not any(_inside(path, other) for other in found)}
    called = {call.path for call in calls}
    containers: dict[str, list[Residual]] = {}
    for path, residual in sorted(outer.items(), key=lambda item: item[1].call.first_event):
        containers.setdefault(path.rpartition(".")[0], []).append(residual)
    stacks = []
    for container, residuals in containers.items():
        blocks = tuple(
            Block(r.call.path, number, _sublayers(state, r, called, sizes))
            for number, r in enumerate(residuals)
        )
        stacks.append(Stack(container, blocks))
    return tuple(stacks), [residual.output for residual in outer.values()]


def _sublayers(
    state: TraceState, residual: Residual, called: set[str], sizes: dict[str, int]
) -> tuple[Sublayer, ...]:
    return sublayers_of(state, residual.call, residual.source, residual.additions, called, sizes)


def _numbered(path: str) -> bool:
    return path.rpartition(".")[2].isdigit()


def _inside(path: str, other: str) -> bool:
    return path.startswith(f"{other}.")


def _mixes_streams(event: Event, carried: set[int]) -> bool:
    """Several streams side by side, mixed by a matrix made of activations: their features stay apart."""
    return event.name == "bmm" and event.args[1].id in carried and event.args[0].id not in carried


def _has_features(shape: torch.Size, stream: torch.Size) -> bool:
    """Whether a value made of the stream still has its features: a norm's factor has not."""
    return shape.numel() == stream.numel() or (len(shape) > 0 and shape[-1] == stream[-1])


def _residual(state: TraceState, call: Call) -> Residual | None:
    """The residual path of a call, if its output is its input plus something."""
    if not call.inputs or not call.outputs:
        return None
    tensors = state.recorder.tensors
    output = call.outputs[0]
    shape = tensors[output.id].shape
    source = next((v for v in call.inputs if tensors[v.id].shape == shape and v.id not in state.inputs), None)
    if source is None or len(shape) < 2:
        return None
    events = state.recorder.events[call.first_event : call.last_event]
    if not any(is_contraction(event.name) for event in events):
        return None
    carried = {source.id}
    additions: list[tuple[Event, Value, Value]] = []
    for event in events:
        inputs = event.inputs
        stream = [value for value in inputs if value.id in carried]
        if not stream or (is_contraction(event.name) and not _mixes_streams(event, carried)):
            continue
        others = [
            v for v in inputs if v.id not in carried and tensors[v.id].shape == tensors[stream[0].id].shape
        ]
        adds = base_name(event.name) in ("add", "sub") and tensors[stream[0].id].numel() == shape.numel()
        if adds and others:
            additions.append((event, stream[0], others[0]))
        carried.update(v.id for v in event.outputs if _has_features(tensors[v.id].shape, shape))
    if output.id not in carried or not additions:
        return None
    return Residual(call, source, output, tuple(additions))
