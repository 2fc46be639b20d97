"""The registry of op rules, and `Op`: one recorded event as a rule sees it.

A rule is a function of one `Op`, registered under ATen names without namespace, overload and
trailing underscore. It reads the Terms of the inputs, unifies what the op makes equal, and sets the
Terms of the outputs. One rule family is one file in `surgeon.trace.rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from surgeon.graph import Role
from surgeon.registry import Registry
from surgeon.trace.record import Event, Value
from surgeon.trace.state import TraceState
from surgeon.trace.terms import Atom, Mark, Term, resolve
from surgeon.trace.unify import Mismatch

__all__ = ["Op", "Rule", "base_name", "rules"]


class Op:
    """One event with its Terms. Sizes and Terms are lists in the order of the tensor's dims."""

    def __init__(self, event: Event, state: TraceState) -> None:
        self.event = event
        self.state = state
        self.name = base_name(event.name)
        self.args = event.args
        self.inputs = event.inputs
        self.outs = event.outputs
        self.followed: set[int] = set()

    # ------------------------------------------------------------------ reading

    @property
    def out(self) -> Value:
        """The first output."""
        return self.outs[0]

    def arg(self, place: int, name: str, default: Any = None) -> Any:
        """A non-tensor argument by place or keyword."""
        if place < len(self.args):
            value = self.args[place]
        else:
            value = self.event.kwargs.get(name, default)
        return default if value is None else value

    def tensor(self, value: Value) -> torch.Tensor:
        """The recorded tensor: real for inputs, masks and indices, FakeTensor otherwise."""
        return self.state.recorder.tensors[value.id]

    def shape(self, value: Value) -> list[int]:
        """Sizes of the recorded tensor."""
        return list(self.tensor(value).shape)

    def dims(self, value: Value) -> list[Term]:
        """Terms of a tensor, fresh Atoms where nothing is known yet."""
        return [resolve(term) for term in self.state.dims_of(value)]

    def dim(self, number: int, rank: int) -> int:
        """A dim number counted from the front."""
        return number + rank if number < 0 else number

    # ------------------------------------------------------------------ writing

    def set(self, value: Value, terms: Sequence[Term]) -> None:
        """Give an output its Terms; an in-place result unifies with what it was."""
        sizes = self.shape(value)
        if [term.size for term in terms] != sizes:
            raise Mismatch(f"rule for {self.name} made sizes {[t.size for t in terms]} of {sizes}")
        if value.id in self.state.dims:
            for old, new in zip(self.state.dims[value.id], terms, strict=True):
                self.unify(old, new)
        else:
            self.state.dims[value.id] = list(terms)

    def fresh(self, size: int, *marks: Mark) -> Atom:
        """A new Atom."""
        atom = Atom(size)
        atom.marks.update(marks)
        return atom

    def unify(self, left: Term, right: Term) -> None:
        """Make two Terms one; where that is impossible both are locked and the trace goes on."""
        try:
            self.state.unifier.unify(left, right)
        except Mismatch as error:
            self.lock(left, f"cannot be aligned: {error}")
            self.lock(right, f"cannot be aligned: {error}")

    def lock(self, term: Term, why: str) -> None:
        """Lock every Atom of `term`, naming this op and its module."""
        self.state.unifier.lock(term, f"{why} (aten.{self.name} in {self.event.module or 'the model'})")

    def mark(self, term: Term, *marks: Mark) -> None:
        """Mark every Atom of `term`."""
        self.state.unifier.mark(term, *marks)

    def note_role(self, value: Value, term: Term, role: Role) -> None:
        """If `value` is (a view of) a parameter, `term` has this role in it."""
        for param in self.state.origins.get(value.id, ()):
            self.state.roles.append((param, term, role))

    # ------------------------------------------------------------------ index tensors

    def pass_domain(self, source: Value, *targets: Value) -> None:
        """The values of `targets` index what the values of `source` index."""
        self.followed.add(source.id)
        for target in targets:
            if target.id != source.id:
                self.state.same_index[target.id] = self.state.index_root(source.id)

    def set_domain(self, index: Value, term: Term) -> None:
        """The values of `index` run over `term`."""
        self.state.domains[self.state.index_root(index.id)] = term

    def domain(self, index: Value) -> Term | None:
        """What the values of `index` run over, if known."""
        return self.state.domains.get(self.state.index_root(index.id))

    def follow(self, *values: Value) -> None:
        """What this op does with the numbers of these index tensors is the same for every numbering."""
        self.followed.update(value.id for value in values)

    def lock_unfollowed(self) -> None:
        """Lock what index tensors run over, where the rule did not say what becomes of their numbers."""
        for value in self.inputs:
            domain = self.domain(value)
            if domain is not None and value.id not in self.followed:
                self.lock(domain, "computed with its indices")

    def look_up(self, index: Value, rows: Term) -> None:
        """`index` picks positions of `rows`: couples through the values, or locks."""
        self.followed.add(index.id)
        if rows.size <= 1:
            return
        self.mark(rows, "lookup")
        known = self.domain(index)
        if known is not None and known.size == rows.size:
            self.unify(known, rows)
        elif known is not None:
            self.lock(rows, "indexed by values that run over another axis")
            self.lock(known, "its indices pick positions of another axis")
        elif self.state.is_input(index):
            self.set_domain(index, rows)
        elif index.id in self.state.tainted:
            self.lock(rows, "indexed by values computed from the inputs")
        else:
            self.mark(rows, "position")
            self.lock(rows, "indexed by constants or positions")


Rule = Callable[[Op], None]
rules: Registry[Rule] = Registry("op rule", "surgeon.trace.rules")


def base_name(name: str) -> str:
    """ATen name without the in-place underscore: ``add_`` is ``add``, ``_softmax`` stays."""
    return name.rstrip("_") if name.endswith("_") and not name.endswith("__") else name
