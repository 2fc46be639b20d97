"""Measure on the way through the model: each Block sees the output of the Blocks before it as they are cut.

What is measured of a Block is that of the Block as the step found it, on the states that the cut Blocks
before it give. Each Block runs twice for the whole step, whatever its depth. Groups that lie in no Block of
the longest Stack keep what was measured on the model as the step found it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.at_block import gather_at_block
from surgeon.calibrate.bench import TOKENS
from surgeon.calibrate.walk import Walk
from surgeon.criteria import Criterion
from surgeon.operations.pool import Counts, Pool
from surgeon.operations.pooling import scored
from surgeon.operations.state import State
from surgeon.plan import Keep, Plan
from surgeon.rebuild import masked

__all__ = ["Inputs", "measured_behind", "rescored"]

Inputs = Literal["dense", "sequential"]


def rescored(pools: Sequence[Pool], counts: Counts, state: State, criterion: Criterion) -> tuple[Pool, ...]:
    """`pools` with the scores that their Groups have behind the cuts that `counts` make before them.

    Args:
        pools: scored on the model as it stands.
        counts: how many indices of every Axis will stay.
        state: the Plan so far is in force.
        criterion: scores anew.

    Raises:
        SurgeonError: the criterion needs gradients, or a Block cannot be run alone.
    """
    members = {m.group.name: (m, count) for p, count in zip(pools, counts, strict=True) for m in p.members}
    here: dict[str | None, list[str]] = {}
    for name, (member, _) in members.items():
        here.setdefault(member.group.block, []).append(name)
    wanted = frozenset(criterion.needs())
    groups = [member.group for member, _ in members.values()]
    keys = {key: key.on(state.graph, groups) for key in wanted}

    def cut(block: str, found: Statistics, plan: Plan) -> Plan:
        own = found.renamed(keys)
        for name in here.get(block, ()):
            member, count = members[name]
            fresh = scored(state, member.group, criterion, own)
            members[name] = (fresh, count)
            plan = plan.add([Keep(name, fresh.best(count), state.step)])
        return plan

    _walk(state, frozenset(keys.values()), state.plan, cut)
    return tuple(replace(pool, members=tuple(members[name][0] for name in pool.names)) for pool in pools)


def measured_behind(state: State, cut: Plan) -> State:
    """`state`, whose Statistics are from now on those of each Block behind the Blocks that `cut` cuts."""

    def measure(plan: Plan, wanted: frozenset[Statistic]) -> Statistics:
        parts: list[Statistics] = []

        def see(block: str, found: Statistics, now: Plan) -> Plan:
            parts.append(found)
            return cut

        _walk(state, wanted, plan, see)
        results = {
            key: {name: value for part in parts for name, value in part.get(key).items()} for key in wanted
        }
        return Statistics(results, parts[0].samples, parts[0].tokens)

    return replace(state, measure=measure)


def _walk(
    state: State,
    wanted: frozenset[Statistic],
    plan: Plan,
    cut: Callable[[str, Statistics, Plan], Plan],
) -> None:
    """Measure every Block under `plan`, then go on from it under the Plan that `cut` makes of that."""
    bench = state.trial()
    blocks = tuple(block.name for block in max(state.graph.stacks, key=len).blocks)

    def forward(now: Plan, at: int) -> Callable[..., object]:
        return masked(bench.module, now, state.graph).fixed(
            blocks[:at] + blocks[at + 1 :], *blocks[at : at + 1]
        )

    size = max(1, TOKENS // bench.samples.ids.shape[1])
    whole = forward(plan, len(blocks))
    check = Walk.begin(bench.module, blocks, bench.samples, size, whole)
    walk = check.beside(whole)
    check.batches, check.states = check.batches[:1], check.states[:1]  # one batch tells as much as all
    grown = plan
    for at, block in enumerate(blocks):
        if block in plan.dropped:
            walk.step_over()
            check.step_over()
            continue
        check.advance(forward(plan, at))
        found = gather_at_block(walk, forward(plan, at), wanted).statistics
        grown = cut(block, found, grown)
        walk.advance(forward(grown, at))
        bench.told("measure block by block", at + 1, len(blocks))
