"""Rules for ops that join tensors: cat, stack. Not here: how dims are cut (`segments`)."""

from __future__ import annotations

from surgeon.trace.record import Value
from surgeon.trace.rule import Op, rules
from surgeon.trace.rules.segments import touches_data
from surgeon.trace.rules.special import replaces
from surgeon.trace.terms import Term, concat, product, resolve

__all__: list[str] = []


@rules.register("cat", "concat")
def cat(op: Op) -> None:
    """Segments side by side; the other dims are common."""
    parts = [value for value in op.inputs if op.shape(value) != [0]]
    terms = [op.dims(value) for value in parts]
    d = op.dim(op.arg(1, "dim", 0), len(terms[0]))
    made = list(terms[0])
    for other in terms[1:]:
        for n, (mine, theirs) in enumerate(zip(made, other, strict=True)):
            if n != d:
                op.unify(mine, theirs)
    if any(touches_data(part[d]) for part in terms):
        for part in terms:  # what is put beside the sequence is part of it
            op.mark(part[d], "data")
    lanes = _lanes(op)
    if lanes is None or op.state.lanes.ragged(op.event.index):
        made[d] = concat([part[d] for part in terms])
    else:
        for part in terms[1:]:
            op.unify(terms[0][d], part[d])
        made[d] = product((lanes, terms[0][d]))
    op.set(op.out, made)
    _common_domain(op)


@rules.register("stack")
def stack(op: Op) -> None:
    """A new dim, one index a tensor."""
    terms = [op.dims(value) for value in op.inputs]
    for other in terms[1:]:
        for mine, theirs in zip(terms[0], other, strict=True):
            op.unify(mine, theirs)
    made = list(terms[0])
    place = op.dim(op.arg(1, "dim", 0), len(made) + 1)
    new = _lanes(op)
    if new is None:
        new = op.fresh(len(terms))
        op.lock(new, "its indices are put together one by one")
        op.mark(new, "part")
    made.insert(place, new)
    op.set(op.out, made)
    _common_domain(op)


def _lanes(op: Op) -> Term | None:
    """The axis whose lanes are joined here."""
    sources = op.state.lanes.joins.get(op.event.index)
    if sources is None:
        return None
    axes = [op.dims(Value(number))[dim] for number, dim in sources]
    for other in axes[1:]:
        op.unify(axes[0], other)
    return resolve(axes[0])


def _joined_ids(op: Op) -> bool:
    """Ids of one input beside numbers that forward knows: still ids, and those numbers are set apart."""
    ids = [value for value in op.inputs if op.state.is_input(value)]
    known = op.domain(ids[0]) if ids else None
    if len({op.state.index_root(value.id) for value in ids}) != 1 or op.tensor(op.out).is_floating_point():
        return False
    if known is not None:
        replaces(op, known, [value for value in op.inputs if value not in ids])
    op.pass_domain(ids[0], op.out)
    op.follow(*ids)
    return True


def _common_domain(op: Op) -> None:
    if _joined_ids(op):
        return
    domains = [domain for domain in map(op.domain, op.inputs) if domain is not None]
    op.follow(*op.inputs)
    for other in domains[1:]:
        if other.size == domains[0].size:
            op.unify(domains[0], other)
    if domains:
        op.set_domain(op.out, domains[0])
