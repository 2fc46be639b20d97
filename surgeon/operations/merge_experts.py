"""Operation ``merge_experts``: experts that are alike become one, and the mixture really is smaller.

How many stay, and what the config and the router can take, is what `remove` says; here it is decided who
joins whom. Not here: clusters (`expert_clusters`), means (`expert_fusing`), routers (`expert_routers`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.expert_load import ExpertLoad, Load
from surgeon.calibrate.expert_match import ExpertMatch
from surgeon.calibrate.expert_mean import ExpertMean
from surgeon.calibrate.experts import experts_of
from surgeon.calibrate.router_moment import RouterMoment
from surgeon.criteria import Criterion, criteria, trainable
from surgeon.criteria.experts import load_of
from surgeon.errors import InfeasibleError
from surgeon.graph import Group, Selector
from surgeon.operations.expert_clusters import Cluster, around, average_linkage, cosines
from surgeon.operations.expert_fusing import Fusing, Matching, assigned
from surgeon.operations.expert_routers import RouterMerge, merged_router, row_fits
from surgeon.operations.mending import repaired_experts
from surgeon.operations.operation import Operation, Proposal, operations
from surgeon.operations.protect import Protect
from surgeon.operations.remove import Remove
from surgeon.operations.routing import TopK
from surgeon.operations.state import State
from surgeon.plan import Amount, Assign, Choice, Edit, Keep, kept_of, tagged_field
from surgeon.repair import NoRepair, Repair, repairs

__all__ = ["MergeExperts"]


@operations.register("merge_experts")
class MergeExperts(Operation):
    """Clusters of routed experts become one expert each; the others leave the checkpoint.

    ``cluster: outputs`` is HC-SMoE (Chen et al. 2024, arXiv 2410.08589): mean outputs over all tokens,
    average linkage. ``router`` is M-SMoE (Li et al. 2023, arXiv 2310.01334): around dominant experts, by
    cosines of router logits; here every layer keeps the same number. ``around_kept`` is after REAM (arXiv
    2604.04356): around the experts that a criterion keeps, by cosines of mean outputs. The released codes
    put the merged expert in every member's place, and their files are no smaller; here one is left.

    YAML::

        - op: merge_experts
          keep: {fraction: 0.5}
          cluster: outputs
          repair: refit
    """

    op: Literal["merge_experts"] = "merge_experts"
    select: Selector = Selector(kind=("expert",))
    """Which Axes of experts; all unless said otherwise."""
    keep: Amount
    """How many stay: a fraction or a count of every Axis."""
    cluster: Literal["outputs", "router", "around_kept"] = "outputs"
    """What makes experts join: likeness of mean outputs, of logits, or nearness to those that are kept."""
    criterion: Annotated[Criterion, tagged_field(criteria, "criterion")] | None = None
    """Who is dominant, and for `router` and `around_kept` who stays; absent: ``frequency``, and ``reap`` for
    `around_kept`."""
    weights: Literal["frequency", "gate_mass", "uniform"] = "gate_mass"
    """Shares of the members: by the tokens that they get, by their gates, or alike."""
    align: Literal["none", "weights", "activations"] = "activations"
    """How hidden channels are matched before the mean: not at all, by their weights, or by how they fire on
    the same tokens."""
    router: RouterMerge = "max"
    """The router's row of a cluster: the dominant one's, the sum of all (exactly the sum of logits), or the
    row whose logit comes nearest to their largest (`max`) or to that of their summed softmax gates
    (`sum_gates`) on the calibration text."""
    tokens: Annotated[int, Field(ge=1)] = 8192
    """About how many calibration tokens every expert is run on, where outputs or activations count."""
    protect: Protect | None = None
    """Experts that stay whatever they score, for `router` and `around_kept`."""
    top_k: TopK = "keep"
    """Whether a router may take fewer experts a token, where fewer stay than it takes."""
    repair: Annotated[Repair, tagged_field(repairs, "repair")] = NoRepair()
    """How the merged experts take over what is gone."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.keep.params is not None:
            raise ValueError("keep: params is not for merging; give fraction or count")
        if self.protect is not None and self.cluster == "outputs":
            raise ValueError("protect chooses who is kept, and cluster: outputs lets nobody choose")
        return self

    @property
    def dominance(self) -> Criterion:
        """What makes an expert dominant."""
        usual = "reap" if self.cluster == "around_kept" else "frequency"
        return self.criterion or criteria.get(usual).model_validate({})

    @property
    def load(self) -> ExpertLoad | None:
        """What shares follow."""
        loads: dict[str, Load] = {"frequency": "count", "gate_mass": "gate"}
        return ExpertLoad(loads[self.weights]) if self.weights in loads else None

    def needs(self) -> frozenset[Statistic]:
        """What decides who joins whom, and with what share."""
        likeness = RouterMoment() if self.cluster == "router" else ExpertMean(self.tokens)
        return self.dominance.needs() | {likeness} | ({self.load} if self.load else set())

    def requires(self, state: State) -> None:
        """Axes of experts, as `remove` can cut them, and none that a pass has tied together."""
        for group in state.selected(self.select):
            if group.kind != "expert" or group.members:
                what = "several axes in one" if group.members else f"of kind {group.kind}"
                raise InfeasibleError(
                    f"'{group.name}' is {what}, and only experts of one layer are merged",
                    hint="select: {kind: expert}",
                )
        self._removal().requires(state)

    def propose(self, state: State) -> Proposal:
        """Assignments to every dominant expert and its row of the router, and Keeps of these."""
        chosen = self._removal().propose(state)
        keeps = {edit.axis: edit.indices for edit in chosen.edits if isinstance(edit, Keep)}
        merging = _Merging(self, state, keeps)
        clusters = merging.clusters()
        values: dict[str, object] = dict(merging.merged(clusters))
        edits: list[Edit] = []
        for group in merging.groups:
            args = {"clusters": [list(c) for c in clusters[group.name]], "align": self.align}
            edits += [
                Assign(name, f"merge_experts.{self.cluster}", args, state.step)
                for name in group.params
                if name in values
            ]
            edits.append(Keep(group.name, tuple(sorted(c[0] for c in clusters[group.name])), state.step))
        mended = repaired_experts(self.repair, state, state.after(edits, values))
        return Proposal(
            (*edits, *mended.edits),
            tuple(self._choice(choice) for choice in chosen.choices),
            refused=chosen.refused,
            notes=(*chosen.notes, *mended.notes),
            values={**values, **mended.values},
        )

    def _removal(self) -> Remove:
        return Remove(
            select=self.select,
            keep=self.keep,
            criterion=self.dominance,
            top_k=self.top_k,
            protect=self.protect,
        )

    def _choice(self, choice: Choice) -> Choice:
        if choice.kept == choice.size:
            return choice
        how = {"outputs": "outputs", "router": "router logits", "around_kept": "outputs around those kept"}
        why = f"{choice.size} experts merged into {choice.kept} by {how[self.cluster]}"
        return choice.model_copy(update={"why": why})


@dataclass(frozen=True)
class _Merging:
    """One merge: the step, the State that it found, and how many of each Axis stay."""

    step: MergeExperts
    state: State
    keeps: Mapping[str, tuple[int, ...]]

    @property
    def groups(self) -> tuple[Group, ...]:
        """Axes that lose an index."""
        return tuple(self.state.graph.group(axis) for axis in self.keeps)

    @cached_property
    def measured(self) -> Statistics:
        """What the step needs, of all its Axes in one run."""
        return self.state.statistics(self.step.needs(), self.groups)

    def clusters(self) -> Mapping[str, tuple[Cluster, ...]]:
        """Of indices, by Axis."""
        return {group.name: self._clusters(group) for group in self.groups}

    def merged(self, clusters: Mapping[str, tuple[Cluster, ...]]) -> dict[str, Tensor]:
        """New tensors of the experts and of their routers, by name."""
        graph, weights = self.state.graph, self.state.weights
        found: dict[str, Tensor] = {}
        inside = {group.name: _of_experts(group, clusters[group.name]) for group in self.groups}
        likeness = ExpertMatch(self.step.tokens, tuple((n, tuple(_pairs(c))) for n, c in inside.items()))
        rows = row_fits(tuple(inside.items()), self.step.router)
        keys = {key for key in (rows, likeness if self.step.align == "activations" else None) if key}
        more = self.state.statistics(keys, self.groups)
        for experts in experts_of(graph, self.groups):
            group, sets = graph.group(experts.axis), inside[experts.axis]
            fusing = Fusing(graph, experts, weights)
            alike = more.get(likeness).get(group.name) if likeness in keys else None
            found |= fusing.fused(sets, self._shares(group, sets), self._matching(fusing, sets, alike))
            moments = {} if rows is None else more.get(rows)
            found |= merged_router(graph, group, sets, self.step.router, weights, moments)
        return found

    def _clusters(self, group: Group) -> tuple[Cluster, ...]:
        left, kept = kept_of(self.state.plan, group), self.keeps[group.name]
        if self.step.cluster == "router":
            return around(cosines(_summed(self._array(RouterMoment(), group), group)), left, kept)
        points = self._array(ExpertMean(self.step.tokens), group)[_positions(group)].reshape(group.size, -1)
        if self.step.cluster == "around_kept":
            return around(cosines(points @ points.T), left, kept)
        needs = self.step.dominance.needs()
        scored = trainable(group, self.state.graph)
        worth = self.step.dominance.score(scored, self.state.weights, self.measured.only(needs))
        return average_linkage(points, left, worth.values, len(kept))

    def _matching(self, fusing: Fusing, clusters: Sequence[Cluster], likeness: Tensor | None) -> Matching:
        pairs = tuple(_pairs(clusters))
        if self.step.align == "weights":
            return {pair: fusing.matched_by_weights(*pair) for pair in pairs}
        if likeness is None:
            return {}
        if len(fusing.experts.inner) != 1:
            raise InfeasibleError(
                f"the experts of '{fusing.experts.axis}' have {len(fusing.experts.inner)} sets of hidden "
                "channels, and activations are matched of one",
                hint="align: weights",
            )
        inner = fusing.experts.inner[0]
        return {pair: {inner: assigned(found)} for pair, found in zip(pairs, likeness, strict=True)}

    def _shares(self, group: Group, clusters: Sequence[Cluster]) -> dict[int, float]:
        """Of every expert in its cluster; alike where none of a cluster was given a token."""
        if self.step.load is None:
            return {expert: 1 / len(cluster) for cluster in clusters for expert in cluster}
        mass = load_of(group, self.measured, self.step.load.load).tolist()
        shares: dict[int, float] = {}
        for cluster in clusters:
            total = sum(mass[expert] for expert in cluster)
            shares |= {e: mass[e] / total if total > 0 else 1 / len(cluster) for e in cluster}
        return shares

    def _array(self, key: RouterMoment | ExpertMean, group: Group) -> np.ndarray:
        return self.measured.get(key)[group.name].cpu().numpy()


def _of_experts(group: Group, clusters: Sequence[Cluster]) -> tuple[Cluster, ...]:
    """Clusters of indices as clusters of experts: one for each group of the router."""
    places = _positions(group)
    return tuple(tuple(int(places[i, j]) for i in c) for c in clusters for j in range(places.shape[1]))


def _pairs(clusters: Sequence[Cluster]) -> Iterator[tuple[int, int]]:
    """The dominant expert with each other one."""
    return ((cluster[0], other) for cluster in clusters for other in cluster[1:])


def _positions(group: Group) -> np.ndarray:
    """Experts of every index: [indices, groups of the router]."""
    stacked = max(group.sites, key=lambda site: site.layout.positions_per_index)
    return stacked.layout.positions()


def _summed(gram: np.ndarray, group: Group) -> np.ndarray:
    """Inner products of indices: those of their experts, group by group."""
    places = _positions(group)
    nothing = np.zeros((len(places), len(places)), gram.dtype)
    return sum((gram[np.ix_(column, column)] for column in places.T), start=nothing)
