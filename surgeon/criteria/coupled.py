"""Score a coupled Group from its tensors: saliency of each tensor, folded to channels, then reduced.

The order is that of LLM-Pruner (Ma, Fang, Wang 2023, arXiv 2305.11627). (1) In each tensor, the
saliency of a position is the sum over everything else in that tensor. (2) Tensors that hold more
positions an index than others are folded to the common *channels* of an index: of a key/value head
with four query heads, channel c collects channel c of these four. (3) The vectors of all tensors are
reduced, channel by channel. (4) An index is worth the sum of its channels.

Step 2 goes by Layout, so a query head is credited to the key/value head that it really uses. The
original folds by ``view(r, n)``, which on grouped-query models credits every n-th query head: a
deviation on purpose. Biases and norms count as tensors of their own, element by element; the original
passes biases over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import gcd
from typing import TYPE_CHECKING, Literal

import numpy as np

from surgeon.criteria.scores import Scores
from surgeon.errors import SurgeonError
from surgeon.graph import Graph, Group, Site
from surgeon.rebuild.tensors import Numbers, as_numbers

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Reduce", "Salience", "channels", "coupled", "trainable"]

Reduce = Literal["sum", "mean", "max", "prod", "first"]
Salience = Callable[[str, int], "Tensor | Numbers"]
"""From a parameter's name and a dim to the saliency of each position of that dim [dim], in float64 best."""


def coupled(group: Group, salience: Salience, reduce: Reduce) -> Scores:
    """Scores of `group` by the four steps above.

    Raises:
        SurgeonError: the Group has no parameter to score by.
    """
    if not group.sites:
        raise SurgeonError(
            f"'{group.name}' lies in no parameter; nothing tells its indices apart",
            hint="leave it out of the selection, or use criterion: random",
        )
    found: dict[tuple[str, int], Numbers] = {}
    for site in group.sites:
        key = (site.param, site.dim)
        if key not in found:
            worth = salience(*key)
            numbers = worth if isinstance(worth, np.ndarray) else as_numbers(worth)
            found[key] = numbers.astype(np.float64, copy=False)
    width = channels(group)
    vectors = [_fold(found[site.param, site.dim], site, width) for site in group.sites]
    return Scores(group.name, _reduced(np.stack(vectors), reduce).sum(1))


def channels(group: Group) -> int:
    """Common channels of one index: the most that every Site's positions an index are a multiple of."""
    return gcd(*(site.layout.positions_per_index for site in group.sites)) or 1


def trainable(group: Group, graph: Graph) -> Group:
    """`group` with only the Sites that a criterion looks at: parameters, each storage once."""
    seen: set[tuple[str, int, object]] = set()
    sites = []
    for site in group.sites:
        parameter = graph.parameters[site.param]
        storage = parameter.tied_to or parameter.name
        key = (storage, site.dim, site.layout)
        if not parameter.buffer and key not in seen:
            seen.add(key)
            sites.append(replace(site, param=storage))
    return replace(group, sites=tuple(sites))


def _fold(salience: Numbers, site: Site, width: int) -> Numbers:
    """[size, width]: positions of each index, folded onto its channels."""
    return salience[site.layout.positions()].reshape(site.layout.extent, -1, width).sum(1)


def _reduced(stack_TIC: Numbers, reduce: Reduce) -> Numbers:
    """[tensors, size, channels] to [size, channels].

    A tensor that is zero throughout (a bias never trained) says nothing; it is left out of a product.
    """
    match reduce:
        case "sum":
            return stack_TIC.sum(0)
        case "mean":
            return stack_TIC.mean(0)
        case "max":
            return stack_TIC.max(0)
        case "prod":
            telling = stack_TIC.any((1, 2))
            return stack_TIC[telling].prod(0)
        case "first":
            return stack_TIC[0]
