"""What is known while Events are propagated: Terms, index domains, taint, parameter views, roles."""

from __future__ import annotations

from surgeon.graph import Role
from surgeon.trace.lanes import Lanes
from surgeon.trace.record import Event, Recorder, Value
from surgeon.trace.taint import Taint
from surgeon.trace.terms import Atom, Term, resolve
from surgeon.trace.unify import Unifier

__all__ = ["TraceState"]


class TraceState:
    """Facts about the values of one recording, by value number.

    dims: the Term of every dim. domains: what an index tensor's values run over. tainted: values
    that depend on the model's inputs, which are therefore never constants. origins: the parameter
    that a value is a plain view of. roles: how a Term is used in a parameter.
    constants: values made inside forward, whose numbers tell their positions apart.
    mixing: events that contract two activations over positions. scans: events that walk along the
    sequence (a convolution, a recurrence). read: values that some op reads. rankings: Terms that a
    top-k ranked, with its k. lanes: what is taken apart index by index, and joined again. named: events
    that read one row of a table by its number, with the rows. picked: Terms some of whose indices are
    read one by one, with their numbers.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.unifier = Unifier()
        self.dims: dict[int, list[Term]] = {}
        self.domains: dict[int, Term] = {}
        self.same_index: dict[int, int] = {}
        self.taint = Taint()
        self.inputs: dict[int, str] = {}
        self.origins: dict[int, frozenset[str]] = {}
        self.roles: list[tuple[str, Term, Role]] = []
        self.constants: set[int] = set()
        self.mixing: set[int] = set()
        self.scans: set[int] = set()
        self.read: set[int] = set()
        self.rankings: list[tuple[Term, int]] = []
        self.lanes = Lanes({}, frozenset())
        self.named: list[tuple[Event, Term, int]] = []
        self.picked: list[tuple[Term, tuple[int, ...]]] = []
        self.unruled: dict[str, set[str]] = {}
        self.data_sizes: frozenset[int] = frozenset()

    @property
    def tainted(self) -> set[int]:
        """Values that depend on the model's inputs."""
        return self.taint.values

    def dims_of(self, value: Value) -> list[Term]:
        """Terms of a value; made on first sight."""
        if value.id not in self.dims:
            self.dims[value.id] = [self.new_atom(size) for size in self.recorder.tensors[value.id].shape]
        return self.dims[value.id]

    def index_root(self, number: int) -> int:
        """The value whose numbers `number` copies."""
        while number in self.same_index:
            number = self.same_index[number]
        return number

    def is_input(self, value: Value) -> bool:
        """Whether the value is (a copy of) an input of the model."""
        return self.index_root(value.id) in self.inputs

    def new_atom(self, size: int) -> Atom:
        """A fresh Atom; one of the batch's or the sequence's size is data."""
        atom = Atom(size)
        if size in self.data_sizes:
            atom.marks.add("data")
        return atom

    def is_counted(self, term: Term) -> bool:
        """Whether pieces of positions are as long as each index of `term` was counted."""
        counted = [self.dims[number][0] for number in self.lanes.counts if number in self.dims]
        return any(resolve(one) is resolve(term) for one in counted)
