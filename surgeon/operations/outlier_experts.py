"""Outlier experts: those whose outputs hold massive activations, by what is measured of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from surgeon.calibrate.expert_load import ExpertLoad
from surgeon.criteria.experts import expert_scores, load_of
from surgeon.graph import Group
from surgeon.operations.pool import Pool
from surgeon.operations.protect import Protect
from surgeon.operations.state import State

__all__ = ["raised"]

_QUANTILE = 0.995
_SHARE = 0.1
_DEPTH = 0.75


def raised(
    pools: Sequence[Pool], state: State, groups: Sequence[Group], rule: Protect
) -> tuple[tuple[Pool, ...], tuple[str, ...]]:
    """`pools` in which the scores of protected experts are above all others, and a note naming them.

    An expert is an outlier where the largest element that it gives is above the 99.5th percentile of all
    experts of all layers and above a tenth of their largest; ``super_experts`` are those in the first
    three quarters of the layers (the rule of REAP's released code, Lasby et al. 2025, arXiv 2510.13999,
    after Su et al. 2025, arXiv 2507.23279).
    """
    statistics = state.statistics({ExpertLoad("peak")}, groups)
    peaks = {group.name: load_of(group, statistics, "peak") for group in groups}
    every = torch.cat([peak.cpu() for peak in peaks.values()])
    limit = max(float(every.quantile(_QUANTILE)), float(every.max()) * _SHARE)
    depth = {block.name: place / len(state.graph.blocks) for place, block in enumerate(state.graph.blocks)}
    deepest = _DEPTH if rule == "super_experts" else 1.0
    chosen = {
        group.name: expert_scores(group, (peaks[group.name] > limit).double()).values > 0
        for group in groups
        if depth.get(group.block or "", 0.0) < deepest
    }

    def lifted(pool: Pool) -> Pool:
        members = []
        for member in pool.members:
            kept = chosen.get(member.group.name)
            if kept is None or not kept.any():
                members.append(member)
                continue
            above = float(np.ptp(member.scores)) + 1.0
            scores = member.scores + above * kept[np.array(member.left)]
            members.append(replace(member, scores=scores, searched={}))
        return replace(pool, members=tuple(members))

    names = [f"{name} {np.flatnonzero(kept).tolist()}" for name, kept in chosen.items() if kept.any()]
    return tuple(lifted(pool) for pool in pools), (f"protected experts: {', '.join(names) or 'none'}",)
