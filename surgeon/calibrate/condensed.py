"""Statistic ``condensed``: what is made of other Statistics Block by Block, so that these need not wait.

Gradients are as large as the weights, and Gram matrices larger; the scores or the fitted tensors that are
made of them are small. Measured Block by Block (`streamed`), each is made where its Block was measured, and
what it was made of is gone before the next one. Not here: what is made (`surgeon.operations`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from surgeon.calibrate.packing import Samples
from surgeon.calibrate.results import Statistics
from surgeon.calibrate.statistic import Collector, Observation, Run, Statistic

__all__ = ["Condensed", "Make"]

Make = Callable[[Statistics], Mapping[str, Tensor]]
"""From what was measured in one Block to named tensors."""


@dataclass(frozen=True)
class Condensed(Statistic):
    """What `make` gives for each Block; known by `said`, which names all that it depends on beside `of`."""

    statistic: ClassVar[str] = "condensed"
    of: tuple[Statistic, ...]
    said: str
    make: Make = field(compare=False, repr=False)

    @property
    def gradients(self) -> bool:  # type: ignore[override]  # of one kind or the other, as what it is made of
        """Whether what it is made of needs a way back."""
        return any(key.gradients for key in self.of)

    @property
    def per_sample(self) -> bool:  # type: ignore[override]
        """Whether what it is made of needs single samples."""
        return any(key.per_sample for key in self.of)

    @property
    def in_order(self) -> bool:  # type: ignore[override]
        """Whether what it is made of needs all samples in order."""
        return any(key.in_order for key in self.of)

    @property
    def inside(self) -> bool:  # type: ignore[override]
        """Whether what it is made of happens inside single Blocks."""
        return all(key.inside for key in self.of)

    @property
    def params(self) -> tuple[str, ...] | None:
        """Parameters that are looked at; None for all."""
        named = [getattr(key, "params", None) for key in self.of]
        if any(names is None for names in named):
            return None
        return tuple(dict.fromkeys(name for names in named for name in names or ()))

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _Condensing(self, run)


class _Condensing(Collector):
    def __init__(self, key: Condensed, run: Run) -> None:
        self.key, self.run = key, run
        self.parts = {one: one.collector(run) for one in key.of}

    def attach(self) -> tuple[RemovableHandle, ...]:
        return tuple(handle for part in self.parts.values() for handle in part.attach())

    def begin(self, batch: Samples) -> None:
        for part in self.parts.values():
            part.begin(batch)

    def observe(self, observation: Observation) -> None:
        for part in self.parts.values():
            part.observe(observation)

    def state(self) -> Mapping[str, Tensor] | None:
        found: dict[str, Tensor] = {}
        for place, part in enumerate(self.parts.values()):
            own = part.state()
            if own is None:
                return None
            found |= {f"{place}/{name}": tensor for name, tensor in own.items()}
        return found

    def merge(self, state: Mapping[str, Tensor]) -> None:
        for place, part in enumerate(self.parts.values()):
            mark = f"{place}/"
            part.merge({name.removeprefix(mark): t for name, t in state.items() if name.startswith(mark)})

    def result(self) -> Mapping[str, Tensor]:
        results = {key: part.result() for key, part in self.parts.items()}
        return self.key.make(Statistics(results, self.run.samples, self.run.tokens))
