"""State: what an operation finds when its turn comes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from surgeon.calibrate import Statistic, Statistics
from surgeon.errors import SelectorError, SurgeonError
from surgeon.graph import Graph, Group, Selector
from surgeon.operations.masked_weights import MaskedWeights
from surgeon.plan import (
    Edit,
    GroupedLimits,
    LeftLimits,
    Limits,
    Plan,
    Refused,
    Unlimited,
    gone_groups,
    traced_edits,
)

if TYPE_CHECKING:
    from torch import Tensor

    from surgeon.calibrate import Bench
    from surgeon.rebuild import TensorSource

__all__ = ["Inexpressible", "Measure", "State"]

Measure = Callable[[Plan, frozenset[Statistic]], Statistics]
"""Measures Statistics on the model as it is under a Plan: on its masked view."""

Inexpressible = Callable[[Plan], str | None]
"""Says why no config builds what a Plan leaves, or None where one does."""


@dataclass(frozen=True)
class State:
    """The model so far: its Graph as passes left it, and the Plan of the steps before.

    `source` holds the model's own tensors and `measure` runs its calibration text; either is None where
    no step declared that it needs one. `config_limits` is what the exported config can express of widths,
    `inexpressible` of a whole Plan. `protected` are the Axes that passes of the recipe locked. `bench`
    runs the model under Plans that are only tried.
    """

    graph: Graph
    plan: Plan
    step: int = 0
    config_limits: Limits = field(default_factory=Unlimited)
    source: TensorSource | None = None
    measure: Measure | None = None
    bench: Bench | None = None
    protected: frozenset[str] = frozenset()
    inexpressible: Inexpressible = lambda plan: None

    @cached_property
    def limits(self) -> Limits:
        """What the config can express, asked about Axes of this Graph that are left."""
        whole = GroupedLimits(self.config_limits, self.graph)
        gone = gone_groups(self.plan, self.graph)
        return LeftLimits(whole, tuple(sorted(gone))) if gone else whole

    @cached_property
    def weights(self) -> TensorSource:
        """The tensors under the Plan so far, removed parts zero; where there are none, reading fails."""
        return MaskedWeights(self.source or _Unread(), self.plan, self.graph)

    def statistics(self, keys: Iterable[Statistic], groups: Collection[Group] | None = None) -> Statistics:
        """`keys`, measured under the Plan so far, and nothing else to be read.

        Where `groups` are given, no more is measured than a step needs that works on these.

        Raises:
            SurgeonError: there is no calibration text to measure them on.
        """
        wanted = frozenset(keys)
        if not wanted:
            return Statistics()
        if self.measure is None:
            listing = ", ".join(sorted(key.statistic for key in wanted))
            raise SurgeonError(
                f"step {self.step} needs the statistics {listing}, and there is no calibration text",
                hint="add calibration: {texts: ...} to the recipe, or hand in texts",
            )
        narrow = {key: key if groups is None else key.on(self.graph, groups) for key in wanted}
        return self.measure(self.plan, frozenset(narrow.values())).renamed(narrow)

    def selected(self, select: Selector) -> tuple[Group, ...]:
        """What `select` chooses, apart from what went with dropped Blocks and what a pass protects.

        Raises:
            SelectorError: the selection is empty, or nothing of it is left.
        """
        gone = gone_groups(self.plan, self.graph)
        groups = tuple(group for group in select.on(self.graph) if group.name not in gone)
        if not groups:
            raise SelectorError(
                f"all that is selected went with blocks that steps before step {self.step} dropped",
                hint="select others",
            )
        free = tuple(group for group in groups if group.name not in self.protected)
        if not free:
            raise SelectorError(
                f"all {len(groups)} selected axes are locked by passes before step {self.step} "
                f"(first: '{groups[0].name}': {groups[0].locked})",
                hint="select others, or leave the pass out",
            )
        return free

    def spared(self, select: Selector) -> tuple[Refused, ...]:
        """What `select` chooses and a pass protects, with its reason."""
        return tuple(
            Refused(axis=group.name, reason=group.locked or "locked by a pass")
            for group in select.on(self.graph)
            if group.name in self.protected
        )

    def trial(self) -> Bench:
        """The model and its calibration text, to try Plans on.

        Raises:
            SurgeonError: there is no calibration text.
        """
        if self.bench is None:
            raise SurgeonError(
                f"step {self.step} tries plans on calibration text, and there is none",
                hint="add calibration: {texts: ...} to the recipe, or hand in texts",
            )
        return self.bench

    def after(self, edits: Iterable[Edit], values: dict[str, object] | None = None) -> State:
        """The State with more Edits, of Axes of this Graph.

        Raises:
            ConflictError: an Edit contradicts an earlier step.
        """
        return replace(self, plan=self.plan.add(traced_edits(edits, self.graph), values))


class _Unread:
    """In the place of weights that no step declared to read."""

    def names(self) -> tuple[str, ...]:
        return ()

    def shape(self, name: str) -> tuple[int, ...]:
        raise self._absent(name)

    def get(self, name: str) -> Tensor:
        raise self._absent(name)

    @staticmethod
    def _absent(name: str) -> SurgeonError:
        return SurgeonError(
            f"the weights of '{name}' are needed, and no weights were loaded",
            hint="let reads_weights of the criterion or operation say that it reads them",
        )
