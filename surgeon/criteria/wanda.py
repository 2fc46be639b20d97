"""Criterion ``wanda``: weights times the norm of what enters them."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.input_moment import InputMoment
from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.entering import entering, fold_channels, weight_sums
from surgeon.criteria.scores import Scores
from surgeon.graph import Group, Site
from surgeon.rebuild import TensorSource

__all__ = ["Wanda", "input_norms"]


@criteria.register("wanda")
class Wanda(Criterion):
    """Wanda-sp: mean over outputs of abs(w) times the input's l2 norm; a head is the sum of its channels.

    Wanda (Sun et al. 2023, arXiv 2306.11695) in the structured form of FLAP's authors (An et al. 2023,
    arXiv 2312.11983). The norm is that of a sequence, root mean square over sequences.

    YAML::

        criterion: wanda
    """

    criterion: Literal["wanda"] = "wanda"

    def needs(self) -> frozenset[Statistic]:
        """Second moment and count of what enters."""
        return frozenset({InputMoment("second"), InputMoment("count")})

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`."""

        def metric(site: Site) -> Tensor:
            norms = input_norms(statistics, site.param)
            sums, outputs = weight_sums(weights, site, norms, Tensor.abs)
            return norms * sums / outputs

        return fold_channels(group, metric, "sum")


def input_norms(statistics: Statistics, param: str) -> Tensor:
    """Root mean square over sequences of the l2 norm of each input feature of `param`."""
    second = entering(statistics, InputMoment("second"), param)
    count = entering(statistics, InputMoment("count"), param)
    return (second * count[..., None] / statistics.samples).sqrt()
