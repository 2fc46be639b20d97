"""Rules for matrix products, written as equations; they also tell attention from weights.

A contraction between two activations mixes positions: where the contracted dim is the sequence, its
batch axes are heads and its free axis is a head dim (values); where both free dims are sequences,
the contracted axis is a head dim (queries and keys).
"""

from __future__ import annotations

from surgeon.trace.record import Value
from surgeon.trace.rule import Op, rules
from surgeon.trace.rules.pointwise import broadcast
from surgeon.trace.terms import Mark, Term, atoms_of, is_data

__all__ = ["einsum"]


def einsum(op: Op, equation: str, *operands: Value, out: Value | None = None) -> list[Term]:
    """Unify the dims that share a letter and set the output of ``"mk,kn->mn"``."""
    inputs, result = equation.split("->")
    letters: dict[str, Term] = {}
    for names, value in zip(inputs.split(","), operands, strict=True):
        for name, term in zip(names, op.dims(value), strict=True):
            if name in letters:
                op.unify(letters[name], term)
            else:
                letters[name] = term
            op.note_role(value, term, "producer" if name in result else "consumer")
    left, right = inputs.split(",")[:2]
    _mark_mixing(op, letters, left, right, result)
    terms = [letters[name] for name in result]
    if out is not None:
        op.set(out, terms)
    return terms


def _mark_mixing(op: Op, letters: dict[str, Term], left: str, right: str, result: str) -> None:
    contracted = [letters[n] for n in left if n in right and n not in result]
    batch = [letters[n] for n in left if n in right and n in result]
    free = [letters[n] for n in left + right if (n in left) != (n in right)]
    if not contracted or not all(term.size > 1 for term in contracted):
        return
    over_data = all(is_data(term) for term in contracted)
    between_positions = len(free) == 2 and all(is_data(term) for term in free)
    if over_data and not all(is_data(term) for term in free):
        carried = [term for term in free if not is_data(term)]
    elif between_positions and not over_data:
        carried = contracted
    else:
        return
    op.state.mixing.add(op.event.index)
    for term in batch:
        _mark_model_atoms(op, term, "head")
    for term in carried:
        _mark_model_atoms(op, term, "head_dim")


def _mark_model_atoms(op: Op, term: Term, mark: Mark) -> None:
    for atom in atoms_of(term):
        if "data" not in atom.marks:
            atom.marks.add(mark)


@rules.register("mm", "matmul_2d")
def mm(op: Op) -> None:
    """[m, k] * [k, n] → [m, n]."""
    einsum(op, "mk,kn->mn", op.args[0], op.args[1], out=op.out)


@rules.register("bmm")
def bmm(op: Op) -> None:
    """[b, m, k] * [b, k, n] → [b, m, n]."""
    einsum(op, "bmk,bkn->bmn", op.args[0], op.args[1], out=op.out)


@rules.register("addmm", "baddbmm", "addbmm")
def addmm(op: Op) -> None:
    """A product plus a broadcast bias."""
    equation = {"addmm": "mk,kn->mn", "baddbmm": "bmk,bkn->bmn", "addbmm": "bmk,bkn->mn"}[op.name]
    terms = einsum(op, equation, op.args[1], op.args[2])
    broadcast(op, terms, op.args[0], role="pointwise")
    op.set(op.out, terms)


@rules.register("mv")
def mv(op: Op) -> None:
    """[m, k] * [k] → [m]."""
    einsum(op, "mk,k->m", op.args[0], op.args[1], out=op.out)


@rules.register("dot", "vdot")
def dot(op: Op) -> None:
    """[k] · [k]."""
    einsum(op, "k,k->", op.args[0], op.args[1], out=op.out)


@rules.register("linear")
def linear(op: Op) -> None:
    """[..., i] * [o, i] → [..., o]."""
    x, w = op.dims(op.args[0]), op.dims(op.args[1])
    op.unify(x[-1], w[1])
    op.note_role(op.args[1], w[1], "consumer")
    op.note_role(op.args[1], w[0], "producer")
    terms = [*x[:-1], w[0]]
    if len(op.inputs) > 2:
        broadcast(op, terms, op.inputs[2], role="pointwise")
    op.set(op.out, terms)


@rules.register(
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_attention_math",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "scaled_dot_product_attention",
)
def attention(op: Op) -> None:
    """Queries [b, h, s, d], keys [b, h, t, d], values [b, h, t, e] → [b, h, s, e]."""
    q, k, v = (op.dims(value) for value in op.inputs[:3])
    op.unify(q[-1], k[-1])
    for n in range(len(q) - 2):
        op.unify(q[n], k[n])
        op.unify(k[n], v[n])
    op.unify(k[-2], v[-2])
    op.state.mixing.add(op.event.index)
    for term in q[:-2]:
        _mark_model_atoms(op, term, "head")
    for term in (q[-1], v[-1]):
        _mark_model_atoms(op, term, "head_dim")
    op.set(op.out, [*q[:-1], v[-1]])
    for value in op.outs[1:]:
        op.dims(value)
