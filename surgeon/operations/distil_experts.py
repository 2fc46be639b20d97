"""Operation ``distil_experts``: a short training of the kept experts toward the original, block by block.

What `repair: refit` solves for in the last matrices alone is here followed by gradients in all tensors of
the experts. Not here: the loop (`surgeon.calibrate.training`), and training of whole models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from surgeon.calibrate.expert_targets import expert_targets
from surgeon.calibrate.experts import Experts, experts_of
from surgeon.calibrate.training import Schedule, divided, train
from surgeon.errors import InfeasibleError
from surgeon.graph import Graph, Selector
from surgeon.operations.expert_fusing import expert_tensors
from surgeon.operations.operation import Operation, Proposal, operations
from surgeon.operations.state import State
from surgeon.operations.walks import Walks
from surgeon.plan import Assign, Cuts, cuts_of

__all__ = ["DistilExperts"]

_LOOKS = 10
"""How often the held-out error is looked at."""


@operations.register("distil_experts")
class DistilExperts(Operation):
    """Short recovery of cut mixtures, after MoE-Pruner's expert-wise distillation.

    Xie et al. 2024, arXiv 2410.12013: mean squared error between what experts give before and after. Here
    the experts of a block are trained together, to what the original adds to the residual stream behind
    them, so that the kept ones also take over what removed ones gave; the language-model loss of the paper
    is left out, since each block is trained alone. Routers are not trained. What did best on held-out
    calibration text is kept, and where nothing did, nothing changes.

    YAML::

        - op: distil_experts
          steps: 200
          lr: 0.001
    """

    op: Literal["distil_experts"] = "distil_experts"
    select: Selector = Selector(kind=("expert",))
    """Which Axes of experts; all unless said otherwise, cut or not."""
    steps: Annotated[int, Field(ge=1)] = 200
    """Optimiser steps a block, each on one batch."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Rate of AdamW at the start; it falls to zero along half a cosine."""
    batch_tokens: Annotated[int, Field(ge=1)] = 2048
    """About how many tokens a batch has."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.125
    """Share of the batches that is not trained on, to choose by."""
    seed: int = 0
    """Chooses the batches."""
    target: Literal["stream", "layer"] = "stream"
    """Toward the original's stream behind the experts, damage of earlier blocks included, or toward what
    the block's experts should give on the original's own states."""

    def requires(self, state: State) -> None:
        """Axes of experts."""
        other = [group for group in state.selected(self.select) if group.kind != "expert"]
        if other:
            raise InfeasibleError(
                f"'{other[0].name}' is of kind {other[0].kind}, and only experts are distilled",
                hint="select: {kind: expert}",
            )

    def propose(self, state: State) -> Proposal:
        """Assignments to the tensors of the experts."""
        order = [block.name for block in state.graph.blocks if block.name not in state.plan.dropped]
        every = experts_of(state.graph, state.selected(self.select))
        found = [(state.graph.group(one.axis).block, one) for one in every]
        outside = [one.axis for block, one in found if block not in state.plan.dropped and block not in order]
        if outside:
            raise InfeasibleError(f"'{outside[0]}' lies in no one block of the residual stream")
        walks = Walks.begin(state, state.plan, self.batch_tokens)
        cuts = cuts_of(state.plan, state.graph)
        values: dict[str, Tensor] = {}
        notes = []
        for block, experts in sorted(
            ((b, e) for b, e in found if b in order), key=lambda pair: order.index(pair[0] or "")
        ):
            walks.advance_to(block)
            if self.target == "layer":
                walks.meet()
            done, note = self._trained(state, walks, experts, cuts)
            walks.put(done)
            values |= done
            notes.append(note)
        args = self.model_dump(mode="json", include={"steps", "lr", "seed", "target"})
        edits = tuple(Assign(name, "distil_experts", args, state.step) for name in values)
        return Proposal(edits, notes=tuple(notes), values=dict(values))

    def _trained(
        self, state: State, walks: Walks, experts: Experts, cuts: Cuts
    ) -> tuple[dict[str, Tensor], str]:
        """New tensors of the experts of one block, and how far they came."""
        path = experts.outlet.rpartition(".")[0]
        names = _own_tensors(state.graph, experts, path)
        now = {name.removeprefix(f"{path}."): state.weights.get(name) for name in names}
        free = {name.removeprefix(f"{path}."): _kept(state.graph, name, cuts) for name in names}
        lessons = expert_targets(experts.outlet, walks.original(), walks.cut())
        like = lessons[0].target
        stage = f"distil {experts.axis}"
        with torch.no_grad():
            trained = train(
                *divided(lessons, self.held_out, self.seed),
                {name: tensor.to(like) for name, tensor in now.items()},
                Schedule(self.steps, self.lr, max(self.steps // _LOOKS, 1), seed=self.seed),
                lambda done: state.trial().told(stage, done, self.steps),
                {name: mask.to(like.device) for name, mask in free.items()},
            )
        note = f"{experts.axis}: held-out error {trained.before:.4g} to {trained.after:.4g} of the target"
        return {f"{path}.{name}": new.to(now[name]) for name, new in trained.tensors.items()}, note


def _own_tensors(graph: Graph, experts: Experts, path: str) -> tuple[str, ...]:
    """The experts' tensors that lie in the module of their last matrices."""
    sites = expert_tensors(graph.group(experts.axis), graph)
    return tuple(site.param for site in sites if site.param.rpartition(".")[0] == path)


def _kept(graph: Graph, name: str, cuts: Mapping[str, Mapping[int, object]]) -> Tensor:
    """Elements of a parameter that no step has removed."""
    kept = torch.ones(graph.parameters[name].shape, dtype=torch.bool)
    for dim, positions in cuts.get(name, {}).items():
        gone = torch.ones(kept.shape[dim], dtype=torch.bool)
        gone[torch.as_tensor(positions)] = False
        kept = kept.index_fill(dim, gone.nonzero().flatten(), False)
    return kept
