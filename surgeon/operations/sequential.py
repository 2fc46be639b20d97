"""Measure on the way through the model: each Block sees the output of the Blocks before it as they are cut.

What is measured of a Block is that of the Block as the step found it, on the states that the cut Blocks
before it give. Each Block runs twice for the whole step, whatever its depth. Groups that lie in no Block of
the longest Stack keep what was measured on the model as the step found it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from surgeon.calibrate import Bench, Statistic, Statistics
from surgeon.calibrate.at_block import gather_at_block
from surgeon.calibrate.bench import TOKENS
from surgeon.calibrate.walk import Walk
from surgeon.criteria import Criterion
from surgeon.operations.pool import Counts, Pool
from surgeon.operations.pooling import scored
from surgeon.operations.state import State
from surgeon.plan import Keep, Plan
from surgeon.rebuild import masked

__all__ = ["measured_behind", "rescored"]

_FOUND = "found/"
"""Mark of what was measured in a Block, as it is put aside."""


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

    said = {"criterion": criterion.model_dump(mode="json"), "counts": {n: c for n, (_, c) in members.items()}}
    _walk(state, frozenset(keys.values()), state.plan, json.dumps(said, sort_keys=True), cut)
    return tuple(replace(pool, members=tuple(members[name][0] for name in pool.names)) for pool in pools)


def measured_behind(state: State, cut: Plan) -> State:
    """`state`, whose Statistics are from now on those of each Block behind the Blocks that `cut` cuts."""

    def measure(plan: Plan, wanted: frozenset[Statistic]) -> Statistics:
        parts: list[Statistics] = []

        def see(block: str, found: Statistics, now: Plan) -> Plan:
            parts.append(found)
            return cut

        _walk(state, wanted, plan, repr(cut.edits), see)
        results = {
            key: {name: value for part in parts for name, value in part.get(key).items()} for key in wanted
        }
        return Statistics(results, parts[0].samples, parts[0].tokens)

    return replace(state, measure=measure)


def _walk(
    state: State,
    wanted: frozenset[Statistic],
    plan: Plan,
    said: str,
    cut: Callable[[str, Statistics, Plan], Plan],
) -> None:
    """Measure every Block under `plan`, then go on from it under the Plan that `cut` makes of that.

    `said` is in words what `cut` depends on: where a streamed run was killed, one that says the same goes on.
    """
    bench, keys = state.trial(), tuple(sorted(wanted, key=repr))
    blocks = tuple(block.name for block in max(state.graph.stacks, key=len).blocks)

    def forward(now: Plan, at: int) -> Callable[..., object]:
        return masked(bench.module, now, state.graph).fixed(
            blocks[:at] + blocks[at + 1 :], *blocks[at : at + 1]
        )

    unfinished = bench.unfinished(plan, repr((said, keys)))
    held = {} if unfinished is None else unfinished.resume(bench.keep)
    done = {piece: found for piece, found in held.items() if piece.startswith(_FOUND)}
    left = [at for at, block in enumerate(blocks) if block not in plan.dropped]
    both: tuple[Walk, Walk] | None = None
    grown = plan
    for at in left:
        piece = f"{_FOUND}{at}"
        if piece in done:
            grown = cut(blocks[at], _unpacked(keys, done[piece], bench), grown)
            continue
        both = both or _begun(state, blocks, forward(plan, len(blocks)), held)
        check, walk = both
        while walk.at < at:
            walk.step_over()
            check.step_over()
        check.advance(forward(plan, at))
        found = gather_at_block(walk, forward(plan, at), keys).statistics
        done[piece] = _packed(keys, found, bench)
        grown = cut(blocks[at], _unpacked(keys, done[piece], bench), grown)
        walk.advance(forward(grown, at))
        if unfinished is not None:
            unfinished.put_aside(done | check.state("check") | walk.state("walk"))
        bench.told("measure block by block", at + 1, len(blocks))
    if unfinished is not None:
        unfinished.through(done)


def _begun(
    state: State,
    blocks: tuple[str, ...],
    whole: Callable[..., object],
    held: Mapping[str, Mapping[str, Tensor]],
) -> tuple[Walk, Walk]:
    """A walk of the first batch that checks, as it tells as much as all, and one of all; as far as `held`."""
    bench = state.trial()
    size = max(1, TOKENS // bench.samples.ids.shape[1])
    check = Walk.begin(bench.module, blocks, bench.samples, size, whole, bench.keep)
    walk = check.beside(whole)
    check.batches, check.states = check.batches[:1], check.states[:1]
    check.take_up("check", held)
    walk.take_up("walk", held)
    return check, walk


def _packed(keys: Sequence[Statistic], found: Statistics, bench: Bench) -> dict[str, Tensor]:
    """What was measured in one Block, to wait and to put aside."""
    return {
        f"{place}/{name}": bench.keep(tensor)
        for place, key in enumerate(keys)
        for name, tensor in found.get(key).items()
    }


def _unpacked(keys: Sequence[Statistic], packed: Mapping[str, Tensor], bench: Bench) -> Statistics:
    results: dict[Statistic, dict[str, Tensor]] = {key: {} for key in keys}
    for name, tensor in packed.items():
        place, _, param = name.partition("/")
        results[keys[int(place)]][param] = tensor
    return Statistics(results, len(bench.samples), bench.samples.predicted)
