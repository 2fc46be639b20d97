"""Index tensors beside numbers: ids that are compared with, or replaced by, numbers that forward knows.

Such an id is an index of its own, and the axis falls into what lies before and behind it, each a symmetry by
itself. A cut before it renumbers it, and the config that says the number has to follow
(`surgeon.rebuild.config_ids`). The same goes for the one row of a table that is always read, but for what
lies beside it, which nothing reads. Not a rule of its own: `pointwise` and the tables ask.
"""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Iterable
from typing import Any

import torch

from surgeon.trace.record import Value
from surgeon.trace.rule import Op
from surgeon.trace.rules.segments import picked_apart, segment
from surgeon.trace.state import TraceState
from surgeon.trace.terms import Atom, Term, atoms_of, resolve

__all__ = ["bounds", "compares", "judge_named", "names_one", "replaces", "without_last"]

_COMPARES = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
_MANY = 16
"""More special ids than this are no special ones."""


def compares(op: Op, index: Value, domain: Term) -> bool:
    """Whether the op compares indices of one axis with each other, or with numbers, which are set apart."""
    if op.name in _COMPARES:
        other = op.args[1] if op.args[0] == index else op.args[0]
        theirs = op.domain(other) if isinstance(other, Value) else None
        if theirs is not None:
            return resolve(theirs) is resolve(domain)
    elif op.name != "isin" or op.args[0] != index:
        return False
    known = [_known(op, arg) for arg in op.args if arg != index]
    if any(one is None for one in known):
        return False
    among = torch.arange(domain.size)
    answers = op.event.func(*(among if arg == index else known.pop(0) for arg in op.args))
    borders = ((answers[1:] != answers[:-1]).nonzero().flatten() + 1).tolist()
    if len(borders) > _MANY:
        return False
    _set_apart(op, domain, borders)
    return True


def bounds(op: Op, index: Value, domain: Term) -> None:
    """Lock an axis some of whose indices are brought within bounds, and so become others."""
    among = torch.arange(domain.size)
    known = [_known(op, arg) if arg is not None and arg != index else None for arg in op.args]
    unknown = any(
        isinstance(arg, Value) and one is None for arg, one in zip(op.args[1:], known[1:], strict=True)
    )
    if unknown or bool((op.event.func(among, *known[1:], **op.event.kwargs) != among).any()):
        op.lock(domain, "brought within bounds")


def replaces(op: Op, domain: Term, values: Iterable[Any]) -> None:
    """`values` are put among indices of `domain`: numbers are set apart, anything unknown locks it."""
    for value in values:
        if isinstance(value, bool) or (isinstance(value, Value) and op.domain(value) is not None):
            continue
        known = _known(op, value)
        found = torch.as_tensor([] if known is None else known).unique().tolist()
        if known is None or len(found) > _MANY:
            op.lock(domain, "mixed with numbers that are not its indices")
            continue
        inside = [int(number) for number in found if 0 <= number < domain.size]
        _set_apart(op, domain, sorted({border for number in inside for border in (number, number + 1)}))


def without_last(op: Op, index: Value, domain: Term) -> Term | None:
    """What indices of `domain` run over once the last of them is replaced by another; None for all else."""
    last, root = domain.size - 1, op.state.index_root(index.id)
    if op.state.index_root(op.out.id) == root:  # the indices themselves: written in place, or judged again
        return None
    if op.event.name != "masked_fill" or op.args[0] != index or _known(op, op.args[2]) not in range(last):
        return None
    mask = op.args[1]
    maker = next((e for e in reversed(op.state.recorder.events[: op.event.index]) if mask in e.outputs), None)
    if maker is None or maker.name != "eq" or maker.args[1] != last:
        return None
    same = op.state.index_root(maker.args[0].id) == root
    return segment(op, domain, 0, last) if same else None


def names_one(op: Op, index: Value, rows: Term) -> bool:
    """Whether an index is one number throughout, whatever the inputs; that row is judged by `judge_named`."""
    known = None if op.state.is_input(index) or op.domain(index) is not None else _known(op, index)
    found = [] if known is None else known.unique().tolist()
    if len(found) != 1 or not 0 <= found[0] < rows.size:
        return False
    op.state.named.append((op.event, rows, found[0]))
    return True


def judge_named(state: TraceState) -> None:
    """Set the rows apart that are read by their number; lock those beside one that no input indexes."""
    for event, rows, number in state.named:
        op, indexed = Op(event, state), _indexed_by_inputs(state, rows)
        if op.name == "select" and not indexed:
            picked_apart(op, rows, number)
            continue
        for start, stop in ((0, number), (number + 1, rows.size)):
            beside = segment(op, rows, start, stop)
            if not indexed:
                op.lock(beside, "a row beside it is read by its number, and no other")
                op.mark(beside, "position")


def _known(op: Op, arg: Any) -> Any:
    """A number, or a tensor of numbers that does not depend on the inputs; None for anything else."""
    if isinstance(arg, numbers.Number):
        return arg
    if not isinstance(arg, Value) or arg.id in op.state.tainted or hasattr(op.tensor(arg), "fake_mode"):
        return None
    return op.tensor(arg)


def _indexed_by_inputs(state: TraceState, term: Term) -> bool:
    """Whether what an input says are indices of all of `term`."""
    read = {atom.id for index in state.inputs for atom in atoms_of(state.domains.get(index, Atom(0)))}
    return all(atom.id in read for atom in atoms_of(term) if atom.size > 1)


def _set_apart(op: Op, domain: Term, borders: list[int]) -> None:
    """Cut `domain` at `borders`; what no input indexes, and no field of a config need follow, is locked.

    But not what lies before the last of all indices: that is numbered by how many there are.
    """
    free = _indexed_by_inputs(op.state, domain)
    for start, stop in itertools.pairwise([0, *borders, domain.size]):
        if 0 <= start < stop <= domain.size:
            part = segment(op, domain, start, stop)
            if not free and stop < domain.size - 1:
                op.lock(part, "cutting it would renumber an index that forward knows")
