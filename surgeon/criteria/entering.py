"""Score a Group by what enters its consumers: one number a channel, then one an index.

Consumer-side criteria look at the parameters that contract the Axis. A stack of matrices (experts) that
share an Axis counts all of its matrices together.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Literal

import torch
from torch import Tensor

from surgeon.calibrate import Statistic, Statistics
from surgeon.criteria.saliency import summed, widened
from surgeon.criteria.scores import Scores
from surgeon.errors import SurgeonError
from surgeon.graph import Group, Site
from surgeon.rebuild import TensorSource

__all__ = ["Fold", "column_sums", "consumers", "entering", "fold_channels", "weight_sums"]

Fold = Literal["sum", "mean"]


def consumers(group: Group) -> tuple[Site, ...]:
    """Sites where the Axis is contracted.

    Raises:
        SurgeonError: there is none.
    """
    found = tuple(site for site in group.sites if site.role == "consumer")
    if not found:
        raise SurgeonError(
            f"no parameter contracts '{group.name}', so nothing tells what enters it",
            hint="leave it out of the selection, or use criterion: magnitude",
        )
    return found


def entering(statistics: Statistics, key: Statistic, param: str) -> Tensor:
    """What `key` measured of the inputs of `param`, float64.

    Raises:
        SurgeonError: nothing entered it in the calibration run.
    """
    found = statistics.get(key)
    if param not in found:
        raise SurgeonError(
            f"no calibration token entered '{param}'",
            hint="more samples, or leave its axis out of the selection",
        )
    return found[param].double()


def column_sums(w: Tensor, dim: int, like: Tensor) -> Tensor:
    """Sums over the outputs of `w`, float64, in the shape of `like`: [features] or [slices, features]."""
    kept = (dim,) if like.ndim == 1 else (0, dim)
    others = tuple(other for other in range(w.ndim) if other not in kept)
    return w.sum(others, dtype=torch.float64).to(like.device)


def weight_sums(
    weights: TensorSource, site: Site, like: Tensor, element: Callable[[Tensor], Tensor]
) -> tuple[Tensor, int]:
    """`column_sums` of what the elements of a Site's parameter are worth, and how many outputs it has."""
    outputs = prod(weights.shape(site.param)) // like.numel()
    if like.ndim == 1:
        sums = summed(weights, site.param, site.dim, lambda w, rows: element(w)).to(like.device)
    else:
        sums = column_sums(element(widened(weights.get(site.param))), site.dim, like)
    return sums, outputs


def fold_channels(group: Group, measure: Callable[[Site], Tensor], fold: Fold) -> Scores:
    """Scores of `group` from one value a position of each consumer, sums or means over its channels.

    Args:
        group: has consumers.
        measure: gives [features] or [slices, features] of one Site; slices are added up.
        fold: how the channels of an index meet.
    """
    parts = []
    for site in consumers(group):
        value = measure(site)
        value_F = value if value.ndim == 1 else value.sum(0)
        positions = torch.from_numpy(site.layout.positions()).to(value_F.device)
        parts.append(value_F[positions].cpu())
    channels_IC = torch.cat(parts, 1)
    folded = channels_IC.sum(1) if fold == "sum" else channels_IC.mean(1)
    spread = float(channels_IC.std()) if channels_IC.numel() > 1 else 0.0
    if fold == "sum":
        spread *= channels_IC.shape[1]
    return Scores(group.name, folded.numpy(), spread=spread)
