"""Statistic ``expert_domains``: how many tokens of each calibration text every routed expert was given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from surgeon.calibrate.expert_statistic import ExpertStatistic
from surgeon.calibrate.experts import Experts
from surgeon.calibrate.gated import Gated
from surgeon.calibrate.packing import Samples
from surgeon.calibrate.statistic import Collector, Run, statistics
from surgeon.calibrate.summing import Summing

__all__ = ["ExpertDomains", "domain_key"]


def domain_key(outlet: str, domain: str) -> str:
    """Name of the result for one text; domains may hold any character, so the stack comes first."""
    return f"{outlet}/{domain}"


@statistics.register("expert_domains")
@dataclass(frozen=True)
class ExpertDomains(ExpertStatistic):
    """Counts of tokens [experts] float64, by `domain_key` of the stack of last matrices and the text's name.

    A text's name is `Samples.domains`; samples without one count under the empty name.
    """

    statistic: ClassVar[str] = "expert_domains"
    experts: tuple[Experts, ...] = ()

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _Domains(self, run)


class _Domains(Summing):
    def __init__(self, key: ExpertDomains, run: Run) -> None:
        super().__init__()
        self.domain = ""
        for experts in key.experts:
            run.taps.follow(experts.outlet, (), self._see)

    def begin(self, batch: Samples) -> None:
        self.domain = batch.domains[0] if batch.domains else ""

    def _see(self, seen: Gated) -> None:
        counts = torch.bincount(seen.slice_N, minlength=seen.slices).double()
        self.merge({domain_key(seen.outlet, self.domain): counts})
