"""Rules for ops that cut dims: slice, split, select, unbind. Not here: `joins`, `padding`."""

from __future__ import annotations

from surgeon.trace.rule import Op, rules
from surgeon.trace.terms import Concat, Term, atoms_of, is_data
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
        _pick(op, *_piece(terms[d], op.args[2] % terms[d].size))
    op.set(op.out, terms[:d] + terms[d + 1 :])
    op.pass_domain(op.inputs[0], op.out)


def _piece(term: Term, index: int) -> tuple[Term, int]:
    """The segment that an index lies in, and where: what stands beside it is not taken apart."""
    for part in term.parts if isinstance(term, Concat) else ():
        if index < part.size:
            return part, index
        index -= part.size
    return term, index


def _pick(op: Op, term: Term, *indices: int) -> None:
    """Picking from the sequence is a step of a recurrence; what nobody reads was only measured.

    A pick that a lane starts with is no part by name either.
    """
    if is_data(term):
        op.state.scans.add(op.event.index)
    elif not (_of_a_lane(op) or _is_uniform(op)):
        picked_apart(op, term, *indices)


def _is_uniform(op: Op) -> bool:
    """Whether a pick is of one number throughout, whatever the inputs, so that each index is as good."""
    source = op.tensor(op.inputs[0])
    known = op.inputs[0].id not in op.state.tainted and not hasattr(source, "fake_mode")
    return known and bool((source == source.flatten()[:1]).all())


def _of_a_lane(op: Op) -> bool:
    return op.event.index in op.state.lanes.picks


def picked_apart(op: Op, term: Term, *indices: int) -> None:
    """Lock an axis some of whose indices are picked by their numbers, and read."""
    if any(value.id in op.state.read for value in op.outs):
        op.state.picked.append((term, indices))
        op.lock(term, "its indices are picked one by one")
        op.mark(term, "part")


@rules.register("unbind")
def unbind(op: Op) -> None:
    """All indices, one by one."""
    terms = op.dims(op.inputs[0])
    d = op.dim(op.arg(1, "dim", 0), len(terms))
    _pick(op, terms[d], *range(terms[d].size))
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


def touches_data(term: Term) -> bool:
    """Whether some of a Term is batch or sequence."""
    return any("data" in atom.marks for atom in atoms_of(term))
