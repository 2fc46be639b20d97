"""Rules for ops that cut and join dims: slice, split, select, cat, stack. Not here: `padding`."""

from __future__ import annotations

from surgeon.trace.record import Value
from surgeon.trace.rule import Op, rules
from surgeon.trace.terms import Term, atoms_of, concat, is_data, product, resolve
from surgeon.trace.unify import Mismatch

__all__ = ["picked_apart", "segment", "touches_data"]


def segment(op: Op, term: Term, start: int, stop: int) -> Term:
    """Part of a Term; a border inside an inner factor makes the part opaque and locks the whole."""
    try:
        return op.state.unifier.segment(term, start, stop)
    except Mismatch as error:
        op.lock(term, f"cut at {start}:{stop} where its parts do not divide ({error})")
        part = op.fresh(stop - start)
        op.lock(part, f"cut at {start}:{stop} out of a dim of {term.size} whose parts do not divide")
        return part


@rules.register("slice")
def slice_(op: Op) -> None:
    """A segment; with a step, one residue class of an inner factor, whose order matters."""
    terms = op.dims(op.inputs[0])
    d = op.dim(op.arg(1, "dim", 0), len(terms))
    size, step = terms[d].size, op.arg(4, "step", 1)
    start, stop, _ = slice(op.arg(2, "start"), op.arg(3, "end"), 1).indices(size)
    if step == 1:
        terms[d] = segment(op, terms[d], start, stop)
    else:
        terms[d] = _strided(op, terms[d], start, stop, step)
    op.set(op.out, terms)
    op.pass_domain(op.inputs[0], op.out)


def _strided(op: Op, term: Term, start: int, stop: int, step: int) -> Term:
    if start < step and stop == term.size and term.size % step == 0:
        halves = op.state.unifier.factor(term, term.size // step)
        if halves is not None:
            op.lock(halves[1], f"taken apart with a step of {step}")
            op.mark(halves[1], "part")
            return halves[0]
    op.lock(term, f"taken apart with a step of {step}")
    part = op.fresh(len(range(start, stop, step)))
    op.lock(part, f"every {step}th position of another axis")
    return part


@rules.register("select")
def select(op: Op) -> None:
    """One index is picked: the axis is a tuple of named parts, not a set."""
    terms = op.dims(op.inputs[0])
    d = op.dim(op.args[1], len(terms))
    if len(terms) == 2 and d == 0 and op.inputs[0].id in op.state.origins and not _of_a_lane(op):
        op.state.named.append((op.event, terms[0], op.args[2] % terms[0].size))
    else:
        _pick(op, terms[d])
    op.set(op.out, terms[:d] + terms[d + 1 :])
    op.pass_domain(op.inputs[0], op.out)


def _pick(op: Op, term: Term) -> None:
    """Picking from the sequence is a step of a recurrence; what nobody reads was only measured.

    A pick that a lane starts with is no part by name either.
    """
    if is_data(term):
        op.state.scans.add(op.event.index)
    elif not (_of_a_lane(op) or _is_uniform(op)):
        picked_apart(op, term)


def _is_uniform(op: Op) -> bool:
    """Whether a pick is of one number throughout, whatever the inputs, so that each index is as good."""
    source = op.tensor(op.inputs[0])
    known = op.inputs[0].id not in op.state.tainted and not hasattr(source, "fake_mode")
    return known and bool((source == source.flatten()[:1]).all())


def _of_a_lane(op: Op) -> bool:
    return op.event.index in op.state.lanes.picks


def picked_apart(op: Op, term: Term) -> None:
    """Lock an axis one of whose indices is picked by its number, and read."""
    if any(value.id in op.state.read for value in op.outs):
        op.lock(term, "its indices are picked one by one")
        op.mark(term, "part")


@rules.register("unbind")
def unbind(op: Op) -> None:
    """All indices, one by one."""
    terms = op.dims(op.inputs[0])
    d = op.dim(op.arg(1, "dim", 0), len(terms))
    _pick(op, terms[d])
    for value in op.outs:
        op.set(value, terms[:d] + terms[d + 1 :])
    op.pass_domain(op.inputs[0], *op.outs)


@rules.register(
    "split",
    "split_with_sizes",
    "chunk",
    "tensor_split",
    "unsafe_split",
    "unsafe_split_with_sizes",
    "unsafe_chunk",
)
def split(op: Op) -> None:
    """Consecutive segments."""
    terms = op.dims(op.inputs[0])
    d = op.dim(op.arg(2, "dim", 0), len(terms))
    start = 0
    for value in op.outs:
        stop = start + op.shape(value)[d]
        op.set(value, [*terms[:d], segment(op, terms[d], start, stop), *terms[d + 1 :]])
        start = stop
    op.pass_domain(op.inputs[0], *op.outs)


@rules.register("glu")
def glu(op: Op) -> None:
    """The first half of a dim times a gate made of the second."""
    terms = op.dims(op.inputs[0])
    d = op.dim(op.arg(1, "dim", -1), len(terms))
    size = terms[d].size
    gate = segment(op, terms[d], size // 2, size)
    terms[d] = segment(op, terms[d], 0, size // 2)
    op.unify(terms[d], gate)
    op.set(op.out, terms)


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


def touches_data(term: Term) -> bool:
    """Whether some of a Term is batch or sequence."""
    return any("data" in atom.marks for atom in atoms_of(term))


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


def _common_domain(op: Op) -> None:
    domains = [domain for domain in map(op.domain, op.inputs) if domain is not None]
    op.follow(*op.inputs)
    for other in domains[1:]:
        if other.size == domains[0].size:
            op.unify(domains[0], other)
    if domains:
        op.set_domain(op.out, domains[0])
