"""Rules for masks: where one holds, values are picked, written, or put in one after the other."""

from __future__ import annotations

from math import prod

from surgeon.trace.record import Value
from surgeon.trace.rule import Op, base_name, rules
from surgeon.trace.rules.pointwise import broadcast
from surgeon.trace.terms import Term, is_data, product

__all__ = ["boolean_index"]

_SAME_PLACES = frozenset({"bitwise_not", "logical_not", "clone", "_to_copy", "alias", "detach"})


@rules.register("masked_scatter")
def masked_scatter(op: Op) -> None:
    """Where the mask holds, the next value of the source: a whole row, where the mask covers whole rows.

    The source may be rows, or all of their values in one dim.
    """
    terms, source = op.dims(op.args[0]), op.dims(op.args[2])
    mask = op.tensor(op.args[1]).expand(op.shape(op.out))
    rows = not hasattr(mask, "fake_mode") and bool((mask == mask[..., :1]).all())
    width = terms[-1].size
    if rows and len(source) == 1 and source[0].size > width:
        source = list(op.state.unifier.factor(source[0], source[0].size // width) or source)
    if rows and source and source[-1].size == width:
        op.unify(source.pop(), terms[-1])
    else:
        source.extend(terms)
    for term in source:
        if not is_data(term):
            op.lock(term, "values are put in one after the other")
    op.set(op.out, terms)


def boolean_index(op: Op, terms: list[Term], places: list[tuple[int, Value]]) -> None:
    """A mask covers as many dims as it has and leaves one of unknown length."""
    if len(places) != 1:
        for n, item in places:
            op.lock(terms[n], "several masks at once")
            op.dims(item)
        op.dims(op.out)
        return
    n, mask = places[0]
    covered = op.dims(mask)
    for mine, theirs in zip(terms[n : n + len(covered)], covered, strict=True):
        op.unify(mine, theirs)
    rest = terms[n + len(covered) :]
    written = "put" in op.name
    count = op.tensor(mask).sum() if written else op.shape(op.out)[n]
    picked = _picked(op, terms[n : n + len(covered)], mask, int(count))
    if written:
        if isinstance(op.args[2], Value):
            broadcast(op, [picked, *rest], op.args[2])
        op.set(op.out, terms)
    else:
        op.set(op.out, [*terms[:n], picked, *rest])
        op.pass_domain(op.args[0], op.out)


def _picked(op: Op, covered: list[Term], mask: Value, count: int) -> Term:
    """Where a mask holds: some positions, times the trailing dims that it was expanded over."""
    whole: list[Term] = []
    while len(whole) < len(covered) and _expanded_over(op, mask, len(whole) + 1):
        whole.insert(0, covered[-1 - len(whole)])
    size = prod(term.size for term in whole)
    if not count or count % size:
        whole, size = [], 1
    for term in covered[: len(covered) - len(whole)]:
        if not is_data(term):
            op.lock(term, "some of its positions are picked by a mask")
    return product((op.fresh(count // size, "data"), *whole))


def _expanded_over(op: Op, mask: Value, back: int) -> bool:
    """Whether a mask, or what it is the opposite of, was expanded along a dim counted from the back."""
    for event in reversed(op.state.recorder.events[: op.event.index]):
        if mask not in event.outputs:
            continue
        mask = event.inputs[0]
        if base_name(event.name) == "expand":
            shape = op.shape(mask)
            if back > len(shape) or shape[-back] == 1:
                return True
        elif base_name(event.name) not in _SAME_PLACES:
            return False
    return False
