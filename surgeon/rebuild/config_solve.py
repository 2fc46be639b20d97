"""From planned shapes to a config that builds them, with a ledger of what changed, or a refusal.

The values are searched on the shallow model (`config_search`), judged (`config_judge`), then put into
the whole config together with its new depth, which is built on meta and compared (`config_whole`).
Not here: which counts a planner may ask for (`config_limits`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from pydantic import JsonValue, TypeAdapter
from transformers import PreTrainedConfig

from surgeon.errors import InfeasibleError, RebuildError
from surgeon.graph import Graph
from surgeon.plan import Plan, dropped_parts
from surgeon.plan.report import LedgerRow
from surgeon.rebuild.config_clamp import clamped
from surgeon.rebuild.config_depth import Depth
from surgeon.rebuild.config_ids import removed_ids, renumbered
from surgeon.rebuild.config_judge import changed_constants, odd_fields, odd_numbers
from surgeon.rebuild.config_probe import ConfigSpace, Field
from surgeon.rebuild.config_scale import rescaled
from surgeon.rebuild.config_search import Changes, Search
from surgeon.rebuild.config_target import Target, aim
from surgeon.rebuild.config_tree import entry, leaves, path_text, vary
from surgeon.rebuild.config_whole import ChangedNumber, check_cache, check_whole, differs, moved_modules
from surgeon.rebuild.rebuild import members_of
from surgeon.rebuild.signature import measure

__all__ = ["Inexpressible", "Solution", "find_changes", "solve", "solve_but_numbers"]


_SCALED = "keeps what the blocks compute from it and from their number"
_MOVED = "the same token, behind others that are removed"


class Inexpressible(InfeasibleError):
    """No config builds the planned shapes; `refused`: one would, but for the family's own validators."""

    refused = False


@dataclass(frozen=True)
class Solution:
    """The config of the smaller model, and every field that differs from the original's."""

    config: PreTrainedConfig
    ledger: tuple[LedgerRow, ...]


def solve(space: ConfigSpace, graph: Graph, plan: Plan) -> Solution:
    """The config that builds exactly what `plan` leaves of the model that `graph` was traced from.

    Raises:
        InfeasibleError: no config does; the reason, and the numbers.
    """
    solution, off = solve_but_numbers(space, graph, plan)
    if off:
        raise differs([f"constant {number}" for number in off])
    return solution


def solve_but_numbers(
    space: ConfigSpace, graph: Graph, plan: Plan
) -> tuple[Solution, tuple[ChangedNumber, ...]]:
    """The config that builds the planned shapes, and numbers of modules that it computes otherwise.

    Such as a scale made of the depth, where blocks are dropped and no field gives the old one.

    Raises:
        InfeasibleError: no config builds the shapes; the reason, and the numbers.
    """
    _refuse_parts(plan, graph)
    target = aim(plan, graph, space.shallow)
    changes = find_changes(space, target)
    ids = renumbered(leaves(space.config), removed_ids(plan, graph))
    changes = {**changes, **clamped(space, graph, plan)}
    try:
        config = vary(space.config, {**changes, **ids})
        for depth in space.depths:
            kept = _kept_blocks(depth, plan, graph)
            config = config if len(kept) == depth.blocks else depth.resize(config, kept)
        scaled: Changes = {}
        if plan.dropped:
            before = measure(space.config)
            config, scaled = rescaled(before, config, moved_modules(before, plan, graph))
            check_cache(space.config, config)
        off = check_whole(space.config, config, plan, graph)
    except RebuildError as error:
        raise InfeasibleError(f"the planned model's config is refused: {error.message}") from error
    ledger = _ledger(space, target, changes, config)
    rows = (*ledger, *_rows(space, scaled, _SCALED), *_rows(space, ids, _MOVED))
    return Solution(config, rows), off


def _rows(space: ConfigSpace, changed: Changes, why: str) -> tuple[LedgerRow, ...]:
    old = leaves(space.config)
    return tuple(
        LedgerRow(field=path_text(p), old=_json(old.get(p)), new=_json(value), why=why)
        for p, value in changed.items()
    )


def _refuse_parts(plan: Plan, graph: Graph) -> None:
    parts = tuple(dropped_parts(plan, graph))
    if parts:
        first, *others = parts
        more = f" and {len(others)} more sublayers" if others else ""
        raise InfeasibleError(
            f"no field of the config says that a layer lacks '{first}'{more}",
            hint="export: {layout: per_layer}, or padded, which makes what it adds zero",
        )


def find_changes(space: ConfigSpace, target: Target) -> Changes:
    """Fields of the shallow config, with the values that give the target's shapes and nothing else.

    Raises:
        Inexpressible: there are none; the reason is the closest that was met.
    """
    search = Search(space, target)
    if not search.moved:
        return {}
    fields = tuple(itertools.chain.from_iterable(search.clusters))
    best: tuple[int, Changes] | None = None
    broken: tuple[str, ...] = ()
    for changes in search.fitting():
        faults = changed_constants(space, target, changes)
        if faults:
            broken = broken or faults
            continue
        oddities = odd_numbers(fields, target, space.shallow.base, space.measure(changes))
        score = len(odd_fields(fields, target, changes)) + len(oddities)
        if best is None or score < best[0]:
            best = (score, changes)
        if score == 0:
            break
    if best is None:
        raise _refusal(search, broken)
    return best[1]


def _refusal(search: Search, broken: tuple[str, ...]) -> Inexpressible:
    """Why no config does, from what the search met: validators first, then constants, then shapes."""
    cut = ", ".join(dict.fromkeys(str(width) for width in search.target.cut))
    fields = tuple(itertools.chain.from_iterable(search.clusters))
    meant = [(c, why) for c, why in search.refused if not odd_fields(fields, search.target, c)]
    unheld = sorted(search.moved - {dim for f in search.space.fields for dim in f.dims})
    hint = "another count, a cut of the axes that the config ties to these, or export.layout: per_layer"
    if unheld:
        name, dim = unheld[0]
        reason = f"no field of the config changes {name} dim {dim} ({len(unheld)} such dims)"
    elif broken:
        reason = f"a constant that the model computes from its config would change: {_some(broken)}"
        hint = "leave those axes at their size"
    elif meant:
        changes, why = max(meant, key=lambda pair: len(pair[0]))
        reason = f"{why} (tried {_assignments(changes) or 'no change'})"
    else:
        reason = _shape_reason(search)
    error = Inexpressible(f"the config cannot express {cut}: {reason}", hint=hint)
    error.refused = bool(meant) and not (unheld or broken)
    return error


def _shape_reason(search: Search) -> str:
    """Which dims the fields that move the cut ones would move as well; else the closest try."""
    for dim in sorted(search.moved):
        movers = [f for f in search.space.movers([dim]) if f.stands_for is not None]
        others = sorted(frozenset.intersection(*(f.dims for f in movers)) - search.moved) if movers else []
        if others:
            names, (param, place) = " and ".join(f.name for f in movers), others[0]
            return (
                f"{dim[0]} dim {dim[1]} follows {names} alone, and so do {len(others)} dims that the plan "
                f"keeps, first {param} dim {place}"
            )
    faults, changes = search.closest or ((), {})
    return f"closest is {_assignments(changes) or 'no change'}, where {_some(faults)}"


def _assignments(changes: Changes) -> str:
    return ", ".join(f"{path_text(path)} = {value}" for path, value in changes.items())


def _some(faults: tuple[str, ...], shown: int = 3) -> str:
    more = f" and {len(faults) - shown} more" if len(faults) > shown else ""
    return "; ".join(faults[:shown]) + more


def _kept_blocks(depth: Depth, plan: Plan, graph: Graph) -> tuple[int, ...]:
    """Places that are left in every Stack that the field counts.

    Raises:
        InfeasibleError: not as many in each, or not the same ones where entries of lists belong to places.
    """
    dropped = set(plan.dropped)
    kept = {
        container: tuple(p for p, name in enumerate(members_of(container, graph)) if name not in dropped)
        for container in depth.containers
    }
    if len({places if depth.beside else len(places) for places in kept.values()}) > 1:
        counts = " and ".join(f"{len(places)} of '{container}'" for container, places in kept.items())
        raise InfeasibleError(
            f"{path_text(depth.path)} counts the blocks of {len(kept)} stacks at once: it leaves {counts}",
            hint="drop the blocks at the same places of each",
        )
    return next(iter(kept.values()))


def _ledger(
    space: ConfigSpace, target: Target, changes: Changes, config: PreTrainedConfig
) -> tuple[LedgerRow, ...]:
    fields = {f.path: f for f in space.fields}
    old, new = leaves(space.config), leaves(config)
    rows = [
        LedgerRow(
            field=path_text(p), old=_json(old.get(p)), new=_json(new[p]), why=_why(fields[p], target, value)
        )
        for p, value in changes.items()
        if p in new  # entries of dropped blocks are gone
    ]
    for depth in space.depths:
        if entry(config, depth.path) == entry(space.config, depth.path):
            continue
        why = f"blocks of {' and '.join(depth.containers)} that are left"
        for path in (depth.path, *depth.beside):
            before, after = entry(space.config, path), entry(config, path)
            if before != after:
                rows.append(LedgerRow(field=path_text(path), old=_json(before), new=_json(after), why=why))
    return tuple(rows)


def _why(f: Field, target: Target, value: object) -> str:
    if f.implicit and value == f.stands_for:
        return "what it stood for while unset; it would follow another field that changes"
    held = [w for w in target.cut if w.dims & f.dims] or target.cut
    return ", ".join(dict.fromkeys(str(width) for width in held))


def _json(value: object) -> JsonValue:
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    return TypeAdapter(JsonValue).validate_python(value)
