"""Summing: a Collector that only adds up, so that its sums over any parts of the samples add up too."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from surgeon.calibrate.statistic import Collector, Observation

__all__ = ["Summing"]


class Summing(Collector):
    """Adds tensors by name; what the sums become is the matter of `result`."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def observe(self, observation: Observation) -> None:
        """Nothing, where hooks and taps see all."""

    def result(self) -> Mapping[str, Tensor]:
        """The sums."""
        return self.sums

    def state(self) -> Mapping[str, Tensor]:
        """The sums."""
        return self.sums

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Add sums; those of names that are new are taken over."""
        for name, value in state.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
