"""Operation ``merge``: neighbouring Blocks become one by a weighted mean, those first that are most alike.

Not here: how likeness is measured (`surgeon.calibrate.manifold`), and how tensors are fused (`fusing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator

from surgeon.calibrate.manifold import diffusion_map, normalised_information, ranked
from surgeon.calibrate.walk import Walk
from surgeon.errors import InfeasibleError
from surgeon.graph import BlockSelector
from surgeon.operations.fusing import Fusion, alike, fused, slerp, weighted
from surgeon.operations.mending import bridged, unfit_for_gaps
from surgeon.operations.operation import Operation, Proposal, operations
from surgeon.operations.stack_state import left_blocks
from surgeon.operations.state import State
from surgeon.plan import Amount, Assign, Choice, DropBlock, Edit, tagged_field
from surgeon.repair import NoRepair, Repair, repairs

__all__ = ["Merge"]

_TOKENS = 4096
"""Tokens of one batch of a walk."""


@operations.register("merge")
class Merge(Operation):
    """MKA, "pruning via merging" (Liu et al. 2024, arXiv 2406.16330), as the paper states it.

    Each round embeds every Block's states over all samples by a diffusion map, takes the mutual
    information of neighbours on that manifold, normalised so that a Block is 1 like itself, and merges
    the two that are most alike. With similarity s, ``similarity`` makes ``s·first + (1 - s)·second``. The
    released code merges the last two whatever their similarity, and writes nothing: a deviation on
    purpose. Vectors (norms, biases) are merged like matrices.

    YAML::

        - op: merge
          keep: {fraction: 0.75}
          weights: similarity
    """

    op: Literal["merge"] = "merge"
    select: BlockSelector = BlockSelector()
    """Which Blocks may merge."""
    keep: Amount
    """How many Blocks of the Stack stay: a fraction or a count."""
    weights: Literal["similarity", "fixed", "mean", "slerp"] = "similarity"
    """Shares of the two: by their similarity, `share`, one half, or on the arc between them."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the first for ``fixed``; for ``slerp`` 1 minus the way to the second."""
    sigma: Annotated[float, Field(gt=0)] = 8.0
    """Width of the diffusion kernel."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Power of the density that the kernel is divided by."""
    dims: Annotated[int, Field(ge=1)] = 2
    """Coordinates of the diffusion map."""
    neighbours: Annotated[int, Field(ge=1)] = 5
    """Of a sample, for mutual information."""
    entropy_neighbours: Annotated[int, Field(ge=1)] = 50
    """Of a sample, for entropy; fewer where there are no more samples."""
    repair: Annotated[Repair, tagged_field(repairs, "repair")] = NoRepair()
    """How the merged Blocks take over what is gone."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if unfit := unfit_for_gaps(self.repair):
            raise ValueError(unfit)
        if self.select.sublayer is not None:
            raise ValueError("merge fuses whole blocks; leave sublayer out")
        if self.keep.params is not None:
            raise ValueError("keep: params is not for blocks; give fraction or count")
        return self

    def propose(self, state: State) -> Proposal:
        """Assignments to the first Block of every pair, and a DropBlock for the second."""
        began = left_blocks(state, self.select)
        now, edits, notes = state, [], []
        into: dict[str, str] = {}
        similar: dict[str, float] = {}
        for _ in range(len(began) - self.keep.kept(len(began))):
            pair, similarity = self._most_alike(now)
            more, values = self._merged(now, pair, similarity)
            now = now.after(more, values)
            edits += more
            into[pair[1]], similar[pair[1]] = pair[0], similarity
            notes.append(f"{pair[1]} merged into {pair[0]}, similarity {similarity:.4f}")
        mended = bridged(self.repair, self.select, state, now)
        values = {edit.param: now.plan.values[edit.param] for edit in edits if isinstance(edit, Assign)}
        choices = tuple(
            Choice(
                axis=name,
                size=1,
                kept=int(name not in into),
                why=f"merged into {into[name]}" if name in into else "",
                score=similar.get(name),
                into=into.get(name),
            )
            for name in began
        )
        return Proposal(
            (*edits, *mended.edits),
            choices,
            notes=(*notes, *mended.notes),
            values={**values, **mended.values},
        )

    def similarities(self, state: State) -> tuple[tuple[str, ...], npt.NDArray[np.float64]]:
        """The Blocks that are left, and how alike their states are [blocks, blocks]; 1 with themselves."""
        left = left_blocks(state, self.select)
        maps = [
            ranked(diffusion_map(distances, self.sigma, self.alpha, self.dims))
            for distances in _distances(state, left)
        ]
        found = normalised_information(maps, self.neighbours, self.entropy_neighbours)
        own = np.sqrt(np.outer(found.diagonal(), found.diagonal()))
        return left, np.divide(found, own, out=np.zeros_like(found), where=own > 0)

    def _most_alike(self, now: State) -> tuple[tuple[str, str], float]:
        left, similar = self.similarities(now)
        allowed = set(self.select.on(now.graph))
        order = sorted(range(len(left) - 1), key=lambda place: -similar[place, place + 1])
        reason = "none is selected"
        for place in order:
            pair = (left[place], left[place + 1])
            if not allowed.issuperset(pair):
                continue
            drop = DropBlock(pair[1], now.step)
            reason = alike(now.graph, pair) or now.inexpressible(now.after([drop]).plan)
            if reason is None:
                return pair, float(np.clip(similar[place, place + 1], 0, 1))
        raise InfeasibleError(
            f"of {len(left)} blocks no two neighbours can be merged: {reason}",
            hint="keep more blocks, or drop_blocks",
        )

    def _merged(
        self, now: State, pair: tuple[str, str], similarity: float
    ) -> tuple[list[Edit], dict[str, object]]:
        share = {"similarity": similarity, "mean": 0.5}.get(self.weights, self.share)
        fusion: Fusion = slerp(1 - share) if self.weights == "slerp" else weighted((share, 1 - share))
        values = fused(now, pair, fusion, fusion)
        args = {"blocks": list(pair), "share": share}
        edits: list[Edit] = [Assign(name, f"merge.{self.weights}", args, now.step) for name in values]
        return [*edits, DropBlock(pair[1], now.step)], dict(values)


def _distances(state: State, left: Sequence[str]) -> list[npt.NDArray[np.float64]]:
    """Euclidean distances between samples [samples, samples] in the states behind every Block."""
    bench = state.trial()
    view = bench.view(state.plan)
    size = max(1, _TOKENS // bench.samples.ids.shape[1])
    walk = Walk.begin(bench.module, left, bench.samples, size, view.fixed(), bench.keep)
    found = []
    for place, block in enumerate(left):
        walk.advance(view.fixed((*left[:place], *left[place + 1 :]), block))
        rows = [row.flatten().double() for states in walk.states for row in states]
        longest = max(len(row) for row in rows)
        flat = torch.stack([torch.nn.functional.pad(row, (0, longest - len(row))) for row in rows])
        found.append(torch.cdist(flat, flat).cpu().numpy())
        bench.told("embed blocks", place + 1, len(left))
    return found
