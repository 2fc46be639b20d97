"""Allocation: how scores become kept counts.

A frozen recipe object chosen by ``allocation:``; one a file, registered in `allocations`. It answers two
questions about Pools: how many each keeps at a fraction, and, for a budget, which counts there are from
most to least. Not here: the budget itself, and what a config allows (`surgeon.operations.remove`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from surgeon.graph.strict import Strict
from surgeon.operations.pool import Counts, Pool
from surgeon.operations.state import State
from surgeon.plan import Amount
from surgeon.registry import Registry
from surgeon.repair import Repair

__all__ = ["Allocation", "Ladder", "allocations"]


@dataclass(frozen=True)
class Ladder:
    """Counts from most kept to least: ``at(0)`` to ``at(length - 1)``, no Pool ever growing."""

    length: int
    at: Callable[[int], Counts]

    def first(self, fits: Callable[[Counts], bool]) -> Counts | None:
        """The highest counts that fit, by bisection, or None where not even the lowest do."""
        low, high = 0, self.length
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(self.at(middle)) else (middle + 1, high)
        return self.at(low) if low < self.length else None


class Allocation(Strict, ABC):
    """Base of all allocations; a subclass has ``allocation: Literal["its_name"]`` and its options."""

    allocation: str

    @property
    def measures(self) -> bool:
        """Whether `weighed` runs the model on calibration text."""
        return False

    def weighed(self, pools: Sequence[Pool], state: State, repair: Repair) -> tuple[Pool, ...]:
        """`pools` with what this allocation goes by beside their scores; as they are unless overridden.

        Args:
            pools: scored, the Plan of `state` in force.
            state: the model so far.
            repair: what will mend the cut.
        """
        return tuple(pools)

    @abstractmethod
    def counts(self, pools: Sequence[Pool], amount: Amount) -> Counts:
        """Kept count of every Pool at the fraction that `amount` gives, never more than is left.

        Raises:
            InfeasibleError: the fraction keeps nothing.
        """

    @abstractmethod
    def ladder(self, pools: Sequence[Pool]) -> Ladder:
        """All counts that this allocation can give, from most to least."""


allocations: Registry[type[Allocation]] = Registry("allocation", "surgeon.operations.allocation")
