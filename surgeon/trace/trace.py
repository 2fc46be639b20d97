"""Trace a module into a Graph: record, propagate, name.

No weight is read: parameters are replaced by tensors without storage for the forward pass, so a
module on the meta device will do, whatever its size. Several kinds of input are recorded into one
Graph. The module is left as it was.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from surgeon.errors import TraceError
from surgeon.graph import Graph, Parameter
from surgeon.rebuild.execution import plain_execution
from surgeon.trace.advice import without_advice
from surgeon.trace.assemble import assemble
from surgeon.trace.calls import Call, module_calls
from surgeon.trace.escapes import escapes
from surgeon.trace.fake import storage_less
from surgeon.trace.inputs import data_sizes, example_inputs, further_inputs, kind_inputs, longer_inputs
from surgeon.trace.propagate import propagate
from surgeon.trace.record import Recorder, Value
from surgeon.trace.recording import Recording
from surgeon.trace.state import TraceState
from surgeon.trace.taint import Taint

__all__ = ["recorded_inputs", "trace_module"]


def trace_module(
    module: nn.Module,
    inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    *,
    strict: bool = False,
) -> Graph:
    """The Graph of `module`.

    Args:
        module: any module, with weights or on the meta device; transformers' models need no inputs.
        inputs: keyword arguments of one forward pass, or of several that reach different parts, for a
            module that is not a language model. Sizes of batch and sequence should be primes that no
            parameter dim has.
        strict: make an op without a rule an error instead of a lock.

    Raises:
        TraceError: the forward pass fails, or `strict` and an op without a rule.
    """
    if inputs is None:
        feeds = [example_inputs(module)]
    else:
        feeds = [dict(inputs)] if isinstance(inputs, Mapping) else [dict(feed) for feed in inputs]
    with storage_less(module), plain_execution(module), without_advice(module):
        recording = _record(module, feeds, optional=inputs is None)
    propagate(recording.state, strict=strict)
    return assemble(recording, module)


def recorded_inputs(module: nn.Module) -> tuple[Mapping[str, Any], ...]:
    """Keyword arguments of every forward pass that a trace of `module` without given inputs is made of.

    Text first, then whatever else reaches further parameters: states of an encoder, images, sounds.

    Raises:
        TraceError: as `trace_module`.
    """
    with storage_less(module), plain_execution(module), without_advice(module):
        return _record(module, [example_inputs(module)], optional=True).feeds


def _record(module: nn.Module, feeds: list[dict[str, Any]], *, optional: bool) -> Recording:
    """Run `module` on every feed; where `optional`, also on inputs that reach what these left out.

    Raises:
        TraceError: a pass fails, where `optional` all of them.
    """
    recorder = Recorder()
    state = TraceState(recorder)
    parameters, values = _parameters(module, recorder)
    for value, aliases in values.items():
        state.origins[value.id] = frozenset(aliases[:1])
        state.dims_of(value)
    initial = {name: _atom_numbers(state, value) for value, aliases in values.items() for name in aliases}
    outputs: dict[str, Value] = {}
    done: list[dict[str, Any]] = []
    with torch.no_grad(), escapes(recorder), module_calls(recorder, module) as calls:
        run = functools.partial(_attempt, module, state=state, calls=calls, outputs=outputs, done=done)
        failures = [error for feed in feeds if (error := run(feed, optional=optional)) is not None]
        if optional:
            learned = {v.id: names[0] for v, names in values.items() if not parameters[names[0]].buffer}
            _record_the_rest(module, feeds[0], run, state, learned, calls)
        if failures and not recorder.events:
            raise failures[0]
    return Recording(state, parameters, _by_name(values), initial, calls, outputs, tuple(done))


def _record_the_rest(
    module: nn.Module,
    feed: dict[str, Any],
    run: Callable[..., TraceError | None],
    state: TraceState,
    learned: Mapping[int, str],
    calls: list[Call],
) -> None:
    """Run other kinds of input while parameters are untouched; of each kind the first that reaches some.

    Before that, what says for every token which row of a table to read, where one was read for all of them.
    At last a long text, where a layer that read the text left parameters of its own out.
    """
    recorder = state.recorder
    layers = tuple({f"{call.path}." for call in calls if call.path.rpartition(".")[2].isdigit()})
    if _reads_one_row(state):
        next((extra for extra in kind_inputs(module, feed) if run(extra, optional=True) is None), None)
    for ways in further_inputs(module, feed):
        untouched = learned.keys() - _read(recorder)
        if not untouched:
            return
        next((extra for extra in ways if run(extra, optional=True, wanted=untouched) is None), None)
    untouched = learned.keys() - _read(recorder)
    if any(learned[number].startswith(layers) for number in untouched):
        ways = longer_inputs(module, feed)
        next((long for long in ways if run(long, optional=True, wanted=untouched) is None), None)


def _reads_one_row(state: TraceState) -> bool:
    """Whether a table of several rows was read at the same one for all tokens, whatever these are."""
    taint, tensors = Taint(state.inputs), state.recorder.tensors
    for event in state.recorder.events:
        taint.follow(event)
        if event.name == "embedding" and event.inputs[1].id not in taint.values:
            rows, index = (tensors[value.id] for value in event.inputs[:2])
            real = not isinstance(index, FakeTensor) and index.numel() > 0
            if real and rows.shape[0] > 1 and bool((index == index.flatten()[0]).all()):
                return True
    return False


def _read(recorder: Recorder) -> set[int]:
    """Every value that some op took in."""
    return {value.id for event in recorder.events for value in event.inputs}


def _attempt(
    module: nn.Module,
    feed: dict[str, Any],
    *,
    optional: bool,
    state: TraceState,
    calls: list[Call],
    outputs: dict[str, Value],
    done: list[dict[str, Any]],
    wanted: Set[int] | None = None,
) -> TraceError | None:
    """One forward pass; where `optional`, one that fails leaves no event behind and is only returned.

    So does one that reads none of the `wanted` values.
    """
    recorder = state.recorder
    events, called, sizes = len(recorder.events), len(calls), state.data_sizes
    try:
        output = _forward(module, feed, state)
        if wanted is not None and not wanted & _read(recorder):
            raise TraceError("this forward pass reaches no parameter that others did not")
    except TraceError as error:
        if not optional:
            raise
        del recorder.events[events:], calls[called:]
        state.data_sizes = sizes
        return error
    for name, tensor in _named_outputs(output):
        if (value := recorder.known(tensor)) is not None:
            outputs.setdefault(name, value)
    done.append(feed)
    return None


def _forward(module: nn.Module, feed: dict[str, Any], state: TraceState) -> Any:
    recorder = state.recorder
    state.data_sizes |= data_sizes(feed, module)
    for name, tensor in feed.items():
        if isinstance(tensor, torch.Tensor):
            value = recorder.value(tensor)
            state.inputs[value.id] = name
            state.tainted.add(value.id)
    try:
        with recorder:
            return module(**feed)
    except TraceError:
        raise
    except Exception as error:
        raise TraceError(
            f"the forward pass of {type(module).__name__} failed in {recorder.failed or 'the model'} after "
            f"{len(recorder.events)} ops: {type(error).__name__}: {error}",
            hint="run the model on the same inputs with eager attention; pass other inputs if it needs them",
        ) from error


def _parameters(module: nn.Module, recorder: Recorder) -> tuple[dict[str, Parameter], dict[Value, list[str]]]:
    """Every named tensor of the module, and the recorded value of each storage."""
    volatile = {
        f"{path}.{name}" if path else name
        for path, child in module.named_modules()
        for name in child._non_persistent_buffers_set
    }
    tensors: dict[str, torch.Tensor] = dict(module.named_parameters(remove_duplicate=False))
    learned = set(tensors)
    tensors |= dict(module.named_buffers(remove_duplicate=False))
    parameters: dict[str, Parameter] = {}
    values: dict[Value, list[str]] = {}
    for name, tensor in tensors.items():
        aliases = values.setdefault(recorder.value(tensor), [])
        parameters[name] = Parameter(
            name,
            tuple(tensor.shape),
            buffer=name not in learned,
            stored=name not in volatile,
            tied_to=aliases[0] if aliases else None,
        )
        aliases.append(name)
    return parameters, values


def _by_name(values: dict[Value, list[str]]) -> dict[str, Value]:
    return {name: value for value, aliases in values.items() for name in aliases}


def _atom_numbers(state: TraceState, value: Value) -> list[int]:
    return [term.id for term in state.dims_of(value)]  # type: ignore[union-attr]  # all Atoms before any op


def _named_outputs(output: Any) -> list[tuple[str, torch.Tensor]]:
    """The tensors that a forward pass returned, with the field they came in."""
    if isinstance(output, torch.Tensor):
        return [("output", output)]
    if isinstance(output, Mapping):
        return [(name, tensor) for name, tensor in output.items() if isinstance(tensor, torch.Tensor)]
    if isinstance(output, (tuple, list)):
        return [(str(n), tensor) for n, tensor in enumerate(output) if isinstance(tensor, torch.Tensor)]
    return []
