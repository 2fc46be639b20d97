"""The algebra of dimension expressions, against index tables that numpy makes by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from surgeon.trace.layouts import placements
from surgeon.trace.terms import Atom, Concat, Product, Term, atoms_of, concat, product, resolve
from surgeon.trace.unify import Mismatch, Unifier

NOWHERE = -1
quick = settings(max_examples=60, deadline=None)


# ------------------------------------------------------------------------------ brute force


def tables(term: Term) -> list[tuple[int, np.ndarray]]:
    """For every occurrence of an Atom: its index at every position of `term`, or NOWHERE."""
    term = resolve(term)
    if isinstance(term, Atom):
        return [(term.id, np.arange(term.size))] if term.size > 1 else []
    found = []
    for place, part in enumerate(term.parts):
        for atom, inner in tables(part):
            if isinstance(term, Product):
                shape = [1] * len(term.parts)
                shape[place] = part.size
                grid = np.broadcast_to(inner.reshape(shape), [p.size for p in term.parts])
                found.append((atom, grid.reshape(-1)))
            else:
                sizes = [p.size for p in term.parts]
                before, after = sum(sizes[:place]), sum(sizes[place + 1 :])
                found.append((atom, np.pad(inner, (before, after), constant_values=NOWHERE)))
    return found


def elements(terms: list[Term]) -> dict[int, list[tuple[int, ...]]]:
    """For every Atom, the indices that each element of a tensor with these dims has in it."""
    shape = [term.size for term in terms]
    found: dict[int, list[np.ndarray]] = {}
    for dim, term in enumerate(terms):
        for atom, table in tables(term):
            along = [1] * len(shape)
            along[dim] = shape[dim]
            found.setdefault(atom, []).append(np.broadcast_to(table.reshape(along), shape).reshape(-1))
    return {
        atom: [
            tuple(sorted(n for n in numbers if n != NOWHERE)) for numbers in zip(*occurrences, strict=True)
        ]
        for atom, occurrences in found.items()
    }


def place_table(layout, extent: int) -> np.ndarray:
    """The same table from a Layout."""
    table = np.full(extent, NOWHERE)
    for index, positions in enumerate(layout.positions()):
        assert (table[positions] == NOWHERE).all()
        assert (np.diff(positions) > 0).all()
        table[positions] = index
    return table


# ------------------------------------------------------------------------------ random terms

sizes = st.sampled_from([1, 2, 2, 3, 4, 5, 6])


@st.composite
def terms(draw, depth: int = 2, pool: list[Atom] | None = None) -> Term:
    """A random expression; with a `pool`, Atoms of it come back."""
    kind = draw(st.sampled_from(["atom", "product", "concat"])) if depth else "atom"
    if kind == "atom":
        if pool and draw(st.booleans()):
            return draw(st.sampled_from(pool))
        return Atom(draw(sizes))
    parts = draw(st.lists(terms(depth=depth - 1, pool=pool), min_size=1, max_size=3))
    return product(parts) if kind == "product" else concat(parts)


@st.composite
def of_size(draw, size: int, depth: int = 2) -> Term:
    """A random expression of a given size."""
    kind = draw(st.sampled_from(["atom", "product", "concat"])) if depth else "atom"
    if kind == "product":
        divisors = [d for d in range(1, size + 1) if size % d == 0]
        outer = draw(st.sampled_from(divisors))
        return product((draw(of_size(outer, depth - 1)), draw(of_size(size // outer, depth - 1))))
    if kind == "concat" and size > 1:
        cut = draw(st.integers(1, size - 1))
        return concat((draw(of_size(cut, depth - 1)), draw(of_size(size - cut, depth - 1))))
    return Atom(size)


@st.composite
def factorised(draw, size: int) -> list[int]:
    """Some sizes whose product is `size`."""
    found = []
    while size > 1 and draw(st.booleans()):
        divisor = draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
        found.append(divisor)
        size //= divisor
    return [*found, size]


def well_formed(term: Term) -> bool:
    """Parts are flat, their sizes add up or multiply, and nothing is left to resolve."""
    term = resolve(term)
    if isinstance(term, Atom):
        return term.bound is None
    total = math.prod(p.size for p in term.parts)
    if isinstance(term, Concat):
        total = sum(p.size for p in term.parts)
    return (
        len(term.parts) > 1
        and total == term.size
        and not any(type(part) is type(term) for part in term.parts)
        and all(well_formed(part) for part in term.parts)
    )


# ------------------------------------------------------------------------------ properties


@quick
@given(terms(pool=[Atom(2), Atom(3)]))
def test_placements_own_the_positions_that_brute_force_finds(term):
    found = sorted((a.id, tuple(place_table(at, term.size).tolist())) for a, at in placements(term))
    assert found == sorted((atom, tuple(table.tolist())) for atom, table in tables(term))


@quick
@given(terms())
def test_constructors_flatten(term):
    assert well_formed(term)
    assert sum(atom.size for atom in atoms_of(term)) >= 1


def test_nothing_makes_a_unit_of_its_kind():
    assert product([]).size == 1
    assert concat([]).size == 0
    assert product([Atom(1), Atom(3)]).size == 3
    assert concat([Atom(0), Atom(3)]).size == 3


@quick
@given(st.data())
def test_a_reshape_moves_no_element(data):
    dims = data.draw(st.lists(terms(), min_size=1, max_size=3))
    size = math.prod(term.size for term in dims)
    assume(size <= 400)
    shaped = Unifier().reshape(dims, data.draw(factorised(size)))
    if shaped is not None:
        assert elements(shaped) == elements([resolve(term) for term in dims])
        assert all(well_formed(term) for term in shaped)


@quick
@given(st.data())
def test_a_reshape_of_plain_dims_there_and_back_is_the_identity(data):
    shape = data.draw(st.lists(sizes, min_size=1, max_size=3))
    dims = [Atom(size) for size in shape]
    unifier = Unifier()
    there = unifier.reshape(dims, data.draw(factorised(math.prod(shape))))
    assume(there is not None)
    back = unifier.reshape(there, shape)
    assert back is not None
    assert elements(back) == elements(dims)
    assert [term.size for term in back] == shape


@pytest.mark.parametrize(
    ("shape", "target", "result"),
    [
        ([6], [2, 3], [2, 3]),
        ([2, 3], [6], [6]),
        ([2, 3, 5], [6, 5], [6, 5]),
        ([4, 6], [8, 3], [8, 3]),
        ([1, 4], [2, 1, 2], [2, 1, 2]),
        ([2, 3], [3, 2], None),
        ([4, 6], [6, 4], None),
    ],
)
def test_reshapes_follow_factors_or_are_refused(shape, target, result):
    shaped = Unifier().reshape([Atom(size) for size in shape], target)
    assert (None if shaped is None else [term.size for term in shaped]) == result


@quick
@given(st.data())
def test_a_cut_and_its_concat_are_the_whole(data):
    term = data.draw(terms())
    assume(term.size > 1)
    unifier = Unifier()
    try:
        head, tail = unifier.cut(term, data.draw(st.integers(1, term.size - 1)))
    except Mismatch:
        return
    assert elements([concat((head, tail))]) == elements([term])


@quick
@given(st.data())
def test_a_segment_holds_the_positions_in_its_range(data):
    term = data.draw(terms())
    start = data.draw(st.integers(0, term.size))
    stop = data.draw(st.integers(start, term.size))
    try:
        part = Unifier().segment(term, start, stop)
    except Mismatch:
        return
    assert part.size == stop - start
    inside = [table[start:stop] for _, table in tables(term)]
    wanted = sorted(tuple(table.tolist()) for table in inside if (table != NOWHERE).any())
    whole = sorted(tuple(table.tolist()) for _, table in tables(part))
    # a cut through an outer factor renumbers from its own start; the pattern of owners is the same
    assert [numbered(table) for table in whole] == [numbered(table) for table in wanted]


def numbered(table: tuple[int, ...]) -> tuple[int, ...]:
    """Indices counted from the smallest."""
    owned = [number for number in table if number != NOWHERE]
    return tuple(number - min(owned) if number != NOWHERE else NOWHERE for number in table)


@pytest.mark.parametrize("position", [0, 6, 7, -1])
def test_there_is_no_cut_at_the_ends(position):
    with pytest.raises(Mismatch, match="no cut at"):
        Unifier().cut(Atom(6), position)


def test_a_cut_inside_an_inner_factor_is_refused():
    with pytest.raises(Mismatch, match=r"4 falls inside a factor of \(2\*3\)"):
        Unifier().cut(Product((Atom(2), Atom(3))), 4)


@quick
@given(st.data())
def test_a_factorisation_is_outer_times_inner(data):
    term = data.draw(terms())
    outer_size = data.draw(st.sampled_from([d for d in range(1, term.size + 1) if term.size % d == 0]))
    halves = Unifier().factor(term, outer_size)
    if halves is not None:
        outer, inner = halves
        assert (outer.size, inner.size) == (outer_size, term.size // outer_size)
        assert elements([product(halves)]) == elements([term])
    assert all(well_formed(atom) for atom in atoms_of(term))


@quick
@given(st.integers(1, 60), st.integers(1, 60))
def test_a_factor_that_does_not_divide_is_refused(size, outer):
    assert (Unifier().factor(Atom(size), outer) is None) == (size % outer > 0)


@quick
@given(st.integers(1, 24).flatmap(lambda size: st.tuples(of_size(size), of_size(size))))
def test_after_unifying_both_sides_are_the_same_expression(pair):
    left, right = pair
    size = left.size
    try:
        Unifier().unify(left, right)
    except Mismatch:
        pass
    else:
        assert elements([left]) == elements([right])
    for term in (left, right):
        assert resolve(term).size == size
        assert well_formed(term)


@quick
@given(st.data())
def test_unifying_expressions_with_common_parts_ends_and_keeps_sizes(data):
    pool = [Atom(2), Atom(3), Atom(4)]
    left, right = data.draw(terms(pool=pool)), data.draw(terms(pool=pool))
    before = (left.size, right.size)
    try:
        Unifier().unify(left, right)
    except Mismatch:
        pass
    else:
        assert left.size == right.size
        assert elements([left]) == elements([right])
    assert (resolve(left).size, resolve(right).size) == before


@quick
@given(st.integers(2, 24).flatmap(lambda size: st.tuples(of_size(size), of_size(size))))
def test_locks_and_marks_pass_to_what_an_axis_becomes(pair):
    left, right = pair
    unifier = Unifier()
    unifier.lock(left, "no")
    unifier.mark(left, "head")
    try:
        unifier.unify(left, right)
    except Mismatch:
        return
    assert all("no" in atom.locks and "head" in atom.marks for atom in atoms_of(right) if atom.size > 1)


@quick
@given(st.integers(2, 24).flatmap(lambda size: st.tuples(of_size(size), of_size(size))))
def test_every_binding_is_written_down_with_its_cause(pair):
    left, right = pair
    unifier = Unifier()
    unifier.op, unifier.module = "aten.add", "layers.0"
    started = {atom.id for term in pair for atom in atoms_of(term)}
    try:
        unifier.unify(left, right)
    except Mismatch:
        return
    ended = {atom.id for term in pair for atom in atoms_of(term)}
    bound = {binding.atom for binding in unifier.bindings}
    assert started - ended <= bound
    assert not bound & ended
    assert {(b.op, b.module) for b in unifier.bindings} <= {("aten.add", "layers.0")}


@pytest.mark.parametrize(
    ("left", "right", "why"),
    [
        (Atom(3), Atom(4), "sizes 3 and 4"),
        (Product((Atom(2), Atom(3))), Product((Atom(3), Atom(2))), r"factors \(2\*3\) and \(3\*2\)"),
        (Concat((Atom(3), Atom(3))), Product((Atom(3), Atom(2))), "falls inside a factor"),
    ],
)
def test_what_cannot_be_aligned_is_refused(left, right, why):
    with pytest.raises(Mismatch, match=why):
        Unifier().unify(left, right)


def test_an_axis_cannot_contain_itself():
    atom = Atom(4)
    whole = Concat((atom, Atom(0)))
    with pytest.raises(Mismatch, match="contain itself"):
        Unifier().unify(atom, whole)


def test_an_axis_that_meets_itself_shifted_is_refused_instead_of_taken_apart_without_end():
    unifier, axis = Unifier(), Atom(2003)
    left, right = unifier.segment(axis, 1, 2003), unifier.segment(axis, 0, 2002)
    with pytest.raises(Mismatch, match="parts within parts"):
        unifier.unify(left, right)
    assert sum(atom.size for atom in atoms_of(axis)) == 2003


def test_positions_beside_shifted_positions_are_left_as_they_are():
    unifier, axis = Unifier(), Atom(2003)
    axis.marks.add("data")
    unifier.unify(unifier.segment(axis, 1, 2003), unifier.segment(axis, 0, 2002))
    assert len(atoms_of(axis)) <= 4
