"""Criterion: what makes one index of a Group worth more than another.

A criterion is a frozen recipe object chosen by the literal ``criterion:``; one a file, registered in
`criteria`. It declares the Statistics that it reads and turns one Group into Scores. Not here: how many
indices stay (`surgeon.operations`), nor where a Group lies in its tensors (`coupled`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from surgeon.criteria.scores import Scores
from surgeon.graph import Group
from surgeon.graph.strict import Strict
from surgeon.registry import Registry

if TYPE_CHECKING:
    from surgeon.calibrate import Statistic, Statistics
    from surgeon.rebuild import TensorSource

__all__ = ["Criterion", "criteria"]


class Criterion(Strict, ABC):
    """Scores the indices of a Group.

    Subclasses add ``criterion: Literal["name"] = "name"`` and their options. `reads_weights` is False
    for one that scores without looking at a tensor.
    """

    criterion: str

    reads_weights: ClassVar[bool] = True

    def needs(self) -> frozenset[Statistic]:
        """Statistics that `score` reads; none unless overridden."""
        return frozenset()

    @abstractmethod
    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`; higher means keep.

        Args:
            group: its Sites are parameters, each storage once (see `trainable`).
            weights: the model's tensors, what earlier steps removed set to zero.
            statistics: exactly what `needs` declares.
        """


criteria: Registry[type[Criterion]] = Registry("criterion", "surgeon.criteria")
