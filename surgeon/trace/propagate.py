"""Walk the recorded Events and let each op's rule say what it couples."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensor

from surgeon.errors import UnsupportedOpError
from surgeon.trace.escapes import ESCAPES
from surgeon.trace.lanes import find_lanes
from surgeon.trace.record import Event
from surgeon.trace.rule import Op, Rule, base_name, rules
from surgeon.trace.rules.special import judge_named
from surgeon.trace.state import TraceState
from surgeon.trace.terms import Atom, is_data
from surgeon.trace.unify import Mismatch

__all__ = ["is_contraction", "is_convolution", "propagate"]

_VIEWS = frozenset(
    {
        "t",
        "transpose",
        "permute",
        "unsqueeze",
        "squeeze",
        "view",
        "_unsafe_view",
        "expand",
        "slice",
        "select",
        "split",
        "split_with_sizes",
        "chunk",
        "unbind",
        "alias",
        "detach",
        "clone",
        "_to_copy",
        "index_select",
        "index",
        "flip",
        "reshape",
    }
)


_CONTRACTIONS = frozenset(
    {
        "mm",
        "bmm",
        "addmm",
        "baddbmm",
        "addbmm",
        "mv",
        "dot",
        "linear",
        "convolution",
        "_convolution",
        "embedding",
        "_grouped_mm",
    }
)


def is_contraction(name: str) -> bool:
    """Whether an op leaves the residual stream: it contracts, or looks rows up."""
    return name in _CONTRACTIONS or "scaled_dot_product" in name


def is_convolution(name: str) -> bool:
    """Whether an op slides a kernel."""
    return name in ("convolution", "_convolution")


def propagate(state: TraceState, *, strict: bool = False) -> None:
    """Apply the rules to every event of the recording, in order.

    An op without a rule locks the Axes that enter and leave it, with the op and the module path as
    reason, and the trace goes on.

    Raises:
        UnsupportedOpError: under `strict`, for the first op without a rule.
    """
    state.read.update(value.id for event in state.recorder.events for value in event.inputs)
    state.lanes = find_lanes(state.recorder)
    met = set(state.dims) | set(state.inputs)
    early: list[tuple[Rule, Op]] = []
    for event in state.recorder.events:
        _spread_facts(event, state)
        _meet_constants(event, state, met)
        if not event.outputs:
            _lock_escapes(event, state)
            continue
        op = Op(event, state)
        state.unifier.op, state.unifier.module = f"aten.{op.name}", event.module
        rule = _rule_for(event)
        if rule is None:
            _without_rule(op, strict)
            continue
        try:
            rule(op)
        except Mismatch as error:
            _lock_all(op, f"does not fit its rule: {error}")
        op.lock_unfollowed()
        if any(state.is_input(value) and op.domain(value) is None for value in op.inputs):
            early.append((rule, op))
    _look_again(early)
    judge_named(state)


def _look_again(early: list[tuple[Rule, Op]]) -> None:
    """Ids may be compared or replaced before they are looked up, which tells what they index: judge again."""
    for rule, op in early:
        if rule in map(rules.get, ("pointwise", "index", "constant_pad_nd", "cat")):
            op.state.unifier.op, op.state.unifier.module = f"aten.{op.name}", op.event.module
            rule(op)
            op.lock_unfollowed()


def _rule_for(event: Event) -> Rule | None:
    name = base_name(event.name)
    rule = rules.find(name)
    if rule is None and torch.Tag.pointwise in event.func.tags:
        return rules.get("pointwise")
    return rule


def _spread_facts(event: Event, state: TraceState) -> None:
    """Taint and parameter views pass from inputs to outputs."""
    inputs, outputs = event.inputs, event.outputs
    if not _picks_of_one(event, state):
        state.taint.follow(event)
    if inputs and base_name(event.name) in _VIEWS and inputs[0].id in state.origins:
        for value in outputs:
            state.origins.setdefault(value.id, state.origins[inputs[0].id])


def _picks_of_one(event: Event, state: TraceState) -> bool:
    """Whether places are picked, by whatever index, of a tensor that is one number throughout."""
    if (
        base_name(event.name) not in ("gather", "index_select", "index")
        or event.inputs[0].id in state.tainted
    ):
        return False
    source = state.recorder.tensors[event.inputs[0].id]
    return not isinstance(source, FakeTensor) and bool((source == source.flatten()[:1]).all())


def _lock_escapes(event: Event, state: TraceState) -> None:
    """A value that leaves for Python (``item``, ``tolist``) takes what it indexes out of sight."""
    op = Op(event, state)
    for value in op.inputs:
        domain = op.domain(value)
        if domain is not None and value.id in state.tainted:
            op.lock(domain, "its indices leave for Python")
        seen = event.name not in ESCAPES or value.id in state.lanes.counts
        for term in () if seen else op.dims(value):
            if not is_data(term):
                op.lock(term, "its positions leave for Python")


def _meet_constants(event: Event, state: TraceState, met: set[int]) -> None:
    """A tensor that no op made and the module does not name is a constant of the forward pass."""
    for value in event.inputs:
        if value.id in met:
            continue
        tensor = state.recorder.tensors[value.id]
        for dim, term in enumerate(state.dims_of(value)):
            if tensor.shape[dim] < 2:
                continue
            alike = not isinstance(tensor, FakeTensor) and bool((tensor == tensor.narrow(dim, 0, 1)).all())
            if not alike:
                state.constants.add(value.id)
                state.unifier.mark(term, "constant")
    met.update(value.id for value in [*event.inputs, *event.outputs])


def _without_rule(op: Op, strict: bool) -> None:
    if strict:
        raise UnsupportedOpError(
            f"no rule for aten.{op.name} in {op.event.module or 'the model'}, "
            f"inputs {[op.shape(value) for value in op.inputs]}",
            hint=f"add surgeon/trace/rules/{op.name.strip('_')}.py, or trace without strict",
        )
    op.state.unruled.setdefault(op.name, set()).add(op.event.module or "the model")
    _lock_all(op, "an op without a rule")


def _lock_all(op: Op, why: str) -> None:
    for value in [*op.inputs, *op.outs]:
        for term in op.dims(value):
            if not (isinstance(term, Atom) and "data" in term.marks):
                op.lock(term, why)
    op.lock_unfollowed()
