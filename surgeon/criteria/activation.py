"""Criterion ``activation``: inputs that are large stay, whatever the weights."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.input_moment import InputMoment
from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.entering import entering, fold_channels
from surgeon.criteria.scores import Scores
from surgeon.graph import Group, Site
from surgeon.rebuild import TensorSource

__all__ = ["Activation"]


@criteria.register("activation")
class Activation(Criterion):
    """Size of what enters the consumers over all tokens; a head is worth the mean of its channels.

    The mean absolute value is the channel importance of Minitron (Muralidharan et al. 2024, arXiv
    2407.14679); ``norm`` is the root of the second moment.

    YAML::

        criterion: {criterion: activation, measure: mean_abs}
    """

    criterion: Literal["activation"] = "activation"
    measure: Literal["norm", "mean_abs"] = "norm"
    """Root mean square, or mean absolute value."""

    def needs(self) -> frozenset[Statistic]:
        """The moment that `measure` names."""
        return frozenset({InputMoment(self._moment())})

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`."""

        def metric(site: Site) -> Tensor:
            moment = entering(statistics, InputMoment(self._moment()), site.param)
            return moment.sqrt() if self.measure == "norm" else moment

        return fold_channels(group, metric, "mean")

    def _moment(self) -> Literal["second", "mean_abs"]:
        return "second" if self.measure == "norm" else "mean_abs"
