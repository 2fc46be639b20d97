"""Operation ``remove``: whole coupled groups, scored, allocated and cut.

Order of one shot: score what is left, allocate kept counts, move them to what the config can express,
keep the best. Not here: scores (`surgeon.criteria`), ranking (`allocation`), the config (`expressible`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from surgeon.calibrate.consumers import consumer_params
from surgeon.criteria import Criterion, criteria
from surgeon.errors import InfeasibleError
from surgeon.graph import AxisKind, Graph, Group, Selector
from surgeon.operations.achieved import achieved
from surgeon.operations.allocation import Allocation, allocations
from surgeon.operations.allocation.uniform import Uniform
from surgeon.operations.emptied import cut_edits, refuse_inexpressible
from surgeon.operations.expressible import Expressible
from surgeon.operations.inputs import Inputs, scored_on, seen_on
from surgeon.operations.mending import repaired, repaired_experts
from surgeon.operations.operation import Operation, Proposal, operations
from surgeon.operations.pool import Counts, Pool
from surgeon.operations.pooling import make_pools, refuse_partial_ties
from surgeon.operations.protect import Protect, protected
from surgeon.operations.routing import TopK, heed_top_k, is_routing_group
from surgeon.operations.state import State
from surgeon.plan import Amount, Choice, Keep, kept_of, parameters_after, tagged_field
from surgeon.repair import NoRepair, Repair, bias_name, repairs

if TYPE_CHECKING:
    from surgeon.calibrate import Statistic

__all__ = ["REMOVABLE", "Remove"]

REMOVABLE: tuple[AxisKind, ...] = ("ffn", "kv_group", "q_per_kv", "expert", "state", "hidden", "channel")
"""Kinds of Axes whose removal is a mask: of contributions that are zero, of experts never chosen."""


@operations.register("remove")
class Remove(Operation):
    """Coupled structural removal, as LLM-Pruner (Ma, Fang, Wang 2023, arXiv 2305.11627).

    Everything that shares an Axis is scored together and cut by the same indices. Counts are those of
    the original; deviations stand with the criteria and allocations.

    YAML::

        - op: remove
          select: {kind: [kv_group, ffn], blocks: "2:-2"}
          keep: {fraction: 0.75}
          criterion: {criterion: taylor, order: param_first}
          allocation: uniform
    """

    op: Literal["remove"] = "remove"
    select: Selector
    """Which Groups, of kinds ffn, kv_group, q_per_kv, expert, state, hidden and channel."""
    keep: Amount
    """How much stays: a fraction or a count of every Axis, or a target for the whole model."""
    criterion: Annotated[Criterion, tagged_field(criteria, "criterion")]
    """What makes an index worth keeping."""
    allocation: Annotated[Allocation, tagged_field(allocations, "allocation")] = Uniform()
    """How scores become counts."""
    least: Annotated[int, Field(ge=0)] = 1
    """Indices that every Axis keeps at least; 0: a sublayer may lose all, and is dropped then."""
    inputs: Inputs = "dense"
    """What activations are measured on: ``dense``, the model as the step finds it; ``sequential``, for each
    Block the output of the Blocks before it as this step cuts them. Counts are decided on ``dense``."""
    shots: Annotated[int, Field(ge=1)] = 1
    """Cut in so many equal parts; each scores again what the one before has left."""
    repair: Annotated[Repair, tagged_field(repairs, "repair")] = NoRepair()
    """How what stays takes over what goes."""
    protect: Protect | None = None
    """Experts that stay whatever they score: those with massive activations."""
    top_k: TopK = "keep"
    """Whether a router may take fewer experts a token, where fewer stay than it takes."""

    @model_validator(mode="after")
    def _count_is_uniform(self) -> Self:
        if self.keep.count is not None and not isinstance(self.allocation, Uniform):
            raise ValueError(
                f"keep: count gives every axis the same number, which leaves allocation "
                f"'{self.allocation.allocation}' nothing to decide; use fraction or params"
            )
        return self

    @property
    def reads_weights(self) -> bool:
        """Whether the criterion, the allocation or the repair does."""
        return self.criterion.reads_weights or self.repair.needs_text or self.allocation.measures

    def needs(self) -> frozenset[Statistic]:
        """What the criterion needs."""
        return self.criterion.needs()

    def biases(self, graph: Graph) -> tuple[str, ...]:
        """Of every projection that loses inputs, where the repair wants them."""
        if not self.repair.wants_bias:
            return ()
        return tuple(bias_name(param) for param in consumer_params(graph, self.select.on(graph)))

    def requires(self, state: State) -> None:
        """Groups of removable kinds, not locked, and all that share one size in the config."""
        groups = state.selected(self.select)
        lines = [line for group in groups if (line := _unfit(group))]
        if lines:
            raise InfeasibleError(
                f"{len(lines)} of {len(groups)} selected axes cannot be cut:\n  " + "\n  ".join(lines),
                hint=f"select kinds among {', '.join(REMOVABLE)}, or leave these axes out by except",
            )
        refuse_partial_ties(state, groups)

    def propose(self, state: State) -> Proposal:
        """One Keep for every Axis that loses an index."""
        groups = state.selected(self.select)
        began = {group.name: len(kept_of(state.plan, group)) for group in groups}
        now, requested, pools, counts, guarded = state, (), (), (), ()
        for shot in range(1, self.shots + 1):
            least = self.least if shot == self.shots else max(self.least, 1)
            pools = make_pools(now, groups, self.criterion, began, self.keep.multiple_of, least)
            pools, guarded = protected(pools, now, self.protect)
            pools = self.allocation.weighed(pools, now, self.repair)
            requested, counts = self._allocate(state, now, pools, shot / self.shots)
            pools = scored_on(self.inputs, pools, counts, now, self.criterion)
            now = now.after(cut_edits(pools, counts, state))
        clamped = heed_top_k(pools, counts, self.top_k)
        cut = [(pool, count) for pool, count in zip(pools, counts, strict=True) if count < pool.began]
        edits = cut_edits([pool for pool, _ in cut], [count for _, count in cut], state)
        refuse_inexpressible(edits, state)
        after = state.after(edits)
        mended = repaired(self.repair, seen_on(self.inputs, state, after.plan), after)
        mended = mended.then(repaired_experts(self.repair, state, state.after(*mended.on(edits))))
        return Proposal(
            (*edits, *mended.edits),
            self._choices(pools, requested, counts),
            refused=state.spared(self.select),
            notes=(
                *achieved(pools, counts, self.keep, state, now),
                *self._bound(pools),
                *self._aligned(pools),
                *guarded,
                *clamped,
                *mended.notes,
            ),
            values=mended.values,
        )

    def _allocate(
        self, begin: State, now: State, pools: Sequence[Pool], done: float
    ) -> tuple[Counts, Counts]:
        """Counts as asked when `done` of the cut is made, and as the config can express them."""
        express = Expressible(now, pools)
        if self.keep.count is not None:
            asked = tuple(self._count(pool, self.keep.count, done) for pool in pools)
            refusal = express.refusal(asked) if done == 1 else None
            if refusal is not None:
                raise InfeasibleError(f"keep {self.keep.count} of '{pools[0].names[0]}': {refusal}")
            return asked, asked
        if self.keep.fraction is not None:
            fraction = self.keep.fraction + (1 - self.keep.fraction) * (1 - done)
            asked = self.allocation.counts(
                pools, Amount(fraction=fraction, multiple_of=self.keep.multiple_of)
            )
        else:
            whole = parameters_after(begin.plan, begin.graph)
            target = self.keep.parameters(begin.graph.parameter_count)
            asked = self._within(now, pools, express, int(whole - max(whole - target, 0) * done))
        counts = express.settled(asked)
        if done == 1:
            _check_progress(pools, asked, counts, express)
        return asked, counts

    def _within(self, now: State, pools: Sequence[Pool], express: Expressible, budget: int) -> Counts:
        """The most that can be kept within `budget` parameters."""

        def size(counts: Counts) -> int:
            moved = express.moved(counts)
            kept = [
                Keep(m.group.name, m.left[:n], 0)
                for p, n in zip(pools, moved, strict=True)
                for m in p.members
            ]
            return parameters_after(now.after(kept).plan, now.graph)

        ladder = self.allocation.ladder(pools)
        if found := ladder.first(lambda counts: size(counts) <= budget):
            return found
        raise InfeasibleError(
            f"{budget} parameters cannot be reached: with the least of every selected axis the model has "
            f"{size(ladder.at(ladder.length - 1))}",
            hint="a larger params, or select more",
        )

    def _count(self, pool: Pool, count: int, done: float) -> int:
        if count > pool.began:
            raise InfeasibleError(
                f"keep {count} of '{pool.names[0]}', which has {pool.began}",
                hint=f"a count below {pool.began}",
            )
        return pool.began - int((pool.began - count) * done)

    def _choices(self, pools: Sequence[Pool], requested: Counts, counts: Counts) -> tuple[Choice, ...]:
        return tuple(
            Choice(
                axis=member.group.name,
                size=pool.began,
                kept=count,
                requested=None if asked == count else asked,
                why=self._why(pool, asked, count),
            )
            for pool, asked, count in zip(pools, requested, counts, strict=True)
            for member in pool.members
        )

    def _why(self, pool: Pool, asked: int, count: int) -> str:
        if count == pool.began:
            return "this amount keeps all" if asked == count else "the config can express nothing nearer"
        shots = f", in {self.shots} shots" if self.shots > 1 else ""
        search = f", {pool.members[0].search}" if pool.members[0].search else ""
        return f"the {pool.began - count} lowest by {self.criterion.criterion}{search}{shots}"

    def _aligned(self, pools: Sequence[Pool]) -> tuple[str, ...]:
        """Where counts are multiples of more than the recipe says."""
        multiples = {pool.multiple_of for pool in pools} - {self.keep.multiple_of}
        if not multiples or self.keep.count is not None:
            return ()
        return (
            f"channels of stacked experts go by multiples of {max(multiples)}: grouped products need them",
        )

    def _bound(self, pools: Sequence[Pool]) -> tuple[str, ...]:
        """Where the config leaves an allocation less to decide than it seems."""
        axes = sum(len(pool.members) for pool in pools)
        if isinstance(self.allocation, Uniform) or len(pools) == axes:
            return ()
        return (
            f"'{self.allocation.allocation}' chose {len(pools)} "
            f"{'size' if len(pools) == 1 else 'sizes'} for {axes} axes, which the config holds together; "
            "export: {layout: padded} or per_layer lets them differ",
        )


def _unfit(group: Group) -> str | None:
    if group.kind not in REMOVABLE:
        return f"'{group.name}' is of kind {group.kind}"
    if is_routing_group(group):
        return f"'{group.name}' counts groups of experts, which the router takes {group.picked} of"
    return f"'{group.name}' is locked: {group.locked}" if group.locked else None


def _check_progress(pools: Sequence[Pool], requested: Counts, counts: Counts, express: Expressible) -> None:
    """Refuse a cut of which the config leaves nothing."""
    if any(count < pool.began for pool, count in zip(pools, counts, strict=True)):
        return
    stuck = [(p, n) for p, n in zip(pools, requested, strict=True) if n < p.began]
    if stuck:
        pool, asked = stuck[0]
        raise InfeasibleError(
            f"nothing is cut: {asked} of {pool.began} indices of '{pool.names[0]}' should stay, and the "
            f"nearest count that works is all of them: {express.refusal(requested)}",
            hint="a smaller amount, another kind, or export: {layout: per_layer}",
        )
