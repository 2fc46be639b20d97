"""Criterion ``obs``: what the other inputs of a projection cannot make up for stays."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.gram import Gram
from surgeon.calibrate.input_moment import InputMoment
from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.entering import consumers, entering
from surgeon.criteria.removal_loss import RemovalLoss, best_subsets, greedy_order
from surgeon.criteria.saliency import widened
from surgeon.criteria.scores import Scores
from surgeon.graph import Group, Site
from surgeon.rebuild import TensorSource

__all__ = ["Obs"]


@criteria.register("obs")
class Obs(Criterion):
    """Greedy least-squares loss of the consumers' outputs, with updates: optimal brain surgeon by structure.

    Each step removes the index whose removal costs the consumers' outputs least once the rest is re-fitted
    (Hassibi, Stork 1992; for whole columns Kurtić et al. 2023, ZipLM, arXiv 2302.04089); for one channel
    that loss is ``|W_j|^2 / [H^-1]_jj``. An index is worth what its removal adds to the loss at the time it
    goes, and no less than those that went before, so the order is that of the greedy removal, and worths
    add up to a loss that compares between Axes. An index of
    several channels, such as a kv group, goes as a block; where the subsets are few, all are tried and the
    best set of every size is kept in `Scores.best`. Pair it with ``repair: refit``, which makes the
    update for the indices that were finally cut.

    YAML::

        criterion: obs
    """

    criterion: Literal["obs"] = "obs"
    damp: Annotated[float, Field(gt=0)] = 1e-4
    """Added to the diagonal of the Gram matrix, relative to its mean."""
    exhaustive: Annotated[int, Field(ge=0)] = 256
    """All subsets are tried where there are at most so many."""

    def needs(self) -> frozenset[Statistic]:
        """The Gram matrix of what enters, and how many tokens it is of."""
        return frozenset({Gram(), InputMoment("count")})

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`."""
        losses = [loss for site in consumers(group) for loss in self._losses(site, weights, statistics)]
        values = _increments(greedy_order(losses, group.size))
        few = len(consumers(group)[0].layout.positions()[0]) > 1 and 2**group.size <= self.exhaustive
        best = best_subsets(losses, group.size) if few else {}
        return Scores(group.name, values, best=best)

    def _losses(self, site: Site, weights: TensorSource, statistics: Statistics) -> list[RemovalLoss]:
        """One problem for every matrix of the parameter, each over the tokens that it got."""
        gram = entering(statistics, Gram(), site.param)
        count = entering(statistics, InputMoment("count"), site.param)
        w = widened(weights.get(site.param)).double().to(gram.device)
        grams = gram if gram.ndim == 3 else gram[None]
        stacked = w if gram.ndim == 3 else w[None]
        dim = site.dim if gram.ndim == 3 else site.dim + 1
        shares = count.reshape(-1) / count.sum()
        positions = torch.from_numpy(site.layout.positions()).to(gram.device)
        return [
            self._loss(g, m.movedim(dim - 1, 0).flatten(1), positions, float(share))
            for g, m, share in zip(grams, stacked, shares, strict=True)
            if share > 0
        ]

    def _loss(self, gram: Tensor, w_FO: Tensor, positions: Tensor, share: float) -> RemovalLoss:
        mean = gram.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny)
        damped = gram + torch.eye(len(gram), dtype=gram.dtype, device=gram.device) * (mean * self.damp)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
        return RemovalLoss(inverse, w_FO, positions, share)


def _increments(totals: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What each index adds to the summed losses `totals` [size], rising in their order."""
    order = np.argsort(totals, kind="stable")
    values, last = np.zeros(len(totals)), -np.inf
    for index, added in zip(order, np.diff(totals[order], prepend=0.0), strict=True):
        values[index] = last = max(float(added), np.nextafter(last, np.inf) if last > -np.inf else 0.0)
    return values
