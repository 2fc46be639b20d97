"""From selected Groups to scored Pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import lcm
from typing import TYPE_CHECKING

import numpy as np

from surgeon.criteria import Criterion, Scores, channels, trainable
from surgeon.errors import InfeasibleError
from surgeon.graph import Graph, Group
from surgeon.operations.pool import Depth, Member, Pool
from surgeon.operations.scoring import scores_of, scores_of_all
from surgeon.operations.state import State
from surgeon.plan import gone_groups, kept_of, unit_cost

if TYPE_CHECKING:
    from surgeon.calibrate import Statistics

__all__ = ["make_pools", "refuse_partial_ties", "scored"]

_ROW = 8
"""Numbers of two bytes that fill the 16 bytes in which grouped matrix products read rows."""


def make_pools(
    state: State,
    groups: Sequence[Group],
    criterion: Criterion,
    began: Mapping[str, int],
    multiple_of: int,
    least: int = 1,
) -> tuple[Pool, ...]:
    """Score `groups` as `state` leaves them, and pool those that the config ties to one count.

    Args:
        state: the Plan so far is in force: weights are masked, statistics those of the masked view.
        groups: selected, none locked.
        criterion: scores them.
        began: indices of each Axis when the step began.
        multiple_of: of every kept count; of channels inside of stacked experts, also of 8, as theirs is.
        least: the smallest count that may be kept.

    Raises:
        InfeasibleError: tied Groups differ already, or are smaller than `multiple_of`.
        SurgeonError: the criterion does not give one score an index.
    """
    scores = scores_of_all(state, groups, criterion)
    members = {group.name: _member(state, group, scores[group.name]) for group in groups}
    stacks = _stacks(state.graph)
    pools = []
    for names in state.limits.tied(tuple(members)):
        width = channels(trainable(members[names[0]].group, state.graph))
        together = tuple(members[name] for name in names)
        depth = _depth([member.group for member in together], state.graph)
        multiple = lcm(multiple_of, *(_row(member.group, stacks) for member in together))
        pools.append(Pool(together, began[names[0]], width, multiple, least, depth))
    return tuple(pools)


def _stacks(graph: Graph) -> frozenset[str]:
    """Parameters that hold one matrix for each expert."""
    experts = (site for group in graph.of_kind("expert") for site in group.sites if site.dim == 0)
    return frozenset(site.param for site in experts if len(graph.parameters[site.param].shape) == 3)


def _row(group: Group, stacks: frozenset[str]) -> int:
    """What a kept count must be a multiple of, so that grouped products can run a stack of matrices."""
    stacked = group.kind != "expert" and not stacks.isdisjoint(group.params)
    return _ROW if stacked and group.size % _ROW == 0 else 1


def scored(state: State, group: Group, criterion: Criterion, statistics: Statistics) -> Member:
    """What is left of `group`, with its scores.

    Raises:
        SurgeonError: the criterion does not give one score an index.
    """
    return _member(state, group, scores_of(state, group, criterion, statistics))


def _member(state: State, group: Group, scores: Scores) -> Member:
    left = kept_of(state.plan, group)
    return Member(
        group,
        left,
        scores.values[np.array(left)],
        unit_cost(group, state.graph),
        scores.spread,
        scores.best,
        scores.search,
    )


def _depth(groups: Sequence[Group], graph: Graph) -> Depth | None:
    """Mean depth of Groups, or None where they lie in no Blocks of one Stack."""
    blocks = {group.block for group in groups}
    for stack in graph.stacks:
        places = [place for place, block in enumerate(stack.blocks) if block.name in blocks]
        if len(places) == len(blocks):
            return Depth(sum(places) / len(places), len(stack))
    return None


def refuse_partial_ties(state: State, groups: Sequence[Group]) -> None:
    """Refuse a selection that has some Axes of a size that the config holds once for more.

    Raises:
        InfeasibleError: says how many the selection has, and which it lacks.
    """
    selected = {group.name for group in groups}
    kinds = {group.kind for group in groups}
    gone = gone_groups(state.plan, state.graph)
    alike = tuple(g.name for g in state.graph.groups if g.kind in kinds and g.name not in gone)
    for names in state.limits.tied(alike):
        lacking = [name for name in names if name not in selected]
        if lacking and len(lacking) < len(names):
            raise InfeasibleError(
                f"the model's config holds one size for {len(names)} axes, and the selection has "
                f"{len(names) - len(lacking)} of them; it lacks "
                f"{', '.join(_with_reason(state, name) for name in lacking[:3])}"
                + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""),
                hint="select all of them, or export: {layout: per_layer}",
            )


def _with_reason(state: State, name: str) -> str:
    locked = state.graph.group(name).locked
    return f"'{name}' ({locked})" if locked else f"'{name}'"
