"""Several experts' tensors made one expert's: a weighted mean, its hidden channels matched before.

The hidden channels of an expert have no order of their own, so those of two experts are matched before
they are averaged (the assignment problem, Kuhn 1955), by what leads to them and from them or by how they
fire on the same tokens. Not here: which experts (`expert_clusters`), and the router (`expert_routers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from surgeon.calibrate.experts import Experts
from surgeon.graph import Graph, Group, Site
from surgeon.graph.layout import Positions
from surgeon.operations.expert_clusters import Cluster
from surgeon.rebuild import TensorSource

__all__ = ["Fusing", "Matching", "Order", "assigned", "expert_tensors"]

Order = Mapping[str, Positions]
"""By inner Axis: which index of one expert takes the place of each index of another."""

Matching = Mapping[tuple[int, int], Order]
"""By dominant expert and other expert; none where channels stay as they are."""


def expert_tensors(group: Group, graph: Graph) -> tuple[Site, ...]:
    """The Sites of the experts' own tensors: stacks of matrices, and the biases behind them."""
    contracted = {
        (site.param, site.dim) for other in graph.groups for site in other.sites if site.role == "consumer"
    }

    def own(site: Site) -> bool:
        dims = len(graph.parameters[site.param].shape)
        return dims > 2 or (dims == 2 and (site.param, 1 - site.dim) not in contracted)

    return tuple(site for site in group.sites if own(site))


@dataclass(frozen=True)
class Fusing:
    """The experts of one Axis, ready to be fused; `weights` holds their tensors."""

    graph: Graph
    experts: Experts
    weights: TensorSource

    @property
    def group(self) -> Group:
        """The Axis of the experts."""
        return self.graph.group(self.experts.axis)

    def fused(
        self, clusters: Sequence[Cluster], shares: Mapping[int, float], matching: Matching
    ) -> dict[str, Tensor]:
        """Every tensor of the experts, with the fused expert in the place of each dominant one.

        Args:
            clusters: of experts (positions along the stacks), the dominant one first.
            shares: of each expert in its cluster; those of a cluster add up to 1.
            matching: of channels, before the mean.
        """
        found = {}
        for site in expert_tensors(self.group, self.graph):
            old = self.weights.get(site.param)
            new = old.clone()
            stack, target = old.movedim(site.dim, 0), new.movedim(site.dim, 0)
            for cluster in clusters:
                if len(cluster) > 1:
                    parts = (
                        shares[e] * self._ordered(site, stack[e], matching.get((cluster[0], e), {}))
                        for e in cluster
                    )
                    target[cluster[0]] = sum(parts, torch.zeros_like(stack[0], dtype=torch.float64)).to(new)
            found[site.param] = new
        return found

    def matched_by_weights(self, dominant: int, other: int) -> Order:
        """Channels of `other` matched with those of `dominant` by inner products of all their weights."""
        return {
            axis: assigned(self._channels(axis, dominant) @ self._channels(axis, other).T)
            for axis in self.experts.inner
        }

    def _channels(self, axis: str, expert: int) -> Tensor:
        """All weights of one expert that lead to or from each index, [indices, weights] float64."""
        rows = []
        for own in expert_tensors(self.group, self.graph):
            expert_weights = self.weights.get(own.param).movedim(own.dim, 0)[expert].double()
            for dim, places in self._places(axis, own):
                moved = expert_weights.movedim(dim, 0)[torch.from_numpy(places)]
                rows.append(moved.flatten(1))
        return torch.cat(rows, 1)

    def _ordered(self, own: Site, tensor: Tensor, order: Order) -> Tensor:
        """One expert's part of a stack in float64, its channels in another order."""
        tensor = tensor.double()
        for axis, perm in order.items():
            for dim, places in self._places(axis, own):
                index = np.arange(tensor.shape[dim])
                index[places.reshape(-1)] = places[perm].reshape(-1)
                tensor = tensor.index_select(dim, torch.from_numpy(index).to(tensor.device))
        return tensor

    def _places(self, axis: str, own: Site) -> list[tuple[int, Positions]]:
        """Where an inner Axis lies in one expert's part of a stack: dim, and positions of each index."""
        return [
            (site.dim - (site.dim > own.dim), site.layout.positions())
            for site in self.graph.group(axis).sites
            if site.param == own.param
        ]


def assigned(likeness: Tensor) -> Positions:
    """For each row the column that it is matched with, so that the likeness of all pairs is largest."""
    rows, columns = linear_sum_assignment(likeness.cpu().numpy(), maximize=True)
    return columns[np.argsort(rows)].astype(np.int64)
