"""Unification of Terms: two dims that an op makes equal become one expression.

Unifying expressions of different shape refines both: an Atom that meets a product becomes that
product, products are aligned factor by factor, concats cut point by cut point. Each binding is
written down with the op and module that caused it, so that every coupling can be explained. What
cannot be unified raises `Mismatch`; the caller locks the Atoms involved.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from surgeon.trace.terms import (
    Atom,
    Concat,
    Mark,
    Product,
    Term,
    atoms_of,
    concat,
    is_data,
    positions_in_rows,
    product,
    resolve,
)

__all__ = ["Binding", "Mismatch", "Unifier"]

_DEEP = 100
"""Unifications within unifications; no layout of a model has so many."""


class Mismatch(Exception):
    """Two Terms that cannot be made equal; never leaves the tracer."""


@dataclass(frozen=True, slots=True)
class Binding:
    """Evidence: Atom `atom` was bound to a term of the Atoms `to`, by `op` in `module`."""

    atom: int
    to: tuple[int, ...]
    op: str
    module: str


class Unifier:
    """The state of all bindings of one trace. `op` and `module` name the cause of what follows."""

    def __init__(self) -> None:
        self.bindings: list[Binding] = []
        self.op = ""
        self.module = ""
        self._depth = 0

    # ------------------------------------------------------------------ locks and marks

    def lock(self, term: Term, reason: str) -> None:
        """Give every Atom of `term` a reason not to be cut."""
        for atom in atoms_of(term):
            if atom.size > 1:
                atom.locks.add(reason)

    def mark(self, term: Term, *marks: Mark) -> None:
        """Put `marks` on every Atom of `term`."""
        for atom in atoms_of(term):
            atom.marks.update(marks)

    def bind(self, atom: Atom, term: Term) -> None:
        """Let `atom` stand for `term`; its locks and marks pass on."""
        atom.bound = term
        leaves = atoms_of(term)
        for leaf in leaves:
            leaf.locks |= atom.locks
            leaf.marks |= atom.marks
        self.bindings.append(Binding(atom.id, tuple(leaf.id for leaf in leaves), self.op, self.module))

    # ------------------------------------------------------------------ unification

    def unify(self, left: Term, right: Term) -> None:
        """Make `left` and `right` one expression.

        Raises:
            Mismatch: sizes differ, or factors and segments cannot be aligned, or only by ever smaller ones,
                as those of an axis that meets itself shifted by a place.
        """
        left, right = resolve(left), resolve(right)
        if left is right:
            return
        if left.size != right.size:
            raise Mismatch(f"sizes {left.size} and {right.size}")
        if left.size <= 1:
            return
        if self._depth >= _DEEP:
            raise Mismatch(f"parts within parts, {_DEEP} deep")
        self._depth += 1
        try:
            self._unify_sized(left, right)
        finally:
            self._depth -= 1

    def _unify_sized(self, left: Term, right: Term) -> None:
        if isinstance(left, Atom) or isinstance(right, Atom):
            self._unify_atom(left, right)
        elif isinstance(left, Product) and isinstance(right, Product):
            self._align_products(left, right)
        elif is_data(left) and is_data(right):
            return  # positions beside positions that are shifted or joined elsewhere: nothing to learn
        elif isinstance(left, Concat):
            self._align_concats(left, right)
        elif isinstance(right, Concat):
            self._align_concats(right, left)

    def _unify_atom(self, left: Term, right: Term) -> None:
        atom, term = (right, left) if isinstance(right, Atom) else (left, right)
        assert isinstance(atom, Atom)
        if not isinstance(term, Atom) and any(leaf is atom for leaf in atoms_of(term)):
            raise Mismatch("an axis cannot contain itself")
        self.bind(atom, term)

    def _align_products(self, left: Product, right: Product) -> None:
        """Match factors from the outer end; where that fails, from the inner end."""
        pairs = self._walk_factors(left, right, from_outer=True)
        if pairs is None:
            pairs = self._walk_factors(left, right, from_outer=False)
        if pairs is None:
            raise Mismatch(f"factors {_sizes(left)} and {_sizes(right)} do not align")
        for a, b in pairs:
            self.unify(a, b)

    def _walk_factors(
        self, left: Product, right: Product, *, from_outer: bool
    ) -> list[tuple[Term, Term]] | None:
        xs: list[Term] = list(left.parts)
        ys: list[Term] = list(right.parts)
        end = 0 if from_outer else -1
        pairs: list[tuple[Term, Term]] = []
        while xs and ys:
            x, y = resolve(xs.pop(end)), resolve(ys.pop(end))
            if x.size == y.size:
                pairs.append((x, y))
                continue
            big, small, rest_of = (x, y, xs) if x.size > y.size else (y, x, ys)
            if big.size % small.size:
                return None
            outer_size = small.size if from_outer else big.size // small.size
            halves = self.factor(big, outer_size)
            if halves is None:
                return None
            matched, rest = halves if from_outer else (halves[1], halves[0])
            pairs.append((matched, small))
            rest_of.insert(0 if from_outer else len(rest_of), rest)
        return pairs

    def _align_concats(self, left: Concat, right: Term) -> None:
        """Cut both at each other's boundaries; a product is cut through its outermost factor."""
        xs: list[Term] = list(left.parts)
        ys: list[Term] = list(right.parts) if isinstance(right, Concat) else [right]
        while xs and ys:
            x, y = resolve(xs.pop(0)), resolve(ys.pop(0))
            if x.size > y.size:
                x, rest = self.cut(x, y.size)
                xs.insert(0, rest)
            elif y.size > x.size:
                y, rest = self.cut(y, x.size)
                ys.insert(0, rest)
            self.unify(x, y)

    # ------------------------------------------------------------------ splitting

    def factor(self, term: Term, outer_size: int) -> tuple[Term, Term] | None:
        """Write `term` as outer * inner with the given outer size; None where that is impossible."""
        term = resolve(term)
        if outer_size == 1:
            return Atom(1), term
        if outer_size == term.size:
            return term, Atom(1)
        if term.size % outer_size:
            return None
        if isinstance(term, Atom):
            outer, inner = Atom(outer_size), Atom(term.size // outer_size)
            self.bind(term, Product((outer, inner)))
            return outer, inner
        if isinstance(term, Product):
            return self._factor_product(term, outer_size)
        return self._factor_concat(term, outer_size)

    def _factor_product(self, term: Product, outer_size: int) -> tuple[Term, Term] | None:
        outer: list[Term] = []
        inner = list(term.parts)
        left = outer_size
        while left > 1:
            part = resolve(inner.pop(0))
            if left % part.size == 0:
                outer.append(part)
                left //= part.size
                continue
            if part.size % left:
                return None
            halves = self.factor(part, left)
            if halves is None:
                return None
            outer.append(halves[0])
            inner.insert(0, halves[1])
            left = 1
        return product(outer), product(inner)

    def _factor_concat(self, term: Concat, outer_size: int) -> tuple[Term, Term] | None:
        """Every segment must be a multiple of the inner size; the inner factor becomes common."""
        inner_size = term.size // outer_size
        if any(part.size % inner_size for part in term.parts):
            return None
        inner: Term = Atom(inner_size)
        outers: list[Term] = []
        for part in map(resolve, term.parts):
            halves = self.factor(part, part.size // inner_size)
            if halves is None:
                return None
            self.unify(inner, halves[1])
            outers.append(halves[0])
        return concat(outers), resolve(inner)

    def cut(self, term: Term, position: int) -> tuple[Term, Term]:
        """Cut `term` into a head of `position` and the rest.

        Raises:
            Mismatch: the position falls inside an inner factor, or at an end.
        """
        term = resolve(term)
        if position <= 0 or position >= term.size:
            raise Mismatch(f"no cut at {position} of {term.size}")
        if isinstance(term, Atom):
            head, tail = Atom(position), Atom(term.size - position)
            self.bind(term, Concat((head, tail)))
            return head, tail
        if isinstance(term, Concat):
            return self._cut_concat(term, position)
        inner = term.size // term.parts[0].size
        if position % inner:
            raise Mismatch(f"{position} falls inside a factor of {_sizes(term)}")
        head, tail = self.cut(term.parts[0], position // inner)
        # cutting the outer factor may have rebound the inner ones as well
        return product((head, *term.parts[1:])), product((tail, *term.parts[1:]))

    def _cut_concat(self, term: Concat, position: int) -> tuple[Term, Term]:
        before: list[Term] = []
        after = list(term.parts)
        while position >= after[0].size:
            before.append(after.pop(0))
            position -= before[-1].size
        if position:
            head, tail = self.cut(after[0], position)
            before.append(head)
            after[0] = tail
        return concat(before), concat(after)

    def segment(self, term: Term, start: int, stop: int) -> Term:
        """The part of `term` from `start` to `stop`."""
        term = resolve(term)
        if stop <= start:
            return Atom(0)
        if stop < term.size:
            term, _ = self.cut(term, stop)
        if start > 0:
            _, term = self.cut(term, start)
        return resolve(term)

    def reshape(self, terms: Iterable[Term], sizes: Iterable[int]) -> list[Term] | None:
        """Regroup the factors of `terms` into dims of `sizes`; None where they do not align."""
        waiting = [resolve(term) for term in terms if term.size != 1]
        shaped: list[Term] = []
        for size in sizes:
            factors: list[Term] = []
            missing = size
            while missing > 1:
                if not waiting:
                    return None
                term = resolve(waiting.pop(0))
                if term.size == 0 or missing % term.size == 0:
                    factors.append(term)
                    missing = missing // term.size if term.size else 1
                    continue
                if term.size % missing:
                    return None
                halves = self.factor(term, missing) or positions_in_rows(term, missing)
                if halves is None:
                    return None
                factors.append(halves[0])
                waiting.insert(0, halves[1])
                missing = 1
            shaped.append(product(factors))
        return shaped


def _sizes(term: Term) -> str:
    if isinstance(term, Atom):
        return str(term.size)
    sign = "*" if isinstance(term, Product) else "+"
    return "(" + sign.join(_sizes(resolve(part)) for part in term.parts) + ")"
