"""Terms: the symbolic expression of one tensor dim.

A dim is an `Atom` (one index set), a `Product` of factors, outermost first (what ``view`` splits and
merges), or a `Concat` of segments (what ``cat`` makes and ``slice`` cuts). An Atom that turns out to
be composite, or equal to another, is *bound* to that term; every holder of the Atom sees it.
Not here: how bindings come about (`unify`).
"""

from __future__ import annotations

import itertools
from typing import Literal

__all__ = [
    "Atom",
    "Concat",
    "Mark",
    "Product",
    "Term",
    "atoms_of",
    "concat",
    "is_data",
    "positions_in_rows",
    "product",
    "resolve",
]

Mark = Literal[
    "data",  # batch or sequence, or made of them
    "head",  # batch dim of a contraction between activations
    "head_dim",  # contracted, or carried through, by such a contraction
    "expanded",  # made by expanding a dim of size one
    "constant",  # indexed by values made inside forward
    "normalised",  # reduced by a mean or a norm
    "routed",  # ranked by top-k
    "lookup",  # rows of a table
    "position",  # rows of a table that constants or positions index, places in a kernel
    "part",  # taken apart index by index, as the three of a fused query, key and value
]

_ids = itertools.count(1)


class Atom:
    """One index set, until it is bound to a term that says more."""

    __slots__ = ("bound", "id", "locks", "marks", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.id = next(_ids)
        self.bound: Term | None = None
        self.locks: set[str] = set()
        self.marks: set[Mark] = set()

    def __repr__(self) -> str:
        return f"a{self.id}:{self.size}"


class Product:
    """Factors, outermost first; none of them a Product, none of size one."""

    __slots__ = ("parts", "size")

    def __init__(self, parts: tuple[Term, ...]) -> None:
        self.parts = parts
        self.size = 1
        for part in parts:
            self.size *= part.size

    def __repr__(self) -> str:
        return "(" + "*".join(map(repr, self.parts)) + ")"


class Concat:
    """Segments in order; none of them a Concat, none empty."""

    __slots__ = ("parts", "size")

    def __init__(self, parts: tuple[Term, ...]) -> None:
        self.parts = parts
        self.size = sum(part.size for part in parts)

    def __repr__(self) -> str:
        return "(" + "+".join(map(repr, self.parts)) + ")"


Term = Atom | Product | Concat


def resolve(term: Term) -> Term:
    """What `term` stands for after all bindings made so far."""
    if isinstance(term, Atom):
        if term.bound is None:
            return term
        term.bound = resolve(term.bound)
        return term.bound
    parts = tuple(resolve(part) for part in term.parts)
    if all(new is old for new, old in zip(parts, term.parts, strict=True)):
        return term
    return product(parts) if isinstance(term, Product) else concat(parts)


def product(parts: tuple[Term, ...] | list[Term]) -> Term:
    """The Product of `parts`, flattened; a fresh Atom of size one where nothing is left."""
    flat: list[Term] = []
    for part in map(resolve, parts):
        if isinstance(part, Product):
            flat.extend(part.parts)
        elif part.size != 1:
            flat.append(part)
    if not flat:
        return Atom(1)
    return flat[0] if len(flat) == 1 else Product(tuple(flat))


def concat(parts: tuple[Term, ...] | list[Term]) -> Term:
    """The Concat of `parts`, flattened; a fresh Atom of size zero where nothing is left."""
    flat: list[Term] = []
    for part in map(resolve, parts):
        if isinstance(part, Concat):
            flat.extend(part.parts)
        elif part.size != 0:
            flat.append(part)
    if not flat:
        return Atom(0)
    return flat[0] if len(flat) == 1 else Concat(tuple(flat))


def atoms_of(term: Term) -> list[Atom]:
    """Every unbound Atom in `term`, in order, repeats included."""
    term = resolve(term)
    if isinstance(term, Atom):
        return [term]
    return [atom for part in term.parts for atom in atoms_of(part)]


def is_data(term: Term) -> bool:
    """Whether a Term is made of batch and sequence alone."""
    return all("data" in atom.marks for atom in atoms_of(term) if atom.size > 1)


def positions_in_rows(term: Term, rows: int) -> tuple[Term, Term] | None:
    """Batch or sequence in so many rows, whatever parts it is made of; None for anything else."""
    if not is_data(term):
        return None
    made = Atom(rows), Atom(term.size // rows)
    for atom in made:
        atom.marks.add("data")
    return made
