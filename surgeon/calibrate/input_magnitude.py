"""Statistic ``input_magnitude``: how strongly each input feature of a weight is driven."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from surgeon.calibrate.packing import Samples
from surgeon.calibrate.statistic import Collector, Observation, Run, Statistic, statistics

__all__ = ["InputMagnitude"]


@statistics.register("input_magnitude")
@dataclass(frozen=True)
class InputMagnitude(Statistic):
    """Sum over all tokens of |x| of what enters a module, by its weights' names; result [input features].

    Measured at modules that own a matrix and take one floating tensor whose last dim is the feature
    dim; padded tokens are left out.
    """

    statistic: ClassVar[str] = "input_magnitude"

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _InputSums(run.module)


class _InputSums(Collector):
    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.sums: dict[str, Tensor] = {}
        self.mask: Tensor | None = None

    def attach(self) -> tuple[RemovableHandle, ...]:
        handles = []
        for path, part in self.module.named_modules():
            matrices = [name for name, p in part.named_parameters(path, recurse=False) if p.ndim > 1]
            if matrices:
                handles.append(part.register_forward_pre_hook(self._hook(matrices)))
        return tuple(handles)

    def begin(self, batch: Samples) -> None:
        self.mask = batch.mask

    def observe(self, observation: Observation) -> None:
        self.mask = None

    def result(self) -> Mapping[str, Tensor]:
        return self.sums

    def _hook(self, names: list[str]) -> Callable[[nn.Module, tuple], None]:
        def before(part: nn.Module, inputs: tuple) -> None:
            entering = inputs[0].detach() if inputs and isinstance(inputs[0], Tensor) else None
            if entering is None or not entering.is_floating_point() or self.mask is None:
                return
            flat = entering.reshape(-1, entering.shape[-1]).abs()
            if flat.shape[0] == self.mask.numel():
                flat = flat[self.mask.reshape(-1).to(flat.device)]
            total = flat.sum(0, dtype=torch.promote_types(flat.dtype, torch.float32))
            for name in names:
                self.sums[name] = self.sums[name] + total if name in self.sums else total

        return before
