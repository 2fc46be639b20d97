"""Rules for looking up rows of a table by index: embeddings, index_select, gather, index."""

from __future__ import annotations

import torch

from surgeon.trace.record import Value
from surgeon.trace.rule import Op, rules
from surgeon.trace.rules.masks import boolean_index
from surgeon.trace.rules.pointwise import broadcast
from surgeon.trace.rules.segments import segment
from surgeon.trace.rules.special import names_one, replaces
from surgeon.trace.terms import Term

__all__: list[str] = []


@rules.register("embedding")
def embedding(op: Op) -> None:
    """Weight [rows, features], indices [...] → [..., features]."""
    weight, indices = op.args[0], op.args[1]
    rows, features = op.dims(weight)
    if not names_one(op, indices, rows):
        op.look_up(indices, rows)
    op.note_role(weight, rows, "index")
    op.note_role(weight, features, "producer")
    op.set(op.out, [*op.dims(indices), features])


@rules.register("index_select")
def index_select(op: Op) -> None:
    """One dim is replaced by the dim of the indices."""
    source, index = op.args[0], op.args[2]
    terms = op.dims(source)
    d = op.dim(op.args[1], len(terms))
    op.look_up(index, terms[d])
    op.note_role(source, terms[d], "index")
    terms[d] = op.dims(index)[0] if op.dims(index) else op.fresh(1)
    op.set(op.out, terms)
    op.pass_domain(source, op.out)


@rules.register("gather", "take_along_dim")
def gather(op: Op) -> None:
    """out[i][j] = x[i][index[i][j]]: the other dims are common."""
    terms = op.dims(op.args[0])
    d = op.dim(op.args[1], len(terms))
    op.look_up(op.args[2], terms[d])
    op.note_role(op.args[0], terms[d], "index")
    _side_by_side(op, terms, op.args[2], d)
    op.set(op.out, op.dims(op.args[2]))
    op.pass_domain(op.args[0], op.out)


def _side_by_side(op: Op, terms: list[Term], index: Value, d: int) -> None:
    """Apart from dim `d`, an index covers the front of every dim of what it indexes."""
    for n, (mine, theirs) in enumerate(zip(terms, op.dims(index), strict=True)):
        if n != d:
            op.unify(segment(op, mine, 0, theirs.size), theirs)


@rules.register("scatter", "scatter_add", "scatter_reduce")
def scatter(op: Op) -> None:
    """x[i][index[i][j]] = value[i][j]: the other dims are common, the value's and the index's all."""
    terms = op.dims(op.args[0])
    d = op.dim(op.args[1], len(terms))
    op.look_up(op.args[2], terms[d])
    _side_by_side(op, terms, op.args[2], d)
    if len(op.args) > 3 and isinstance(op.args[3], Value):
        _side_by_side(op, op.dims(op.args[3]), op.args[2], -1)
    op.set(op.out, terms)


@rules.register("index_add", "index_copy", "index_fill")
def index_add(op: Op) -> None:
    """x[index[j]] += value[j] along one dim; the other dims are common."""
    terms = op.dims(op.args[0])
    d = op.dim(op.args[1], len(terms))
    op.look_up(op.args[2], terms[d])
    if len(op.args) > 3 and isinstance(op.args[3], Value):
        for n, (mine, theirs) in enumerate(zip(terms, op.dims(op.args[3]), strict=False)):
            if n != d:
                op.unify(mine, theirs)
    op.set(op.out, terms)


@rules.register("index", "_unsafe_index", "index_put", "_index_put_impl", "_unsafe_index_put")
def index(op: Op) -> None:
    """Advanced indexing: the indexed dims are replaced by the broadcast dims of the indices."""
    source = op.args[0]
    if "put" in op.name and (known := op.domain(source)) is not None:
        replaces(op, known, op.args[2:3])
        op.pass_domain(source, op.out)
    terms = op.dims(source)
    places = [(n, item) for n, item in enumerate(op.args[1]) if isinstance(item, Value)]
    if any(op.tensor(item).dtype == torch.bool for _, item in places):
        boolean_index(op, terms, places)
        return
    if _constant_run(op, terms, places):
        return
    for n, item in places:
        op.look_up(item, terms[n])
        op.note_role(source, terms[n], "index")
    picked = _indexed(op, terms, places)
    if "put" in op.name:
        if isinstance(op.args[2], Value):
            broadcast(op, picked, op.args[2])
        op.set(op.out, terms)
    else:
        op.set(op.out, picked)
        op.pass_domain(source, op.out)


def _indexed(op: Op, terms: list[Term], places: list[tuple[int, Value]]) -> list[Term]:
    """Dims of ``x[i, j]``: the broadcast index dims stand where the indexed ones were."""
    rank = max(len(op.dims(item)) for _, item in places)
    shared: list[Term] = [op.fresh(1) for _ in range(rank)]
    for _, item in places:
        for back, term in enumerate(reversed(op.dims(item)), start=1):
            if term.size == 1:
                continue
            if shared[-back].size == 1:
                shared[-back] = term
            else:
                op.unify(shared[-back], term)
    numbers = [n for n, _ in places]
    adjacent = numbers == list(range(numbers[0], numbers[-1] + 1))
    if adjacent:
        return terms[: numbers[0]] + shared + terms[numbers[-1] + 1 :]
    return shared + [term for n, term in enumerate(terms) if n not in numbers]


def _constant_run(op: Op, terms: list[Term], places: list[tuple[int, Value]]) -> bool:
    """``x[arange(a, b)]`` with constant indices is a slice."""
    if len(places) != 1 or "put" in op.name:
        return False
    n, item = places[0]
    values = op.tensor(item)
    if item.id in op.state.tainted or values.dim() != 1 or hasattr(values, "fake_mode") or terms[n].size <= 1:
        return False
    numbers = [number % terms[n].size for number in values.tolist()]
    if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return False
    terms[n] = segment(op, terms[n], numbers[0], numbers[-1] + 1)
    op.set(op.out, terms)
    op.pass_domain(op.args[0], op.out)
    return True
