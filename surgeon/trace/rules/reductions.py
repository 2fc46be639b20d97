"""Rules for ops that reduce dims: sums, means, extrema, norms over a dim."""

from __future__ import annotations

from surgeon.trace.rule import Op, rules
from surgeon.trace.rules.pointwise import pointwise
from surgeon.trace.terms import is_data

__all__: list[str] = []

_DIVIDES = frozenset({"mean", "var", "std", "var_mean", "std_mean"})
_RANKS = frozenset({"argmax", "argmin"})


@rules.register(
    "sum",
    "mean",
    "amax",
    "amin",
    "argmax",
    "argmin",
    "all",
    "any",
    "max",
    "min",
    "logsumexp",
    "var",
    "std",
    "var_mean",
    "std_mean",
    "linalg_vector_norm",
    "norm",
    "prod",
    "nansum",
    "median",
    "aminmax",
    "_is_all_true",
    "_is_any_true",
)
def reduce(op: Op) -> None:
    """The reduced dims go, or stay with size one; an arg-extremum indexes what it reduced."""
    place = 2 if op.name in ("linalg_vector_norm", "norm") else 1
    if len(op.inputs) > 1:
        pointwise(op)  # max(x, y)
        return
    terms = op.dims(op.args[0])
    where = op.arg(place, "dim")
    if isinstance(where, int) and not isinstance(where, bool):
        where = (where,)
    named = where if isinstance(where, tuple) and where else range(len(terms))
    reduced = {op.dim(n, len(terms)) for n in named}
    keeps = len(op.shape(op.out)) == len(terms)
    if op.name in _DIVIDES:
        for n in reduced:
            op.mark(terms[n], "normalised")
    made = (
        [op.fresh(1) if n in reduced else term for n, term in enumerate(terms)]
        if keeps
        else [term for n, term in enumerate(terms) if n not in reduced]
    )
    for value in op.outs:
        op.set(value, list(made))
    if (op.name in _RANKS or (op.name in ("max", "min") and len(op.outs) == 2)) and len(reduced) == 1:
        ranked = terms[next(iter(reduced))]
        op.set_domain(op.outs[-1], ranked)
        if op.outs[-1].id in op.state.read:
            op.mark(ranked, "routed")  # a top-1
    if op.name in ("max", "min", "aminmax") and not isinstance(where, tuple):
        op.follow(op.args[0])  # the extremum of all indices only checks their bounds


@rules.register("_softmax", "_log_softmax", "softmax", "log_softmax", "_safe_softmax")
def softmax(op: Op) -> None:
    """Same dims out; a softmax over a model axis shares mass between its indices."""
    op.set(op.out, op.dims(op.args[0]))


@rules.register("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin")
def scan(op: Op) -> None:
    """Same dims out; along the scanned dim order matters, unless that dim is data."""
    terms = op.dims(op.args[0])
    d = op.dim(op.arg(1, "dim", 0), len(terms)) if terms else None
    if d is not None and not is_data(terms[d]):
        op.lock(terms[d], "summed up in order")
    for value in op.outs:
        op.set(value, list(terms))


@rules.register("tril", "triu")
def triangle(op: Op) -> None:
    """Same dims out; rows and columns are compared by place."""
    terms = op.dims(op.args[0])
    for term in terms[-2:]:
        if not is_data(term):
            op.lock(term, "rows and columns are compared by place")
    op.set(op.out, terms)
