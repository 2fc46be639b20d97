"""Criterion ``expression``: a formula over weights, gradients and inputs, written in the recipe."""

from __future__ import annotations

from functools import cached_property
from typing import Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.absolute_gradient import AbsoluteGradient
from surgeon.calibrate.input_moment import InputMoment
from surgeon.calibrate.squared_gradient import SquaredGradient
from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.entering import entering, fold_channels
from surgeon.criteria.formula import Node, parse
from surgeon.criteria.gblm import gradient_norms
from surgeon.criteria.saliency import sum_to_dim, widened
from surgeon.criteria.scores import Scores
from surgeon.graph import Group, Site
from surgeon.rebuild import TensorSource

__all__ = ["Expression"]


@criteria.register("expression")
class Expression(Criterion):
    """A symbolic pruning metric as Pruner-Zero searches them (Dong et al. 2024, arXiv 2406.02924).

    Leaves: ``W`` the weights, ``G`` the norm over single samples of their gradients (as in GBLM), ``X``
    the mean square of each input. The formula scores elements; a channel is worth the mean over the
    outputs, a head the sum of its channels. See `surgeon.criteria.formula` for the symbols. The default
    is the best tree of the authors' repository.

    YAML::

        criterion: {criterion: expression, formula: "mul(sqr(W), minmax(G))"}
    """

    criterion: Literal["expression"] = "expression"
    formula: str = "mul(mul(abs(W), abs(W)), minmax(G))"
    """Function calls over W, G and X."""
    gradient_norm: Literal["l1", "l2"] = "l1"
    """Over the gradients of the samples."""

    @model_validator(mode="after")
    def _parses(self) -> Self:
        parse(self.formula)
        return self

    @cached_property
    def _tree(self) -> Node:
        return parse(self.formula)

    def needs(self) -> frozenset[Statistic]:
        """What the leaves of the formula stand for."""
        keys: set[Statistic] = set()
        if "G" in self._tree.leaves():
            keys.add(AbsoluteGradient() if self.gradient_norm == "l1" else SquaredGradient())
        if "X" in self._tree.leaves():
            keys.add(InputMoment("second"))
        return frozenset(keys)

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`."""

        def metric(site: Site) -> Tensor:
            w = widened(weights.get(site.param))
            leaves = {"W": w}
            if "G" in self._tree.leaves():
                leaves["G"] = gradient_norms(statistics, self.gradient_norm, site.param).to(w)
            if "X" in self._tree.leaves():
                leaves["X"] = _along(entering(statistics, InputMoment("second"), site.param), w, site.dim)
            value = torch.broadcast_to(self._tree.value(leaves), w.shape)
            return sum_to_dim(value, site.dim) / (w.numel() // w.shape[site.dim])

        return fold_channels(group, metric, "sum")


def _along(input_F: Tensor, w: Tensor, dim: int) -> Tensor:
    """[features] or [slices, features] laid along dim `dim` of `w`."""
    shape = [1] * w.ndim
    shape[dim] = w.shape[dim]
    if input_F.ndim == 2:
        shape[0] = w.shape[0]
    return input_F.to(w).reshape(shape)
