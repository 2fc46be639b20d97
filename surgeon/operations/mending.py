"""What the repair of a step assigns: nothing where it has none, else what is measured and fitted.

A step without a repair needs no torch, so what fits is imported where there is something to fit. Not here:
how it is done, for projections that lost inputs (`repairing`), for experts (`repairing_experts`), and
behind gaps in the depth (`bridging`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from surgeon.graph import BlockSelector
from surgeon.operations.state import State
from surgeon.plan import Assign, Edit
from surgeon.repair import Repair, cuts_made

__all__ = ["Mended", "bridged", "repaired", "repaired_experts", "unfit_for_gaps"]


@dataclass(frozen=True)
class Mended:
    """Edits that assign what a repair computed, their tensors, and what is worth saying."""

    edits: tuple[Assign, ...] = ()
    values: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def then(self, other: Mended) -> Mended:
        """Both, one after the other."""
        return Mended(
            (*self.edits, *other.edits), {**self.values, **other.values}, (*self.notes, *other.notes)
        )

    def on(self, edits: Sequence[Edit]) -> tuple[tuple[Edit, ...], dict[str, object]]:
        """`edits` and these, with their tensors."""
        return (*edits, *self.edits), dict(self.values)


def repaired(repair: Repair, before: State, after: State) -> Mended:
    """What `repair` assigns for the cuts that lie between two States of one step.

    Raises:
        InfeasibleError: the repair cannot be made on this model.
    """
    if not repair.needs_text:
        return Mended()
    from surgeon.operations.repairing import mended

    return mended(repair, cuts_made(before.plan, after.plan, before.graph), before, after.plan)


def repaired_experts(repair: Repair, before: State, after: State) -> Mended:
    """What `repair` assigns for the experts that are removed between two States of one step.

    Raises:
        InfeasibleError: the repair is none that experts can have.
    """
    if not repair.needs_text:
        return Mended()
    from surgeon.operations.repairing_experts import mended_experts

    return mended_experts(repair, before, after)


def bridged(repair: Repair, select: BlockSelector, before: State, after: State) -> Mended:
    """What `repair` assigns for the Blocks that `after` drops and `before` does not."""
    if not repair.needs_text:
        return Mended()
    from surgeon.operations.bridging import bridges

    return bridges(repair, select, before, after)


def unfit_for_gaps(repair: Repair) -> str | None:
    """Why `repair` cannot bridge a gap, or None."""
    if not repair.needs_text or getattr(repair, "target", None) == "stream":
        return None
    return (
        f"repair '{repair.repair}' mends projections that lost inputs; behind a gap in the depth only "
        "repair: {repair: refit, target: stream} can"
    )
