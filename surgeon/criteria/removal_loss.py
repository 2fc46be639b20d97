"""Least-squares loss of removing inputs of a linear map, given the inverse of their Gram matrix.

Removing the inputs S of ``y = W^T x`` and re-fitting the others raises the mean squared error of y by
``tr(W_S^T ([H^-1]_SS)^-1 W_S)`` with ``H = E[x x^T]``; afterwards the inverse Gram matrix and the weights
of what is left follow by a step of rank ``|S|`` (Hassibi, Stork 1992). Not here: what H and W are of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["RemovalLoss", "best_subsets", "greedy_order"]


@dataclass(eq=False)
class RemovalLoss:
    """One map: `inverse` [features, features] and `w_FO` [features, outputs], float64.

    `positions` [indices, channels]: which features an index owns; an index that is gone owns none.
    `share`: weight of this map's loss beside others.
    """

    inverse: Tensor
    w_FO: Tensor
    positions: Tensor
    share: float = 1.0

    def each(self) -> Tensor:
        """Loss of removing every index alone, [indices]."""
        w_ICO = self.w_FO[self.positions]
        if self.positions.shape[1] == 1:
            losses = w_ICO[:, 0].square().sum(1) / self.inverse.diagonal()[self.positions[:, 0]]
        else:
            blocks = self.inverse[self.positions[:, :, None], self.positions[:, None, :]]
            losses = (w_ICO * torch.linalg.solve(blocks, w_ICO)).sum((1, 2))
        return losses * self.share

    def together(self, indices: Sequence[int]) -> float:
        """Loss of removing `indices` at once."""
        at = self.positions[list(indices)].reshape(-1)
        w = self.w_FO[at]
        return self.share * float((w * torch.linalg.solve(self.inverse[at[:, None], at], w)).sum())

    def remove(self, index: int) -> None:
        """Remove one index and re-fit the rest; later indices move one place down."""
        at = self.positions[index]
        step = torch.linalg.solve(self.inverse[at[:, None], at], self.inverse[at])
        self.w_FO -= step.T @ self.w_FO[at]
        self.inverse -= self.inverse[:, at] @ step
        rest = torch.ones(len(self.positions), dtype=torch.bool, device=at.device)
        rest[index] = False
        self.positions = self.positions[rest]
        if 2 * self.positions.numel() < len(self.inverse):
            self._compact()

    def copy(self) -> RemovalLoss:
        """One that can be changed without changing this."""
        return RemovalLoss(self.inverse.clone(), self.w_FO.clone(), self.positions.clone(), self.share)

    def _compact(self) -> None:
        """Drop what is gone, where features of no index of the Axis are also let go of."""
        at = self.positions.reshape(-1)
        self.inverse, self.w_FO = self.inverse[at[:, None], at], self.w_FO[at]
        self.positions = torch.arange(len(at), device=at.device).view_as(self.positions)


def greedy_order(losses: Sequence[RemovalLoss], size: int) -> npt.NDArray[np.float64]:
    """For each index the summed loss at the time when greedy removal takes it; [size]."""
    left = list(range(size))
    working = [loss.copy() for loss in losses]
    values, total = np.zeros(size), 0.0
    while left:
        each = torch.stack([loss.each().cpu() for loss in working]).sum(0)
        place = int(each.argmin())
        total += max(float(each[place]), 0.0)
        values[left.pop(place)] = total
        for loss in working:
            loss.remove(place)
    return values


def best_subsets(losses: Sequence[RemovalLoss], size: int) -> Mapping[int, tuple[int, ...]]:
    """For every kept count the indices to keep so that removing the others costs least."""
    best: dict[int, tuple[int, ...]] = {}
    for count in range(1, size):
        options = combinations(range(size), size - count)
        gone = min(options, key=lambda option: sum(loss.together(option) for loss in losses))
        best[count] = tuple(sorted(set(range(size)) - set(gone)))
    return best
