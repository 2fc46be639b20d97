"""Protect super experts: the few whose outputs hold massive activations never go.

Not here: which ones these are (`outlier_experts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from surgeon.operations.pool import Pool
from surgeon.operations.state import State

__all__ = ["Protect", "protected"]

Protect = Literal["super_experts", "outlier_experts"]


def protected(
    pools: Sequence[Pool], state: State, rule: Protect | None
) -> tuple[tuple[Pool, ...], tuple[str, ...]]:
    """`pools` in which the scores of protected experts are above all others, and a note naming them."""
    groups = [member.group for pool in pools for member in pool.members if member.group.kind == "expert"]
    if rule is None or not groups:
        return tuple(pools), ()
    from surgeon.operations.outlier_experts import raised  # measures, and so needs torch

    return raised(pools, state, groups, rule)
