"""Criterion ``taylor``: what the loss would miss stays, by its Taylor expansion around the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.gradient import Gradient
from surgeon.calibrate.squared_gradient import SquaredGradient
from surgeon.criteria.coupled import Reduce, coupled
from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.saliency import summed
from surgeon.criteria.scores import Scores
from surgeon.graph import Group
from surgeon.rebuild import TensorSource

__all__ = ["Taylor"]


@criteria.register("taylor")
class Taylor(Criterion):
    """Weights times gradients, per structure, as LLM-Pruner (Ma, Fang, Wang 2023, arXiv 2305.11627).

    With g the gradient of the mean loss and F the mean squared gradient of single samples, an element
    is worth w·g (``vectorize``, ``param_first``), w·F·w (``param_second``) or w·g - w·F·w/2
    (``param_mix``). ``param_*`` sum absolute values over a channel; ``vectorize`` takes the absolute
    value of the sum. The default reduction over the tensors of a Group is their sum, as there.

    YAML::

        criterion: {criterion: taylor, order: param_mix}
    """

    criterion: Literal["taylor"] = "taylor"
    order: Literal["vectorize", "param_first", "param_second", "param_mix"] = "param_first"
    """Which terms of the expansion, and where the absolute value is taken."""
    reduce: Reduce = "sum"
    """How the scores of a Group's tensors meet."""

    def needs(self) -> frozenset[Statistic]:
        """The gradient, the squared gradient, or both."""
        match self.order:
            case "vectorize" | "param_first":
                return frozenset({Gradient()})
            case "param_second":
                return frozenset({SquaredGradient()})
            case "param_mix":
                return frozenset({Gradient(), SquaredGradient()})

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`."""

        def salience(param: str, dim: int) -> Tensor:
            measured = {key: statistics.get(key)[param] for key in self.needs()}

            def worth(w: Tensor, rows: slice) -> Tensor:
                element = self._element(w, {key: found[rows].to(w.device) for key, found in measured.items()})
                return element if self.order == "vectorize" else element.abs()

            total = summed(weights, param, dim, worth)
            return total.abs() if self.order == "vectorize" else total

        return coupled(group, salience, self.reduce)

    def _element(self, w: Tensor, measured: Mapping[Statistic, Tensor]) -> Tensor:
        """Value of every element, from weights and what was measured of them, in one shape."""
        match self.order:
            case "vectorize" | "param_first":
                return w * measured[Gradient()]
            case "param_second":
                return w.square() * measured[SquaredGradient()]
            case "param_mix":
                return w * measured[Gradient()] - 0.5 * w.square() * measured[SquaredGradient()]
