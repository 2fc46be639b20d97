"""Rules for top-k and sort: their indices run over the ranked dim, which makes it a routed axis."""

from __future__ import annotations

from surgeon.trace.rule import Op, rules

__all__: list[str] = []


@rules.register("topk")
def topk(op: Op) -> None:
    """Values and indices of the k largest: a new dim of size k, indices over the ranked dim."""
    terms = op.dims(op.args[0])
    d = op.dim(op.arg(2, "dim", -1), len(terms))
    ranked = terms[d]
    op.mark(ranked, "routed")
    chosen = op.fresh(op.shape(op.out)[d])
    op.state.rankings.append((ranked, chosen.size))
    values, indices = op.outs
    for value in (values, indices):
        op.set(value, [*terms[:d], chosen, *terms[d + 1 :]])
    op.set_domain(indices, ranked)


@rules.register("sort", "argsort")
def sort(op: Op) -> None:
    """Same dims out; the sorted dim is a fresh order of the ranked one."""
    terms = op.dims(op.args[0])
    place = 1 if op.event.func._overloadname != "stable" else 2
    d = op.dim(op.arg(place, "dim", -1), len(terms)) if terms else 0
    ranked = terms[d]
    op.lock(ranked, "sorted")
    sorts = op.domain(op.args[0])
    if sorts is not None and op.outs[0].id not in op.state.read and op.state.is_counted(sorts):
        op.follow(op.args[0])  # positions one index after the other, in pieces as long as each was counted
    for value in op.outs:
        op.set(value, list(terms))
    op.set_domain(op.outs[-1], ranked)
