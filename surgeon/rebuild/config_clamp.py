"""Fewer experts than a token takes: the config field that holds the top-k follows what is left."""

from __future__ import annotations

from surgeon.errors import InfeasibleError
from surgeon.graph import Graph, Group
from surgeon.plan import Plan
from surgeon.rebuild.config_probe import ConfigSpace, Field
from surgeon.rebuild.config_search import Changes
from surgeon.rebuild.config_tree import Path

__all__ = ["clamped"]


def clamped(space: ConfigSpace, graph: Graph, plan: Plan) -> Changes:
    """New values of the fields that hold a top-k larger than what `plan` leaves to choose from.

    Such a field is known by what it moves: no tensor, only numbers of modules that equal the top-k of the
    trace.

    Raises:
        InfeasibleError: no field holds the top-k of experts that are too few.
    """
    least: dict[Path, int] = {}
    for axis, kept in plan.kept().items():
        group = graph.group(axis)
        if group.picked <= len(kept):
            continue
        holders = [f for f in space.fields if _holds(f, group, space)]
        if not holders:
            raise InfeasibleError(
                f"'{axis}' keeps {len(kept)}, and its router takes {group.picked} at once, which no field of "
                "the config holds alone",
                hint=f"keep at least {group.picked}",
            )
        for holder in holders:
            least[holder.path] = min(len(kept), least.get(holder.path, len(kept)))
    return dict(least)


def _holds(f: Field, group: Group, space: ConfigSpace) -> bool:
    whole = all(len(site.layout.modes) == 1 for site in group.sites)
    numbers = [space.shallow.base.numbers.get(number) for number in f.numbers]
    return whole and f.bare and bool(numbers) and f.value == group.picked and set(numbers) == {group.picked}
