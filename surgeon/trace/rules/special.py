"""Index tensors beside numbers: ids that are compared with, or replaced by, numbers that forward knows.

Such an id is an index of its own, and the axis falls into what lies before and behind it. What lies behind
all of them is as free as ever; what lies before one is locked, since cutting it would renumber that id.
The same goes for the one row of a table that is always read. Not a rule of its own: `pointwise` and the
tables ask.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Any

import torch

from surgeon.trace.record import Value
from surgeon.trace.rule import Op
from surgeon.trace.rules.segments import segment
from surgeon.trace.terms import Term, resolve

__all__ = ["bounds", "compares", "names_one", "replaces"]

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


def names_one(op: Op, index: Value, rows: Term) -> bool:
    """Whether an index is one number throughout, whatever the inputs; that row is set apart from the others.

    What lies behind it is read by nothing that this call tells of, and locked as well.
    """
    known = None if op.state.is_input(index) or op.domain(index) is not None else _known(op, index)
    found = [] if known is None else known.unique().tolist()
    if len(found) != 1 or not 0 <= found[0] < rows.size:
        return False
    _set_apart(op, rows, [border for border in (found[0], found[0] + 1) if border])
    behind = segment(op, rows, found[0] + 1, rows.size)
    op.lock(behind, "a row before it is read by its number, and no other")
    op.mark(behind, "position")
    return True


def _known(op: Op, arg: Any) -> Any:
    """A number, or a tensor of numbers that does not depend on the inputs; None for anything else."""
    if isinstance(arg, numbers.Number):
        return arg
    if not isinstance(arg, Value) or arg.id in op.state.tainted or hasattr(op.tensor(arg), "fake_mode"):
        return None
    return op.tensor(arg)


def _set_apart(op: Op, domain: Term, borders: list[int]) -> None:
    """Cut `domain` at `borders`, and lock all but what lies behind the last one."""
    for start, stop in zip([0, *borders], borders, strict=False):
        if 0 <= start < stop <= domain.size:
            op.lock(segment(op, domain, start, stop), "cutting it would renumber an index that forward knows")
