"""One row of a router for several experts that became one.

A router is linear up to its logits, so what stands for a set of experts is one row again: the sum of
their rows gives the sum of their logits, exactly. Their largest logit, and the logit of the sum of their
softmax gates, are no linear functions; the row is the one that comes nearest on the calibration text, by
ridge least squares anchored at the dominant expert's row. Corrections of the choice stay the dominant
one's. Not here: the experts themselves (`expert_fusing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from surgeon.calibrate.router_moment import Clusters, RouterMoment
from surgeon.calibrate.routers import router_of
from surgeon.graph import Graph, Group
from surgeon.operations.expert_clusters import Cluster
from surgeon.rebuild import TensorSource
from surgeon.repair.least_squares import anchored

__all__ = ["RouterMerge", "merged_router", "row_fits"]

RouterMerge = Literal["keep_dominant", "sum_logits", "max", "sum_gates"]

_RIDGE = 0.01
"""Of the fit, relative to the mean second moment of what enters the router."""


def row_fits(clusters: Clusters, how: RouterMerge) -> RouterMoment | None:
    """What must be measured for the rows of `clusters`; None where the rows are no fit."""
    joined = tuple((axis, _joined(found)) for axis, found in clusters)
    if how in ("keep_dominant", "sum_logits") or not any(found for _, found in joined):
        return None
    return RouterMoment(joined, how)


def merged_router(
    graph: Graph,
    group: Group,
    clusters: Sequence[Cluster],
    how: RouterMerge,
    weights: TensorSource,
    measured: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """The router's tensors, with the row of each cluster in the place of its dominant expert's.

    Args:
        graph: the traced model.
        group: the Axis of the experts.
        clusters: of experts (positions along the router's dim), the dominant one first.
        how: what the row is; ``keep_dominant`` changes nothing.
        weights: tensors in force.
        measured: what `row_fits` asked for.

    Raises:
        SurgeonError: the router is not one matrix.
    """
    joined = _joined(clusters)
    if how == "keep_dominant" or not joined:
        return {}
    router = router_of(graph, group)
    weight = weights.get(router.weight).clone()
    rows_EI = weight.movedim(router.dim, 0)
    bias = None if router.bias is None else weights.get(router.bias).clone()
    leaders = [cluster[0] for cluster in joined]
    if how == "sum_logits":
        sums = [rows_EI[list(cluster)].sum(0) for cluster in joined]
        offsets = [] if bias is None else [bias[list(cluster)].sum() for cluster in joined]
        rows_EI[leaders] = torch.stack(sums)
    else:
        anchor = rows_EI[leaders] if bias is None else torch.cat([rows_EI[leaders], bias[leaders, None]], 1)
        fitted = _fitted(anchor, measured[group.name], constant=bias is not None)
        offsets = list(fitted[:, -1])
        rows_EI[leaders] = fitted[:, : rows_EI.shape[1]].to(weight)
    if router.bias is None or bias is None:
        return {router.weight: weight}
    bias[leaders] = torch.stack(offsets).to(bias)
    return {router.weight: weight, router.bias: bias}


def _joined(clusters: Sequence[Cluster]) -> tuple[Cluster, ...]:
    return tuple(cluster for cluster in clusters if len(cluster) > 1)


def _fitted(anchor: Tensor, moment: Tensor, constant: bool) -> Tensor:
    """Rows [clusters, inputs], and the bias behind them where the router has one."""
    inputs = moment.shape[0]
    used = inputs if constant else inputs - 1
    tokens = moment[inputs - 1, inputs - 1]
    gram, cross = moment[:used, :used] / tokens, moment[:used, inputs:] / tokens
    return anchored(gram, cross, anchor.T.to(gram), _RIDGE, constant=constant).T
