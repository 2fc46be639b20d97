"""Clusters of experts: which ones become one, by likeness of outputs or logits, or around those kept.

Plain arithmetic on arrays. Not here: what is measured (`surgeon.calibrate`), and what becomes of the
members (`expert_fusing`, `expert_routers`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import linkage

__all__ = ["Cluster", "around", "average_linkage", "cosines"]

Cluster = tuple[int, ...]
"""Indices that become one: the dominant one, whose place it takes, then the others, ascending."""

Matrix = npt.NDArray[np.float64]


def average_linkage(points: Matrix, left: Sequence[int], worth: Matrix, count: int) -> tuple[Cluster, ...]:
    """`count` clusters of the indices `left`: the two that are nearest on average join, again and again.

    Args:
        points: one row an index, compared by Euclidean distance.
        left: indices that are still there.
        worth: of each index; the one worth most of a cluster is dominant, of equal ones the first.
        count: how many clusters stay.
    """
    sets: dict[int, list[int]] = {place: [index] for place, index in enumerate(left)}
    joins = linkage(points[list(left)], method="average") if len(left) > 1 else np.empty((0, 4))
    for number, (one, other, *_) in enumerate(joins[: len(left) - count]):
        sets[len(left) + number] = sets.pop(int(one)) + sets.pop(int(other))
    return tuple(
        sorted(_led(members, max(sorted(members), key=lambda i: worth[i])) for members in sets.values())
    )


def around(likeness: Matrix, left: Sequence[int], kept: Sequence[int]) -> tuple[Cluster, ...]:
    """Each of `left` that is not `kept` joins the kept index that it is most like, of equals the first."""
    columns = sorted(kept)
    joined: dict[int, list[int]] = {index: [index] for index in columns}
    for index in left:
        if index not in joined:
            joined[columns[int(np.argmax(likeness[index, columns]))]].append(index)
    return tuple(_led(members, dominant) for dominant, members in joined.items())


def cosines(gram: Matrix) -> Matrix:
    """Cosines of vectors from their inner products; 0 with one that is zero."""
    length = np.sqrt(gram.diagonal().clip(min=0))
    scale = np.outer(length, length)
    return np.divide(gram, scale, out=np.zeros_like(gram), where=scale > 0)


def _led(members: Sequence[int], dominant: int) -> Cluster:
    return (dominant, *sorted(index for index in members if index != dominant))
