"""The contract of an operation: a recipe step that proposes Edits and touches no weight.

An operation is a frozen value whose options are its fields. Its author writes `propose`, and where there
is something to demand or to promise, `requires` and `ensures`; `run` calls the three in that order and
checks the Plan so far against the Graph and the config. Not here: passes, which rewrite the Graph.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from surgeon.errors import SurgeonError
from surgeon.graph import Graph
from surgeon.graph.strict import Strict
from surgeon.operations.guard import Guard
from surgeon.operations.state import State
from surgeon.plan import Amount, Choice, Edit, Refused, StepRecord, check_plan
from surgeon.registry import Registry

if TYPE_CHECKING:
    from surgeon.calibrate import Statistic

__all__ = ["Operation", "Proposal", "operations"]

operations: Registry[type[Operation]] = Registry("operation", "surgeon.operations")


_NEARLY_ALL = 0.99
"""A step that keeps more than this cannot be made milder."""


@dataclass(frozen=True)
class Proposal:
    """What an operation wants done, in Axes of the Graph that it was given, and why."""

    edits: tuple[Edit, ...]
    choices: tuple[Choice, ...] = ()
    refused: tuple[Refused, ...] = ()
    notes: tuple[str, ...] = ()
    values: Mapping[str, object] = field(default_factory=dict)


class Operation(Strict, ABC):
    """A step that proposes Edits; a subclass has ``op: Literal["its_name"]`` and its options."""

    op: str
    guard: Guard | None = None
    """How much damage is accepted; a step that does more is made milder, or rejected."""

    @property
    def reads_weights(self) -> bool:
        """Whether `propose` looks at a tensor; a plan of steps that do not needs only a config."""
        return True

    def needs(self) -> frozenset[Statistic]:
        """Statistics that `propose` reads; none unless overridden."""
        return frozenset()

    def biases(self, graph: Graph) -> tuple[str, ...]:
        """Biases that must exist, added as zeros where the model's config can switch them on."""
        return ()

    def requires(self, state: State) -> None:
        """Refuse, with a SurgeonError, a State that this operation cannot work on."""
        return

    @abstractmethod
    def propose(self, state: State) -> Proposal:
        """The Edits, in the index space of the traced model; `state` is immutable."""

    def ensures(self, before: State, after: State) -> None:
        """Raise a SurgeonError where the Plan is not what this operation promises."""
        return

    def milder(self, state: State) -> Operation | None:
        """The same step with about half of its effect, or None where there is no such step.

        Unless overridden, a step that keeps a fraction of something keeps half of the rest as well.
        """
        keep = getattr(self, "keep", None)
        if not isinstance(keep, Amount) or keep.fraction is None or keep.fraction > _NEARLY_ALL:
            return None
        more = keep.model_copy(update={"fraction": (1 + keep.fraction) / 2})
        return self.model_copy(update={"keep": more})

    def run(self, state: State) -> tuple[State, StepRecord]:
        """`requires`, `propose`, `ensures`, and the checks of the contract.

        Raises:
            SurgeonError: of whatever type, its message led by the step and the operation.
        """
        try:
            proposal, after = self._guarded(state, self.guard) if self.guard else self._proposed(state)
        except SurgeonError as error:
            error.message = f"step {state.step} '{self.op}': {error.message}"
            raise
        options = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"op"})
        record = StepRecord(
            step=state.step,
            op=self.op,
            options=options,
            choices=proposal.choices,
            refused=proposal.refused,
            notes=proposal.notes,
        )
        return replace(after, step=state.step + 1), record

    def _proposed(self, state: State) -> tuple[Proposal, State]:
        self.requires(state)
        proposal = self.propose(state)
        after = state.after(proposal.edits, dict(proposal.values))
        check_plan(after.plan, state.graph, state.limits)
        self.ensures(state, after)
        return proposal, after

    def _guarded(self, state: State, guard: Guard) -> tuple[Proposal, State]:
        """The proposal of this step, or of a milder one, that does no more damage than accepted."""
        step: Operation | None = self
        notes: list[str] = []
        for attempt in range(guard.tries + 1):
            proposal, after = step._proposed(state)
            damage = guard.damage(state.trial(), after.plan)
            accepted = damage <= guard.max
            how = ("accepted", "accepted, made milder")[attempt > 0] if accepted else "too much"
            notes.append(f"guard: {guard.metric} {damage:.4g}, at most {guard.max:g}: {how}")
            if accepted:
                return replace(proposal, notes=(*proposal.notes, *notes)), after
            step = step.milder(state)
            if step is None:
                break
        return Proposal((), notes=(*notes, "guard: the step is rejected, nothing is changed")), state
