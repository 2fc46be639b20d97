"""Criterion ``flap``: inputs that fluctuate stay; those that hardly move can go into a bias."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.fluctuation import Fluctuation
from surgeon.calibrate.input_moment import InputMoment
from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.entering import entering, fold_channels, weight_sums
from surgeon.criteria.scores import Scores
from surgeon.graph import AxisKind, Group, Site
from surgeon.rebuild import TensorSource

__all__ = ["Flap"]

_ATTENTION: tuple[AxisKind, ...] = ("kv_group", "q_per_kv", "head_dim")


@criteria.register("flap")
class Flap(Criterion):
    """Fluctuation of a consumer's inputs, weighted by its columns (An et al. 2023, FLAP, arXiv 2312.11983).

    ``ifv`` is the variance of the input, ``wifv`` that times the squared norm of the column, ``wifn`` the
    mean over outputs of abs(w) times the input's norm. A head is worth the mean of its channels.
    ``variant: released`` reproduces the authors' code: running updates that are no variance (see
    `surgeon.calibrate.fluctuation`), and the metric of attention squared. Pair it with
    ``allocation: adaptive`` and ``repair: bias``.

    YAML::

        criterion: {criterion: flap, metric: wifv}
    """

    criterion: Literal["flap"] = "flap"
    metric: Literal["ifv", "wifv", "wifn"] = "wifv"
    """Which of the paper's three metrics."""
    variant: Literal["paper", "released"] = "paper"
    """The formulas of the paper, or what the released code computes."""

    def needs(self) -> frozenset[Statistic]:
        """The variance, or the norm, of what enters."""
        return frozenset({self._statistic()})

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`."""

        def metric(site: Site) -> Tensor:
            value = self._metric(site, weights, statistics)
            squared = self.variant == "released" and group.kind in _ATTENTION
            return value.square() if squared else value

        return fold_channels(group, metric, "mean")

    def _statistic(self) -> Statistic:
        if self.variant == "released":
            return Fluctuation("scaler" if self.metric == "wifn" else "fluctuation")
        return InputMoment("second" if self.metric == "wifn" else "variance")

    def _metric(self, site: Site, weights: TensorSource, statistics: Statistics) -> Tensor:
        measured = entering(statistics, self._statistic(), site.param)
        match self.metric:
            case "ifv":
                return measured
            case "wifv":
                return measured * weight_sums(weights, site, measured, Tensor.square)[0]
            case "wifn":
                sums, outputs = weight_sums(weights, site, measured, Tensor.abs)
                return measured.sqrt() * sums / outputs
