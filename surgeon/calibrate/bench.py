"""Bench: a model and its calibration samples, ready to be run under any Plan.

What a step asks that no single measurement of the model as it stands can answer: how it does under a
Plan that is only tried. Nothing is loaded or read before it is asked for. Not here: what is measured
(one Statistic a file), and how a Plan is masked (`surgeon.rebuild`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import nn

from surgeon.calibrate.gather import gather
from surgeon.calibrate.packing import Samples
from surgeon.calibrate.results import Statistics
from surgeon.calibrate.statistic import Statistic
from surgeon.graph import Graph
from surgeon.plan import Plan
from surgeon.rebuild import MaskedView, masked

__all__ = ["Bench", "Told"]

Told = Callable[[str, int, int | None], None]
"""Told a stage in words, what is done of it, and how much there is."""


class Bench:
    """Runs one model on its calibration samples, as it is under a Plan."""

    def __init__(
        self, graph: Graph, module: Callable[[], nn.Module], samples: Callable[[], Samples], told: Told
    ) -> None:
        self.graph = graph
        self.told = told
        self._module = module
        self._samples = samples

    @cached_property
    def module(self) -> nn.Module:
        """The traced model with its weights, in float32 or wider."""
        return self._module()

    @cached_property
    def samples(self) -> Samples:
        """The calibration samples."""
        return self._samples()

    def view(self, plan: Plan) -> MaskedView:
        """The model acting as if `plan` were applied, run the plain way whatever the plan."""
        return masked(self.module, plan, self.graph)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The model in eval mode and outside of autograd for the time of the context, then as it was."""
        modes = {part: part.training for part in self.module.modules()}
        try:
            self.module.eval()
            with torch.no_grad():
                yield
        finally:
            for part, mode in modes.items():
                part.training = mode

    def measure(self, plan: Plan, wanted: frozenset[Statistic]) -> Statistics:
        """The Statistics `wanted` of the model under `plan`, in one run over the samples."""
        stage = f"measure {', '.join(sorted(key.statistic for key in wanted))}"
        return gather(
            self.module,
            self.samples,
            wanted,
            view=self.view(plan) if plan.edits else None,
            progress=lambda done, total: self.told(stage, done, total),
        )
