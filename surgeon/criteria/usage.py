"""Criterion ``usage``: experts that a task uses stay."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from surgeon.calibrate import Statistic, Statistics
from surgeon.calibrate.expert_domains import ExpertDomains, domain_key
from surgeon.criteria.criterion import Criterion, criteria
from surgeon.criteria.experts import expert_scores
from surgeon.criteria.scores import Scores
from surgeon.errors import SurgeonError
from surgeon.graph import Group
from surgeon.rebuild import TensorSource

__all__ = ["Usage"]


@criteria.register("usage")
class Usage(Criterion):
    """Share of the tokens of a task that the router gives an expert, as ModuleFormer prunes its modules.

    Shen et al. 2023, arXiv 2306.04640. Each calibration text is a task, by its name in the recipe. An
    expert is worth its share in the task that uses it most, so that what one task alone needs stays,
    however small that text is; or its mean share; or that in one task. With one text, the order is that
    of ``frequency``, in shares, so that layers compare under ``allocation: global``.

    YAML::

        criterion: {criterion: usage, task: code}
    """

    criterion: Literal["usage"] = "usage"
    over: Literal["max", "mean"] = "max"
    """Of the shares in several tasks: the largest, or their mean."""
    task: str | None = None
    """Count this task alone."""

    def needs(self) -> frozenset[Statistic]:
        """The token count of every task."""
        return frozenset({ExpertDomains()})

    def score(self, group: Group, weights: TensorSource, statistics: Statistics) -> Scores:
        """Scores [size] of `group`."""
        counts = self._counts(group, statistics)
        if self.task is not None and self.task not in counts:
            raise SurgeonError(
                f"no calibration text is called '{self.task}'; there are {', '.join(sorted(counts))}",
                hint="give a text that name: texts: [{path: ..., name: ...}]",
            )
        chosen = counts.values() if self.task is None else [counts[self.task]]
        shares = torch.stack([count / count.sum().clamp(min=1) for count in chosen])
        return expert_scores(group, shares.amax(0) if self.over == "max" else shares.mean(0))

    def _counts(self, group: Group, statistics: Statistics) -> dict[str, Tensor]:
        """By task, tokens of every expert."""
        found = statistics.get(ExpertDomains())
        keys = [domain_key(param, "") for param in group.params if group.kind == "expert"]
        counts = {n.removeprefix(key): c for key in keys for n, c in found.items() if n.startswith(key)}
        if not counts:
            raise SurgeonError(
                f"'{group.name}' of kind {group.kind} counts no routed experts that were measured",
                hint="select: {kind: expert}",
            )
        return counts
