"""Criterion ``gblm``: Wanda, and what the loss says of each weight beside it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.absolute_gradient import AbsoluteGradient
from surgeon.calibrate.input_moment import InputMoment
from surgeon.calibrate.squared_gradient import SquaredGradient
from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.entering import column_sums, fold_channels
from surgeon.criteria.saliency import widened
from surgeon.criteria.scores import Scores
from surgeon.criteria.wanda import input_norms
from surgeon.graph import Group, Site
from surgeon.rebuild import TensorSource

__all__ = ["Gblm", "gradient_norms"]


@criteria.register("gblm")
class Gblm(Criterion):
    """abs(w) times the norm of its input plus alpha times the norm of its gradient.

    GBLM-Pruner (Das, Ma, Shen 2023, arXiv 2311.04902). The gradient's norm runs over the backward passes of
    single sequences. The paper compares elements; here their mean over outputs is the score of a channel,
    and a head is the sum of its channels, as in Wanda-sp.

    YAML::

        criterion: {criterion: gblm, norm: l2}
    """

    criterion: Literal["gblm"] = "gblm"
    norm: Literal["l1", "l2"] = "l2"
    """Over the gradients of the sequences."""
    alpha: Annotated[float, Field(ge=0)] = 100.0
    """Weight of the gradient beside the input; the paper's is 100."""

    def needs(self) -> frozenset[Statistic]:
        """What Wanda reads, and the gradients of single samples."""
        gradient = AbsoluteGradient() if self.norm == "l1" else SquaredGradient()
        return frozenset({InputMoment("second"), InputMoment("count"), gradient})

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`."""

        def metric(site: Site) -> Tensor:
            norms = input_norms(statistics, site.param)
            w = widened(weights.get(site.param)).abs()
            driven = norms * column_sums(w, site.dim, norms)
            graded = w * gradient_norms(statistics, self.norm, site.param).to(w.device) * self.alpha
            return (driven + column_sums(graded, site.dim, norms)) / (w.numel() // norms.numel())

        return fold_channels(group, metric, "sum")


def gradient_norms(statistics: Statistics, norm: Literal["l1", "l2"], param: str) -> Tensor:
    """Norm over single samples of each element's gradient, in the parameter's shape."""
    if norm == "l1":
        return statistics.get(AbsoluteGradient())[param] * statistics.samples
    return (statistics.get(SquaredGradient())[param] * statistics.samples).sqrt()
