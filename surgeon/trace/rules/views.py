"""Rules for ops that only move dims: view, transpose, permute, squeeze, expand."""

from __future__ import annotations

from surgeon.trace.rule import Op, rules
from surgeon.trace.terms import Term, product

__all__: list[str] = []


@rules.register("view", "_unsafe_view", "reshape", "_reshape_alias", "unflatten")
def view(op: Op) -> None:
    """Factors are regrouped. What does not align, or is empty, is opaque in the middle, and locked."""
    terms, sizes = op.dims(op.inputs[0]), op.shape(op.out)
    shaped = None if 0 in sizes else op.state.unifier.reshape(terms, sizes)
    if shaped is None:
        shaped = _opaque_middle(op, terms, sizes)
    op.set(op.out, shaped)
    op.pass_domain(op.inputs[0], op.out)


def _opaque_middle(op: Op, terms: list[Term], sizes: list[int]) -> list[Term]:
    """Keep the dims that agree from either end, lock those between."""
    front = 0
    while front < min(len(terms), len(sizes)) and terms[front].size == sizes[front]:
        front += 1
    back = 0
    while back < min(len(terms), len(sizes)) - front and terms[-1 - back].size == sizes[-1 - back]:
        back += 1
    made: list[Term] = [op.fresh(size) for size in sizes[front : len(sizes) - back]]
    for term in [*terms[front : len(terms) - back], *made]:
        op.lock(term, f"a view from {op.shape(op.inputs[0])} to {sizes} that does not follow its factors")
    return terms[:front] + made + (terms[len(terms) - back :] if back else [])


@rules.register("t", "transpose", "permute", "numpy_T", "swapaxes", "movedim")
def permute(op: Op) -> None:
    """Dims are reordered."""
    terms = op.dims(op.inputs[0])
    rank = len(terms)
    order = list(range(rank))
    if op.name in ("t", "numpy_T"):
        order.reverse()
    elif op.name == "permute":
        order = [op.dim(number, rank) for number in op.args[1]]
    else:
        i, j = op.dim(op.args[1], rank), op.dim(op.args[2], rank)
        order[i], order[j] = order[j], order[i]
    op.set(op.out, [terms[number] for number in order])
    op.pass_domain(op.inputs[0], op.out)


@rules.register("unsqueeze")
def unsqueeze(op: Op) -> None:
    """A dim of size one comes in."""
    terms = op.dims(op.inputs[0])
    terms.insert(op.dim(op.args[1], len(terms) + 1), op.fresh(1))
    op.set(op.out, terms)
    op.pass_domain(op.inputs[0], op.out)


@rules.register("squeeze")
def squeeze(op: Op) -> None:
    """Dims of size one go."""
    terms = op.dims(op.inputs[0])
    where = op.arg(1, "dim")
    if where is None:
        which = set(range(len(terms)))
    else:
        which = {op.dim(n, len(terms)) for n in (where if isinstance(where, tuple) else (where,))}
    op.set(op.out, [term for n, term in enumerate(terms) if term.size != 1 or n not in which])
    op.pass_domain(op.inputs[0], op.out)


@rules.register("expand", "broadcast_to")
def expand(op: Op) -> None:
    """A dim of size one becomes a new axis, shared by all that it is matched with."""
    terms, sizes = op.dims(op.inputs[0]), op.shape(op.out)
    terms = [op.fresh(1)] * (len(sizes) - len(terms)) + terms
    made = [t if t.size == size else _expanded(op, size) for t, size in zip(terms, sizes, strict=True)]
    op.set(op.out, made)
    op.pass_domain(op.inputs[0], op.out)


def _expanded(op: Op, size: int) -> Term:
    """A new axis; marked where an activation, not a mask, is shared along it."""
    atom = op.state.new_atom(size)
    if hasattr(op.tensor(op.inputs[0]), "fake_mode"):
        atom.marks.add("expanded")
    return atom


@rules.register("repeat", "tile")
def repeat(op: Op) -> None:
    """Each dim becomes copies * itself."""
    terms, counts = op.dims(op.inputs[0]), list(op.args[1])
    terms = [op.fresh(1)] * (len(counts) - len(terms)) + terms
    made = []
    for term, count in zip(terms, counts, strict=True):
        made.append(product((_expanded(op, count), term)) if count != 1 else term)
    op.set(op.out, made)
    op.pass_domain(op.inputs[0], op.out)


@rules.register("flip", "roll")
def reorder(op: Op) -> None:
    """Positions are permuted by place, so a fixed order matters."""
    terms = op.dims(op.inputs[0])
    which = op.args[1] if op.name == "flip" else op.arg(2, "dims", ())
    for number in which or range(len(terms)):
        op.lock(terms[op.dim(number, len(terms))], "its order is reversed or rolled")
    op.set(op.out, terms)
