"""Criterion ``torch_pruning``: every importance class of that library."""

from __future__ import annotations

import zlib
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, model_validator
from torch import Tensor

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.gradient import Gradient
from surgeon.calibrate.input_moment import InputMoment
from surgeon.calibrate.squared_gradient import SquaredGradient
from surgeon.criteria.coupled import channels
from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.saliency import widened
from surgeon.criteria.scores import Scores
from surgeon.errors import InputError
from surgeon.graph import Group
from surgeon.interop.torch_pruning import Extra, importance_scores, make_importance, reads
from surgeon.rebuild import TensorSource

__all__ = ["TorchPruning"]

_STATISTICS: dict[Extra, Statistic] = {
    "gradient": Gradient(),
    "squared_gradient": SquaredGradient(),
    "input_magnitude": InputMoment("mean_abs"),
}


@criteria.register("torch_pruning")
class TorchPruning(Criterion):
    """An importance of torch_pruning (Fang et al. 2023, DepGraph, arXiv 2301.12900), by its class name.

    `args` are the class's own: ``p``, ``group_reduction``, ``normalizer``, ``bias`` and so on. Its
    normalizer sees one Group at a time, so a global ranking compares normalised scores.

    YAML::

        criterion: {criterion: torch_pruning, importance: GroupTaylorImportance, args: {normalizer: max}}
    """

    criterion: Literal["torch_pruning"] = "torch_pruning"
    importance: str = "MagnitudeImportance"
    """Name of the class."""
    args: dict[str, JsonValue] = Field(default_factory=dict)
    """Options of the class."""
    seed: int = 0
    """For an importance that draws random numbers; fixed by this and the name of the Axis."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        try:
            make_importance(self.importance, self.args)
        except InputError as error:
            raise ValueError(str(error)) from error
        return self

    @cached_property
    def _reads(self) -> Extra | None:
        return reads(make_importance(self.importance, self.args))

    def needs(self) -> frozenset[Statistic]:
        """What the importance reads beside the weights."""
        return frozenset() if self._reads is None else frozenset({_STATISTICS[self._reads]})

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`."""

        def parameter(name: str) -> Tensor:
            return widened(weights.get(name))

        importance: Any = make_importance(self.importance, self.args)
        extra = {} if self._reads is None else statistics.get(_STATISTICS[self._reads])
        seed = zlib.crc32(f"{self.seed} {group.name}".encode())
        found = importance_scores(importance, group, channels(group), parameter, extra, seed)
        return Scores(group.name, found.cpu().numpy())
