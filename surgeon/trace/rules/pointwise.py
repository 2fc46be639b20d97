"""Element-wise ops: operands and result are broadcast together, dim by dim from the right."""

from __future__ import annotations

from typing import Any

import torch

from surgeon.graph import Role
from surgeon.trace.record import Value
from surgeon.trace.rule import Op, rules
from surgeon.trace.rules.special import bounds, compares, replaces, without_last
from surgeon.trace.terms import Term

__all__ = ["broadcast"]

_KEEPS_INDEX = frozenset(
    {
        "clone",
        "contiguous",
        "detach",
        "alias",
        "_to_copy",
        "clamp",
        "clamp_min",
        "clamp_max",
        "copy",
        "where",
        "masked_fill",
        "lift_fresh",
        "fill",
    }
)
_MIXES = frozenset({"where", "masked_fill", "fill", "copy"})
_INDEX_DTYPES = ("int64", "int32")


def broadcast(op: Op, terms: list[Term], value: Value, role: Role | None = None) -> None:
    """Unify the dims of `value` with those of `terms`, from the right, sizes of one apart."""
    dims = op.dims(value)
    for mine, theirs in zip(reversed(terms), reversed(dims), strict=False):
        if theirs.size == mine.size and theirs.size != 1:
            op.unify(mine, theirs)
            if role is not None:
                op.note_role(value, theirs, role)


@rules.register(
    "pointwise",
    "masked_fill",
    "clone",
    "contiguous",
    "detach",
    "alias",
    "_to_copy",
    "lift_fresh",
    "lift",
    "copy",
    "fill",
    "zero",
    "where",
    "clamp",
    "native_dropout",
    "bernoulli",
    "uniform",
    "normal",
    "exponential",
    "zeros_like",
    "ones_like",
    "empty_like",
    "full_like",
    "rand_like",
    "randn_like",
    "log_sigmoid_forward",
    "polar",
    "_conj",
    "floor_divide",
    "isin",
    "_prelu_kernel",
)
def pointwise(op: Op) -> None:
    """Also the default for every op that torch tags ``pointwise``."""
    out = op.out
    sizes = op.shape(out)
    if out.id in op.state.dims:
        terms = op.dims(out)
    else:
        terms = _from_inputs(op, sizes)
        op.set(out, terms)
    for value in op.inputs:
        broadcast(op, terms, value, role="pointwise")
    for value in op.outs[1:]:
        if op.shape(value) == sizes:
            op.set(value, list(terms))
    _pass_indices(op)
    _pass_constants(op)


def _from_inputs(op: Op, sizes: list[int]) -> list[Term]:
    """For each dim of the result the first operand's dim that fills it."""
    terms: list[Term | None] = [None] * len(sizes)
    for value in op.inputs:
        for back, term in enumerate(reversed(op.dims(value)), start=1):
            if back <= len(sizes) and terms[-back] is None and term.size == sizes[-back] and term.size != 1:
                terms[-back] = term
    return [
        term if term is not None else op.state.new_atom(size) for term, size in zip(terms, sizes, strict=True)
    ]


def _pass_indices(op: Op) -> None:
    """Copies index the same axis; arithmetic on indices hides which."""
    integral = str(op.tensor(op.out).dtype).removeprefix("torch.") in _INDEX_DTYPES
    for value in op.inputs:
        domain = op.domain(value)
        if integral and op.name in _KEEPS_INDEX and (domain is not None or op.state.is_input(value)):
            if domain is not None and op.name in _MIXES:
                replaces(op, domain, _mixed_in(op, value))
            if domain is not None and op.name.startswith("clamp"):
                bounds(op, value, domain)
            left = None if domain is None else without_last(op, value, domain)
            if left is None:
                op.pass_domain(value, op.out)
            else:
                op.follow(value)
                op.set_domain(op.out, left)
            return
        if domain is not None and (op.name.endswith("_like") or compares(op, value, domain)):
            op.follow(value)


def _mixed_in(op: Op, index: Value) -> list[Any]:
    """What stands beside the indices; not the condition that says where, or what is overwritten."""
    if op.name == "copy" and index == op.args[1]:
        return []
    masks = {value for value in op.inputs if op.tensor(value).dtype == torch.bool}
    given = [*op.args, *op.event.kwargs.values()]
    return [arg for arg in given if arg is not None and arg != index and arg not in masks]


def _pass_constants(op: Op) -> None:
    """A result of constants alone is a constant."""
    if op.inputs and all(value.id in op.state.constants for value in op.inputs):
        op.state.constants.add(op.out.id)
        for term in op.dims(op.out):
            op.mark(term, "constant")
