"""Layers that lose all: where an Axis may be emptied, its sublayer is dropped as such."""

from __future__ import annotations

from collections.abc import Sequence

from surgeon.errors import InfeasibleError
from surgeon.graph import Group
from surgeon.operations.pool import Pool
from surgeon.operations.state import State
from surgeon.plan import DropBlock, Edit, Keep, check_plan

__all__ = ["cut_edits", "refuse_inexpressible"]


def cut_edits(pools: Sequence[Pool], counts: Sequence[int], state: State) -> tuple[Edit, ...]:
    """The best `counts` of every Axis; a sublayer is dropped that keeps none.

    Raises:
        InfeasibleError: an Axis keeps none and is not that of a sublayer.
    """
    edits: list[Edit] = []
    for pool, count in zip(pools, counts, strict=True):
        for member in pool.members:
            if count:
                edits.append(Keep(member.group.name, member.best(count), state.step))
            else:
                edits.append(DropBlock(_sublayer(member.group, state), state.step))
    return tuple(dict.fromkeys(edits))


def refuse_inexpressible(edits: Sequence[Edit], state: State) -> None:
    """Refuse dropped sublayers that the model, or every config, cannot do without.

    Raises:
        InfeasibleError: says why.
    """
    dropped = [edit.block for edit in edits if isinstance(edit, DropBlock)]
    if not dropped:
        return
    after = state.after(edits).plan
    check_plan(after, state.graph)
    reason = state.inexpressible(after)
    if reason is not None:
        raise InfeasibleError(
            f"'{dropped[0]}' and {len(dropped) - 1} more sublayers would lose all: {reason}"
            if len(dropped) > 1
            else f"'{dropped[0]}' would lose all: {reason}",
            hint="least: 1, or export: {layout: per_layer}",
        )


def _sublayer(group: Group, state: State) -> str:
    """The sublayer that goes with `group`."""
    if group.sublayer is None or group.kind not in ("ffn", "kv_group"):
        raise InfeasibleError(
            f"'{group.name}' of kind {group.kind} cannot lose all: no sublayer goes with it", hint="least: 1"
        )
    return group.sublayer
