"""CallSums: a Collector that adds up what it makes of the calls of sublayers, and lets them go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from surgeon.calibrate.statistic import Observation
from surgeon.calibrate.sublayer_calls import SublayerCall, SublayerCalls
from surgeon.calibrate.summing import Summing

__all__ = ["CallSums"]

_READ = "tokens read"
"""Name in a state of what no sum is."""


class CallSums(Summing, ABC):
    """Sums over the first calls of `calls`; as these are counted in order, ranks cannot share them out."""

    def __init__(self, calls: SublayerCalls) -> None:
        super().__init__()
        self.calls = calls

    @abstractmethod
    def add(self, name: str, call: SublayerCall) -> None:
        """Merge what one call of the sublayer called `name` adds to the sums."""

    def attach(self) -> tuple[RemovableHandle, ...]:
        """Hooks on the sublayers."""
        return self.calls.attach()

    def observe(self, observation: Observation) -> None:
        """Take what the batch gave, and count it."""
        with torch.no_grad():
            for name, call in self.calls.taken():
                self.add(name, call)
        self.calls.count(observation.batch)

    def state(self) -> Mapping[str, Tensor]:
        """The sums, and the tokens that they are of."""
        return {**self.sums, _READ: torch.tensor(self.calls.read)}

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Add sums, and tokens where they come along."""
        super().merge({name: value for name, value in state.items() if name != _READ})
        self.calls.read += int(state.get(_READ, 0))
